"""What a benchmark shows, in plain sentences with their numbers; what it cannot show is said as well."""

import re
from collections.abc import Mapping, Sequence

from vqdna_jax.benchmark.cells import NETWORK, Cell
from vqdna_jax.benchmark.report import comparisons, summaries, wording
from vqdna_jax.benchmark.report.summaries import Row, Summary
from vqdna_jax.benchmark.sets.published import PublishedRow

_CLAIMS = (
    "“Above” and “below”: zero lies outside the 95 % interval of the mean difference, by Student's t over datasets. "
    "“Not told apart”: it lies inside. "
)
_FEW = "Of fewer than three datasets only what was measured on them is said. "
_PAIRS = "Runs of one seed are paired; the only run of a deterministic control is paired with each run of the other."
_KMERS = re.compile(r"\bk-?mers?\b|\d-?mers?\b|\bcounts\b", re.IGNORECASE)
_FEWEST = 3  # datasets, for a claim


def findings(cells: Sequence[Cell], published: Sequence[PublishedRow] = ()) -> list[str]:
    """Sentences, the most important first."""
    rows = summaries.rows(cells, published)
    own = [row for row in rows if row.role != "published"]
    datasets = summaries.datasets(cells)
    return [
        _best(own, datasets),
        *_controls(cells, own),
        *_against_published(own, rows[len(own) :]),
        _runs(cells),
    ]


def certainty(cells: Sequence[Cell]) -> str:
    """What the words of `findings` mean."""
    return (_CLAIMS if len(summaries.datasets(cells)) >= _FEWEST else _FEW) + _PAIRS


def _best(own: Sequence[Row], datasets: Sequence[str]) -> str:
    roles = {row.model: row.role for row in own}
    all_means = {row.model: summaries.mean_over(row, datasets).mean for row in own}
    means = {model: round(mean, 9) for model, mean in all_means.items() if mean is not None}
    ranks = {row.model: rank for row, rank in zip(own, comparisons.ranking(own)) if rank}
    if not means:
        return f"No row has a score on all datasets, {len(datasets)} in number, so none is best by mean."
    highest = max(means.values())
    by_mean = [model for model, mean in means.items() if mean == highest]
    first, one = _named(by_mean, roles), len(by_mean) == 1
    if len(datasets) == 1:
        scores = f"{first} {'has' if one else 'have'} the highest score ({highest:.2f})"
        return f"On {datasets[0]}, the only dataset, {scores}. One dataset does not tell how models compare on others."
    over = wording.datasets(len(datasets))
    mean = f"{first} {'is' if one else 'are equally'} best by mean ({highest:.2f} over {over})"
    if not ranks:
        return f"{mean}; the rows share no dataset to be ranked on."
    by_rank = [model for model, rank in ranks.items() if rank.order == 1]
    best = ranks[by_rank[0]]
    shared = "" if len(best.ranks) == len(datasets) else f", over {wording.datasets(len(best.ranks))}"
    rank = f"by average rank ({best.average:.2f} among {len(ranks)} rows{shared})"
    return f"{mean} and {rank}." if by_mean == by_rank else f"{mean}; {_named(by_rank, roles)} {rank}."


def _controls(cells: Sequence[Cell], own: Sequence[Row]) -> list[str]:
    """Each untrained control against the model that it is named after, k-mer counts and the network trained from
    nothing against the best model."""
    models = [row.model for row in own if row.role == "model"]
    controls = [row.model for row in own if row.role == "control"]
    if not models:
        return ["Only controls were run."]
    untrained = [model for model in controls if "untrained" in model.casefold()]
    kmers = [model for model in controls if _KMERS.search(model) and model not in untrained]
    sentences = []
    for control in untrained:
        named = [model for model in models if model in control]
        sentences.append(_difference(cells, max(named, key=len) if named else models[0], control))
    if not untrained:
        sentences.append("No untrained control was run: nothing here says what pretraining adds.")
    trained = [model for model in controls if model == NETWORK]
    sentences += [_difference(cells, models[0], control) for control in kmers + trained]
    return sentences + ([] if kmers else ["No k-mer counts were run: nothing here says what a network adds to them."])


def _difference(cells: Sequence[Cell], model: str, control: str) -> str:
    by_dataset = comparisons.by_dataset(cells, model, control)
    if not by_dataset:
        return f"{model} and its control {control} share no scored run."
    if len(by_dataset) == 1:
        return _on_one(cells, model, control, *by_dataset.items())
    found = comparisons.paired(cells, model, control)
    if len(by_dataset) < _FEWEST:
        each = ", ".join(f"{name} {wording.signed(summaries.mean(points))}" for name, points in by_dataset.items())
        average = summaries.mean([summaries.mean(points) for points in by_dataset.values()])
        compared = f"{model} {_compared(average)} the control {control} on average ({each})"
        return f"Over {wording.datasets(found.datasets)}, {compared}: too few to tell how they compare on others."
    assert found.difference is not None and found.standard_error is not None  # of several datasets
    certain = abs(found.difference) > _half_width(found.standard_error, found.datasets)
    apart = ("is above" if found.difference > 0 else "is below") if certain else "is not told apart from"
    count = f"higher on {found.wins} and lower on {found.losses} of {wording.datasets(found.datasets)}"
    points = f"{wording.signed(found.difference)} points, standard error {found.standard_error:.2f}"
    return f"{model} {apart} the control {control}: {points}, {count}."


def _on_one(cells: Sequence[Cell], model: str, control: str, found: tuple[str, list[float]]) -> str:
    """The measured difference with its spread over runs, and no claim beyond this dataset."""
    dataset, points = found
    place = f"On {dataset}" if len(summaries.datasets(cells)) == 1 else f"On {dataset}, the one dataset that both have,"
    runs = summaries.summarise(cells)
    first, second = runs[model, dataset], runs[control, dataset]
    scores = f"{_score(first)} against {_score(second)}"
    above, below = (sum(sign * round(point, 9) > 0 for point in points) for sign in (1, -1))
    if first.n == 1:
        spread = f"{model} has one run, so its spread over seeds is not known"
    elif max(above, below) == len(points):
        spread = f"all {len(points)} pairs of runs agree"
    else:
        spread = f"of {len(points)} pairs of runs it is higher in {above} and lower in {below}: other seeds may turn it"
    return f"{place} {model} {_compared(summaries.mean(points))} the control {control}: {scores}; {spread}."


def _score(summary: Summary) -> str:
    return f"{wording.mean_and_sd(summary)} ({summary.n} run{'s'[: summary.n != 1]})"


def _compared(difference: float) -> str:
    if not round(difference, 2):
        return "scores the same, to two decimals, as"
    return f"scores {abs(difference):.2f} points {'higher' if difference > 0 else 'lower'} than"


def _half_width(standard_error: float, datasets: int) -> float:
    """Of the 95 % interval of the mean difference by Student's t over datasets, two or more."""
    from scipy.stats import t

    return float(t.ppf(0.975, datasets - 1)) * standard_error


def _against_published(own: Sequence[Row], published: Sequence[Row]) -> list[str]:
    models = [row for row in own if row.role == "model"] or own
    if not published:
        return ["No published row covers these datasets."]
    strongest = max(published, key=lambda row: (len(row.scores), summaries.mean(row.scores.values())))
    differences = comparisons.deltas(models[0], strongest)
    if not differences:
        return [f"{models[0].model} shares no scored dataset with the published row {strongest.model}."]
    higher = sum(difference > 0 for difference in differences.values())
    where = f"higher on {higher} of {wording.datasets(len(differences))}"
    if len(differences) == 1:
        where = f"on {next(iter(differences))}, the one dataset that both have"
    return [
        f"Against the published {strongest.model} ({wording.budget(strongest)}), {models[0].model} is at "
        f"{wording.signed(summaries.mean(differences.values()))} points, {where}. Published rows were "
        "copied from their sources, not run here, and their budgets differ."
    ]


def _runs(cells: Sequence[Cell]) -> str:
    failed = [cell for cell in cells if cell.failed is not None]
    errors = sum(cell.is_error for cell in failed)
    counts = sorted({summary.runs for summary in summaries.summarise(cells).values()})
    runs = f"{counts[0]} to {counts[-1]} runs" if len(counts) > 1 else f"{counts[0]} run{'s'[: counts[0] != 1]}"
    what = f"{len(failed)} of {len(cells)} runs failed: {len(failed) - errors} collapsed, {errors} ended in an error"
    again = sum(cell.attempts > 1 for cell in cells)
    retried = f" {again} answered with one class or value at first and were run again with another seed."
    ends = what if failed else f"none of the {len(cells)} runs failed"
    return f"Scores are means of {runs}; {ends}.{retried if again else ''}"


def _named(models: Sequence[str], roles: Mapping[str, str]) -> str:
    controls = [model for model in models if roles[model] == "control"]
    if len(models) == len(controls) > 1:
        return f"the controls {_listed(controls)}"
    return _listed([f"{model}, a control," if model in controls else model for model in models])


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

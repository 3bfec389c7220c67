"""The figures: training curves, use of the codebooks, rate against reconstruction, accuracy by length, embeddings.

Each function writes one PNG. The colours are Okabe and Ito's, safe for colour-blind readers, and lines also differ by
dash or marker. matplotlib is imported when a figure is drawn, so importing this module is cheap, and never through
pyplot: no display, no global state.
"""

import collections
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vqdna_jax.evaluation.code_statistics import usage_from_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP*"
_STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.grid": True,
    "grid.color": "0.9",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.h_pad": 0.12,
    "figure.constrained_layout.w_pad": 0.12,
    "lines.linewidth": 1.6,
}
MOST_LABELS = 14
_ACCURACY = "reconstruction_accuracy"
_CURVES = {  # metric key to panel title; {} is the number of the codebook
    "loss": "loss (nats)",
    "reconstruction_loss": "reconstruction loss (nats per base)",
    _ACCURACY: "bases decoded wrongly (share)",
    "commitment_loss": "commitment loss",
    "codebook_{}_utilisation": "codes in use (share of the codebook)",
    "codebook_{}_perplexity": "perplexity of the codes (codes)",
    "code_{}_accuracy": "masked codes named (share)",
    "base_bits": "masked bases, as trained (bits per base)",
    "masked_base_bits": "bases hidden before the tokenizer (bits per base)",
    "gradient_norm": "gradient norm",
}


def _write(
    draw: Callable[[list], None],
    rows: int,
    columns: int,
    path: str | os.PathLike,
    panel: tuple[float, float] = (5.2, 3.8),
) -> None:
    """Calls draw with rows * columns axes and writes the figure they belong to as a PNG; `panel`: inches of each."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), dpi=130, layout="constrained")
        draw(figure.subplots(rows, columns, squeeze=False).ravel().tolist())
        figure.savefig(path, format="png")


def _series(metrics: Iterable[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of the rows that hold a finite value of the key; the others carry other metrics."""
    points = [(row["step"], row[key]) for row in metrics if "step" in row and row.get(key) is not None]
    points = [(step, value) for step, value in points if math.isfinite(value)]
    return [step for step, _ in points], [value for _, value in points]


def _panel_lines(metrics: Sequence[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The lines of one panel as keyword arguments of `plot`: training solid, evaluation dashed with markers."""
    of_level = re.compile(r"(?:eval_)?code(?:book)?_(\d+)_")
    found = {match[1] for row in metrics for name in row if (match := of_level.match(name))}
    levels = sorted(found, key=int) if "{}" in key else [""]
    lines = []
    for index, level in enumerate(levels):
        for part, prefix in enumerate(("", "eval_")):
            steps, values = _series(metrics, prefix + key.format(level))
            look = {"linestyle": "--", "marker": "o", "markersize": 4} if prefix else {"linestyle": "-"}
            colour = _COLOURS[(index if level else part) % len(_COLOURS)]
            label = (f"codebook {level}, " if level else "") + ("evaluation" if prefix else "training")
            lines.append({"steps": steps, "values": values, "color": colour, "label": label, **look})
    return [line for line in lines if line["steps"]]


def _draw_curve(axes: "Axes", title: str, lines: list[dict[str, Any]], as_errors: bool) -> None:
    """One panel; accuracies become shares of errors on a log axis, with no error at all drawn on its floor."""
    if as_errors:
        errors = np.concatenate([1.0 - np.asarray(line["values"]) for line in lines])
        floor = errors[errors > 0].min(initial=1e-3) / 2
        lines = [{**line, "values": np.maximum(1.0 - np.asarray(line["values"]), floor)} for line in lines]
        axes.set_yscale("log")
        axes.set_ylim(floor, 1)
        axes.set_ylabel("no error is drawn at the floor" if (errors <= 0).any() else "")
    for line in lines:
        arguments = dict(line)
        axes.plot(arguments.pop("steps"), arguments.pop("values"), **arguments)
    if not as_errors:
        axes.set_ylim(bottom=0)
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.locator_params(axis="x", integer=True, nbins=7)
    axes.legend()


def plot_curves(metrics: Sequence[dict[str, Any]], path: str | os.PathLike) -> None:
    """Training curves from the rows of metrics.jsonl, one panel per quantity, against the step.

    Rows may carry any of: loss, reconstruction_loss, reconstruction_accuracy, commitment_loss, codebook_<n>_utilisation
    and codebook_<n>_perplexity, each also with the prefix eval_. What no row carries gets no panel, and values that
    are not finite are left out.
    """
    panels = [(key, title, _panel_lines(metrics, key)) for key, title in _CURVES.items()]
    panels = [panel for panel in panels if panel[2]]

    def draw(all_axes: list) -> None:
        for axes, (key, title, lines) in zip(all_axes, panels, strict=False):
            _draw_curve(axes, title, lines, as_errors=key == _ACCURACY)
        for axes in all_axes[len(panels) :]:
            axes.set_axis_off()
        if not panels:
            all_axes[0].text(0.5, 0.5, "no metrics recorded yet", ha="center", va="center")

    columns = min(3, max(len(panels), 1))
    _write(draw, max(math.ceil(len(panels) / columns), 1), columns, path)


def plot_codebook_usage(counts: Sequence[np.ndarray], path: str | os.PathLike) -> None:
    """Share of every code, busiest first, on a log axis, one panel per codebook; counts holds one array [K] for each.

    The dashed line is the uniform share 1 / K; codes that never occur are the shaded part on the right.
    """

    def draw(all_axes: list) -> None:
        for level, (axes, counts_K) in enumerate(zip(all_axes, map(np.asarray, counts), strict=True)):
            size, stats = counts_K.size, usage_from_counts(counts_K)
            shares = np.sort(counts_K[counts_K > 0])[::-1] / max(counts_K.sum(), 1)
            axes.plot(np.arange(shares.size) + 1, shares, ".-", color=_COLOURS[0], label="share of the code")
            axes.axhline(1 / size, color=_COLOURS[1], linestyle="--", label=f"uniform, 1 / {size}")
            if stats["used"] < size:
                never = f"never used: {size - stats['used']}"
                axes.axvspan(stats["used"] + 0.5, size + 0.5, color="0.85", label=never)
            axes.set(yscale="log", xlabel="code, busiest first", ylabel="share of positions", xlim=(0.5, size + 0.5))
            axes.set_title(
                f"codebook {level + 1}: {stats['used']} of {size} used, perplexity {stats['perplexity']:.1f}"
            )
            axes.legend(loc="upper right")

    _write(draw, 1, len(counts), path)


def plot_rate_distortion(rows: Sequence[dict[str, Any]], path: str | os.PathLike) -> None:
    """Bits per base of the code stream against the share of bases decoded right, one line per kind of model.

    Each row holds kind (or name), bases_per_code, bits_per_base and reconstruction_accuracy. Each point is labelled
    with its bases per code; the vertical line marks 2 bits, the rate at which DNA can be stored with no model at all.
    """
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_kind.setdefault(str(row.get("kind") or row.get("name") or "model"), []).append(row)

    def draw(all_axes: list) -> None:
        axes = all_axes[0]
        for index, (kind, points) in enumerate(by_kind.items()):
            points = sorted(points, key=lambda row: row["bits_per_base"])
            x, y = zip(*((row["bits_per_base"], row["reconstruction_accuracy"]) for row in points), strict=True)
            marker, colour = _MARKERS[index % len(_MARKERS)], _COLOURS[index % len(_COLOURS)]
            axes.plot(x, y, marker=marker, color=colour, label=kind)
            for row, at in zip(points, zip(x, y, strict=True), strict=True):
                # Opposite sides of the curves, because those of similar models nearly coincide.
                away, side = ((-7, 5), "right") if index % 2 == 0 else ((7, -13), "left")
                axes.annotate(str(row["bases_per_code"]), at, away, textcoords="offset points", ha=side, color=colour)
        axes.axvline(2, color="0.4", linestyle=":", label="2 bits per base")
        axes.set_title("rate and reconstruction; labels are bases per code")
        axes.set(xlabel="bits per base (order-0 entropy of the codes)", ylabel="bases decoded right (share)")
        axes.set_xlim(left=0)
        axes.margins(y=0.12)
        axes.legend(loc="lower right")

    _write(draw, 1, 1, path)


def plot_by_length(rows: Sequence[Mapping[str, Any]], chance: float, path: str | os.PathLike) -> None:
    """Accuracy against the length of the sequences, on a log axis, a line with intervals for each model.

    Each row holds model, length, accuracy, low, high, and control, whose lines are dashed; that of `chance` is dotted.
    `like` names the line whose colour a model has; without it it has its own.
    """
    by_model: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["length"]):
        by_model.setdefault(row["model"], []).append(row)
    kinds = list(dict.fromkeys(points[0].get("like") or name for name, points in by_model.items()))

    def draw(all_axes: list) -> None:
        axes = all_axes[0]
        for index, (name, points) in enumerate(by_model.items()):
            kind, keys = kinds.index(points[0].get("like") or name), ("length", "accuracy", "low", "high")
            length, value, low, high = (np.array([row[key] for row in points]) for key in keys)
            axes.errorbar(
                length * 1.25 ** ((index + 0.5) / len(by_model) - 0.5),  # so that intervals do not hide each other
                value,
                np.maximum(0, [value - low, high - value]),
                color=_COLOURS[kind % len(_COLOURS)],
                marker=_MARKERS[(kind + kind // len(_COLOURS)) % len(_MARKERS)],
                linestyle="--" if points[0]["control"] else "-",
                markersize=5,
                elinewidth=0.7,
                label=name,
            )
        axes.axhline(chance, color="0.4", linestyle=":", label=f"chance, {chance:.0%}")
        axes.set(xscale="log", xlabel="bases of a sequence", ylabel="accuracy on test", ylim=(0, 1.03))
        axes.set_title("species by length, 95 % intervals")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)

    _write(draw, 1, 1, path, (9.0, 5.2))


def plot_map(
    points_Bx2: np.ndarray, labels: Sequence[str], shares: Sequence[float], title: str, path: str | os.PathLike
) -> None:
    """Sequences as points, coloured by their labels, of which the legend counts the points.

    The MOST_LABELS that most points have are told apart, the others are grey. `shares`: of the variance, of each axis.
    """
    counts = collections.Counter(labels)
    told = sorted(name for name, _ in counts.most_common(MOST_LABELS))
    of_label = np.array([told.index(label) if label in told else -1 for label in labels])
    size = max(4.0, min(36.0, 12000 / max(len(labels), 1)))

    def draw(all_axes: list) -> None:
        axes = all_axes[0]
        for index in sorted(set(of_label.tolist())):
            chosen = of_label == index
            name = told[index] if index >= 0 else f"{len(counts) - len(told)} others"
            colour = _COLOURS[index % len(_COLOURS)] if index >= 0 else "0.7"
            marker = _MARKERS[index // len(_COLOURS) % len(_MARKERS)]
            # A label that begins with _ would be none, and one with $ a formula.
            label = f" {name} ({chosen.sum():,})".replace("$", r"\$")
            axes.scatter(*points_Bx2[chosen].T, s=size, c=colour, marker=marker, alpha=0.6, linewidths=0, label=label)
        axes.set_xlabel(f"first component ({shares[0]:.0%} of the variance)")
        axes.set_ylabel(f"second component ({shares[1]:.0%})")
        axes.set_title(title, loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=1.5)

    _write(draw, 1, 1, path, (9.0, 5.2))

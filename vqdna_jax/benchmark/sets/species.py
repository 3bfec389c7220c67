"""The species set: which genome is a stretch of DNA from? HyenaDNA's protocol for any genomes.

As there: chromosomes apart by split, species and chromosomes uniform, a random start, upper case, N on the left of what
is too short. Unlike there: every item has its own seed, so that a set can be made again; every species has equally
many rows; a start is drawn again while more than half of the window is N; and genomes without numbered chromosomes are
split by contig or by block (`species_split`).
"""

import contextlib
import dataclasses
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from vqdna_jax.benchmark.sets.cards import SPLITS
from vqdna_jax.benchmark.sets.species_split import Contig, Region, Regions, Rule, regions
from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, reverse_complement, to_text
from vqdna_jax.genome.fasta import OnDuplicate, whole_records
from vqdna_jax.genome.fasta_files import open_reader
from vqdna_jax.genome.stream_check import fasta_check
from vqdna_jax.labels import layout
from vqdna_jax.labels.layout import draw
from vqdna_jax.labels.sets import NAMES
from vqdna_jax.runtime.files import replacing
from vqdna_jax.runtime.remote import places

ITEMS = {"train": 1000, "dev": 200, "test": 200}  # a class
MAX_N_SHARE, MAX_DRAWS = 0.5, 100
MOST_ITEMS = 10_000_000  # of a species in a split: places that are in memory, about 100 bytes each
Files = Sequence[str | os.PathLike]
Paths = str | os.PathLike | Sequence[str | os.PathLike]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What `prepare` wrote; `str` of it is one line per species."""

    length: int
    items: dict[str, int]  # a class, by split
    rules: dict[str, str]  # by species
    bases: dict[str, dict[str, int]]  # to draw from, by species and split
    padded: dict[str, int]  # rows shorter than `length`, by species
    mostly_n: dict[str, int]  # rows more than half N, by species

    def __str__(self) -> str:
        return "\n".join(
            f"{name}: split by {rule}, "
            + ", ".join(f"{self.items[split]:,} {split} rows from {self.bases[name][split]:,} bp" for split in SPLITS)
            + f"; {self.padded[name]:,} padded, {self.mostly_n[name]:,} mostly N"
            for name, rule in self.rules.items()
        )


class _Plan(NamedTuple):
    paths: Files
    on_duplicate: OnDuplicate
    rule: str
    regions: Regions


class _Draw(NamedTuple):
    length: int
    longest: int  # which the splits are made for
    seed: int
    either_strand: bool


def prepare(
    fastas: Mapping[str, Paths],
    out_dir: str | os.PathLike,
    length: int,
    items_per_class: int | Mapping[str, int] = ITEMS,
    seed: int = 0,
    rule: Rule = "auto",
    on_duplicate: OnDuplicate = "error",
    longest: int = 0,
    either_strand: bool = False,
) -> Prepared:
    """Writes train.csv, dev.csv, test.csv (`sequence,label`), labels.txt (one species per line) and prepared.json.

    A row is `length` bases; the label is the place of the species in `fastas`, and species take turns. An item depends
    on the seed, its species, split and number alone. Genomes are read twice, one record in memory at a time;
    a pipe, or "-" for standard input, is copied first.

    Args:
        fastas: FASTA files, plain or gzip, by species.
        items_per_class: rows of each species, one number for all splits or a number per split.
        rule: see `species_split`.
        on_duplicate: refuse a name that occurs twice in a file, or number it.
        longest: the splits are those of windows of so many bases, so that sets of several lengths have the same.
        either_strand: each row is read on a strand that is drawn; else as the files have it.

    Raises:
        InputError: a wrong argument, a file that is not FASTA, a genome that the rule cannot split, or an `out_dir`
            that is taken. StorageError: the disk is full.
    """
    items = _items_by_split(items_per_class)
    _check(fastas, length)
    layout.check_vacant(out_dir)
    with contextlib.ExitStack() as copies:
        plans = {
            name: _plan(
                name,
                [copies.enter_context(places.readable(path, fasta_check())) for path in _listed(paths)],
                max(length, longest),
                rule,
                seed,
                on_duplicate,
            )
            for name, paths in fastas.items()
        }
        return _write(plans, out_dir, _Draw(length, max(length, longest), seed, either_strand), items)


def write_stretches(
    fastas: Mapping[str, Paths], out_dir: Path, split: str, longest: int, seed: int = 0, rule: Rule = "auto"
) -> list[Path]:
    """FASTA, a file for each species, of what `prepare` draws a split's rows from: a model that is pretrained on the
    stretches of train has seen nothing of dev and test. Raises as `prepare`."""
    plans = {name: _plan(name, _listed(paths), longest, rule, seed, "error") for name, paths in fastas.items()}
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, plan in plans.items():
        with replacing(out_dir / f"{name}.fa") as new, open(new, "w") as file:
            for region, bases in _read(plan, plan.regions[split]):
                file.write(f">{region.contig.id}:{region.start + 1}-{region.stop}\n{to_text(bases)}\n")
    return [out_dir / f"{name}.fa" for name in plans]


def name_of(path: str | os.PathLike) -> str:
    """What the species of a file is called: the file, up to the first dot; standard input is "stdin"."""
    if os.fspath(path) == places.STANDARD_INPUT:
        return "stdin"
    return os.fsencode(os.path.basename(path)).decode("utf-8", "backslashreplace").partition(".")[0]


def _listed(paths: Paths) -> Sequence[str | os.PathLike]:
    return [paths] if isinstance(paths, (str, os.PathLike)) else paths


def _write(plans: Mapping[str, _Plan], out_dir: str | os.PathLike, how: _Draw, items: dict[str, int]) -> Prepared:
    length = how.length
    with layout.writing(out_dir) as (staging, files):
        counts = {}
        for label, (name, plan) in enumerate(plans.items()):
            counts[name] = _spool(staging / str(label), _windows(name, plan, how, items), length)
        for split, file in files.items():
            _merge(file, [staging / f"{label}.{split}" for label in range(len(plans))], items[split], length)
        prepared = _describe(plans, length, items, counts)
        (staging / NAMES).write_text("".join(f"{name}\n" for name in plans), encoding="utf-8")
        names = {name: [os.path.basename(str(path)) for path in plan.paths] for name, plan in plans.items()}
        drawn = how._asdict() | {"files": names} | dataclasses.asdict(prepared)
        layout.write_summary(staging, drawn)
    return prepared


def _items_by_split(items_per_class: int | Mapping[str, int]) -> dict[str, int]:
    given = items_per_class if isinstance(items_per_class, Mapping) else dict.fromkeys(SPLITS, items_per_class)
    if set(given) != set(SPLITS) or not all(
        isinstance(count, int) and 0 < count <= MOST_ITEMS for count in given.values()
    ):
        expected = f"a number from 1 to {MOST_ITEMS:,} for train, dev and test"
        raise InputError(f"items={items_per_class}: expected {expected}")
    return {split: given[split] for split in SPLITS}


def _check(fastas: Mapping[str, Paths], length: int) -> None:
    if length < 1:
        raise InputError(f"length={length}: expected bases, 1 or more")
    if len(fastas) < 2:
        raise InputError(f"{len(fastas)} species were given; expected two or more")
    for name in fastas:
        if name != name.strip() or not name.isprintable() or not name:
            raise InputError(f"species {name!r}: expected a name of one line without blanks around it")


def _plan(name: str, files: Files, length: int, rule: Rule, seed: int, on_duplicate: OnDuplicate) -> _Plan:
    if not files:
        raise InputError(f"species {name!r}: no file; expected one or more FASTA files")
    contigs = [contig for path in files for contig in _contigs(path, on_duplicate)]
    return _Plan(files, on_duplicate, *regions(name, contigs, length, rule, seed))


def _contigs(path: str | os.PathLike, on_duplicate: OnDuplicate) -> Iterator[Contig]:
    for record in whole_records(open_reader(path, on_duplicate=on_duplicate)):
        yield Contig(str(path), record.line, record.id, record.description, record.bases.size)


def _windows(name: str, plan: _Plan, how: _Draw, items: Mapping[str, int]) -> Iterator[tuple[str, int, np.ndarray]]:
    """(split, number in the split, bases [S]) of each item of a species, in the order of the files."""
    of_region = defaultdict(list)
    for split, count in items.items():
        parts = plan.regions[split]
        for item in range(count):
            of_region[parts[draw(how.seed, name, split, item, "contig") % len(parts)]].append((split, item))
    for region, bases in _read(plan, of_region):
        for split, item in of_region[region]:
            yield split, item, _row(bases, how, (how.seed, name, split, item))


def _read(plan: _Plan, wanted: Iterable[Region]) -> Iterator[tuple[Region, np.ndarray]]:
    """Regions and their bases, in the order of the files; one record is in memory at a time."""
    of_record = defaultdict(list)
    for region in wanted:
        of_record[region.contig.path, region.contig.line].append(region)
    for path in plan.paths:
        for record in whole_records(open_reader(path, on_duplicate=plan.on_duplicate)):
            for region in of_record[str(path), record.line]:
                yield region, record.bases[region.start : region.stop]


def _row(bases: np.ndarray, how: _Draw, path: tuple) -> np.ndarray:
    window = _window(bases, how.length, path)
    return reverse_complement(window) if how.either_strand and draw(*path, "strand") % 2 else window


def _window(bases: np.ndarray, length: int, path: tuple) -> np.ndarray:
    """`length` bases from a random start, or all; the last draw, if each was mostly N."""
    window = _drawn(bases, length, path, 0)
    for attempt in range(1, MAX_DRAWS):
        if not _is_mostly_n(window):
            break
        window = _drawn(bases, length, path, attempt)
    return window


def _drawn(bases: np.ndarray, length: int, path: tuple, attempt: int) -> np.ndarray:
    start = draw(*path, "start", attempt) % (max(bases.size - length, 0) + 1)
    return bases[start : start + length]


def _is_mostly_n(window: np.ndarray) -> bool:
    return bool(np.count_nonzero(window == N) > MAX_N_SHARE * window.size)


def _spool(stem: Path, windows: Iterator[tuple[str, int, np.ndarray]], length: int) -> Counter[str]:
    """Puts each window in its place in stem.SPLIT, `length` letters each; how many were padded or mostly N."""
    counts: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        files = {split: stack.enter_context(open(f"{stem}.{split}", "wb")) for split in SPLITS}
        for split, item, window in windows:
            files[split].seek(item * length)
            files[split].write(to_text(window).rjust(length, "N").encode())
            counts.update(padded=window.size < length, mostly_n=_is_mostly_n(window))
    return counts


def _merge(out: TextIO, spools: Sequence[Path], count: int, length: int) -> None:
    """Writes the rows of all species in turn, and removes their files."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(path, "rb")) for path in spools]
        for _ in range(count):
            for label, file in enumerate(files):
                out.write(f"{file.read(length).decode()},{label}\n")
    for path in spools:
        path.unlink()


def _describe(
    plans: Mapping[str, _Plan], length: int, items: dict[str, int], counts: Mapping[str, Counter]
) -> Prepared:
    return Prepared(
        length,
        items,
        rules={name: plan.rule for name, plan in plans.items()},
        bases={
            name: {split: sum(part.length for part in parts) for split, parts in plan.regions.items()}
            for name, plan in plans.items()
        },
        padded={name: count["padded"] for name, count in counts.items()},
        mostly_n={name: count["mostly_n"] for name, count in counts.items()},
    )

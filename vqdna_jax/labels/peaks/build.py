"""A labelled set from peaks on a genome, in GUE's layout, with the place of each row."""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import tqdm

from vqdna_jax.errors import InputError, shown
from vqdna_jax.genome import bed, contigs
from vqdna_jax.genome.bed import Bed
from vqdna_jax.genome.indexed_fasta import IndexedFasta
from vqdna_jax.labels import layout
from vqdna_jax.labels.divide import SPLITS
from vqdna_jax.labels.peaks.rows import COLUMNS, NEGATIVE, POSITIVE, Row, Rows
from vqdna_jax.labels.peaks.signal import Signal
from vqdna_jax.labels.peaks.splits import Stretch, divide
from vqdna_jax.labels.peaks.windows import At, Placed, Window, free_of, place
from vqdna_jax.runtime import requirements
from vqdna_jax.runtime.progress import progress_bar
from vqdna_jax.runtime.remote import places

GC_MATCHED, SHUFFLED = "gc-matched", "shuffled"
LONGEST = 1_000_000  # bases of a window
MOST_NEGATIVES = 100  # for each peak; each is looked for by itself
Path = str | os.PathLike
ByStretch = dict[Stretch, list[Row]]
BySplit = dict[str, list[Row]]
WHAT = {POSITIVE: "peaks", NEGATIVE: "negatives"}


@dataclass(frozen=True)
class Options:
    """How a set is made. Raises InputError: a number is out of range.

    Attributes:
        width: bases of a row.
        at: what is in the middle of a row: "auto", the summit of a narrowPeak, else the centre; "centre"; "start", the
            end on the left of its strand.
        negatives: "gc-matched", "shuffled", or a BED file; none are made where there is a `signal`.
        ratio: negatives for each peak.
        signal: a bigWig file whose mean over the window is the label.
        dev, test: contigs.
        seed: of all draws.
    """

    width: int = 200
    at: At = "auto"
    negatives: Path = GC_MATCHED
    ratio: int = 1
    signal: Path | None = None
    dev: Sequence[str] = ()
    test: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self):
        if not 1 <= self.width <= LONGEST:
            raise InputError(f"--width={self.width}: expected bases, from 1 to {LONGEST:,}")
        if not 1 <= self.ratio <= MOST_NEGATIVES:
            raise InputError(f"--ratio={self.ratio}: expected negatives for each peak, from 1 to {MOST_NEGATIVES}")

    @property
    def kind(self) -> str:
        """Of the negatives: gc-matched, shuffled, bed or none."""
        if self.signal is not None:
            return "none"
        return os.fspath(self.negatives) if self.negatives in (GC_MATCHED, SHUFFLED) else "bed"


@dataclass(frozen=True)
class Prepared:
    """What `prepare` wrote; `str` of it is a line for the rule and for each split."""

    rule: str
    rows: dict[str, dict[str, int]]  # by split, peaks and negatives
    left_out: dict[str, dict[str, int]]  # of peaks and negatives, by reason
    gc_apart: dict[int, int]  # how many gc-matched negatives have so many G and C more or fewer than their peak
    without_signal: float  # share of the bases for which the bigWig has no value
    splits: dict[str, list[str]]  # contigs, or stretches of them
    settings: dict[str, object]
    inputs: dict[str, dict[str, str]]  # names and sha256
    notes: list[str]  # to be said once, and nowhere kept

    @property
    def summary(self) -> dict[str, object]:
        """All but the notes."""
        return {name: value for name, value in asdict(self).items() if name != "notes"}

    def __str__(self) -> str:
        counts = (", ".join(f"{count:,} {what}" for what, count in self.rows[split].items()) for split in SPLITS)
        return "\n".join([self.rule, *(f"{split}: {count}" for split, count in zip(SPLITS, counts))])


def prepare(fasta: Path, peaks: Path, out: Path, options: Options, progress: bool = True) -> Prepared:
    """Writes train.csv, dev.csv, test.csv and prepared.json into `out`, a new or empty folder.

    A row has a sequence in upper case, read on its strand, its label and its place, counted from 0. Peaks are 1. The
    same files, options and seed give the same set.

    Args:
        fasta: the genome; plain, bgzip, gzip or .2bit, or "-".
        peaks: BED, narrowPeak or broadPeak, plain or gzip, or "-".

    Raises:
        InputError: a file is damaged or none of these; they are of different genomes; too few peaks are left to fill
            all splits; `out` is taken; pyBigWig is not installed and there is a signal. StorageError: the disk is full.
    """
    layout.check_vacant(out)
    requirements.check(["pyBigWig"] if options.signal else [])
    with IndexedFasta(fasta) as genome:
        found = bed.read(peaks)
        with progress_bar("windows", 0, " windows", progress) as bar:
            making = _Making(genome, found, options, bar)
            making.note_input("fasta", fasta, places.sha256_of(genome.file))
            making.note_input("peaks", peaks, found.sha256)
            labelled = making.labelled()
    prepared = making.describe(labelled)
    _write(labelled, out, prepared)
    return prepared


class _Making:
    """A set that is being made."""

    def __init__(self, genome: IndexedFasta, found: Bed, options: Options, bar: tqdm.tqdm):
        self._genome, self._options, self._path, self._bar = genome, options, found.path, bar
        self._rows = Rows(genome, options.seed, bar.update)
        placed = self._place(found, POSITIVE)
        bar.total += len(placed.windows) * (1 + (options.kind in (GC_MATCHED, SHUFFLED)) * options.ratio)
        self._claimed = placed.claimed
        self._peaks = self._rows.of(placed.windows, POSITIVE)
        windows = [row.window for row in self._peaks]
        self._division = divide(windows, genome.lengths, options.dev, options.test, options.seed)
        self._inputs: dict[str, dict[str, str]] = {}
        self._notes = [*genome.notes, *placed.notes, *_overlaps(windows), *self._division.notes]
        self._without_signal = 0.0

    def note_input(self, what: str, path: Path, sha256: str) -> None:
        self._inputs[what] = {"name": os.path.basename(os.fspath(path)), "sha256": sha256}

    def labelled(self) -> BySplit:
        """All rows, in the order of their places."""
        peaks = self._divided(self._peaks, POSITIVE)
        self._check_filled(_flat(peaks))
        if self._options.signal is not None:
            return self._in_order(self._measured(_flat(peaks), self._options.signal))
        make = {GC_MATCHED: self._matched, SHUFFLED: self._shuffled}.get(self._options.kind, self._given)
        return self._in_order([*_flat(peaks), *make(peaks)])

    def describe(self, labelled: BySplit) -> Prepared:
        options, gc_apart = self._options, self._rows.gc_apart
        left_out = {WHAT[label]: dict(+counts) for label, counts in self._rows.left_out.items()}
        settings = {name: getattr(options, name) for name in ("width", "at", "ratio", "seed")}
        return Prepared(
            rule=self._division.describe(),
            rows={split: _counts(labelled[split], options.kind) for split in SPLITS},
            left_out=left_out,
            gc_apart=dict(sorted(gc_apart.items())),
            without_signal=self._without_signal,
            splits=self._division.named(),
            settings=settings | {"negatives": options.kind},
            inputs=self._inputs,
            notes=[*self._notes, *_told(left_out, gc_apart, options.width)],
        )

    def _place(self, found: Bed, label: str) -> Placed:
        placed = place(found, self._genome.lengths, self._options.width, self._options.at)
        self._rows.left_out[label].update(placed.left_out)
        return placed

    def _divided(self, rows: Sequence[Row], label: str) -> ByStretch:
        """The rows that lie in a stretch, with its split."""
        of = {row.window: row for row in rows}
        within = self._division.within(list(of))
        outside = len(of) - sum(map(len, within.values()))
        self._rows.left_out[label]["in no split, or across the border of two"] += outside
        return {one: [of[window]._replace(split=one.split) for window in windows] for one, windows in within.items()}

    def _in_order(self, rows: Sequence[Row]) -> BySplit:
        rank = {name: at for at, name in enumerate(self._genome.lengths)}
        ordered = sorted(rows, key=lambda row: (rank[row.window.contig], *row.window[1:], row.label != POSITIVE))
        return {split: [row for row in ordered if row.split == split] for split in SPLITS}

    def _check_filled(self, rows: Sequence[Row]) -> None:
        """Raises InputError where a split has none."""
        if empty := [split for split in SPLITS if not any(row.split == split for row in rows)]:
            reasons = "; ".join(_reasons(self._rows.left_out[POSITIVE]))
            few = f"{len(rows):,} peaks are left, none for {' and '.join(empty)}"
            advice = "give more peaks, or name contigs that have some (--dev, --test)"
            raise InputError(f"{self._path}: {few}{reasons and f', left out: {reasons}'}; {advice}")

    def _matched(self, peaks: ByStretch) -> list[Row]:
        matched, ratio = self._rows.matched, self._options.ratio
        return [row for stretch, rows in peaks.items() for row in matched(rows, stretch, self._claimed, ratio)]

    def _shuffled(self, peaks: ByStretch) -> list[Row]:
        return self._rows.shuffled(_flat(peaks), self._options.ratio)

    def _given(self, peaks: ByStretch) -> list[Row]:
        """Windows of a BED file, in each split as many as there are peaks, times the ratio, first by a hash."""
        found = bed.read(self._options.negatives)
        self.note_input("negatives", self._options.negatives, found.sha256)
        placed = self._place(found, NEGATIVE)
        self._notes += placed.notes
        free = free_of(placed.windows, self._claimed)
        self._bar.total += len(free)
        self._rows.left_out[NEGATIVE]["that overlap a peak"] += len(placed.windows) - len(free)
        rows = _flat(self._divided(self._rows.of(free, NEGATIVE), NEGATIVE))
        rows.sort(key=lambda row: layout.draw(self._options.seed, "negatives", *row.window))
        return [row for split in SPLITS for row in self._as_many(rows, _flat(peaks), split)]

    def _as_many(self, rows: Sequence[Row], peaks: Sequence[Row], split: str) -> Sequence[Row]:
        have = [row for row in rows if row.split == split]
        wanted = self._options.ratio * sum(peak.split == split for peak in peaks)
        self._rows.left_out[NEGATIVE]["more than --ratio asks for"] += max(0, len(have) - wanted)
        if len(have) < wanted:
            self._notes.append(f"negatives: {split} has {len(have):,}, and --ratio asks for {wanted:,}")
        return have[:wanted]

    def _measured(self, peaks: Sequence[Row], path: Path) -> list[Row]:
        with Signal(path) as signal:
            self.note_input("signal", path, places.sha256_of(path))
            names = signal.names_of(dict.fromkeys(row.window.contig for row in peaks), self._genome.lengths)
            self._notes += contigs.describe(names)
            known = [row for row in peaks if row.window.contig in names]
            found = [row._replace(label=f"{signal.mean(names[row.window.contig], row.window):.6g}") for row in known]
            if known and signal.without == signal.bases:
                raise InputError(f"{shown(path)}: has no value in any window; give one that covers the peaks")
            self._without_signal = signal.without / max(signal.bases, 1)
        self._rows.left_out[POSITIVE]["on contigs that the bigWig lacks"] += len(peaks) - len(found)
        self._check_filled(found)
        return found


def _overlaps(windows: Sequence[Window]) -> Iterator[str]:
    """Of peaks in their order, that some are near each other."""
    pairs = itertools.pairwise(windows)
    if count := sum(one.contig == other.contig and other.start < one.stop for one, other in pairs):
        yield f"peaks whose window overlaps the one before, all kept, in the same split: {count:,}"


def _counts(rows: Sequence[Row], kind: str) -> dict[str, int]:
    if kind == "none":
        return {"peaks": len(rows)}
    peaks = sum(row.label == POSITIVE for row in rows)
    return {"peaks": peaks, "negatives": len(rows) - peaks}


def _flat(rows: ByStretch) -> list[Row]:
    return [row for of_stretch in rows.values() for row in of_stretch]


def _reasons(counts: Mapping[str, int]) -> list[str]:
    return [f"{count:,} {reason}" for reason, count in counts.items() if count]


def _told(left_out: Mapping[str, Mapping[str, int]], gc_apart: Mapping[int, int], width: int) -> Iterator[str]:
    """What was left out, and how far G and C are apart, a line each."""
    for what, counts in left_out.items():
        if reasons := _reasons(counts):
            yield f"{what} left out: {'; '.join(reasons)}"
    if apart := {gc: count for gc, count in gc_apart.items() if gc}:
        many = f"{sum(apart.values()):,} of {sum(gc_apart.values()):,}"
        yield f"negatives: {many} differ from their peak in G and C, by {max(apart) / width:.1%} of the bases at most"


def _write(rows: BySplit, out: Path, prepared: Prepared) -> None:
    with layout.writing(out, COLUMNS) as (staging, files):
        for split, file in files.items():
            file.writelines(f"{row.text}\n" for row in rows[split])
        layout.write_summary(staging, prepared.summary)

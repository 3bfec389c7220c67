"""Which stretches of a genome are for training, which for dev and which for test, so that no base is on two sides.

named     the contigs that were named for dev and for test, the others for training
contig    whole contigs, dealt out 8:1:1 in peaks by a hash
stretch   each contig cut in three at a peak, 8:1:1 in peaks: where there are few contigs, or unequal ones
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vqdna_jax.errors import InputError
from vqdna_jax.genome import contigs
from vqdna_jax.labels.divide import SPLITS
from vqdna_jax.labels.layout import SHARES, deal
from vqdna_jax.labels.peaks.windows import Window

LEAST_SHARE = 0.05  # of the peaks, in each split of the contig rule
_DEALS = 20  # tries at dealing out contigs
_SHOWN = 3  # names in a line


class Stretch(NamedTuple):
    """Bases [start, stop) of a contig."""

    contig: str
    start: int
    stop: int
    split: str

    @property
    def text(self) -> str:
        return f"{self.contig}:{self.start + 1}-{self.stop}"

    def holds(self, window: Window) -> bool:
        return self.start <= window.start and window.stop <= self.stop


class Division(NamedTuple):
    """A rule and what it gives."""

    rule: str
    stretches: list[Stretch]  # in the order of the contigs, and on them
    notes: list[str]

    def within(self, windows: Sequence[Window]) -> dict[Stretch, list[Window]]:
        """The windows that lie in a stretch."""
        found: dict[Stretch, list[Window]] = {stretch: [] for stretch in self.stretches}
        of_contig: dict[str, list[Stretch]] = {}
        for stretch in self.stretches:
            of_contig.setdefault(stretch.contig, []).append(stretch)
        for window in windows:
            for stretch in of_contig.get(window.contig, []):
                if stretch.holds(window):
                    found[stretch].append(window)
        return found

    def describe(self) -> str:
        parts = []
        for split, names in self.named().items():
            more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
            parts.append(f"{split} {', '.join(names[:_SHOWN])}{more}")
        return f"split by {self.rule}: {'; '.join(parts)}"

    def named(self) -> dict[str, list[str]]:
        """By split, the contigs, or the stretches counted from 1 with both ends."""
        names = {one: one.contig if self.rule != "stretch" else one.text for one in self.stretches}
        return {split: [name for one, name in names.items() if one.split == split] for split in SPLITS}


def divide(
    windows: Sequence[Window], lengths: Mapping[str, int], dev: Sequence[str], test: Sequence[str], seed: int
) -> Division:
    """By name where contigs are named, else by contig where that gives all splits their share, else by stretch.

    Raises InputError: a contig that is named is not there, or is named for both.
    """
    if dev or test:
        return _named(lengths, dev, test)
    counts = Counter(window.contig for window in windows)
    if splits := _dealt(counts, seed):
        whole = [Stretch(name, 0, lengths[name], splits[name]) for name in lengths if name in splits]
        return Division("contig", whole, [])
    cut = [stretch for name in lengths if counts[name] for stretch in _cut(name, lengths[name], windows)]
    return Division("stretch", cut, [])


def _named(lengths: Mapping[str, int], dev: Sequence[str], test: Sequence[str]) -> Division:
    if not (dev and test):
        missing = "test" if dev else "dev"
        raise InputError(f"--{missing}: is missing; expected contigs for dev and for test, or for neither")
    names = contigs.resolve([*dev, *test], lengths)
    splits: dict[str, str] = {}
    for split, asked in (("dev", dev), ("test", test)):
        for name in asked:
            if name not in names:
                expected = f"expected one of {contigs.few(lengths)}"
                raise InputError(f"--{split}={name}: the FASTA file has no such contig; {expected}")
            if splits.setdefault(names[name], split) != split:
                raise InputError(f"--{split}={name}: is named for dev, too; expected it for one of them; name others")
    stretches = [Stretch(name, 0, size, splits.get(name, "train")) for name, size in lengths.items()]
    return Division("name", stretches, contigs.describe(names))


def _dealt(counts: Mapping[str, int], seed: int) -> dict[str, str] | None:
    """A split for each contig with peaks; None where no deal gives each its share."""
    if len(counts) < len(SPLITS):
        return None
    for attempt in range(_DEALS):
        splits = deal(counts, (seed, attempt))
        peaks = Counter[str]()
        for name, split in splits.items():
            peaks[split] += counts[name]
        if min(peaks[split] for split in SPLITS) >= LEAST_SHARE * peaks.total():
            return splits
    return None


def _cut(contig: str, length: int, windows: Sequence[Window]) -> list[Stretch]:
    """A contig in three, train first; with fewer than three peaks all of it is for training."""
    starts = sorted(window.start for window in windows if window.contig == contig)
    if len(starts) < len(SPLITS):
        return [Stretch(contig, 0, length, "train")]
    held_out = [max(1, round(SHARES[split] * len(starts))) for split in ("dev", "test")]
    edges = [0, starts[-sum(held_out)], starts[-held_out[1]], length]
    return [Stretch(contig, start, stop, split) for start, stop, split in zip(edges, edges[1:], SPLITS)]

"""Tracks of a genome for browsers (`vqdna tracks`): its codes, how likely each base is and what hangs on it.

Of every base, when it is hidden before the tokenizer: log2 of its probability, the entropy of the four (both from
`likelihood`, averaged over strands and phases of the codes), and the share of the codes around it that are others. A
base has the same numbers in a region as in its whole contig: what is hidden together lies on a grid of the contig.
"""

import hashlib
import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vqdna_jax.errors import InputError, shown
from vqdna_jax.genome import contigs
from vqdna_jax.genome.alphabet import N
from vqdna_jax.genome.build import staging
from vqdna_jax.genome.indexed_fasta import IndexedFasta
from vqdna_jax.genome.regions import Region
from vqdna_jax.inference import likelihood, load
from vqdna_jax.inference.jobs.partial import Partial
from vqdna_jax.inference.jobs.track_files import (
    BYTES_A_CODE,
    BYTES_A_NUMBER,
    TRACKS,
    Piece,
    TrackWriter,
    told_in_one_line,
    write_reference,
    write_session,
)
from vqdna_jax.inference.likelihood import Stretch
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.runtime.files import behind_links, write_json
from vqdna_jax.runtime.progress import progress_bar
from vqdna_jax.runtime.remote import places
from vqdna_jax.tokenizers.base import Advance, no_advance
from vqdna_jax.tokenizers.learned import LearnedTokenizer
from vqdna_jax.version import versions

SCHEMA = "vqdna-tracks/1"
PIECE_BASES = 4096  # about so many are computed at once, and lost where a job is killed: 15 seconds of `mini`
_READ_BASES = 1 << 24
_SHOWN_BASES = 500  # where a browser opens


class Span(NamedTuple):
    """Bases [start, stop) of a contig that has `total`."""

    contig: str
    total: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.contig}:{self.start + 1}-{self.stop}"


class Job(NamedTuple):
    """What computes tracks: a model, its tokenizer, and the contigs."""

    model: Pretrained
    tokenizer: LearnedTokenizer
    genome: IndexedFasta

    @property
    def cell(self) -> int:
        """Bases whose likelihoods are computed together: these lie on a grid of their contig, as codes do."""
        return likelihood.longest(self.model) // self.tokenizer.bases_per_code * self.tokenizer.bases_per_code

    @property
    def apart(self) -> int:
        """Bases from one hidden base to the next."""
        return likelihood.spacing(self.tokenizer.bases_per_code)

    @property
    def around(self) -> int:
        """Bases on both sides of any that decide its numbers, at most."""
        codes = self.tokenizer.config.receptive_codes * self.tokenizer.bases_per_code + self.apart
        return max(self.cell + likelihood.reach(self.model), codes)

    def widened(self, span: Span) -> Span:
        """With all bases that decide the numbers of the span's, from the first base of a code on."""
        size = self.tokenizer.bases_per_code
        start = max(0, span.start - self.around) // size * size
        return span._replace(start=start, stop=min(span.total, span.stop + self.around))

    def read(self, span: Span) -> np.ndarray:
        return self.genome.bases(span.contig, span.start, span.stop)

    def codes_of(self, span: Span) -> tuple[int, int]:
        """The first code that has a base of the span, and the one behind the last."""
        size = self.tokenizer.bases_per_code
        return span.start // size, -(-span.stop // size)

    def pieces(self, span: Span) -> list[Span]:
        """Its parts between multiples of about PIECE_BASES."""
        step = max(1, PIECE_BASES // self.cell) * self.cell
        edges = [span.start, *range((span.start // step + 1) * step, span.stop, step), span.stop]
        return [span._replace(start=start, stop=stop) for start, stop in itertools.pairwise(edges)]

    def numbers(self, piece: Span) -> int:
        """How many `compute` gives."""
        first, last = self.codes_of(piece)
        return len(TRACKS) * (piece.stop - piece.start) + len(self.tokenizer.codebook_sizes) * (last - first)


def write_tracks(
    fasta: str | os.PathLike,
    model_dir: str | os.PathLike,
    out: str | os.PathLike,
    regions: Sequence[Region] = (),
    progress: bool = True,
    batch: int | None = None,
) -> dict[str, Any]:
    """Writes the directory `out`, as `track_files` describes it, of whole contigs or of `regions` of them.

    It appears whole. A job that was stopped goes on when it is called again; until then OUT.partial has what is done.
    Memory is bounded by a piece of PIECE_BASES and what is computed at once, whatever the contigs' lengths.

    Args:
        fasta: a file, a pipe or "-", as `IndexedFasta` takes it.
        progress, batch: as of `embed_fasta`.

    Returns:
        contigs, bases, known (that are not N), resumed (bases that were done before), likelihood, entropy and change
        (means over the known bases), notes, seconds, bases_per_s, out.

    Raises:
        InputError: bad FASTA, no such contig, a region beyond its end, nothing but N, no model whose heads name bases,
            `out` is there, unfinished work of another command in OUT.partial. StorageError: `out` cannot be written.
    """
    began = time.perf_counter()
    places.check_spelling(out, "pyBigWig")
    staging.check(os.fspath(out))
    found = load.load(model_dir, batch=batch)
    model, tokenizer = found.base("tracks"), found.tokenizer
    likelihood.check(model, found.name, "tracks")
    assert isinstance(tokenizer, LearnedTokenizer), "check has looked"
    with IndexedFasta(fasta) as genome:
        job, spans, notes = Job(model, tokenizer, genome), *spans_of(genome.lengths, regions)
        _check_names(fasta, spans)
        meta = {
            "schema": SCHEMA,
            "pretrained_digest": model.digest,
            "regions": f"{len(spans)} of {_bases(spans)} bases",
        }
        meta["sequences"] = _digest(job, spans, fasta, progress)
        pieces = [piece for span in spans for piece in job.pieces(span)]
        sizes = 4 * np.append(0, np.cumsum([job.numbers(piece) for piece in pieces]))
        with Partial(behind_links(out), meta, sizes, _room(job, pieces)) as partial:
            resumed = _bases(pieces[: partial.records])
            with progress_bar("tracks", _bases(pieces), " bases", progress, resumed) as bar:
                for piece in pieces[partial.records :]:
                    partial.write(1, compute(job, piece, bar.update))
            partial.commit()
            told = _write(out, job, pieces, partial, meta | {"regions": [span.name for span in spans]})
        partial.remove()
    seconds = time.perf_counter() - began
    speed = {"seconds": seconds, "bases_per_s": (told["bases"] - resumed) / seconds}
    return told | {"resumed": resumed, "notes": [*genome.notes, *notes]} | speed | {"out": os.fspath(out)}


def spans_of(lengths: Mapping[str, int], regions: Sequence[Region]) -> tuple[list[Span], list[str]]:
    """What is asked for of the contigs, in their order, none twice, and what is worth a line. Raises InputError."""
    if not regions:
        return [Span(name, total, 0, total) for name, total in lengths.items() if total], []
    resolved = contigs.resolve([region.sequence for region in regions], lengths)
    order = {name: number for number, name in enumerate(lengths)}
    spans: list[Span] = []
    for span in sorted((_span(lengths, resolved, region) for region in regions), key=lambda s: (order[s.contig], s)):
        if spans and spans[-1].contig == span.contig and span.start <= spans[-1].stop:
            spans[-1] = spans[-1]._replace(stop=max(spans[-1].stop, span.stop))
        else:
            spans.append(span)
    return spans, contigs.describe({name: contig for name, contig in resolved.items() if contig in order})


def _check_names(fasta: str | os.PathLike, spans: Sequence[Span]) -> None:
    """Raises InputError: a line of BED that begins so is a comment or a setting, or XML has no such letter."""
    for name in dict.fromkeys(span.contig for span in spans):
        if name.startswith("#") or name in ("track", "browser") or not name.isprintable():
            told = f"a contig is named {name[:80]!r}, which no track can say"
            raise InputError(f"{shown(fasta)}: {told}; rename it, or name others by --region")


def _span(lengths: Mapping[str, int], resolved: Mapping[str, str], region: Region) -> Span:
    if region.text in lengths:
        return Span(region.text, lengths[region.text], 0, lengths[region.text])
    if region.sequence not in resolved:
        known = contigs.few(lengths)
        raise InputError(f"{region.place}: no sequence is named {region.sequence[:80]!r}; there are {known}")
    name = resolved[region.sequence]
    total = lengths[name]
    stop = total if region.stop is None else region.stop
    if not region.start < stop <= total:
        raise InputError(f"{region.place}: {region.id} is not within {name}, which has {total:,} bases")
    return Span(name, total, region.start, stop)


def _bases(spans: Sequence[Span]) -> int:
    return sum(span.stop - span.start for span in spans)


def _digest(job: Job, spans: Sequence[Span], fasta: str | os.PathLike, progress: bool) -> str:
    """sha256 of all bases that decide the tracks. Raises InputError: they are no DNA, or none is known."""
    sha, known = hashlib.sha256(), False
    with progress_bar("reading", _bases(spans), " bases", progress) as bar:
        for span in spans:
            sha.update(f"{span}\n".encode())
            wide = job.widened(span)
            for start in range(wide.start, wide.stop, _READ_BASES):
                bases = job.read(wide._replace(start=start, stop=min(start + _READ_BASES, wide.stop)))
                own = bases[max(0, span.start - start) : max(0, span.stop - start)]
                known |= bool((own < N).any())
                sha.update(bases.data)
                bar.update(own.size)
    if not known:
        raise InputError(f"{shown(fasta)}: holds nothing but N in {', '.join(s.name for s in spans[:3])}; name others")
    return sha.hexdigest()


def _room(job: Job, pieces: Sequence[Span]) -> int:
    """Bytes of the files, at most."""
    codes = sum(job.numbers(piece) for piece in pieces) - len(TRACKS) * _bases(pieces)
    contigs = {piece.contig: piece.total for piece in pieces}
    return BYTES_A_CODE * codes + BYTES_A_NUMBER * len(TRACKS) * _bases(pieces) + 2 * sum(contigs.values())


def compute(job: Job, piece: Span, advance: Advance = no_advance) -> Iterator[np.ndarray]:
    """The numbers of a piece's bases [S, tracks], NaN of N, and its codes [L, N]."""
    wide = job.widened(piece)
    bases = job.read(wide)
    plain_LxN, change_S = _change(job, bases, wide, piece)
    values_SxT = np.column_stack([_likelihoods(job, bases, wide, piece, advance), change_S])
    values_SxT[bases[piece.start - wide.start : piece.stop - wide.start] == N] = np.nan
    yield values_SxT
    yield plain_LxN


def _likelihoods(job: Job, bases: np.ndarray, wide: Span, piece: Span, advance: Advance) -> np.ndarray:
    """log2 of the probability of each base when it is hidden, and the entropy of the four, [S, 2]; `bases` are those
    of `wide`."""
    values_Sx2 = np.full((piece.stop - piece.start, 2), np.nan)
    cells = [
        piece._replace(start=start, stop=min(start + job.cell, piece.total))
        for start in range(piece.start // job.cell * job.cell, piece.stop, job.cell)
    ]
    known = [cell for cell in cells if (bases[cell.start - wide.start : cell.stop - wide.start] < N).any()]
    advance(_bases([piece]) - sum(_overlap(cell, piece) for cell in known))
    stretches = (_stretch(bases, wide, cell, likelihood.reach(job.model)) for cell in known)
    for cell, log_Mx4 in zip(known, likelihood.log_probabilities(job.model, stretches)):
        start, stop = max(cell.start, piece.start), min(cell.stop, piece.stop)
        log2_Mx4 = log_Mx4[start - cell.start : stop - cell.start] / np.log(2)
        true_Mx1 = np.minimum(bases[start - wide.start : stop - wide.start, None], N - 1)
        here_Mx2 = values_Sx2[start - piece.start : stop - piece.start]
        here_Mx2[:, 0] = np.take_along_axis(log2_Mx4, true_Mx1, axis=1)[:, 0]
        here_Mx2[:, 1] = -(np.exp2(log2_Mx4) * log2_Mx4).sum(axis=1)
        advance(stop - start)
    return values_Sx2


def _overlap(cell: Span, piece: Span) -> int:
    return min(cell.stop, piece.stop) - max(cell.start, piece.start)


def _stretch(bases: np.ndarray, wide: Span, cell: Span, reach: int) -> Stretch:
    first, last = max(0, cell.start - reach), min(cell.total, cell.stop + reach)
    seen = bases[first - wide.start : last - wide.start]
    return Stretch(seen, cell.start - first, cell.stop - first)


def _change(job: Job, bases: np.ndarray, wide: Span, piece: Span) -> tuple[np.ndarray, np.ndarray]:
    """The piece's codes [L, N], and of each of its bases the share of the codes nearest to it that are others when it
    is hidden [S]: of its own code and of those on both sides up to half way to the next base that is hidden with it."""
    size, apart = job.tokenizer.bases_per_code, job.apart
    hidden = [bases.copy() for _ in range(apart)]
    for place, seen in enumerate(hidden):
        seen[(place - wide.start) % apart :: apart] = N
    plain_LxN, *others = job.tokenizer.encode([bases, *hidden])
    changed_AxL = np.stack([(codes_LxN != plain_LxN).mean(axis=1) for codes_LxN in others])
    sums_AxL = np.pad(np.cumsum(changed_AxL, axis=1), ((0, 0), (1, 0)))
    at_S, reach = np.arange(piece.start, piece.stop), apart // size // 2 - 1
    own_S = (at_S - wide.start) // size
    first_S, last_S = np.maximum(own_S - reach, 0), np.minimum(own_S + reach + 1, len(plain_LxN))
    total_S = sums_AxL[at_S % apart, last_S] - sums_AxL[at_S % apart, first_S]
    first, last = (code - wide.start // size for code in job.codes_of(piece))
    return plain_LxN[first:last], total_S / (last_S - first_S)


def _write(
    out: str | os.PathLike, job: Job, pieces: Sequence[Span], partial: Partial, meta: Mapping[str, Any]
) -> dict[str, Any]:
    """The files of `out`, from what was computed of the pieces; returns what there is to tell of them."""
    levels, names = len(job.tokenizer.codebook_sizes), list(dict.fromkeys(piece.contig for piece in pieces))
    sums_T, known = np.zeros(len(TRACKS)), 0
    with staging.staging(os.fspath(out)) as place, told_in_one_line(out):
        lengths = {name: job.genome.lengths[name] for name in names}
        with TrackWriter(place.local, lengths, levels) as writer:
            for piece, numbers in zip(pieces, partial.each()):
                writer.write(written := _piece(job, piece, numbers))
                sums_T += np.nansum(written.values_SxT, axis=0, dtype=np.float64)
                known += int((~np.isnan(written.values_SxT[:, 0])).sum())
        first = pieces[0]
        write_reference(place.local, job.genome, names)
        write_session(place.local, levels, first._replace(stop=min(first.stop, first.start + _SHOWN_BASES)).name)
        means = {track.name: float(total / known) for track, total in zip(TRACKS, sums_T)}
        told = {"contigs": len(names), "bases": _bases(pieces), "known": known} | means
        write_json(place.local / "tracks.json", {**meta, **told, "versions": versions()})
    return told


def _piece(job: Job, piece: Span, numbers: np.ndarray) -> Piece:
    """What `compute` gave of a piece, from the disk."""
    size, (first, last), split = job.tokenizer.bases_per_code, job.codes_of(piece), len(TRACKS) * _bases([piece])
    starts_L = size * np.arange(first, last)
    spans_Lx2 = np.stack([starts_L, np.minimum(starts_L + size, piece.total)], axis=1)
    codes_LxN = numbers[split:].astype(np.int64).reshape(last - first, -1)
    return Piece(piece.contig, piece.start, numbers[:split].reshape(-1, len(TRACKS)), codes_LxN, spans_Lx2)

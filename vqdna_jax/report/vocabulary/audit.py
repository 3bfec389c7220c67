"""The audit of a vocabulary: everything that is measured, as JSON."""

import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vqdna_jax.genome.annotation.features import Annotation, Feature
from vqdna_jax.genome.annotation.read import read_annotation
from vqdna_jax.genome.regions import Region
from vqdna_jax.report.vocabulary import edits, enrichment, labels, rates, words
from vqdna_jax.report.vocabulary.sample import WINDOW, Sample, read_sample, windows_of
from vqdna_jax.report.vocabulary.vocabularies import (
    BUILT_IN,
    Coded,
    Vocabulary,
    coded,
    in_windows,
    read_vocabulary,
    set_against,
)
from vqdna_jax.report.vocabulary.words import Letters, Word
from vqdna_jax.runtime.devices import machine
from vqdna_jax.runtime.progress import progress_bar
from vqdna_jax.version import versions

SCHEMA = "vqdna-vocabulary-report/1"
MOST_BASES = 5_000_000  # that are read by default
FEW_WINDOWS = 384  # that are decoded and edited
Path = str | os.PathLike


@dataclass(frozen=True)
class Options:
    """What an audit reads beside the genomes.

    Attributes:
        annotation: a file as `read_annotation` takes it. against: as `set_against`.
        regions: stretches of the genomes; all where there are none. sample: bases at most, 0: all.
        words: that are shown beside the busiest. motifs: a file as `read_motifs` takes it.
    """

    annotation: Path | None = None
    against: Sequence[str] = BUILT_IN
    regions: Sequence[Region] = ()
    sample: int = MOST_BASES
    words: Sequence[Word] = ()
    motifs: Path | None = None


class _Bench(NamedTuple):
    """What all vocabularies are measured on.

    Attributes:
        about: the annotation, in JSON. labels, species: bool [S] of the sample, by name. strata_S: by G and C.
    """

    sample: Sample
    windows_BxS: np.ndarray
    motifs: Sequence[edits.Motif]
    about: dict[str, Any]
    notes: list[str]
    labels: dict[str, np.ndarray]
    species: dict[str, np.ndarray]
    strata_S: np.ndarray


def audit(model: str, fasta: Sequence[Path], options: Options, command: str, progress: bool = True) -> dict[str, Any]:
    """Measures the vocabulary of a model, and those it is set against, on the genomes. JSON.

    Raises InputError: a file, region, model or word that is no good, or annotation of another genome.
    """
    own = read_vocabulary(model)
    words.check_words(options.words, own)
    bench = _bench(fasta, options, progress)
    others = set_against(own, options.against, bench.windows_BxS, bench.sample)
    told = coded(own, bench.sample, progress)
    letters = Letters(own, told, bench.sample)
    measured = _measured(own, told, bench, progress)
    for row in measured["enrichment"]:
        for word in row["words"]:
            word["context"] = letters.context(Word(row["level"], word["code"]))
    return {
        "schema": SCHEMA,
        "title": f"The words of {own.name}",
        "command": command,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "sample": _sample(bench.sample, bench.windows_BxS),
        "annotation": bench.about,
        "notes": bench.notes,
        "labels": {name: float(mask_S.mean()) for name, mask_S in bench.labels.items()},
        "words": words.busiest(own, told, letters, options.words),
        "word_width": letters.width,
        "background": letters.background.round(4).tolist(),
        "vocabularies": [
            measured,
            *(_measured(other, coded(other, bench.sample, progress), bench, progress) for other in others),
        ],
        "guesses": rates.guesses(bench.windows_BxS),
        "motifs": [motif._asdict() for motif in bench.motifs],
        "settings": {
            "shuffles": enrichment.SHUFFLES,
            "false_discovery_rate": enrichment.RATE,
            "least_expected": enrichment.LEAST,
            "gc_window": labels.GC_WINDOW,
            "spellings": edits.SPELLINGS,
        },
    }


def _bench(fasta: Sequence[Path], options: Options, progress: bool) -> _Bench:
    motifs = edits.read_motifs(options.motifs)
    annotation = read_annotation(options.annotation) if options.annotation is not None else None
    sample = read_sample(fasta, options.regions, options.sample, progress)
    features, about, notes = _placed(annotation, sample) if annotation else ([], {}, [])
    return _Bench(
        sample,
        windows_of(sample),
        motifs,
        about,
        [*sample.notes, *notes],
        labels.masks(sample, features),
        labels.species_masks(sample),
        labels.gc_strata(sample),
    )


def _placed(annotation: Annotation, sample: Sample) -> tuple[list[Feature], dict[str, Any], list[str]]:
    """Its features where the genomes have them, what is to tell of it, and what is worth a line."""
    features, notes = labels.placed(annotation, sample)
    starts = labels.check_starts(annotation, features, sample)
    about = {"file": os.path.basename(annotation.path), "format": annotation.format, "sha256": annotation.sha256}
    return features, about | {"features": len(features), "coding_starts": starts._asdict()}, notes


def _measured(vocabulary: Vocabulary, told: Coded, bench: _Bench, progress: bool) -> dict[str, Any]:
    windows = in_windows(vocabulary, bench.windows_BxS)
    of_labels = len(vocabulary.levels) * (len(bench.labels) + len(bench.species))
    about: dict[str, Any] = {
        "name": vocabulary.name,
        "digest": vocabulary.digest,
        "description": vocabulary.coder.description,
        "codebook_sizes": list(vocabulary.coder.codebook_sizes),
        "words": len(told.codes_LxN),
    }
    steps = {
        "usage": lambda: rates.usage(vocabulary, told),
        "rate": lambda: rates.rate(vocabulary, told, windows.first(FEW_WINDOWS)),
        "kmers": lambda: rates.kmers(vocabulary, windows),
        "strands": lambda: rates.strands(vocabulary, windows),
        "edits": lambda: edits.edits(vocabulary, windows.first(FEW_WINDOWS)),
        "motifs": lambda: edits.motifs(vocabulary, bench.motifs, bench.windows_BxS),
        "levels": lambda: words.levels(vocabulary, told),
    }
    with progress_bar(f"{vocabulary.name}: measuring", len(steps) + of_labels, " steps", progress) as bar:
        for name, step in steps.items():
            about[name] = step()
            bar.update()
        about["enrichment"] = list(_enriched(vocabulary, told, bench, bar.update))
    return about


def _enriched(
    vocabulary: Vocabulary, told: Coded, bench: _Bench, advance: Callable[[], object]
) -> Iterator[dict[str, Any]]:
    """Of each level and label."""
    strata_L = bench.strata_S[told.middle_L]
    shuffles: dict[enrichment.How, dict[str, np.ndarray]] = {"moved": bench.labels, "dealt": bench.species}
    for n, size in enumerate(vocabulary.coder.codebook_sizes):
        for how, found in shuffles.items():
            for seed, (label, mask_S) in enumerate(found.items()):
                label_L = mask_S[told.middle_L]
                if label_L.any() and not label_L.all():
                    row = enrichment.enrichment(told.codes_LxN[:, n], size, label_L, strata_L, how, seed)
                    yield {"level": n + 1, "label": label, "shuffled": how} | row
                advance()


def _sample(sample: Sample, windows_BxS: np.ndarray) -> dict[str, Any]:
    species = dict.fromkeys(stretch.species for stretch in sample.stretches)
    of_species = {name: sum(len(s.bases) for s in sample.stretches if s.species == name) for name in species}
    known = sum(int((stretch.bases < 4).sum()) for stretch in sample.stretches)
    gc = sum(int(((stretch.bases == 1) | (stretch.bases == 2)).sum()) for stretch in sample.stretches)
    soft = sum(int(stretch.soft_mask.sum()) for stretch in sample.stretches)
    return {
        "read": sample.described,
        "bases": sample.size,
        "total": sample.total,
        "species": of_species,
        "gc": gc / known,
        "soft_masked": soft / sample.size,
        "windows": len(windows_BxS),
        "window": WINDOW,
    }

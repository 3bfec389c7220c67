"""The case study of SARS-CoV-2 (the paper's Figure 5): what a vocabulary's words know of nine variants, in numbers.

What the figure claims of coarse words and variants, and of fine words and mutations, is measured beside the same
network untrained, k-mers, and the substitutions themselves.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

from vqdna_jax.errors import InputError
from vqdna_jax.inference import load
from vqdna_jax.report.covid import information, maps, nearest, readers
from vqdna_jax.report.covid.genotypes import Genomes
from vqdna_jax.report.covid.nearest import Embed, WordVectors
from vqdna_jax.report.covid.spelling import Spelling, spell
from vqdna_jax.report.covid.twin import untrained
from vqdna_jax.runtime.progress import progress_bar
from vqdna_jax.tokenizers.learned import LearnedTokenizer

WIDTHS = (999, 2997, 0)  # bases of a window; 0: the whole genome
COARSE, FINE = 0, 1
LEVELS = {"coarse": (COARSE,), "fine": (FINE,), "both": (COARSE, FINE)}
TRAINED, UNTRAINED, KMERS, BASES, CONTEXT, TRUTH = "model", "untrained", "kmers", "bases", "context", "substitutions"


class Learned(NamedTuple):
    """A vocabulary's genomes, and the vectors of its words, f64 [K, E] a level."""

    spelling: Spelling
    vectors: list[np.ndarray]


def open_tokenizer(model: str | os.PathLike) -> LearnedTokenizer:
    """The model's vocabulary. Raises InputError: as `load`, its words were not learned, or it has not two levels."""
    tokenizer = load.load(model).tokenizer
    advice = "the case study is of coarse words and fine ones; name a model over HRQ's, mini"
    if not isinstance(tokenizer, LearnedTokenizer):
        raise InputError(f"{model}: its words are {tokenizer.description}, not learned; {advice}")
    if len(tokenizer.codebook_sizes) < 2:
        raise InputError(f"{model}: has one level of words ({tokenizer.description}), no fine one; {advice}")
    return tokenizer


def study(tokenizer: LearnedTokenizer, genomes: Genomes, kind: maps.Kind, seed: int, progress: bool) -> dict[str, Any]:
    """All numbers, of JSON's types. Raises InputError: the reference has no two windows, which the maps need."""
    least = 2 * WIDTHS[0]
    if len(genomes.reference) < least:
        found = f"{genomes.record}: {len(genomes.reference):,} bases"
        raise InputError(
            f"--reference: {found}; expected at least {least:,}, two windows of {WIDTHS[0]}, as of a genome"
        )
    twin = untrained(tokenizer, genomes.reference, seed)
    learned = {
        TRAINED: _learned(tokenizer, genomes, "words of the model", progress),
        UNTRAINED: _learned(twin, genomes, "words of the untrained network", progress),
    }
    reader = learned[TRAINED].spelling.reader
    fixed = {KMERS: readers.kmers(), BASES: readers.bases(), CONTEXT: readers.contexts(reader)}
    spelt = {name: of.spelling for name, of in learned.items()} | {n: spell(r, genomes) for n, r in fixed.items()}
    substituted = nearest.substitutions(genomes)
    embeds = _embeds(learned, spelt[KMERS], len(genomes.reference)) | {TRUTH: substituted.embed}
    with progress_bar("variants and mutations", len(spelt), "steps", progress) as bar:
        told = _information(spelt, genomes, bar.update)
    with progress_bar("nearest variants", len(embeds) * len(WIDTHS), "steps", progress) as bar:
        accuracy = _accuracy(embeds, genomes, bar.update)
    with progress_bar("maps", 2 * len(learned) * 2, "steps", progress) as bar:
        drawn = _maps(learned, genomes, kind, seed, bar.update)
    return {
        "variants": _variants(genomes),
        "genomes": len(genomes.genotypes),
        "held_out": int(genomes.held_out_G.sum()),
        "repeated": genomes.repeated,
        "bases": len(genomes.reference),
        "word_reaches": reader.halo * reader.bases_per_code,
        "kmer": readers.K,
        **told,
        "accuracy": accuracy,
        "naive_bayes": _naive_bayes(substituted, genomes),
        "relatives": _relatives(embeds, genomes),
        "maps": drawn,
    }


def _learned(tokenizer: LearnedTokenizer, genomes: Genomes, name: str, progress: bool) -> Learned:
    vectors = [np.asarray(codes_KxE, np.float64) for codes_KxE in tokenizer.codes_KxD]
    return Learned(spell(readers.learned(tokenizer), genomes, name, progress), vectors)


def _embeds(learned: Mapping[str, Learned], kmers: Spelling, bases: int) -> dict[str, Embed]:
    found = dict[str, Embed]()
    for name, of in learned.items():
        found |= {f"{name} {level}": WordVectors(*of, levels, bases) for level, levels in LEVELS.items()}
    return found | {KMERS: nearest.embed_counts(kmers, readers.VOCABULARY, bases)}


def _variants(genomes: Genomes) -> list[dict[str, Any]]:
    counts = np.bincount(genomes.labels_G)
    held_out = np.bincount(genomes.labels_G, genomes.held_out_G).astype(int)
    rows = zip(genomes.variants, counts.tolist(), held_out.tolist())
    return [
        {
            "name": name,
            "lineage": genomes.known[name][0],
            "in_table": genomes.known[name][1],
            "genomes": count,
            "held_out": out,
        }
        for name, count, out in rows
    ]


def _information(spelt: Mapping[str, Spelling], genomes: Genomes, advance) -> dict[str, Any]:
    mutations = information.common_mutations(genomes)
    if not mutations:
        raise InputError("genotypes: no substitution that enough genomes have, and lack; give a table of more")
    rows, told = list[dict[str, Any]](), dict[str, information.Told]()
    for name, spelling in spelt.items():
        for level, of in enumerate(information.told_at_sites(spelling, genomes, mutations)):
            key = f"{name} {list(LEVELS)[level]}" if spelling.levels > 1 else name
            told[key] = of
            anywhere = None if name == CONTEXT else information.told_anywhere(spelling, level, genomes)
            rows.append({"words": key} | _told(of, mutations) | {"anywhere": anywhere})
        advance(1)
    places = {mutation.place for mutation in mutations}
    found = {"sites": len(places), "mutations": len(mutations), "information": rows}
    return found | {"differences": {name: _differences(name, told) for name in (TRAINED, UNTRAINED)}}


def _told(of: information.Told, mutations: list[information.Mutation]) -> dict[str, Any]:
    places = sorted({mutation.place for mutation in mutations})
    return {
        "variant": information.interval(of.variant_bits)._asdict(),
        "variant_shuffled": of.variant_shuffled,
        "most": float(of.variant_bits.max()),
        "most_at": places[int(of.variant_bits.argmax())] + 1,
        "mutation": information.interval(of.mutation_shares)._asdict(),
        "mutation_shuffled": of.mutation_shuffled,
    }


def _differences(name: str, told: Mapping[str, information.Told]) -> dict[str, Any]:
    """By how much coarse words tell more of the variant, and fine words more of mutations, site by site."""
    coarse, fine = told[f"{name} coarse"], told[f"{name} fine"]
    return {
        "variant": information.interval(coarse.variant_bits - fine.variant_bits)._asdict(),
        "mutation": information.interval(fine.mutation_shares - coarse.mutation_shares)._asdict(),
    }


def _accuracy(embeds: Mapping[str, Embed], genomes: Genomes, advance) -> list[dict[str, Any]]:
    rows = []
    for name, embed in embeds.items():
        for width in WIDTHS:
            windows = nearest.side_by_side(len(genomes.reference), width)
            rows.append({"words": name, "width": width} | nearest.nearest(embed, windows, genomes)._asdict())
            advance(1)
    return rows


def _naive_bayes(found: nearest.Substitutions, genomes: Genomes) -> list[dict[str, Any]]:
    bases = len(genomes.reference)
    layouts = {"side by side": nearest.side_by_side, "at random": nearest.at_random}
    return [
        {"width": width, "windows": layout, "placed": placed}
        | {"accuracy": nearest.naive_bayes(found, cut(bases, width), genomes, placed)}
        for layout, cut in layouts.items()
        for placed in (False, True)
        for width in WIDTHS
    ]


def _relatives(embeds: Mapping[str, Embed], genomes: Genomes) -> list[dict[str, Any]]:
    """Of each variant the nearest other one by its mean, and whether pairs are as near as their genomes are."""
    distances = {name: _distances(_means(embed, genomes)) for name, embed in embeds.items()}
    pairs, rows = np.triu_indices(len(genomes.variants), 1), []
    for name, distances_VxV in distances.items():
        near = (distances_VxV + np.diag(np.full(len(genomes.variants), np.inf))).argmin(axis=1)
        rows.append(
            {
                "words": name,
                "spearman": float(spearmanr(distances_VxV[pairs], distances[TRUTH][pairs]).statistic),
                "nearest": {of: genomes.variants[other] for of, other in zip(genomes.variants, near)},
            }
        )
    return rows


def _means(embed: Embed, genomes: Genomes) -> np.ndarray:
    is_VxG = np.equal.outer(np.arange(len(genomes.variants)), genomes.labels_G).astype(float)
    return (is_VxG @ embed(0, len(genomes.reference))) / is_VxG.sum(axis=1, keepdims=True)


def _distances(means_VxP: np.ndarray) -> np.ndarray:
    return np.linalg.norm(means_VxP[:, None] - means_VxP[None], axis=2)


def _maps(
    learned: Mapping[str, Learned], genomes: Genomes, kind: maps.Kind, seed: int, advance
) -> list[dict[str, Any]]:
    bases, drawn = len(genomes.reference), []
    windows = nearest.side_by_side(bases, WIDTHS[0])
    for name, of in learned.items():
        for level in ("coarse", "fine"):
            embed = WordVectors(*of, LEVELS[level], bases)
            of_genomes = maps.of_genomes(embed, genomes, kind, seed)
            of_windows = maps.of_windows(embed, genomes, windows, kind, seed)
            for what, found in (("genomes", of_genomes), (f"windows of {WIDTHS[0]} bases", of_windows)):
                drawn.append({"words": f"{name} {level}", "of": what, "kind": kind} | found)
                advance(1)
    return drawn

"""Evaluates a vocabulary on held-out windows, as flat numbers for the log and result.json.

`outputs` are those of tasks.vocabulary.Vocabulary.predict for the held-out windows, predicted once for all that reads
them; `predict` gives the outputs that `only` names for other windows.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from vqdna_jax.evaluation import code_statistics as statistics
from vqdna_jax.evaluation import linear, scores
from vqdna_jax.evaluation.linear import Features
from vqdna_jax.genome.alphabet import N, reverse_complement
from vqdna_jax.genome.windows import Windows
from vqdna_jax.models.tokenizer import TokenizerConfig

Outputs = Mapping[str, np.ndarray]
KMERS = (1, 2, 3, 4, 5, 6)
HIDDEN_SHARE = 0.15  # of the bases, in the denoising measurement
REACH = 6  # bases before and after a code in its information profile
SUBSTITUTIONS = 512  # windows, one substitution each
PROBE_KMER = 4
ENCODED = ("codes", "embedding")  # what needs no decoder, by one program


class Predict(Protocol):
    def __call__(self, bases_BxS: np.ndarray, only: tuple[str, ...] = ()) -> Outputs: ...


def reconstruction(
    outputs: Outputs, bases_BxS: np.ndarray, model: TokenizerConfig
) -> tuple[dict[str, float], list[np.ndarray]]:
    """(what the training log shows at every evaluation, counts of each code per level)."""
    known_BxS = bases_BxS != N
    right_BxS = (outputs["rebuilt"] == bases_BxS) | ~known_BxS
    values = {
        "reconstruction_accuracy": float(right_BxS[known_BxS].mean()),
        "window_exact_rate": float(right_BxS.all(axis=1).mean()),
    }
    counts = []
    for n, size in enumerate(model.codebook_sizes):
        counts.append(np.bincount(outputs["codes"][..., n].ravel(), minlength=size))
        usage = statistics.usage_from_counts(counts[-1])
        values |= {f"codebook_{n + 1}_size": size} | {
            f"codebook_{n + 1}_{name}": value for name, value in usage.items()
        }
    rate = statistics.code_bits_per_base(outputs["codes"], model.codebook_sizes, model.bases_per_code)
    values |= {"code_bits_per_base": rate["bits_per_base"], "code_tuples_used": rate["tuples_used"]}
    values |= {"code_tuples_unseen_share": rate["unseen_share"]}
    return values, counts


def kmer_content(codes_BxLxN: np.ndarray, bases_BxS: np.ndarray, model: TokenizerConfig) -> dict[str, float]:
    """Mutual information (bits) of each level's codes with the k-mer at and around the position."""
    values: dict[str, float] = {}
    for n, size in enumerate(model.codebook_sizes):
        codes_BxL, name = codes_BxLxN[..., n], f"codebook_{n + 1}"
        best = statistics.best_kmer(codes_BxL, bases_BxS, model.bases_per_code, KMERS, size)
        values |= {f"{name}_best_kmer_{key}": best[key] for key in ("k", "offset", "explained_share")}
        for row in best["by_k"]:
            values[f"{name}_{row['k']}mer_bits"] = row["corrected_bits"]
            values[f"{name}_{row['k']}mer_shuffled_bits"] = row["shuffled_bits"]
        for row in statistics.kmer_information_profile(codes_BxL, bases_BxS, model.bases_per_code, REACH, size):
            values[f"{name}_base_bits_at_{row['offset']:+d}"] = row["corrected_bits"]
        values[f"{name}_base_purity"] = statistics.purity(codes_BxL, bases_BxS, model.bases_per_code)["purity"]
    return values


def strands(predict: Predict, codes_BxLxN, bases_BxS, model: TokenizerConfig) -> dict[str, float]:
    """Share of positions whose code on the other strand is the one that the reverse complement maps to, and chance.

    Empty for a single window: the map between the strands is fitted on one half of them and scored on the other.
    """
    if len(bases_BxS) < 2:
        return {}
    reverse_BxLxN = predict(reverse_complement(bases_BxS), ENCODED)["codes"]
    values = {}
    for n, size in enumerate(model.codebook_sizes):
        found = statistics.strand_consistency(codes_BxLxN[..., n], reverse_BxLxN[..., n], size)
        values[f"codebook_{n + 1}_strand_consistency"] = found["consistency"]
        values[f"codebook_{n + 1}_strand_chance"] = found["chance"]
    return values


def substitutions(predict: Predict, codes_BxLxN, bases_BxS, model: TokenizerConfig) -> dict[str, float]:
    """How many codes one substitution in each of the first SUBSTITUTIONS windows changes, and how far away."""
    codes_BxLxN, bases_BxS, rng = codes_BxLxN[:SUBSTITUTIONS], bases_BxS[:SUBSTITUTIONS], np.random.default_rng(0)
    rows = np.arange(len(bases_BxS))
    position_B = rng.integers(0, bases_BxS.shape[1], len(rows))
    mutated_BxS = bases_BxS.copy()
    original_B = bases_BxS[rows, position_B]
    mutated_B = (original_B + rng.integers(1, 4, len(rows))) % 4
    mutated_BxS[rows, position_B] = np.where(original_B == N, N, mutated_B)  # an N has no substitution
    mutated_BxLxN = predict(mutated_BxS, ENCODED)["codes"]
    found = statistics.substitution_effect(codes_BxLxN, mutated_BxLxN, position_B, model.bases_per_code)
    values = {f"codebook_{n + 1}_changed_by_substitution": v for n, v in enumerate(found["changed_per_level"])}
    return values | {f"substitution_{name}": found[name] for name in ("silent_share", "reach_max", "reach_p95")}


def hidden_bases(predict: Predict, bases_BxS: np.ndarray) -> dict[str, float]:
    """How often a base hidden from the encoder, one of HIDDEN_SHARE drawn singly, is rebuilt."""
    hidden_BxS = np.random.default_rng(1).random(bases_BxS.shape) < HIDDEN_SHARE
    rebuilt_BxS = predict(np.where(hidden_BxS, np.uint8(N), bases_BxS))["rebuilt"]  # by the evaluations' program
    scored_BxS = hidden_BxS & (bases_BxS != N)
    return {"hidden_base_accuracy": float((rebuilt_BxS == bases_BxS)[scored_BxS].mean())}


def species_probe(
    predict: Predict, untrained: Predict, embedding_BxD: np.ndarray, train: Windows, held_out: Windows
) -> dict[str, float]:
    """Linear probe: which species is this window of? Mean embedding, beside the untrained network and k-mer counts.

    `embedding_BxD` is that of the held-out windows. Empty where there is only one species to tell.
    """
    if len(np.unique(train.species_B)) < 2:
        return {}
    bases = train.bases_BxS, held_out.bases_BxS
    features: dict[str, list[Features]] = {
        "probe_species": [predict(bases[0], ENCODED)["embedding"], embedding_BxD],
        "probe_species_untrained": [untrained(x_BxS, ENCODED)["embedding"] for x_BxS in bases],
        f"probe_species_{PROBE_KMER}mers": [statistics.kmer_shares(x_BxS, PROBE_KMER) for x_BxS in bases],
    }
    labels = train.species_B, held_out.species_B
    values: dict[str, float] = {}
    for name, of in features.items():
        accuracy, f1 = _accuracy_and_f1(*map(linear.Rows, of, labels))
        values |= {f"{name}_accuracy": accuracy, f"{name}_macro_f1": f1}
    return values | {"probe_species_majority": float(np.mean(labels[1] == np.bincount(labels[0]).argmax()))}


def _accuracy_and_f1(train: linear.Rows, test: linear.Rows) -> tuple[float, float]:
    """Of a logistic regression whose penalty is not tuned."""
    classes = 1 + int(max(train.labels.max(), test.labels.max()))
    model = linear.fit("classification", train, classes, 1.0)
    found = scores.score("classification", test.labels, model.outputs(test.features_BxP), classes)
    return found["accuracy"] or 0.0, found["macro_f1"] or 0.0

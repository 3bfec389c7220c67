"""Evaluates a masked-code model on held-out windows, beside count-based models of DNA, as flat numbers.

`predict` gives `MaskedCodes.scores` of masked windows as numpy arrays; arrays named _P have an entry per scored base.

The honest protocol: single bases, far apart, are hidden before the tokenizer, whatever the training masked. Codes
beside a masked code hold its bases, so any other number measures that leak (docs/pretraining.md). Each hidden base has
all its neighbours, as the context tables have.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from vqdna_jax.evaluation import context_tables, probes
from vqdna_jax.genome.alphabet import N
from vqdna_jax.genome.corpus import Corpus
from vqdna_jax.genome.windows import Windows
from vqdna_jax.inference import likelihood
from vqdna_jax.inference.model import Model
from vqdna_jax.tasks.masked_codes import MaskedCodes
from vqdna_jax.tasks.masking import Masked, Masks, draw_on_host

Predict = Callable[[Masked[Windows]], dict[str, np.ndarray]]
SEED = 0  # of the masks, which are the same at every evaluation


@dataclasses.dataclass(frozen=True)
class HiddenBases:
    """The scored bases: window, position in it, -log2 of the probability of the true base, and whether it was best."""

    rows_P: np.ndarray
    positions_P: np.ndarray
    bits_P: np.ndarray
    hit_P: np.ndarray

    def values(self) -> dict[str, float]:
        return {"masked_base_bits": float(self.bits_P.mean()), "masked_base_accuracy": float(self.hit_P.mean())}


def masked_codes(task: MaskedCodes, predict: Predict, bases_BxS: np.ndarray) -> dict[str, float]:
    """Accuracy and perplexity of every level's masked codes, and bits per masked base, masked as in training."""
    windows, bases = bases_BxS.shape
    per_code = task.tokenizer.bases_per_code
    masks = draw_on_host(task.masking, windows, bases // per_code - task.model.cls, per_code, SEED)
    scores = predict(Masked(Windows(bases_BxS), masks))
    scored_BxM, values = scores["scored_BxM"], {}
    for n in range(task.levels):
        loss_P, hit_P = (scores[f"code_{name}_BxMxN"][scored_BxM, n] for name in ("loss", "hit"))
        values[f"code_{n + 1}_accuracy"] = float(hit_P.mean())
        values[f"code_{n + 1}_perplexity"] = float(np.exp(min(loss_P.mean(), 50.0)))  # stays a number of JSON
    base_loss_P = scores["base_loss_BxMxR"][scores["base_scored_BxMxR"]]
    return values | {"base_bits_as_trained": float(base_loss_P.mean() / np.log(2))}


def hidden_bases(task: MaskedCodes, predict: Predict, bases_BxS: np.ndarray) -> HiddenBases:
    """What the model makes of single hidden bases."""
    (windows, bases), r = bases_BxS.shape, task.tokenizer.bases_per_code
    masks, positions_BxM = sparse_masks(windows, bases, r, cls=task.model.cls)
    scores = predict(Masked(Windows(bases_BxS), masks))
    known_BxM = np.take_along_axis(bases_BxS, positions_BxM, axis=1) != N
    rows_P, slots_P = np.nonzero(known_BxM)
    positions_P = positions_BxM[known_BxM]
    loss_P, hit_P = (scores[f"base_{name}_BxMxR"][rows_P, slots_P, positions_P % r] for name in ("loss", "hit"))
    return HiddenBases(rows_P, positions_P, loss_P / np.log(2), hit_P)


def sparse_masks(windows: int, bases: int, bases_per_code: int, cls: bool) -> tuple[Masks, np.ndarray]:
    """Masks that hide a base every `spacing` bases, and the hidden positions [B, M]; the phase is random."""
    apart, codes = likelihood.spacing(bases_per_code), bases // bases_per_code - cls
    phase_B = np.random.default_rng(SEED).integers(0, apart, windows)
    positions_BxM = phase_B[:, None] + apart * np.arange(max(1, codes * bases_per_code // apart))[None]
    positions_BxM = np.minimum(positions_BxM, codes * bases_per_code - 1)
    hidden_BxS = np.zeros((windows, codes * bases_per_code), bool)
    np.put_along_axis(hidden_BxS, positions_BxM, True, axis=1)
    hidden_BxLxR = hidden_BxS.reshape(windows, codes, bases_per_code)
    never, always = np.zeros(windows, bool), np.ones(positions_BxM.shape, bool)
    of_codes = (positions_BxM // bases_per_code).astype(np.int32)
    return Masks(of_codes, hidden_BxLxR.any(axis=2), never, always, hidden_BxLxR), positions_BxM


def baselines(corpus: Corpus, held_out: Windows, hidden: HiddenBases) -> dict[str, float]:
    """Bits of the same bases by count-based models fitted on the training sequence, and all of them by species."""
    bases_BxS = held_out.bases_BxS
    true_P = bases_BxS[hidden.rows_P, hidden.positions_P]
    bits = {"masked_base": hidden.bits_P}
    values = {}
    for name, table in context_tables.fit_tables(corpus).items():
        log2_Px4 = table.log2_probabilities(bases_BxS, hidden.rows_P, hidden.positions_P)
        bits[name] = -log2_Px4[np.arange(true_P.size), true_P]
        values[f"{name}_bits"], values[f"{name}_accuracy"] = context_tables.bits_and_accuracy(log2_Px4, true_P)
    difference_P = hidden.bits_P - bits["context55"]
    values["masked_base_minus_context55_bits"] = float(difference_P.mean())
    values["masked_base_minus_context55_se"] = float(difference_P.std() / max(difference_P.size, 1) ** 0.5)
    species_P = held_out.species_B[hidden.rows_P]
    for number, species in enumerate(corpus.species):
        if (species_P == number).any():
            values |= {f"{name}_bits_{species}": float(of[species_P == number].mean()) for name, of in bits.items()}
    return values


def probe(model: Model, untrained: Model, directory: str, rows: int) -> dict[str, float]:
    """Linear probes of mean embeddings on labelled sets, beside the same network untrained and sequence controls."""
    return probes.probe(model.embed, untrained.embed, directory, rows)

"""Evaluates masked tokens of a fixed tokenizer on held-out windows, masked as in training."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from vqdna_jax.tasks.masked_tokens import MaskedTokens
from vqdna_jax.tasks.masking import Masks, draw

SEED = 0  # of the masks of evaluations, which are all the same


def evaluate(task: MaskedTokens, predict: Callable, held_out: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Loss (nats), accuracy and perplexity of masked tokens, and bits_per_base, masked as in training.

    Args:
        predict: numpy batch -> `MaskedTokens.scores` as numpy arrays.
        held_out: {"tokens", "lengths"}, of any number of windows.
    """
    windows, length = held_out["tokens"].shape
    even = -(-windows // jax.device_count()) * jax.device_count()
    masks = jax.tree.map(lambda x: x[:windows], _masks(task, even, length))
    scores = predict({"tokens": held_out["tokens"], "lengths": held_out["lengths"], "masks": masks})
    loss_P, hit_P = (scores[name][scores["scored_BxM"]] for name in ("loss_BxM", "hit_BxM"))
    loss = float(loss_P.mean())
    return {
        "loss": loss,
        "token_accuracy": float(hit_P.mean()),
        "token_perplexity": float(np.exp(min(loss, 50.0))),  # stays a number of JSON
        "bits_per_base": loss / np.log(2) / task.layout.bases_per_token,
    }


def _masks(task: MaskedTokens, windows: int, length: int) -> Masks:
    @jax.jit
    def drawn() -> Masks:
        masks = draw(task.masking, windows, length, 1, jax.random.key(SEED))
        return jax.tree.map(lambda x: jax.reshard(x, jax.P()), masks)

    return jax.device_get(drawn())

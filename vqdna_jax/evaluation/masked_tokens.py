"""Evaluates masked tokens of a fixed tokenizer on held-out windows, masked as in training."""

from collections.abc import Callable

import numpy as np

from vqdna_jax.tasks.masked_tokens import MaskedTokens
from vqdna_jax.tasks.masking import Masked, draw_on_host
from vqdna_jax.tokenizers.batches import Tokens

SEED = 0  # of the masks, which are the same at every evaluation


def evaluate(
    task: MaskedTokens, predict: Callable[[Masked[Tokens]], dict[str, np.ndarray]], held_out: Tokens
) -> dict[str, float]:
    """Loss (nats), accuracy and perplexity of masked tokens, and bits_per_base, masked as in training.

    Args:
        predict: `MaskedTokens.scores` of masked windows, any number of them, as numpy arrays.
    """
    windows, length = held_out.tokens_BxL.shape
    scores = predict(Masked(held_out, draw_on_host(task.masking, windows, length, 1, SEED)))
    loss_P, hit_P = (scores[name][scores["scored_BxM"]] for name in ("loss_BxM", "hit_BxM"))
    loss = float(loss_P.mean())
    return {
        "loss": loss,
        "token_accuracy": float(hit_P.mean()),
        "token_perplexity": float(np.exp(min(loss, 50.0))),  # stays a number of JSON
        "bits_per_base": loss / np.log(2) / task.layout.bases_per_token,
    }

"""AdamW as an optax chain: warm-up and cosine, clipping, weight decay by regular expressions over parameter names."""

import re
from collections.abc import Sequence

import jax
import optax

# First match wins and every parameter must match: matrices and kernels decay, vectors do not.
DECAY_RULES: Sequence[tuple[str, bool]] = (
    (r".*norm(/scale|/bias)?", False),
    (r".*bias", False),
    (r"transformer/(mask|cls)", False),
    (r"table", False),  # decay would shrink the vectors of rare tokens, which few gradients reach
    (r"lora/.*", True),
    (r".*(kernel|up|down|project|qkv|out|code_\d+|base)", True),
)


def by_rule(params, rules: Sequence[tuple[str, object]]):
    """A tree like `params` holding each leaf's value by the first rule whose pattern matches its whole name.

    Raises:
        ValueError: a parameter that no rule covers.
    """

    def value(path, _):
        name = "/".join(key.key for key in path)
        for pattern, result in rules:
            if re.fullmatch(pattern, name):
                return result
        raise ValueError(f"no rule covers parameter {name!r}: add one to {[pattern for pattern, _ in rules]}")

    return jax.tree_util.tree_map_with_path(value, params)


def learning_rate_schedule(config, total_steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then `config.decay` (cosine, the default, or linear) to `final_fraction` of the peak."""
    warmup = min(config.warmup_steps, total_steps // 2)
    if config.get("decay") == "linear":
        peak, end = config.learning_rate, config.final_fraction * config.learning_rate
        down = optax.linear_schedule(peak, end, max(total_steps - warmup, 1))
        return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), down], [warmup]) if warmup else down
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup else config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(total_steps, warmup + 1),
        end_value=config.final_fraction * config.learning_rate,
    )


def make_optimizer(config, total_steps: int) -> optax.GradientTransformation:
    """`config` holds learning_rate, warmup_steps, final_fraction, b1, b2, weight_decay and clip_norm."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate_schedule(config, total_steps),
            b1=config.b1,
            b2=config.b2,
            weight_decay=config.weight_decay,
            mask=lambda params: by_rule(params, DECAY_RULES),
        ),
    )

"""AdamW as an optax chain: warm-up and cosine, clipping, weight decay by regular expressions over parameter names."""

import re
from collections.abc import Sequence

import jax
import optax

from vqdna_jax.training.settings import OptimizerSettings

# First match wins and every parameter must match: matrices and kernels decay, vectors do not.
DECAY_RULES: Sequence[tuple[str, bool]] = (
    (r".*(norm|_scale)(/scale|/bias)?", False),
    (r".*bias", False),
    (r"head/(mean|scale|positions_map|attention_query)", False),  # what shrinks would change a probe's features
    (r"transformer/(mask|cls|end|segment)", False),
    (r"transformer/(positions|waves|times|decays|filter_\w+)", False),  # filters as their authors have it
    (r"table", False),  # decay would shrink the vectors of rare tokens, which few gradients reach
    (r"lora/.*", True),
    (r".*(kernel|up|down|project|qkv|out|code_\d+|base|short)", True),
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


def learning_rate_schedule(settings: OptimizerSettings, total_steps: int) -> optax.Schedule:
    """Linear warm-up from 0, then `decay` to `final_fraction` of the peak."""
    peak, end = settings.learning_rate, settings.final_fraction * settings.learning_rate
    warmup = min(settings.warmup_steps, total_steps // 2)
    if settings.decay == "linear":
        down = optax.linear_schedule(peak, end, max(total_steps - warmup, 1))
        return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), down], [warmup]) if warmup else down
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup else peak,
        peak_value=peak,
        warmup_steps=warmup,
        decay_steps=max(total_steps, warmup + 1),
        end_value=end,
    )


def make_optimizer(settings: OptimizerSettings, total_steps: int) -> optax.GradientTransformation:
    slow = [] if settings.head_rate == 1 else [_head_rate(settings.head_rate)]
    return optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        optax.adamw(
            learning_rate_schedule(settings, total_steps),
            b1=settings.b1,
            b2=settings.b2,
            weight_decay=settings.weight_decay,
            mask=lambda params: by_rule(params, DECAY_RULES),
        ),
        *slow,
    )


def _head_rate(rate: float) -> optax.GradientTransformation:
    """The head's updates, times a number."""
    return optax.stateless(
        lambda updates, params: {**updates, "head": jax.tree.map(lambda u: rate * u, updates["head"])}
    )

"""Checks a config before anything is built: every complaint names its key, what was found and what was expected."""

import math

from vqdna_jax.errors import InputError
from vqdna_jax.models.tokenizer import BASES_PER_CODE

# A resumed run may change these; any other key decides what is computed and must stay as it was.
MUTABLE = (
    "data.corpus",
    "train.log_every_steps",
    "train.checkpoint_every_steps",
    "train.keep_checkpoints",
    "eval",
    "mesh",
)


def validate(config) -> None:
    """Raises InputError naming the first key whose value cannot work."""
    for key in (
        "data.window_bp", "data.global_batch", "model.code_size", "model.width", "model.blocks", "model.expansion",
        "model.stem_channels", "train.log_every_steps", "train.checkpoint_every_steps", "train.keep_checkpoints",
        "eval.windows", "eval.every_steps", "eval.batch",
    ):  # fmt: skip
        _expect(config, key, lambda v: v > 0, "a positive integer")
    for key in (
        "seed", "train.total_steps", "train.total_epochs", "optimizer.warmup_steps", "optimizer.weight_decay",
        "codebook.commitment_weight",
    ):  # fmt: skip
        _expect(config, key, lambda v: v >= 0 and math.isfinite(v), "a number, 0 or more")
    for key in ("model.kernel_size", "model.stem_kernel_size"):
        _expect(config, key, lambda v: v % 2 == 1, "an odd size, at least 1")
    for key in ("optimizer.learning_rate", "optimizer.clip_norm", "data.temperature"):
        _expect(config, key, lambda v: v > 0 and math.isfinite(v), "a positive number")
    for key in (
        "data.max_n_share", "hidden_share", "codebook.revive_below", "optimizer.b1", "optimizer.b2",
        "optimizer.final_fraction",
    ):  # fmt: skip
        _expect(config, key, lambda v: 0 <= v < 1, "a share, at least 0 and under 1")
    for key in ("codebook.ema_decay", "codebook.revive_to"):
        _expect(config, key, lambda v: 0 < v < 1, "between 0 and 1, without the ends")
    _expect(config, "model.quantizer", lambda v: v in ("vqvae", "hrq"), '"vqvae" or "hrq"')
    _expect(config, "model.dtype", lambda v: v in ("float32", "bfloat16"), '"float32" or "bfloat16"')
    _expect(config, "model.bases_per_code", lambda v: v in BASES_PER_CODE, f"one of {BASES_PER_CODE}")
    _expect(config, "mesh.context", lambda v: v == 1, "1: stage 1 does not split its sequence")
    _validate_shapes(config)


def _validate_shapes(config) -> None:
    window, bases_per_code = config.data.window_bp, config.model.bases_per_code
    if window % bases_per_code:
        raise InputError(
            f"config key data.window_bp: {window} is not a multiple of model.bases_per_code={bases_per_code}"
        )
    if config.model.quantizer == "hrq" and config.model.blocks < 2:
        raise InputError(
            "config key model.blocks: 1 is too few for hrq, which quantises after two blocks; set 2 or more"
        )
    if config.data.species_weights and config.data.temperature != 1:
        raise InputError("config keys data.temperature and data.species_weights: set one of them, not both")
    if (config.train.total_steps > 0) == (config.train.total_epochs > 0):
        raise InputError(
            "config keys train.total_steps and train.total_epochs: set one of them above 0, the other to 0"
        )


def validate_mesh(config, shards: int) -> None:
    """Checks what depends on the number of devices. Raises InputError."""
    for key in ("data.global_batch", "eval.batch"):
        _expect(
            config, key, lambda v: v % shards == 0, f"a multiple of the {shards} shards of the batch (mesh data x fsdp)"
        )
    for axis in ("fsdp", "tensor"):
        size = config.mesh[axis]
        _expect(config, "model.width", lambda v, size=size: v % size == 0, f"a multiple of mesh.{axis}={size}")


def _expect(config, key: str, holds, expected: str) -> None:
    value = config
    for part in key.split("."):
        value = value[part]
    if not holds(value):
        raise InputError(f"config key {key}: found {value!r}, expected {expected}")


def refuse_changes(old: dict, new: dict, old_corpus: str, new_corpus: str) -> None:
    """Raises InputError listing every key that a resumed run may not change but did; the corpus goes by its digest."""
    old, new = _flat(old) | {"corpus digest": old_corpus}, _flat(new) | {"corpus digest": new_corpus}
    changed = [
        f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(MUTABLE)
    ]
    if changed:
        raise InputError(
            f"the workdir holds a run with another config: {'; '.join(changed)}; change it back or name a new --workdir"
        )


def _flat(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat

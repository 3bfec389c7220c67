"""Checks a config before anything is built: every complaint names its key, what was found and what was expected."""

import math
import re
from typing import get_args

from vqdna_jax.errors import InputError
from vqdna_jax.labels.sets import Kind
from vqdna_jax.models.attention import KERNELS
from vqdna_jax.models.lora import TARGETS, LoraConfig
from vqdna_jax.models.pooling import POOLS
from vqdna_jax.models.tokenizer import BASES_PER_CODE
from vqdna_jax.models.transformer import ACTIVATIONS, LOOPS, REMATS
from vqdna_jax.tasks.finetune import METHODS
from vqdna_jax.tasks.masking import KINDS

# Directories may move, and be others on other hosts; what they hold may not change.
PLACES = ("data.corpus", "data.labelled", "tokenizer", "pretrained")
DIGESTS = ("corpus_digest", "tokenizer_digest", "pretrained_digest", "labelled_digest")
# A resumed run may change these; any other key decides what is computed and must stay as it was.
MUTABLE = (
    *PLACES,
    "compute",
    "train.log_every_steps",
    "train.checkpoint_every_steps",
    "train.keep_checkpoints",
    "train.timeout_s",
    "train.stop_below_utilisation",
    "eval",
    "mesh",
)

_COMPUTE = (("compute.layers", LOOPS), ("compute.remat", REMATS), ("compute.attention", ("auto", *KERNELS)))


def validate(config) -> None:
    """Raises InputError naming the first key whose value cannot work."""
    for key in (
        "data.global_batch", "train.log_every_steps", "train.checkpoint_every_steps", "train.keep_checkpoints",
        "eval.every_steps", "eval.batch",
    ):  # fmt: skip
        _expect(config, key, lambda v: v > 0, "a positive integer")
    for key in (
        "seed", "train.total_steps", "train.total_epochs", "optimizer.warmup_steps", "optimizer.weight_decay",
        "optimizer.skip_above",
    ):  # fmt: skip
        _expect(config, key, lambda v: v >= 0 and math.isfinite(v), "a number, 0 or more")
    for key in ("optimizer.learning_rate", "optimizer.clip_norm", "train.timeout_s"):
        _expect(config, key, lambda v: v > 0 and math.isfinite(v), "a positive number")
    for key in ("optimizer.b1", "optimizer.b2", "optimizer.final_fraction"):
        _expect(config, key, lambda v: 0 <= v < 1, "a share, at least 0 and under 1")
    _expect(config, "mesh.context", lambda v: v == 1, "1: no stage splits its sequence yet")
    if config.task != "finetune":
        _validate_windows(config)
    {"vocabulary": _validate_vocabulary, "mcm": _validate_masked_codes, "finetune": _validate_finetune}[config.task](
        config
    )
    if (config.train.total_steps > 0) == (config.train.total_epochs > 0):
        raise InputError(
            "config keys train.total_steps and train.total_epochs: set one of them above 0, the other to 0"
        )


def _validate_windows(config) -> None:
    for key in ("data.window_bp", "model.width", "eval.windows"):
        _expect(config, key, lambda v: v > 0, "a positive integer")
    _expect(config, "data.temperature", lambda v: v > 0 and math.isfinite(v), "a positive number")
    _expect(config, "data.max_n_share", lambda v: 0 <= v < 1, "a share, at least 0 and under 1")
    _expect(config, "model.dtype", lambda v: v in ("float32", "bfloat16"), '"float32" or "bfloat16"')
    if config.data.species_weights and config.data.temperature != 1:
        raise InputError("config keys data.temperature and data.species_weights: set one of them, not both")


def _validate_finetune(config) -> None:
    _expect(config, "tuning.rank", lambda v: v > 0, "a positive integer")
    _expect(config, "tuning.alpha", lambda v: v > 0 and math.isfinite(v), "a positive number")
    for key in ("data.train_rows", "data.dev_rows", "data.test_rows", "train.patience", "train.retries"):
        _expect(config, key, lambda v: v >= 0, "an integer, 0 or more")
    for key in ("tuning.dropout", "head.dropout"):
        _expect(config, key, lambda v: 0 <= v < 1, "a share, at least 0 and under 1")
    for key, allowed in (
        ("tuning.method", METHODS), ("data.kind", ("auto", *get_args(Kind))), ("data.long", ("refuse", "window")),
        ("data.class_weights", ("none", "balanced")), ("optimizer.decay", ("linear", "cosine")),
        *_COMPUTE,
    ):  # fmt: skip
        _expect(config, key, lambda v, allowed=allowed: v in allowed, f"one of {', '.join(allowed)}")
    _expect(
        config, "head.pool", lambda v: v and all(part in POOLS for part in v.split("+")),
        f'one of {", ".join(POOLS)}, or several joined by "+"',
    )  # fmt: skip
    _expect(config, "tuning.targets", _matches, f"a regular expression that matches one of {', '.join(TARGETS)}")


def _matches(targets: str) -> bool:
    try:
        return bool(LoraConfig(targets=targets).names)
    except re.error:
        return False


def _validate_vocabulary(config) -> None:
    for key in ("model.code_size", "model.blocks", "model.expansion", "model.stem_channels"):
        _expect(config, key, lambda v: v > 0, "a positive integer")
    for key in ("model.kernel_size", "model.stem_kernel_size"):
        _expect(config, key, lambda v: v % 2 == 1, "an odd size, at least 1")
    for key in ("hidden_share", "codebook.revive_below", "train.stop_below_utilisation"):
        _expect(config, key, lambda v: 0 <= v < 1, "a share, at least 0 and under 1")
    for key in ("codebook.ema_decay", "codebook.revive_to"):
        _expect(config, key, lambda v: 0 < v < 1, "between 0 and 1, without the ends")
    _expect(config, "codebook.commitment_weight", lambda v: v >= 0 and math.isfinite(v), "a number, 0 or more")
    _expect(config, "model.quantizer", lambda v: v in ("vqvae", "hrq"), '"vqvae" or "hrq"')
    _expect(config, "model.bases_per_code", lambda v: v in BASES_PER_CODE, f"one of {BASES_PER_CODE}")
    window, bases_per_code = config.data.window_bp, config.model.bases_per_code
    if window % bases_per_code:
        raise InputError(
            f"config key data.window_bp: {window} is not a multiple of model.bases_per_code={bases_per_code}"
        )
    if config.model.quantizer == "hrq" and config.model.blocks < 2:
        raise InputError(
            "config key model.blocks: 1 is too few for hrq, which quantises after two blocks; set 2 or more"
        )


def _validate_masked_codes(config) -> None:
    for key in ("model.layers", "model.heads", "model.hidden", "train.microbatches", "eval.probe_rows"):
        _expect(config, key, lambda v: v > 0, "a positive integer")
    for key in ("base_weight", "model.window"):
        _expect(config, key, lambda v: v >= 0 and math.isfinite(v), "a number, 0 or more")
    _expect(config, "model.rope_base", lambda v: v > 1 and math.isfinite(v), "a number above 1")
    _expect(config, "train.params_ema_decay", lambda v: 0 <= v < 1, "a share, at least 0 and under 1")
    _expect(config, "masking.rate", lambda v: 0 < v < 1, "a share of the codes, between 0 and 1 without the ends")
    _expect(
        config, "masking.kind", lambda v: v and all(kind in KINDS for kind in v.split("+")),
        f'one of {", ".join(KINDS)}, or several joined by "+"',
    )  # fmt: skip
    for key, allowed in (("model.activation", ACTIVATIONS), *_COMPUTE):
        _expect(config, key, lambda v, allowed=allowed: v in allowed, f"one of {', '.join(allowed)}")
    heads = config.model.heads
    _expect(config, "model.width", lambda v: v % (2 * heads) == 0, f"a multiple of 2 x model.heads={heads}")
    parts = config.train.microbatches
    _expect(config, "data.global_batch", lambda v: v % parts == 0, f"a multiple of train.microbatches={parts}")


def validate_mesh(config, shards: int) -> None:
    """Checks what depends on the number of devices. Raises InputError."""
    parts = config.train.get("microbatches", 1)
    _expect(
        config, "data.global_batch", lambda v: v % (shards * parts) == 0,
        f"a multiple of the {shards} shards of the batch (mesh data x fsdp)"
        + (f" x train.microbatches={parts}" if parts > 1 else ""),
    )  # fmt: skip
    _expect(
        config, "eval.batch", lambda v: v % shards == 0,
        f"a multiple of the {shards} shards of the batch (mesh data x fsdp)",
    )  # fmt: skip
    if config.task == "finetune":
        return
    for axis in ("fsdp", "tensor"):
        size = config.mesh[axis]
        _expect(config, "model.width", lambda v, size=size: v % size == 0, f"a multiple of mesh.{axis}={size}")
    tensor = config.mesh.tensor
    for key in ("model.heads", "model.hidden") if config.task == "mcm" else ():
        _expect(config, key, lambda v: v % tensor == 0, f"a multiple of mesh.tensor={tensor}")


def _expect(config, key: str, holds, expected: str) -> None:
    value = config
    for part in key.split("."):
        value = value[part]
    if not holds(value):
        raise InputError(f"config key {key}: found {value!r}, expected {expected}")


def refuse_changes(saved: dict, now: dict) -> None:
    """Raises InputError listing what a resumed run may not change but did; `saved` and `now` are checkpoint metas.

    Corpora, labelled data and models go by their digests.
    """
    old, new = (flat(meta["config"]) | {name: meta.get(name) for name in DIGESTS} for meta in (saved, now))
    changed = [
        f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not _mutable(key)
    ]
    if changed:
        raise InputError(
            f"the workdir holds a run with another config: {'; '.join(changed)}; change it back or name a new --workdir"
        )


def _mutable(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in MUTABLE)


def shared(config: dict) -> dict:
    """What every process of a run must have alike, by key: all but the places of data and models."""
    return {key: value for key, value in flat(config).items() if key not in PLACES}


def flat(tree: dict, prefix: str = "") -> dict:
    """{"data.window_bp": 512, ...}, with lists for tuples, as JSON has them."""
    values = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return values

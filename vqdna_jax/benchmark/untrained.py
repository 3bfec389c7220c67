"""The control row of a model: the same network and tokenizer with a transformer that was never trained."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from vqdna_jax import partition
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.models.layers import Params
from vqdna_jax.models.networks import PublishedConfig
from vqdna_jax.models.transformer import Compute


def save_untrained(model_dir: pathlib.Path, out: pathlib.Path, seed: int = 0) -> pathlib.Path:
    """Writes the untrained twin of a pretrained model to `out`, unless it is there, and returns `out`."""
    if (out / "config.json").exists():
        return out
    model = pretrained.load(model_dir)
    weights = jax.device_get(dict(model.weights)) | {"transformer": fresh(model, seed)}
    if "table" in weights:  # as training begins with it
        scale = model.transformer.table_scale if isinstance(model.transformer, PublishedConfig) else 1.0
        noise = np.random.default_rng(seed).standard_normal(weights["table"].shape, np.float32)
        weights["table"] = np.float32(scale) * noise
    pretrained.save(out, model.tokenizer, model.transformer, weights, model.window_bp, model.length, {})
    return out


def fresh(model: Pretrained, seed: int) -> Params:
    """A transformer as training begins with it, on the host."""
    vectors = model.vectors_KxE()

    @jax.jit
    def init() -> Params:
        inputs = jnp.zeros((1, 1, len(vectors), vectors[0].shape[1]), out_sharding=partition.spec("batch"))
        nothing = jnp.zeros((1, 1), bool, out_sharding=partition.spec("batch"))
        return model.transformer.module(Compute()).init(jax.random.key(seed), inputs, nothing, nothing[:, 0])["params"]

    with jax.set_mesh(model.mesh):
        return jax.device_get(init())

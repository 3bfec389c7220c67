"""The control row of a model: the same network and tokenizer with a transformer that was never trained."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from vqdna_jax import partition
from vqdna_jax.inference import load
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import fixed_pretrained, pretrained
from vqdna_jax.inference.saved.fixed_pretrained import FixedPretrained
from vqdna_jax.models.transformer import Transformer
from vqdna_jax.tokenizers.batches import Layout


def save_untrained(model_dir: pathlib.Path, out: pathlib.Path, seed: int = 0) -> pathlib.Path:
    """Writes the untrained twin of a pretrained model to `out`, unless it is there, and returns `out`."""
    if (out / "config.json").exists():
        return out
    model = load.pretrained(model_dir)
    if isinstance(model, FixedPretrained):
        table = np.random.default_rng(seed).standard_normal(model.table_KxE.shape, np.float32)  # as training begins
        params = {"table": table, "transformer": fresh(model, seed), "heads": jax.device_get(model.weights["heads"])}
        layout = Layout(model.window_bp, model.length, 1.0, False)  # only its lengths are kept
        fixed_pretrained.save(out, model.tokenizer, model.transformer, params, layout, {})
        return out
    weights = {"transformer": fresh(model, seed), "heads": jax.device_get(model.weights["heads"])}
    pretrained.save_pretrained(out, model, model.transformer, weights, model.window_bp, {})
    return out


def fresh(model: Pretrained | FixedPretrained, seed: int) -> dict[str, np.ndarray]:
    """A transformer as training begins with it, on the host."""
    vectors = model.vectors_KxE()

    @jax.jit
    def init():
        inputs = jnp.zeros((1, 1, len(vectors), vectors[0].shape[1]), out_sharding=partition.spec("batch"))
        nothing = jnp.zeros((1, 1), bool, out_sharding=partition.spec("batch"))
        return Transformer(model.transformer).init(jax.random.key(seed), inputs, nothing, nothing[:, 0])["params"]

    with jax.set_mesh(model.mesh):
        return jax.device_get(init())

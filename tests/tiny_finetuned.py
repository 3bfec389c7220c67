"""A fine-tuned model of random weights, small enough for tests, and its export."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from tiny_pretrained import save_tiny_pretrained

from vqdna_jax import partition
from vqdna_jax.inference import load
from vqdna_jax.inference.finetuned import FineTuned
from vqdna_jax.inference.saved import finetuned
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.transformer import Compute
from vqdna_jax.tasks.finetune import BASE, Finetune


def random_params(task: Finetune, base, seed: int):
    """What `task` trains, with noise on every parameter: LoRA's B and the head begin as zeros, which hide them."""

    def init():
        codes = jnp.zeros((1, 1, 1, len(base.vectors_KxE())), jnp.int32)
        return task.init_params(jax.random.key(0), {"codes": codes, BASE: {"transformer": base.weights["transformer"]}})

    shapes, rng = partition.abstract_state(init, base.mesh), np.random.default_rng(seed)
    return jax.tree.map(lambda p: 0.4 * rng.standard_normal(p.shape, np.float32), shapes)


def save_tiny_finetuned(
    directory: pathlib.Path,
    kind: str = "classification",
    classes: int = 3,
    *,
    label_names: tuple[str, ...] = (),
    method: str = "lora",
    pool: str = "mean",
    hidden: int = 8,
    target: tuple[float, float] = (0.0, 1.0),
    long: str = "refuse",
    base: pathlib.Path | None = None,
    seed: int = 0,
    **pretrained,
) -> FineTuned:
    """The model in memory, saved in `directory`.

    Args:
        label_names: "label-0", "label-1", ... by default.
        base: a pretrained model's directory; without it one is made beside `directory`, its name with "-base", of
            `pretrained` (arguments of `save_tiny_pretrained`).
    """
    if base is None:
        base = directory.with_name(f"{directory.name}-base")
        save_tiny_pretrained(base, **pretrained)
    names, loaded = label_names or tuple(f"label-{i}" for i in range(classes)), load.pretrained(base)
    task = Finetune(loaded.transformer, Compute(), kind, len(names), method, LoraConfig(rank=2), pool, hidden)
    params = random_params(task, loaded, seed)
    model = finetuned.assemble(loaded, task, params, names, target, long)
    finetuned.save(directory, model, task, params, str(base), {})
    return model

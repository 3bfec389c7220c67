"""A fine-tuned model of random weights, small enough for tests, and its export."""

import pathlib

import jax
import numpy as np
from tiny_pretrained import save_tiny_pretrained

from vqdna_jax import partition
from vqdna_jax.inference.model import Model
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import finetuned, pretrained
from vqdna_jax.labels.batches import Shape, fill
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.tasks.finetune import Finetune, FrozenBase


def random_params(task: Finetune, base: Pretrained, seed: int):
    """What `task` trains, with noise on every parameter: LoRA's B and the head begin as zeros, which hide them."""

    def init():
        vectors_KxE = base.vectors_KxE()
        batch = fill([np.zeros((1, len(vectors_KxE)), np.int32)], Shape(1, 1), 1)
        return task.init_params(FrozenBase(vectors_KxE, base.weights["transformer"]), batch, jax.random.key(0))

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
    places: int = 0,
    form: int = 2,
    strands: str = "one",
    base: pathlib.Path | None = None,
    seed: int = 0,
    **of_base,
) -> Model:
    """The model in memory, saved in `directory`.

    Args:
        label_names: "label-0", "label-1", ... by default.
        base: a pretrained model's directory; without it one is made beside `directory`, its name with "-base", of
            `of_base` (arguments of `save_tiny_pretrained`).
    """
    if base is None:
        base = directory.with_name(f"{directory.name}-base")
        save_tiny_pretrained(base, **of_base)
    names, loaded = label_names or tuple(f"label-{i}" for i in range(classes)), pretrained.load(base)
    recipe = finetuned.Recipe(kind, method, LoraConfig(rank=2), pool, hidden, places, form=form, strands=strands)
    params = random_params(Finetune(recipe.network(loaded, len(names)), kind, method, recipe.lora), loaded, seed)
    model = finetuned.assemble(loaded, recipe, params, names, target, long)
    finetuned.save(directory, model, recipe, params, str(base), {})
    return Model(str(directory), loaded.tokenizer, loaded, model)

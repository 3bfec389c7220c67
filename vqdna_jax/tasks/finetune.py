"""Stage 3: a pretrained transformer learns labelled sequences by LoRA, in full, or by a head alone (paper, stage c).

It starts from a linear probe of the frozen features (Kumar et al., ICLR 2022): under a head that knows nothing, the
first gradients spoil features before the head has found what they say.
"""

import dataclasses
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from vqdna_jax.labels.batches import LabelledCodes, LabelledFeatures
from vqdna_jax.labels.sets import Kind
from vqdna_jax.models import lora
from vqdna_jax.models.classifier import Classifier, Method, init
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.partition import AnyArray, replicated, spec
from vqdna_jax.tasks.base import Codebooks, Metrics, Params, cross_entropy

Labelled = LabelledCodes | LabelledFeatures


class FrozenBase(flax.struct.PyTreeNode):
    """What a step reads of the pretrained model: the code vectors of each level as its transformer reads them, the
    transformer, of a classification the weights of the classes (none where nothing is trained), and what the head
    starts from, its parameters by name."""

    vectors_KxE: tuple[Array, ...]
    transformer: Params
    class_weights_V: AnyArray = None
    start: Params | None = None


@dataclasses.dataclass(frozen=True)
class Finetune:
    """Predict the labels of sequences from their codes.

    Loss per row: cross-entropy (classification), the mean over classes of binary cross-entropies (multi-label), or the
    squared error of a standardised value (regression).

    Attributes:
        method: "lora" trains factors and head, "full" the whole transformer and head, "head" the head.
        network: the transformer, its readout and the head.
        params_ema_decay: of the averaged parameters that are evaluated and exported; 0: none.
    """

    network: Classifier
    kind: Kind
    method: Method = "lora"
    lora: LoraConfig = LoraConfig()
    params_ema_decay: float = 0.0

    microbatches: ClassVar[int] = 1
    keeps_best: ClassVar[bool] = True

    def init_params(self, frozen: FrozenBase, batch: Labelled, key: Array) -> Params:
        params = init(self.network, self.method, self.lora, frozen.transformer, len(jax.tree.leaves(batch)[0]), key)
        return {**params, "head": {**params["head"], **(frozen.start or {})}}

    def init_codebooks(self, params: Params, batch: Labelled, key: Array) -> Codebooks:
        return ()  # the tokenizer's are frozen

    def prepare(self, batch: Labelled, key: Array) -> Labelled:
        return batch

    def loss(
        self, params: Params, codebooks: Codebooks, frozen: FrozenBase, batch: Labelled, key: Array
    ) -> tuple[Array, tuple[Codebooks, Metrics]]:
        """(loss, (codebooks, metrics)) on a batch with labels and weights."""
        logits_BxV = self.logits(params, frozen, batch, key)
        loss_B, weights_B = row_loss(self.kind, logits_BxV, batch.labels), batch.weights_B
        if self.kind == "classification":
            assert frozen.class_weights_V is not None  # there are some in training
            weights_B = weights_B * frozen.class_weights_V.at[batch.labels].get(out_sharding=spec("batch"))
        loss = jnp.sum(loss_B * weights_B) / jnp.maximum(jnp.sum(weights_B), 1e-9)
        metrics: Metrics = {"loss": loss}
        if self.kind == "classification":
            hit_B = (jnp.argmax(logits_BxV, axis=-1) == batch.labels) * batch.weights_B
            metrics["accuracy"] = jnp.sum(hit_B) / jnp.maximum(jnp.sum(batch.weights_B), 1e-9)
        return loss, (codebooks, metrics)

    def logits(self, params: Params, frozen: FrozenBase, batch: Labelled, key: Array | None = None) -> Array:
        """f32 [B, V], the mean over the strands that the batch has; dropout where there is a `key`."""
        lora_key, head_key = (None, None) if key is None else jax.random.split(key)
        logits_BxV = self.network.logits(params["head"], self.features(params, frozen, batch, lora_key), head_key)
        return logits_BxV if batch.other is None else (logits_BxV + self.logits(params, frozen, batch.other, key)) / 2

    def features(self, params: Params, frozen: FrozenBase, batch: Labelled, key: Array | None = None) -> Array:
        """Read off the codes of each sequence, f32 [B, P]."""
        if isinstance(batch, LabelledFeatures):
            return batch.features_BxP
        transformer, of = params.get("transformer", frozen.transformer), (batch.codes_BxWxLxN, batch.lengths_BxW)
        adapter = lora.adapter(self.lora, params["lora"], key) if "lora" in params else None
        return self.network.features(transformer, params["head"], frozen.vectors_KxE, *of, batch.total_B, adapter)

    def predict(self, params: Params, codebooks: Codebooks, frozen: FrozenBase, batch: Labelled) -> dict[str, Array]:
        """Logits [B, V] and loss [B] of each row, whole on every device."""
        logits_BxV = self.logits(params, frozen, batch)
        return replicated({"logits": logits_BxV, "loss": row_loss(self.kind, logits_BxV, batch.labels)})

    def flops_per_code(self, slots: int) -> float:
        """Of one training step: forward, backward to the lowest trained layer, and its weights' gradients if they are
        trained; a head alone reads features that are there."""
        passes = {"lora": 2, "full": 3, "head": 0}[self.method]
        return passes * self.network.model.flops_per_code(slots)


def row_loss(kind: Kind, logits_BxV: Array, labels: AnyArray) -> Array:
    """f32 [B] of labels as `Encoded` has them, without class weights."""
    if kind == "classification":
        return cross_entropy(logits_BxV, labels)[0]
    if kind == "multilabel":
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits_BxV, labels.astype(jnp.float32)), axis=-1)
    return jnp.square(logits_BxV[:, 0] - labels)

"""Stage 3: a pretrained transformer learns labelled sequences by LoRA, in full, or by a head alone (paper, stage c)."""

import dataclasses
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array

from vqdna_jax.labels.batches import LabelledCodes
from vqdna_jax.labels.sets import Kind
from vqdna_jax.models import lora
from vqdna_jax.models.classifier import Classifier, Method, init
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.transformer import Compute, TransformerConfig
from vqdna_jax.partition import AnyArray, replicated, spec
from vqdna_jax.tasks.base import Codebooks, Metrics, Params


class FrozenBase(flax.struct.PyTreeNode):
    """What a step reads of the pretrained model: the code vectors of each level as its transformer reads them, the
    transformer, and of a classification the weights of the classes (none where nothing is trained)."""

    vectors_KxE: tuple[Array, ...]
    transformer: Params
    class_weights_V: AnyArray = None


@dataclasses.dataclass(frozen=True)
class Finetune:
    """Predict the labels of sequences from their codes.

    Loss per row: cross-entropy (classification), the mean over classes of binary cross-entropies (multi-label), or the
    squared error of a standardised value (regression).

    Attributes:
        method: "lora" trains factors and head, "full" the whole transformer and head, "head" the head.
        pool: of the codes of a window; several joined by "+" are concatenated. Windows are averaged.
        hidden: of the MLP head; 0 with method "head" is a linear probe.
    """

    model: TransformerConfig
    compute: Compute
    kind: Kind
    outputs: int
    method: Method = "lora"
    lora: LoraConfig = LoraConfig()
    pool: str = "mean"
    hidden: int = 0
    dropout: float = 0.0

    microbatches: ClassVar[int] = 1
    params_ema_decay: ClassVar[float] = 0.0
    keeps_best: ClassVar[bool] = True

    def init_params(self, frozen: FrozenBase, batch: LabelledCodes, key: Array) -> Params:
        return init(self.network, self.method, self.lora, frozen.transformer, len(batch.codes_BxWxLxN), key)

    def init_codebooks(self, params: Params, batch: LabelledCodes, key: Array) -> Codebooks:
        return ()  # the tokenizer's are frozen

    def prepare(self, batch: LabelledCodes, key: Array) -> LabelledCodes:
        return batch

    def loss(
        self, params: Params, codebooks: Codebooks, frozen: FrozenBase, batch: LabelledCodes, key: Array
    ) -> tuple[Array, tuple[Codebooks, Metrics]]:
        """(loss, (codebooks, metrics)) on a batch with labels and weights."""
        logits_BxV = self.logits(params, frozen, batch, key)
        loss_B, weights_B = self.row_loss(logits_BxV, batch), batch.weights_B
        if self.kind == "classification":
            assert frozen.class_weights_V is not None  # there are some in training
            weights_B = weights_B * frozen.class_weights_V.at[batch.labels].get(out_sharding=spec("batch"))
        loss = jnp.sum(loss_B * weights_B) / jnp.maximum(jnp.sum(weights_B), 1e-9)
        metrics: Metrics = {"loss": loss}
        if self.kind == "classification":
            hit_B = (jnp.argmax(logits_BxV, axis=-1) == batch.labels) * batch.weights_B
            metrics["accuracy"] = jnp.sum(hit_B) / jnp.maximum(jnp.sum(batch.weights_B), 1e-9)
        return loss, (codebooks, metrics)

    def row_loss(self, logits_BxV: Array, batch: LabelledCodes) -> Array:
        """f32 [B], without class weights."""
        labels = batch.labels
        if self.kind == "classification":
            return optax.softmax_cross_entropy_with_integer_labels(logits_BxV, labels)
        if self.kind == "multilabel":
            return jnp.mean(optax.sigmoid_binary_cross_entropy(logits_BxV, labels.astype(jnp.float32)), axis=-1)
        return jnp.square(logits_BxV[:, 0] - labels)

    def logits(self, params: Params, frozen: FrozenBase, batch: LabelledCodes, key: Array | None = None) -> Array:
        """f32 [B, V]; dropout where there is a `key`."""
        lora_key, head_key = (None, None) if key is None else jax.random.split(key)
        return self.network.logits(params["head"], self.features(params, frozen, batch, lora_key), head_key)

    def features(self, params: Params, frozen: FrozenBase, batch: LabelledCodes, key: Array | None = None) -> Array:
        """Pooled over the codes and the windows of each sequence, f32 [B, P]."""
        transformer = params.get("transformer", frozen.transformer)
        adapter = lora.adapter(self.lora, params["lora"], key) if "lora" in params else None
        return self.network.features(transformer, frozen.vectors_KxE, batch.codes_BxWxLxN, batch.lengths_BxW, adapter)

    @property
    def network(self) -> Classifier:
        return Classifier(self.model, self.compute, self.outputs, self.pool, self.hidden, self.dropout)

    def predict(
        self, params: Params, codebooks: Codebooks, frozen: FrozenBase, batch: LabelledCodes
    ) -> dict[str, Array]:
        """Logits [B, V] and loss [B] of each row, whole on every device."""
        logits_BxV = self.logits(params, frozen, batch)
        return replicated({"logits": logits_BxV, "loss": self.row_loss(logits_BxV, batch)})

    def flops_per_code(self, slots: int) -> float:
        """Of one training step: forward, backward to the lowest trained layer, and its weights' gradients if they are
        trained."""
        passes = {"lora": 2, "full": 3, "head": 1}[self.method]
        return passes * self.model.flops_per_code(slots)

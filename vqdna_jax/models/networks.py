"""The networks that read the vectors of codes, by their names on disk. Who embeds or fine-tunes with one knows it by
`NetworkConfig` alone: a new one is a file here, and a line of PUBLISHED, or of TRAINED if stage 2 trains it."""

from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import flax.linen as nn

from vqdna_jax.models.bert import BertConfig
from vqdna_jax.models.heads import LanguageHead
from vqdna_jax.models.hyena import HyenaConfig
from vqdna_jax.models.hyena_encoder import HyenaEncoderConfig
from vqdna_jax.models.transformer import Compute, TransformerConfig


class NetworkConfig(Protocol):
    """What fixes a network, a frozen dataclass. Its module is called as `Transformer` is, and its stacked weights have
    that one's names and shapes as far as LoRA adapts them."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __hash__(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def window(self) -> int:
        """Codes that a code sees on both sides; 0: all."""

    @property
    def cls(self) -> bool:
        """Has it a slot in front of every sequence?"""

    @property
    def dtype(self) -> str: ...

    def flops_per_code(self, length: int) -> float:
        """Multiply-adds x 2 of one forward pass through the layers, per code of a sequence of `length` codes."""

    def module(self, compute: Compute) -> nn.Module: ...


@runtime_checkable
class PublishedConfig(NetworkConfig, Protocol):
    """One whose weights are published, over the tokens of a vocabulary."""

    @property
    def table_scale(self) -> float:
        """Of the table of tokens, before training."""

    @property
    def predicts_next(self) -> bool:
        """Does the head name the token behind a vector's, and not its own, which was hidden?"""

    def language_head(self) -> LanguageHead | None:
        """What names tokens; None where the weights came without it."""


TrainedConfig: TypeAlias = TransformerConfig | HyenaEncoderConfig
PUBLISHED: dict[str, type[PublishedConfig]] = {"bert": BertConfig, "hyena": HyenaConfig}
TRAINED: dict[str, type[TrainedConfig]] = {"transformer": TransformerConfig, "hyena": HyenaEncoderConfig}


def name_of(config: NetworkConfig) -> str:
    return next(name for name, kind in (*PUBLISHED.items(), *TRAINED.items()) if type(config) is kind)

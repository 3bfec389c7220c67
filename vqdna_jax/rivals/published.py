"""What a rival's directory holds, in this project's terms."""

from collections.abc import Mapping
from typing import NamedTuple

from vqdna_jax.models.layers import Params
from vqdna_jax.models.networks import PublishedConfig
from vqdna_jax.tokenizers.vocabulary import VocabularyTokenizer


class Published(NamedTuple):
    """A model that others trained.

    Attributes:
        title, licence: for its card.
        weights: {"transformer", "heads", "table"}, on the host, in f32.
        length: tokens that it knows at once, special ones left out. window_bp: the bases of so many, about.
        source: sha256 of the files that were read.
    """

    title: str
    licence: str
    tokenizer: VocabularyTokenizer
    network: PublishedConfig
    weights: Params
    window_bp: int
    length: int
    source: Mapping[str, str]

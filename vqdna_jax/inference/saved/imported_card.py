"""The model card of a model that was imported; `cards` has those of models that were trained here."""

from collections.abc import Mapping
from typing import Any

from vqdna_jax.inference.saved.cards import table
from vqdna_jax.models.networks import NetworkConfig

IMPORTED = """\
---
library_name: vqdna_jax
tags: [dna, genomics, jax]
---
# {title}, imported

{layers} layers of width {width}, {heads} heads, over {tokens}; windows of {length:,} tokens. Trained and published by
others; vqdna_jax computes with their weights. Digest: `{digest}`.

## Use
```python
import vqdna_jax
model = vqdna_jax.load("DIRECTORY_OF_THIS_FILE")
vector = model.embed("ACGTTGCA")  # float32 [D]; pool="none" gives one vector per token, none of special ones
```
To fine-tune it: `python -m vqdna_jax.main --config=configs/finetune.py --config.pretrained=DIRECTORY_OF_THIS_FILE`.

## Made from
{files}

## Licence
{licence} The terms of the weights are those of who published them.
"""


def text(tokens: str, network: NetworkConfig, length: int, digest: str, card: Mapping[str, Any]) -> str:
    """The text of an imported model's card; `card`: title, licence and source {file: sha256}, every key optional."""
    return IMPORTED.format(
        **{key: getattr(network, key) for key in ("layers", "width", "heads")},
        title=card.get("title") or "A published DNA language model",
        tokens=tokens,
        length=length,
        digest=digest,
        files=table(("file", "sha256"), (card.get("source") or {}).items()),
        licence=card.get("licence") or "Not recorded.",
    )

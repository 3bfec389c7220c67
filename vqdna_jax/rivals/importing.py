"""`vqdna import`: a model that others published, from the files as they are downloaded, as one of this package.

How a rival fits in. A pretrained model is a tokenizer, a network and weights, whatever the network: `Pretrained`,
fine-tuning, LoRA and the benchmark know it by `models.networks.NetworkConfig`, and a new family of networks is a file
in models/ and a line of its table PUBLISHED. Tokenizers whose ids a vocabulary fixes are kinds of
tokenizers/vocabulary.py. Both are named by what they are; whose weights they read is known in this package alone, which
only translates: a config, names of tensors, a vocabulary become an export ("vqdna-imported/1"), and nothing below needs
this package to read that. Special tokens in front and behind belong to the network, as the transformer's own CLS does,
so a sequence's codes are its own tokens by the vocabulary's ids, and no loop has a case for them.
"""

import os
import pathlib
from collections.abc import Callable
from typing import Any

from vqdna_jax.errors import InputError
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.inference.saved.formats import parameters
from vqdna_jax.rivals import berts, hyenadna
from vqdna_jax.rivals.directory import CONFIG
from vqdna_jax.rivals.published import Published
from vqdna_jax.runtime import exports
from vqdna_jax.runtime.files import behind_links, check_directory

RIVALS: dict[str, Callable[[pathlib.Path], Published]] = {
    "dnabert": berts.dnabert,
    "dnabert2": berts.dnabert2,
    "nt": berts.nt,
    "hyenadna": hyenadna.hyenadna,
}


def import_model(rival: str, directory: str | os.PathLike, out: str | os.PathLike) -> dict[str, Any]:
    """Writes the export of a published model to `out`, whole or not at all.

    Args:
        rival: one of RIVALS; what sizes it has is in the directory's config.json.
        directory: with config.json, model.safetensors (or several) and the vocabulary.

    Returns: title, licence, parameters, vocabulary, length, digest, out.

    Raises:
        InputError: no such rival, a file is missing, damaged, a pickle, or does not fit the others, `out` is something
            else than an imported model. StorageError: `out` cannot be written.
    """
    if rival not in RIVALS:
        raise InputError(f"{rival}: is no model that can be imported; expected one of {', '.join(RIVALS)}")
    path = pathlib.Path(directory)
    if behind_links(out) == behind_links(path):
        raise InputError(f"{out}: is the directory that is imported; name another one")
    check_directory(out)
    found = RIVALS[rival](path)
    if not 0 < found.length <= found.window_bp <= exports.LARGEST:
        sizes = f"has positions for {found.length:,} tokens, about {found.window_bp:,} bases"
        raise InputError(f"{path / CONFIG}: {sizes}; expected 1 or more, and no more than fit; download it again")
    card = {key: getattr(found, key) for key in ("title", "licence", "source")}
    lengths = found.window_bp, found.length
    digest = pretrained.save(out, found.tokenizer, found.network, found.weights, *lengths, card)
    told = {key: getattr(found, key) for key in ("title", "licence", "length")}
    return told | {
        "parameters": parameters(exports.flat(found.weights)),
        "vocabulary": found.tokenizer.vocabulary,
        "digest": digest,
        "out": os.fspath(out),
    }

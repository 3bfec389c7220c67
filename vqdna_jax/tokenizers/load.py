"""All tokenizers by their names on disk, and saved ones read again."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from vqdna_jax.errors import InputError
from vqdna_jax.runtime import exports
from vqdna_jax.runtime.exports import CONFIG, FIXED_TOKENIZER, TOKENIZER
from vqdna_jax.tokenizers.base import Tokenizer
from vqdna_jax.tokenizers.byte_pairs import BytePairs
from vqdna_jax.tokenizers.fixed import FixedTokenizer
from vqdna_jax.tokenizers.kmers import Kmers, OneHot, OverlappingKmers
from vqdna_jax.tokenizers.learned import LearnedTokenizer

# By the schema of config.json, of those of FIXED_TOKENIZER by its key `kind`.
TOKENIZERS: dict[str, type[LearnedTokenizer] | type[FixedTokenizer]] = {
    TOKENIZER: LearnedTokenizer,
    "one_hot": OneHot,
    "overlapping": OverlappingKmers,
    "kmer": Kmers,
    "bpe": BytePairs,
}


def load(directory: str | os.PathLike, mesh: Mesh | None = None) -> Tokenizer:
    """Reads what `save` wrote: a tokenizer's own directory, for those in exports of models see inference.load.

    Args:
        mesh: the devices to put a learned one on, whole on each; the first local one by default.

    Raises InputError: a file is missing, damaged or changed, the schema is another one.
    """
    path = pathlib.Path(directory)
    config = exports.read_config(path / CONFIG, [TOKENIZER, FIXED_TOKENIZER])
    if config["schema"] == TOKENIZER:
        return LearnedTokenizer.load(path, config, mesh)
    where = str(path / CONFIG)
    described = {key: config[key] for key in ("kind", "k")}
    kind, _, _ = _checked(described | {"merges": ()}, where)
    tokenizer = from_described(described | {"merges": kind.read_files(path)}, where)
    exports.check_digest(path, tokenizer.digest, config["digest"])
    return tokenizer


def from_described(described: object, where: str) -> FixedTokenizer:
    """The inverse of `FixedTokenizer.described`. Raises InputError that begins with `where`."""
    kind, k, merges = _checked(described, where)
    try:
        return kind.read(k, merges)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _checked(described: object, where: str) -> tuple[type[FixedTokenizer], int, Sequence[Any]]:
    """The class, k and merges of what is `described`, of the right types."""
    if not isinstance(described, dict) or set(described) != {"kind", "k", "merges"}:
        raise InputError(f"{where}: expected kind, k and merges; copy the directory again")
    kind, k, merges = (described[key] for key in ("kind", "k", "merges"))
    if not isinstance(kind, str) or type(k) is not int or not isinstance(merges, list | tuple):
        raise InputError(f"{where}: kind {kind!r} and k {k!r}, expected text and an integer, and merges a list")
    found = TOKENIZERS.get(kind)
    if found is None or not issubclass(found, FixedTokenizer):
        fixed = [name for name, of in TOKENIZERS.items() if issubclass(of, FixedTokenizer)]
        raise InputError(f"{where}: tokenizer kind: {kind!r}; expected one of {', '.join(fixed)}")
    return found, k, merges

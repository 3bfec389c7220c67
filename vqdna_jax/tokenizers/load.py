"""All tokenizers by their names on disk, and saved ones read again."""

import os
import pathlib

from jax.sharding import Mesh

from vqdna_jax.errors import InputError
from vqdna_jax.runtime import exports
from vqdna_jax.runtime.exports import CONFIG, FIXED_TOKENIZER, TOKENIZER
from vqdna_jax.tokenizers.base import Tokenizer
from vqdna_jax.tokenizers.byte_pairs import BytePairs
from vqdna_jax.tokenizers.fixed import FixedTokenizer
from vqdna_jax.tokenizers.kmers import Kmers, OneHot, OverlappingKmers
from vqdna_jax.tokenizers.learned import LearnedTokenizer
from vqdna_jax.tokenizers.vocabulary import VocabularyBytePairs, VocabularyKmers, VocabularyOverlapping

# By the schema of config.json, of those of FIXED_TOKENIZER by its key `kind`.
TOKENIZERS: dict[str, type[LearnedTokenizer] | type[FixedTokenizer]] = {
    TOKENIZER: LearnedTokenizer,
    "one_hot": OneHot,
    "overlapping": OverlappingKmers,
    "kmer": Kmers,
    "bpe": BytePairs,
    "vocabulary_overlapping": VocabularyOverlapping,
    "vocabulary_kmer": VocabularyKmers,
    "vocabulary_bpe": VocabularyBytePairs,
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
    kind = _kind(config["kind"], where)
    described = {"kind": config["kind"], "k": config["k"], kind.listed: kind.read_files(path)}
    tokenizer = from_described(described, where)
    exports.check_digest(path, tokenizer.digest, config["digest"])
    return tokenizer


def from_described(described: object, where: str) -> FixedTokenizer:
    """The inverse of `FixedTokenizer.described`. Raises InputError that begins with `where`."""
    kind = _kind(described.get("kind") if isinstance(described, dict) else None, where)
    if not isinstance(described, dict) or set(described) != {"kind", "k", kind.listed}:
        raise InputError(f"{where}: expected kind, k and {kind.listed}; copy the directory again")
    k, listed = described["k"], described[kind.listed]
    if type(k) is not int or not isinstance(listed, list | tuple | dict):
        found = f"kind {kind.kind!r} and k {k!r}"
        raise InputError(f"{where}: {found}, expected text and an integer, and {kind.listed} a list")
    try:
        return kind.read(k, listed)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _kind(name: object, where: str) -> type[FixedTokenizer]:
    found = TOKENIZERS.get(name) if isinstance(name, str) else None
    if found is None or not issubclass(found, FixedTokenizer):
        fixed = [name for name, of in TOKENIZERS.items() if issubclass(of, FixedTokenizer)]
        raise InputError(f"{where}: tokenizer kind: {name!r}; expected one of {', '.join(fixed)}")
    return found

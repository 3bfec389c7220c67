"""A directory as its user downloaded it: config.json, safetensors, and the files of a vocabulary. No pickle is read.

Every complaint is one line; nothing here knows what the tensors are for.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import safetensors

from vqdna_jax.errors import InputError
from vqdna_jax.runtime.files import read_json
from vqdna_jax.runtime.remote import places
from vqdna_jax.runtime.typed import BadField, Fields, read
from vqdna_jax.tokenizers.vocabulary import VocabularyTokenizer

Vocabulary = TypeVar("Vocabulary", bound=VocabularyTokenizer)
CONFIG = "config.json"
_PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.joblib")
_OLD = {"gamma": "weight", "beta": "bias"}  # of norms, in files of 2019


def settings(path: pathlib.Path, kind: type[Fields]) -> Fields:
    """The fields of `kind` from config.json, which may hold more. Raises InputError: one is missing, or cannot be."""
    config = read_json(path / CONFIG, "the config of a published model; download it too")
    names = {field.name for field in dataclasses.fields(kind)}
    try:
        return read(kind, {name: value for name, value in config.items() if name in names})
    except BadField as error:
        raise InputError(f"{path / CONFIG}: {error}; is this the directory of the model you named?") from error


def lines(path: pathlib.Path) -> list[str]:
    """Of a text file, a vocabulary. Raises InputError."""
    try:
        if path.exists() and not path.is_file():  # what is a device may have no end
            raise InputError(f"{path}: is no file; download the vocabulary too")
        return path.read_text("utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); download the vocabulary too") from error
    except ValueError as error:
        raise InputError(f"{path}: is no text ({error}); download the vocabulary again") from error


def of_vocabulary(path: pathlib.Path, read: Callable[[], Vocabulary], size: int) -> Vocabulary:
    """Raises InputError that names the file: it is none, or has other words than the weights have rows."""
    try:
        tokenizer = read()
    except InputError as error:
        raise InputError(f"{path}: {error}; download it again") from error
    if tokenizer.vocabulary != size:
        told = f"has {tokenizer.vocabulary:,} words, and the config's vocab_size is {size:,}"
        raise InputError(f"{path}: {told}; take both from the same directory")
    return tokenizer


class Tensors:
    """The tensors of all *.safetensors, each read as float32 when it is taken."""

    def __init__(self, path: pathlib.Path, trunk: str, heads: tuple[str, ...]):
        """`trunk`: the first part of the names of the network's tensors, which some files leave out; `heads`: those of
        other tensors."""
        self.path, self._taken = path, set[str]()
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise InputError(_without_tensors(path))
        self._files = {file: _opened(file) for file in files}
        stored = [(name, file) for file, opened in self._files.items() for name in opened.keys()]  # noqa: SIM118
        bare = not any(name.startswith(f"{trunk}.") for name, _ in stored)
        self._places: dict[str, tuple[str, pathlib.Path]] = {}
        for name, file in stored:
            ours = _named(name, "" if name.startswith(heads) or not bare else f"{trunk}.")
            if (other := self._places.setdefault(ours, (name, file))) != (name, file):
                told = f"tensor {name} is in {other[1].name} too, as {other[0]}"
                raise InputError(f"{file}: {told}; leave one of the files in the directory")

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises InputError: it is missing."""
        stored, file = self._place(name)
        return tuple(self._files[file].get_slice(stored).get_shape())

    def take(self, name: str, *shape: int) -> np.ndarray:
        """f32 of this shape. Raises InputError: it is missing, or has another."""
        stored, file = self._place(name)
        found = self.shape(name)
        if found != shape:
            told = f"tensor {stored} is {list(found)}, config.json asks for {list(shape)}"
            raise InputError(f"{file}: {told}; download the directory again")
        self._taken.add(name)
        try:
            with np.errstate(over="ignore"):  # said below
                tensor = self._files[file].get_tensor(stored).astype(np.float32)
        except (safetensors.SafetensorError, TypeError, ValueError) as error:
            raise InputError(f"{file}: tensor {stored} cannot be read ({error}); store it as float32") from error
        if not np.isfinite(tensor).all():
            raise InputError(f"{file}: tensor {stored} has values that are no finite float32; download it again")
        return tensor

    def linear(self, name: str, ours: str, inward: int, outward: int, bias: bool = True) -> dict[str, np.ndarray]:
        """A matrix [in, out], of torch's [out, in], and its bias."""
        weights = {ours: np.ascontiguousarray(self.take(f"{name}.weight", outward, inward).T)}
        return weights | ({f"{ours}_bias": self.take(f"{name}.bias", outward)} if bias else {})

    def norm(self, name: str, ours: str, width: int) -> dict[str, np.ndarray]:
        return {f"{ours}_scale": self.take(f"{name}.weight", width), f"{ours}_bias": self.take(f"{name}.bias", width)}

    def refuse_rest(self, unused: str) -> None:
        """Raises InputError: there are tensors that were not taken and that the regular expression does not match."""
        rest = sorted(n for n in self._places.keys() - self._taken if not re.search(unused, n))
        if rest:
            stored, file = self._places[rest[0]]
            told = f"tensor {stored} is one of {len(rest)} that the network of config.json does not have"
            raise InputError(f"{file}: {told}; is this the model you named?")

    def digests(self, *beside: str) -> Mapping[str, str]:
        """sha256 of what was read: tensors, config.json and the files `beside` it."""
        files = [*self._files, *(self.path / name for name in (CONFIG, *beside))]
        return {file.name: places.sha256_of(file) for file in files if file.exists()}

    def _place(self, name: str) -> tuple[str, pathlib.Path]:
        if name not in self._places:
            raise InputError(
                f"{self.path}: tensor {name} is missing; is this the whole directory of the model you named?"
            )
        return self._places[name]


def _opened(file: pathlib.Path) -> safetensors.safe_open:
    try:
        if not file.is_file():  # of a pipe one would wait for
            raise InputError(f"{file}: is no file; download it again, or remove it")
        return safetensors.safe_open(file, "numpy")
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{file}: is damaged ({error}); download it again") from error


def _named(name: str, prefix: str) -> str:
    head, _, last = name.rpartition(".")
    return f"{prefix}{head}.{_OLD.get(last, last)}" if head else f"{prefix}{name}"


def _without_tensors(path: pathlib.Path) -> str:
    if not path.is_dir():
        return f"{path}: is no directory; expected one with config.json and model.safetensors"
    pickled = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
    if not pickled:
        return f"{path}: has no .safetensors file; download model.safetensors, or that of the hub's refs/pr"
    return (
        f"{path / pickled[0]}: is a pickle, which may run code and is not read; convert it where torch is installed:"
        " python tools/convert_bin.py FILE.bin model.safetensors"
    )


def stacked(layers: int, of_layer: Callable[[int], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The tensors of all layers, by name."""
    each = [of_layer(i) for i in range(layers)]
    return {name: np.stack([layer.pop(name) for layer in each]) for name in list(each[0])}

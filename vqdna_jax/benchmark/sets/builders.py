"""The benchmark's sets as TFDS datasets in ArrayRecord, made from the user's files: no download, no TensorFlow.

    build("tf/0", "GUE", "prepared").as_data_source("train")[0]  ->  {"sequence": b"ACGT...", "label": 1}

or, in TFDS's own way, with the folder of the sets as `manual_dir`:

    builder = VqdnaBenchmark(config="tf_0", data_dir="prepared")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir="GUE"))

Splits are train, validation (dev.csv) and test; example i is row i of the file. Sequences are upper case, with N for
any letter but A C G T.
"""

import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vqdna_jax.benchmark.sets import find
from vqdna_jax.benchmark.sets.cards import CARDS, Card, find_card
from vqdna_jax.errors import InputError, cannot_write
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.labels.sets import LabelledSet, Split

_SPLITS = {"train": "train", "dev": "validation", "test": "test"}


class VqdnaBenchmark(tfds.core.GeneratorBasedBuilder):
    """A config per set, named as its card with "_" for "/"."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=card.key, description=f"{card.title}. {card.source}.") for card in CARDS.values()
    ]
    url_infos = None  # nothing is downloaded; to look for checksums, TFDS needs a package that it does not install
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Name the folder that holds the set, in any of the layouts of benchmark.sets.find."

    def __init__(self, *, labelled: LabelledSet | None = None, **kwargs: Any) -> None:
        """`labelled`: the set, if it is already read; with it, labels may have other names than the card's."""
        self._labelled = labelled
        super().__init__(**{"file_format": "array_record"} | kwargs)

    @property
    def card(self) -> Card:
        assert self.builder_config is not None  # there is no default config
        name = self.builder_config.name
        return next(card for card in CARDS.values() if card.key == name)

    def _info(self) -> tfds.core.DatasetInfo:
        label = np.float32 if self.card.kind == "regression" else tfds.features.ClassLabel(**self._classes())
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.card.title,
            features=tfds.features.FeaturesDict({"sequence": tfds.features.Text(), "label": label}),
            homepage=self.card.homepage,
            license=self.card.licence,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _classes(self) -> dict:
        own = self._labelled.label_names if self._labelled else ()
        numbered = own == tuple(map(str, range(len(own))))
        if own and not numbered:
            return {"names": own}
        if self.card.label_names and len(own) in (0, len(self.card.label_names)):
            return {"names": self.card.label_names}
        return {"num_classes": len(own) or self.card.classes}

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        labelled = self._labelled or find.read(self.card, _place(self.card, dl_manager.manual_dir))
        classes = self._classes()
        expected = len(classes["names"]) if "names" in classes else classes["num_classes"]
        if expected and labelled.classes != expected:
            raise InputError(f"{self.card.name}: {labelled.classes} classes; expected {expected}")
        assert self.info.metadata is not None  # as `_info` made it
        self.info.metadata["digest"] = labelled.digest
        return {_SPLITS[name]: self._generate_examples(split) for name, split in labelled.splits.items()}

    def _generate_examples(self, split: Split) -> Iterator[tuple[int, dict]]:
        for row, (bases, label) in enumerate(zip(split.bases, split.labels.tolist())):
            yield row, {"sequence": to_text(bases), "label": label}


def build(name: str, source_dir: str | os.PathLike, data_dir: str | os.PathLike) -> VqdnaBenchmark:
    """Prepares a set of `source_dir` in `data_dir`, once; its rows are `as_data_source(split)[i]`.

    Raises InputError as `find.find` and `find.read` do, and where `data_dir` holds the set made from other
    files; StorageError where the disk is full.
    """
    card = find_card(name)
    labelled = find.read(card, _place(card, source_dir))
    builder = VqdnaBenchmark(config=card.key, data_dir=os.fspath(data_dir), labelled=labelled)
    if builder.data_path.exists() and (builder.info.metadata or {}).get("digest") != labelled.digest:
        raise InputError(f"{builder.data_path}: holds {card.name} of other files; remove it or name another data_dir")
    try:
        with tempfile.TemporaryDirectory() as unused:  # TFDS makes a folder for downloads
            builder.download_and_prepare(download_dir=unused)
    except OSError as error:
        raise cannot_write(data_dir, error) from error
    return builder


def _place(card: Card, source_dir: str | os.PathLike) -> pathlib.Path:
    return find.find(source_dir, [card.name])[card.name]

"""Predictions as the cells of a CSV row. Numbers are the shortest that read back as the same float32."""

from collections.abc import Iterator, Sequence

from vqdna_jax.finetuned import Predictions


def columns(kind: str, label_names: Sequence[str]) -> list[str]:
    """`prediction`, and a probability a label under the label's name; of a regression the prediction says it all."""
    return ["prediction"] if kind == "regression" else ["prediction", *label_names]


def cells(kind: str, predicted: Predictions) -> Iterator[list[str]]:
    """The cells under `columns`, of each sequence."""
    for label, values in zip(predicted.labels, predicted.values):
        texts = list(map(str, values))  # of float32, so str is exact
        yield texts if kind == "regression" else [label, *texts]

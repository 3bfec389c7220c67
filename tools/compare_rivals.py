"""What `vqdna import` and the networks here make of a reference's random weights, beside what the reference makes.

    python tools/compare_rivals.py OUT

OUT was written by tools/rivals_reference.py, perhaps with another Python. Prints a table in Markdown: the largest
difference of any number, of gradients as a share of the largest gradient.
"""

import argparse
import json
import pathlib
import shutil
import sys
import tempfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vqdna_jax import partition
from vqdna_jax.genome.alphabet import to_bases
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.models.hyena import KEPT
from vqdna_jax.models.layers import Params, apply
from vqdna_jax.models.quantize import code_vectors
from vqdna_jax.models.transformer import Compute
from vqdna_jax.rivals.importing import RIVALS, import_model

SPECIAL = ("cls", "end", "mask")  # of a network's own; their gradients are those of rows of the table


class Differences(NamedTuple):
    tokens: int
    hidden: list[float]
    last: float
    logits: float
    gradient: float


def compare(out: pathlib.Path, name: str) -> Differences:
    """Of OUT/NAME; `tokens` counts sequences whose tokens differ."""
    told, expected = json.loads((out / f"{name}.json").read_text()), np.load(out / f"{name}.npz")
    with tempfile.TemporaryDirectory() as directory:
        import_model(name.partition("_")[0], out / name, pathlib.Path(directory) / "export")
        model = pretrained.load(pathlib.Path(directory) / "export")
    codes = [codes_Lx1[:, 0] for codes_Lx1 in model.tokenizer.encode([to_bases(seq) for seq in told["sequences"]])]
    batch = _batch(codes, told["masked"], int(model.transformer.cls))
    first = int(model.transformer.cls)
    here_BxL = np.arange(batch[0].shape[1])[None] < batch[2][:, None] - first

    def apart(ours: jax.Array, theirs_BxTxD: np.ndarray) -> float:
        theirs = theirs_BxTxD[:, first : first + here_BxL.shape[1]]
        return float(np.abs(np.asarray(ours) - theirs)[here_BxL].max())

    with jax.set_mesh(model.mesh):
        outputs = jax.device_get(
            _outputs(model, model.weights, partition.batch_to_devices(batch, model.mesh, len(codes)))
        )
    hidden = [apart(ours, theirs) for ours, theirs in zip(outputs["hidden"], expected["hidden"], strict=True)]
    last, logits = apart(outputs["last"], expected["last"]), apart(outputs["logits"], expected["logits"])
    if first:
        last = max(last, float(np.abs(outputs["first"] - expected["last"][:, 0]).max()))
    theirs, rows = _theirs(out, name), _special_rows(model.tokenizer.words)
    wrong = sum(row[first : first + len(own)] != own.tolist() for row, own in zip(told["tokens"], codes))
    return Differences(wrong, hidden, last, logits, _gradients_apart(outputs["gradient"], theirs, rows))


def _batch(codes, masked, cls: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(codes [B, L], masked [B, L], lengths [B], the first slot included)"""
    codes_BxL = np.zeros((len(codes), max(map(len, codes))), np.int32)
    for row, codes_L in enumerate(codes):
        codes_BxL[row, : len(codes_L)] = codes_L
    masked_BxL = np.zeros(codes_BxL.shape, bool)
    for at in masked:
        masked_BxL[tuple(at)] = True
    return codes_BxL, masked_BxL, np.array([len(codes_L) + cls for codes_L in codes], np.int32)


def _outputs(model: Pretrained, weights: Params, batch) -> Params:
    """ "hidden" of every layer, "last", "first", "logits", and the "gradient" of the logits' sum times cosines."""
    config = model.transformer
    network, head, first = config.module(Compute()), config.language_head(), int(config.cls)

    def forward(weights: Params, codes_BxL, masked_BxL, lengths_B, layers: int | None = None):
        vectors_BxLx1xD = code_vectors((weights["table"],), codes_BxL[..., None])
        replaced_B = jnp.ones_like(masked_BxL[:, 0])
        of = weights["transformer"], vectors_BxLx1xD, masked_BxL, replaced_B, lengths_B, layers
        last_BxLxD, first_BxD = apply(network, *of)
        return last_BxLxD, first_BxD, apply(head, weights["heads"], last_BxLxD, weights["table"])

    def score(weights: Params, *batch):
        logits, length = forward(weights, *batch)[2], batch[0].shape[1]
        whole = (*logits.shape[:1], length + first + getattr(config, "end", False), logits.shape[2])
        cosines_BxTxV = np.cos(np.arange(np.prod(whole))).reshape(whole).astype(np.float32)
        here_BxL = jnp.arange(length)[None] < batch[2][:, None] - first
        return jnp.sum(logits * cosines_BxTxV[:, first : first + length] * here_BxL[..., None])

    @jax.jit
    def outputs(weights: Params, *batch):
        last_BxLxD, first_BxD, logits_BxLxV = forward(weights, *batch)
        hidden = [forward(weights, *batch, layers)[0] for layers in range(config.layers + 1)]
        found = {"hidden": hidden, "last": last_BxLxD, "first": first_BxD, "logits": logits_BxLxV}
        return found | {"gradient": jax.grad(score)(weights, *batch)}

    return outputs(dict(weights), *batch)


def _theirs(out: pathlib.Path, name: str) -> Params:
    """The reference's gradient, by the names of weights here: it is imported as if it were weights."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(shutil.copytree(out / name, pathlib.Path(directory) / name))
        shutil.copy(out / f"{name}.gradient.safetensors", path / "model.safetensors")
        return RIVALS[name.partition("_")[0]](path).weights


def _gradients_apart(ours: Params, theirs: Params, rows: dict[str, int]) -> float:
    """`rows`: of the table, by the names of the special tokens that are parameters of the network too."""
    table = np.array(ours["table"])
    for special, row in rows.items():
        table[row] += ours["transformer"].get(special, 0)
    pairs = [(table, theirs["table"])]
    for part in ("transformer", "heads"):
        assert ours[part].keys() == theirs[part].keys()
        pairs += [(ours[part][key], theirs[part][key]) for key in ours[part] if key not in (*rows, *KEPT)]
    largest = max(float(np.abs(their).max()) for _, their in pairs)
    return max(float(np.abs(our - their).max()) for our, their in pairs) / largest


def _special_rows(words: tuple[str, ...]) -> dict[str, int]:
    names = {"cls": ("[CLS]", "<cls>"), "end": ("[SEP]",), "mask": ("[MASK]", "<mask>")}
    return {
        name: next(words.index(word) for word in of if word in words)
        for name, of in names.items()
        if set(of) & set(words)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    names = sorted(path.stem for path in out.glob("*.npz"))
    if not names:
        sys.exit(f"{out}: holds no reference; write it with tools/rivals_reference.py")
    print(
        "| reference | sequences with other tokens | each layer | last | logits | gradient |\n|---|---|---|---|---|---|"
    )
    for name in names:
        found = compare(out, name)
        numbers = [", ".join(f"{x:.1e}" for x in found.hidden), *(f"{x:.1e}" for x in found[2:])]
        print(f"| {name} | {found.tokens} | {' | '.join(numbers)} |")


if __name__ == "__main__":
    main()

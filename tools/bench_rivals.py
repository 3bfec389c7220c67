"""CPU time of a forward pass of networks here beside the reference code of their authors' models, on random weights.

    taskset -c 0 python tools/bench_rivals.py --reference=PYTHON

PYTHON is of an environment with torch, transformers and multimolecule, as tools/rivals_reference.py needs. Both are
timed in turns, in CPU seconds, so that other work on the machine weighs little, and weighs on both; prints a table in
Markdown of their ratios.
"""

import argparse
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from vqdna_jax import partition
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.inference.saved import pretrained
from vqdna_jax.models.attention import best_kernel
from vqdna_jax.models.layers import apply
from vqdna_jax.models.quantize import code_vectors
from vqdna_jax.models.transformer import Compute
from vqdna_jax.rivals.importing import import_model

REFERENCE = pathlib.Path(__file__).with_name("rivals_reference.py")


class Case(NamedTuple):
    """Of `rivals_reference.py`; rows of so many tokens, special ones included."""

    rival: str
    width: int
    layers: int
    heads: int
    hidden: int
    slots: int
    rows: int
    tokens: int

    @property
    def size(self) -> list[str]:
        return [f"--{key}={getattr(self, key)}" for key in ("rival", "width", "layers", "heads", "hidden", "slots")]


CASES = (
    Case("dnabert2", 768, 12, 12, 3072, 512, 1, 128),
    Case("dnabert2", 768, 12, 12, 3072, 512, 1, 512),
    Case("hyenadna", 128, 2, 1, 512, 1026, 4, 1024),
    Case("hyenadna", 256, 4, 1, 1024, 8194, 1, 8192),
)


def forward_of(model: Pretrained, rows: int, tokens: int) -> Callable[[], float]:
    """Runs one forward pass and returns its CPU seconds."""
    config = model.transformer
    own = tokens - int(config.cls) - int(getattr(config, "end", False))
    kernel = best_kernel("cpu", own + config.cls, config.window, config.dtype)

    @jax.jit
    def forward(weights, ids_BxL):
        vectors_BxLx1xD = code_vectors((weights["table"],), ids_BxL[..., None])
        plain_BxL = ids_BxL < 0
        network = config.module(Compute(attention=kernel))
        return apply(network, weights["transformer"], vectors_BxLx1xD, plain_BxL, plain_BxL[:, 0])[0]

    ids_BxL = np.random.default_rng(0).integers(5, len(model.weights["table"]), (rows, own)).astype(np.int32)

    def run() -> float:
        began = time.process_time()
        with jax.set_mesh(model.mesh):
            forward(dict(model.weights), partition.batch_to_devices(ids_BxL, model.mesh, rows)).block_until_ready()
        return time.process_time() - began

    return run


def compare(case: Case, python: pathlib.Path, repeats: int) -> tuple[list[float], list[float]]:
    """CPU seconds of each pass here, and of each there."""
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory)
        command = [str(python), str(REFERENCE), str(place), *case.size]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        import_model(case.rival, place / case.rival, place / "export")
        run = forward_of(pretrained.load(place / "export"), case.rows, case.tokens)
        with subprocess.Popen([*command, "--serve"], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:

            def theirs() -> float:
                assert other.stdin and other.stdout
                print(case.rows, case.tokens, file=other.stdin, flush=True)
                return float(other.stdout.readline())

            run(), theirs()  # compiles, and allocates
            pairs = [(run(), theirs()) for _ in range(repeats)]
            other.stdin.close()
    return [ours for ours, _ in pairs], [its for _, its in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=pathlib.Path, required=True, help="a Python with torch and multimolecule")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(
        "| network | rows x tokens | here, CPU s | reference, CPU s | reference / here (range) |\n|---|---|--:|--:|--:|"
    )
    for case in CASES:
        ours, theirs = compare(case, arguments.reference, arguments.repeats)
        ratios = [its / own for own, its in zip(ours, theirs)]
        numbers = f"{np.median(ours):.3f} | {np.median(theirs):.3f} | {np.median(ratios):.2f}"
        name = f"{case.rival}, {case.layers} x {case.width} | {case.rows} x {case.tokens:,}"
        print(f"| {name} | {numbers} ({min(ratios):.2f} to {max(ratios):.2f}) |", flush=True)


if __name__ == "__main__":
    main()

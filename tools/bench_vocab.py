"""Speed of the vocabulary training step (stage 1), beside a large product on the same device in the same run.

    python tools/bench_vocab.py --preset=tiny [--batch=B --window=BP --steps=N --repeats=N] [--json=FILE]

The two take turns, a block each. "share" is the rate of the step, in FLOPs of its matrices, as a share of the rate of
the product, which is of square matrices in the step's dtype: what is not 1 is spent on all that is not a large product.
By the time of the process on all cores ("CPU") the share also tells where other work shares them.
"""

import argparse
import json
import pathlib
import runpy
import time

HERE = pathlib.Path(__file__).resolve().parent
STEP = runpy.run_path(str(HERE / "bench_step.py"))  # first: malloc is told before jax is imported

import jax
import jax.numpy as jnp
import numpy as np

from vqdna_jax.genome.windows import Windows
from vqdna_jax.partition import batch_to_devices, make_mesh
from vqdna_jax.stages import read_settings
from vqdna_jax.stages.vocabulary import vocabulary_task

SIZES = {"cpu": 2048}  # of the product; else 8192
spread = STEP["spread"]


class Product:
    """A large product, measured as a step is."""

    def __init__(self, dtype: str):
        self._size = SIZES.get(jax.default_backend(), 8192)
        self.flops = 2 * self._size**3
        self._matrix = jnp.ones((self._size, self._size), dtype)
        self._product = jax.jit(jnp.matmul)

    def block(self, steps: int) -> dict[str, float]:
        self._product(self._matrix, self._matrix).block_until_ready()
        start, start_cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self._product(self._matrix, self._matrix).block_until_ready()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
        return {"seconds": seconds / steps, "cpu_seconds": cpu_seconds / steps}


def make_step(options: argparse.Namespace):
    """(settings, the step on random bases)."""
    settings = read_settings(runpy.run_path(str(HERE.parent / "configs/hrq.py"))["get_config"](options.preset))
    rows, window_bp = options.batch or settings.data.global_batch, options.window or settings.data.window_bp
    settings = settings.changed({"data.global_batch": rows, "data.window_bp": window_bp})
    bases_BxS = np.random.default_rng(0).integers(0, 4, (rows, window_bp), np.uint8)
    batch = batch_to_devices(Windows(bases_BxS=bases_BxS), jax.sharding.get_mesh(), rows)
    return settings, STEP["Stepper"](vocabulary_task(settings), settings, (), batch)


def bench(options: argparse.Namespace) -> dict:
    """Measures and prints; returns what it printed and all blocks."""
    settings, step = make_step(options)
    rows = {"step": step, "large product": Product(settings.model.dtype)}
    turns = range(1 + options.repeats)
    blocks = [{name: row.block(options.steps) for name, row in rows.items()} for _ in turns][1:]  # the first compiles
    times = {n: {k: np.array([turn[n][k] for turn in blocks]) for k in ("seconds", "cpu_seconds")} for n in rows}
    lines = [["", "ms", "CPU ms", "GFLOP/s", "share", "share by CPU time"], ["---"] * 6]
    for name, row in rows.items():
        rates = {key: row.flops / of for key, of in times[name].items()}
        shares = [rates[key] / (rows["large product"].flops / of) for key, of in times["large product"].items()]
        in_ms = [spread(1e3 * of) for of in times[name].values()]
        lines.append([name, *in_ms, spread(rates["seconds"] / 1e9), *map(spread, shares)])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    data, model = settings.data, settings.model
    head = f"{time.strftime('%Y-%m-%d')}, {STEP['chip']()}, jax {jax.__version__}. {options.preset}, {model.dtype},"
    head += f" {data.global_batch} x {data.window_bp} bp; median (range), {options.repeats} blocks of {options.steps}."
    print(f"{head}\n\n{text}")
    return {"head": head, "table": text, "blocks": blocks, "config": settings.recorded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in dict(preset="tiny", json="", batch=0, window=0, steps=20, repeats=5).items():
        parser.add_argument("--" + name, type=type(default), default=default)
    options = parser.parse_args()
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        report = bench(options)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

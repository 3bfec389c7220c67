"""What a GPU's compiler makes of a training step, on a machine without a GPU: its kernels, and the bytes they move.

    python tools/gpu_program.py --target=h100_sxm.txtpb --step=mcm [--batch=64 --window=512 --layers=2] [--hlo=FILE]

Needs jax-cuda13-plugin and jax-cuda13-pjrt of jax's version, nvidia-cuda-nvcc, and for attention nvidia-cudnn-cu13.
--target: a description of the chip, of which XLA's repository has some (xla/backends/gpu/target_config/specs/). Nothing
is tuned without a device: of products, that are cuBLAS's here, only what they take in is to be believed. MiB: operands
and results of a kernel, a slice of an operand counted whole.
"""

import argparse
import collections
import dataclasses
import functools
import math
import os
import pathlib
import re
import runpy

HERE = pathlib.Path(__file__).resolve().parent
os.environ["JAX_PLATFORMS"] = "cpu"  # the plugin is loaded without a look for its devices
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0"

import jax
import numpy as np
from jax.experimental import topologies

BENCH = runpy.run_path(str(HERE / "bench_step.py"))

from vqdna_jax.genome.windows import Windows
from vqdna_jax.models.tokenizer import Encoder
from vqdna_jax.partition import abstract_state, make_mesh, spec
from vqdna_jax.stages import read_settings
from vqdna_jax.stages.vocabulary import vocabulary_task
from vqdna_jax.training.optimizer import make_optimizer
from vqdna_jax.training.step import GPU_OPTIONS, init_state, train_step

BYTES = {"pred": 1, "u8": 1, "s8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4}
FREE = {"parameter", "constant", "bitcast", "get-tuple-element", "tuple"}
INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)(.*)")


def array(mesh, shape, dtype):
    sharding = jax.NamedSharding(mesh, spec("batch", *[None] * (len(shape) - 1)))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def masked_codes(settings, tokenizer, mesh, key):
    """(task, frozen, batch) of stage 2, codes given, of shapes alone."""
    rows, bases = settings.data.global_batch, settings.data.window_bp
    codes = array(
        mesh, (rows, bases // tokenizer.bases_per_code - settings.model.cls, len(tokenizer.codebook_sizes)), "i4"
    )
    batch = BENCH["CodedWindows"](bases_BxS=array(mesh, (rows, bases), "u1"), inputs_BxLxN=codes, targets_BxLxN=codes)
    encoder = abstract_state(lambda k, b: Encoder(tokenizer).init(k, b)["params"], mesh, key, batch.bases_BxS)
    whole = jax.NamedSharding(mesh, jax.P())
    codes_KxE = [jax.ShapeDtypeStruct((k, tokenizer.width), "f4", sharding=whole) for k in tokenizer.codebook_sizes]
    compute = dataclasses.replace(settings.compute, attention="cudnn")
    task = BENCH["GivenCodes"](tokenizer, settings.model, compute, settings.masking, settings.base_weight)
    return task, BENCH["FrozenTokenizer"](encoder, tuple(codes_KxE)), batch


def compiled(options, mesh) -> str:
    """The optimised program, in XLA's words."""
    settings, hrq = (
        read_settings(runpy.run_path(str(HERE.parent / f"configs/{name}.py"))["get_config"](options.preset))
        for name in (options.step, "hrq")
    )
    changes = {"data.global_batch": options.batch, "data.window_bp": options.window, "model.layers": options.layers}
    settings = settings.changed({key: value for key, value in changes.items() if value})
    key = jax.eval_shape(lambda: jax.random.key(0)).update(sharding=jax.NamedSharding(mesh, jax.P()))
    if options.step == "mcm":
        task, frozen, batch = masked_codes(settings, hrq.model, mesh, key)
    else:
        bases = array(mesh, (settings.data.global_batch, settings.data.window_bp), np.uint8)
        task, frozen, batch = vocabulary_task(settings), (), Windows(bases_BxS=bases)
    fixed = task, make_optimizer(settings.optimizer, settings.train.total_steps or 1000)
    step = functools.partial(train_step, *fixed, skip_above=settings.optimizer.skip_above)
    state = abstract_state(functools.partial(init_state, *fixed), mesh, key, frozen, batch)
    traced = jax.jit(step, donate_argnums=0, compiler_options=GPU_OPTIONS).trace(state, frozen, batch, key)
    return traced.lower(lowering_platforms=("cuda",)).compile().as_text()


def mib(shapes: str) -> float:
    """Of all arrays in a text, but for the workspaces of libraries."""
    found = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", re.sub(r"\bs8\[\d+\]", "", shapes))
    return sum(BYTES.get(dtype, 8) * math.prod(int(d) for d in dims.split(",") if d) for dtype, dims in found) / 2**20


def kernels(program: str) -> list[tuple[float, int, str]]:
    """(MiB of all, how many, what they are), those that move most first."""
    sizes: dict[str, float] = {}
    totals: dict[str, list] = collections.defaultdict(lambda: [0.0, 0])
    for line in program[program.index("\nENTRY ") :].splitlines()[1:]:
        if not (found := INSTRUCTION.match(line)):
            continue
        name, shape, operation, operands, rest = found.groups()
        sizes[name] = mib(shape)
        if operation in FREE:
            continue
        source = re.search(r'op_name="[^"]*?([^"/]*/[^"/]*)"', rest)
        what = f"{re.sub(r'[.0-9]+$', '', name)} -> {re.sub(r'{[^}]*}', '', shape)[:70]}  {source[1] if source else ''}"
        totals[what][0] += sizes[name] + sum(sizes.get(each, 0) for each in re.findall(r"%([\w.\-]+)", operands))
        totals[what][1] += 1
    return sorted(((moved, count, what) for what, (moved, count) in totals.items()), reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=pathlib.Path, required=True)
    for name, default in dict(step="mcm", preset="base", hlo="", batch=64, window=512, layers=0, lines=40).items():
        parser.add_argument("--" + name, type=type(default), default=default)
    options = parser.parse_args()
    described = options.target.read_text()
    topology = topologies.get_topology_desc(platform="cuda", target_config=described, topology="1x1x1")
    mesh = make_mesh(devices=topology.devices[:1])
    with jax.set_mesh(mesh):
        program = compiled(options, mesh)
    if options.hlo:
        pathlib.Path(options.hlo).write_text(program)
    rows = kernels(program)
    print(f"{sum(count for _, count, _ in rows)} kernels, {sum(moved for moved, _, _ in rows):,.0f} MiB")
    for moved, count, what in rows[: options.lines]:
        print(f"{moved:10,.0f} MiB {count:4d} x {what}")


if __name__ == "__main__":
    main()

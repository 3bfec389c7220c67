"""What a program has in memory at once, told from its trace: of small ones by hand, and beside what is compiled."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from small_mesh import mesh_of

from vqdna_jax import partition, stages
from vqdna_jax.plan import tasks
from vqdna_jax.runtime.live import LEAST, MOST, peak_bytes
from vqdna_jax.stages import abstract
from vqdna_jax.training.experiments import read_config

SIDE = 64
SQUARE = 4 * SIDE**2  # bytes
x_DxD = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32)


def squares(function, *donated: int, arguments: int = 1) -> float:
    """The peak of a function of square matrices, in matrices."""
    traced = jax.jit(function, donate_argnums=donated).trace(*[x_DxD] * arguments)
    return peak_bytes(traced, "cpu") / SQUARE


@pytest.mark.parametrize(
    ("function", "matrices"),
    [
        (lambda x: x @ x, 2),
        (lambda x: (x @ x) @ x, 3),
        (lambda x: jnp.exp(x @ x + 1) * 2, 3),  # one array for all that is done to each element, one for the product
        (lambda x: ((x @ x) @ x) @ x, 3),  # the first product is gone when the third is made
        (lambda x: (x @ x).T.reshape(-1), 3),
        (lambda x: jnp.sum(jnp.exp(x)), 1 + 1 / SIDE**2),
        (lambda x: (x @ x, jnp.sin(x) @ x, x + 1)[0], 2),  # what nobody asks for is not made
        (lambda x: jax.checkpoint(lambda x: x @ x)(x) @ x, 3),
        (lambda x: lax.scan(lambda c, _: ((c @ x) @ x, None), x, length=4)[0], 4),
        (lambda x: lax.scan(lambda c, _: (c @ x, c), x, length=4)[1], 6),  # four that are stacked, a product
    ],
)
def test_arrays_live_from_what_makes_them_to_what_reads_them_last(function, matrices):
    assert squares(function) == matrices


def test_what_is_donated_is_used_again():
    def step(state, x):
        return state + x @ x

    assert squares(step, arguments=2) - squares(step, 0, arguments=2) == 1


def test_of_a_choice_by_platform_the_one_that_is_taken_counts():
    def both(x):
        return lax.platform_dependent(x, tpu=lambda x: ((x @ x) @ x) @ x, cuda=lambda x: x + 1, default=lambda x: x @ x)

    traced = jax.jit(both).trace(x_DxD)
    assert [peak_bytes(traced, platform) / SQUARE for platform in ("tpu", "gpu", "cpu")] == [3, 2, 2]


def test_a_device_has_its_part_of_what_is_split():
    def peak(shards: int) -> int:
        mesh = mesh_of(context=shards)
        with jax.set_mesh(mesh):
            split = jax.NamedSharding(mesh, partition.spec("batch", "length", None))
            x = jax.ShapeDtypeStruct((1, SIDE, SIDE), jnp.float32, sharding=split)
            return peak_bytes(jax.jit(lambda x: jnp.exp(x) * 2).trace(x), "cpu")

    assert peak(1) == 2 * SQUARE and peak(4) == peak(1) / 4


@pytest.mark.parametrize(("shape", "times"), [((512, 4096), 1), ((512, 1, 4096), 1), ((512, 8, 128), 2), ((64, 64), 2)])
def test_a_tpu_fills_up_what_a_scan_stacks_to_whole_tiles(shape, times):
    """Of 16 rows of bf16 and 128 columns; an axis of 1 is no row of its own."""
    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    traced = jax.jit(lambda x: lax.scan(lambda c, _: (c, c + 1), x, length=16)[1]).trace(x)
    once = x.size * 2
    stacked = [peak_bytes(traced, platform) - once for platform in ("cpu", "tpu")]
    assert stacked[1] - stacked[0] == 16 * once * (times - 1)


def compared(traced: jax.stages.Traced) -> float:
    """The estimate over what the compiler takes."""
    memory = traced.lower().compile().memory_analysis()
    taken = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return peak_bytes(traced, "cpu") / (taken + memory.temp_size_in_bytes)


SMALL = ("model.layers=2", "compute.layers=scanned", "data.global_batch=1", "compute.attention=cpu")


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("data.window_bp=8192", "compute.remat=full"),  # scores in blocks
        ("data.window_bp=2048",),
        ("data.window_bp=512", "data.global_batch=8", "compute.layers=unrolled"),
        ("data.window_bp=1024", "data.global_batch=4", "model.kind=hyena", "model.cls=False"),
        ("data.window_bp=512", "data.global_batch=8", "compute.remat=dots", "mesh.fsdp=2", "mesh.tensor=2"),
    ],
)
def test_pretraining_takes_what_is_told(overrides):
    source = "configs/mcm.py:tiny"
    settings = stages.read_settings(read_config(source, [*SMALL, *overrides]))
    mesh = mesh_of(1, settings.mesh.fsdp, settings.mesh.tensor, settings.mesh.context)
    planned = tasks.make_task(settings, source)
    with jax.set_mesh(mesh):
        assert LEAST < compared(abstract.trace_step(settings, planned, mesh)[1]) < MOST


@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_finetuning_takes_what_is_told(method):
    source, mesh = "configs/finetune.py:tiny", mesh_of()
    overrides = ["data.global_batch=8", "compute.layers=scanned", "compute.attention=cpu", f"tuning.method={method}"]
    settings = stages.read_settings(read_config(source, overrides))
    planned = tasks.make_task(settings, source)
    with jax.set_mesh(mesh):
        assert LEAST < compared(abstract.trace_step(settings, planned, mesh)[1]) < MOST

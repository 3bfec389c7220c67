"""Full-size configs compiled by the TPU compiler, without a TPU. Skipped where libtpu is not installed."""

import importlib.util
import platform

import jax
import jax.numpy as jnp
import pytest

from configs import hrq
from vqdna_jax import partition, stages
from vqdna_jax.models import quantize
from vqdna_jax.plan import compile, tasks

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None or platform.machine() != "x86_64",
    reason="libtpu, the TPU compiler, is not installed (tools/test.sh brings it on Linux x86_64)",
)
V5E_HBM = compile.HBM_GIB["TPU v5 lite"] * 2**30


@pytest.mark.slow
@pytest.mark.parametrize("axes", [{}, {"fsdp": 4}])
def test_base_fits_a_v5e_4x4(axes):
    mesh = partition.make_mesh(**axes, devices=compile.topology_devices("v5e:4x4"))
    settings = stages.read_settings(hrq.get_config("base"))
    state, compiled = compile.compile_step(settings, tasks.make_task(settings, "configs/hrq.py:base"), mesh)
    memory = compiled.memory_analysis()
    print(f"v5e:4x4 {axes}: peak {memory.peak_memory_in_bytes / 2**30:.2f} GiB a chip")
    assert memory.peak_memory_in_bytes < V5E_HBM
    shard_bytes = sum(
        leaf.dtype.itemsize * jnp.prod(jnp.array(leaf.sharding.shard_shape(leaf.shape)))
        for leaf in jax.tree.leaves(state)
    )
    assert memory.alias_size_in_bytes >= shard_bytes  # the whole state is donated


@pytest.mark.parametrize("codes, dtype", [(2048, jnp.bfloat16), (2048, jnp.float32)])
def test_lookup_keeps_no_scores(codes, dtype):
    """65,536 tokens on a chip: under 1 MB of temporaries, where the scores alone would be 256 to 512 MB."""
    mesh = partition.make_mesh(devices=compile.topology_devices("v5e:2x2")[:1])

    def abstract(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=jax.NamedSharding(mesh, jax.P()))

    with jax.set_mesh(mesh):
        lowered = jax.jit(quantize.nearest).lower(abstract((65536, 384), dtype), abstract((codes, 384), jnp.float32))
        memory = lowered.compile().memory_analysis()
    assert memory.temp_size_in_bytes < 1e6


def test_statistics_keep_no_one_hot():
    """The EMA sums of 65,536 tokens over 2,048 codes: a kept one-hot would be 256 MB."""
    mesh = partition.make_mesh(devices=compile.topology_devices("v5e:2x2")[:1])
    sharding = jax.NamedSharding(mesh, jax.P())
    h_TxD = jax.ShapeDtypeStruct((65536, 384), jnp.bfloat16, sharding=sharding)
    codes_T = jax.ShapeDtypeStruct((65536,), jnp.int32, sharding=sharding)
    with jax.set_mesh(mesh):
        compiled = jax.jit(quantize.sum_by_code, static_argnums=2).lower(h_TxD, codes_T, 2048).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1e6

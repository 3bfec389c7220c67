"""Digests see every changed bit and no sharding; what is saved is what is restored, on any mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqdna_jax import partition
from vqdna_jax.checkpoint import Checkpoints, leaf_digests
from vqdna_jax.errors import StorageError


def mesh_of(data, fsdp):
    return partition.make_mesh(data=data, fsdp=fsdp, devices=jax.devices()[: data * fsdp])


def state_on(mesh):
    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(size=(8, 12)).astype(np.float32), "step": np.int32(7)}
    arrays["half"] = jnp.asarray(rng.normal(size=(16,)), jnp.bfloat16)
    specs = {"w": jax.P(("data", "fsdp"), None), "step": jax.P(), "half": jax.P("fsdp")}
    return {name: jax.device_put(value, jax.NamedSharding(mesh, specs[name])) for name, value in arrays.items()}


def abstract(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


@pytest.mark.parametrize("shape", [(8, 1), (4, 2), (1, 2)])
def test_digests_do_not_depend_on_the_mesh(shape):
    assert leaf_digests(state_on(mesh_of(*shape))) == leaf_digests(state_on(mesh_of(1, 1)))


@settings(max_examples=50)
@given(st.integers(0, 95), st.integers(0, 31))
def test_any_flipped_bit_changes_the_digest(position, bit):
    values = np.random.default_rng(1).normal(size=96).astype(np.float32)
    flipped = values.copy()
    flipped.view(np.uint32)[position] ^= np.uint32(1 << bit)
    assert leaf_digests(jnp.asarray(values)) != leaf_digests(jnp.asarray(flipped))


def test_swapped_elements_change_the_digest():
    values = np.arange(96, dtype=np.float32).reshape(8, 12)
    assert leaf_digests(jnp.asarray(values)) != leaf_digests(jnp.asarray(values.T.reshape(8, 12)))


def test_saved_on_one_mesh_restored_on_another(tmp_path):
    state = state_on(mesh_of(4, 2))
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(7, state, {"config": {"seed": 3}})
    checkpoints.close()
    again = Checkpoints(tmp_path, keep=2)
    restored, meta = again.restore(abstract(state_on(mesh_of(1, 2))))
    assert meta["next_step"] == 7 and meta["config"] == {"seed": 3}
    assert restored["w"].sharding.mesh.shape["data"] == 1
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), jax.device_get(state))
    again.close()


def test_a_fresh_directory_has_nothing_and_an_old_step_is_pruned(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.newest_meta() is None
    state = state_on(mesh_of(1, 1))
    assert checkpoints.restore(abstract(state)) is None
    for step in (1, 2, 3):
        checkpoints.save(step, state, {"config": {}})
    checkpoints.close()
    kept = {int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()}
    assert kept == {2, 3}


def test_a_checkpoint_whose_digests_do_not_match_is_passed_over(tmp_path, monkeypatch):
    """As if a bit had flipped where orbax does not look: the digest alone notices."""
    from vqdna_jax import checkpoint

    state = state_on(mesh_of(1, 1))
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, state, {"config": {}})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "leaf_digests", lambda state: dict.fromkeys(leaf_digests(state), 0))
        checkpoints.save(2, state, {"config": {}})
    checkpoints.close()
    again = Checkpoints(tmp_path, keep=2)
    _, meta = again.restore(abstract(state))
    assert meta["next_step"] == 1
    again.close()


def test_an_empty_step_directory_is_not_a_checkpoint(tmp_path):
    state = state_on(mesh_of(1, 1))
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, state, {"config": {}})
    checkpoints.close()
    (tmp_path / "99").mkdir()
    again = Checkpoints(tmp_path, keep=2)
    assert again.newest_meta()["next_step"] == 1
    assert again.restore(abstract(state))[1]["next_step"] == 1
    again.close()


def test_nothing_but_damage_is_a_storage_error(tmp_path):
    (tmp_path / "5").mkdir()
    checkpoints = Checkpoints(tmp_path, keep=2)
    with pytest.raises(StorageError, match="none of the checkpoints"):
        checkpoints.restore(abstract(state_on(mesh_of(1, 1))))
    checkpoints.close()

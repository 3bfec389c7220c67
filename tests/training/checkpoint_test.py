"""Digests see every changed bit and no sharding; what is saved is what is restored, on any mesh, or nothing is."""

import itertools
import json
import os
import pathlib
import random
import re
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusal
from small_checkpoints import abstract, restored_step, scaled, settled, state_on, steps_in
from small_mesh import mesh_of

from vqdna_jax.errors import PeerError, StorageError
from vqdna_jax.runtime import files as runtime_files
from vqdna_jax.training import checkpoint
from vqdna_jax.training.checkpoint import Checkpoints
from vqdna_jax.training.digest import leaf_digests


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
    checkpoints = Checkpoints(tmp_path, keep=2, run_id="this")
    checkpoints.save(7, state, {"config": {"seed": 3}})
    checkpoints.close()
    again = Checkpoints(tmp_path, keep=2, run_id="this")
    restored, meta = again.restore(abstract(state_on(mesh_of(1, 2))))
    assert meta["next_step"] == 7 and meta["config"] == {"seed": 3}
    assert restored["w"].sharding.mesh.shape["data"] == 1
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), jax.device_get(state))
    again.close()


def on_one_device(device: str) -> str:
    return json.dumps({"sharding_type": "SingleDeviceSharding", "device_str": device})


def on_more_devices(kept: str) -> str:
    """As of 512 chips in place of 8."""
    said = json.loads(kept)
    count = itertools.count()
    mesh = [[[[{"id": next(count)}]] for _ in range(8)] for _ in range(64)]
    return json.dumps(said | {"shape": [64, 8, 1, 1], "device_mesh": {"mesh": mesh}})


# Orbax keeps of devices, for each array, what jax calls its sharding: names of axes and numbers of devices. A GPU or a
# TPU has other numbers, and what was never sharded says the name of its device.
ELSEWHERE = {
    "other numbers": lambda kept: re.sub(r'("id": )(\d+)', r"\g<1>77\g<2>", kept),
    "more devices": on_more_devices,
    "a GPU": lambda kept: on_one_device("cuda:0"),
    "a TPU": lambda kept: on_one_device("TPU_0(process=0,(0,0,0,0))"),
    "axes of another name": lambda kept: kept.replace('"data"', '"replica"'),
    "axes of another kind": lambda kept: kept.replace("AxisType.Explicit", "AxisType.Auto"),
    "a sharding that jax no longer has": lambda kept: kept.replace("NamedSharding", "PositionalSharding"),
    "nothing": None,
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_a_checkpoint_of_another_platform_is_restored(two_saved, tmp_path, case):
    """Where the newer one could not be read, the older one would be taken."""
    checkpoints, change = shutil.copytree(two_saved, tmp_path / "checkpoints"), ELSEWHERE[case]
    for step in checkpoints.iterdir():
        kept = step / "state/_sharding"
        said = json.loads(kept.read_text())
        changed = {name: change(sharding) for name, sharding in said.items()} if change else {}
        assert changed.keys() == (said.keys() if change else set()) and changed != said
        kept.write_text(json.dumps(changed)) if change else kept.unlink()
        (step / runtime_files.SEAL).unlink()
        runtime_files.seal(step, leave_out=checkpoint._UNSEALED)
    assert restored_step(checkpoints) == 2


def test_a_state_of_another_dtype_is_refused_and_never_cast(tmp_path):
    """Orbax would cast without a word."""
    state = state_on(mesh_of(1, 1))
    checkpoints = Checkpoints(tmp_path, keep=2, run_id="this")
    checkpoints.save(1, state, {"config": {}})
    checkpoints.close()
    other = {name: x.astype(jnp.float32) if name == "half" else x for name, x in state.items()}
    again = Checkpoints(tmp_path, keep=2, run_id="this")
    assert "none of the checkpoints" in refusal(again.restore, abstract(other), error=StorageError)
    again.close()


def test_a_fresh_directory_has_nothing_and_an_old_step_is_pruned(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, run_id="this")
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
    state = state_on(mesh_of(1, 1))
    checkpoints = Checkpoints(tmp_path, keep=2, run_id="this")
    checkpoints.save(1, state, {"config": {}})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "leaf_digests", lambda state: dict.fromkeys(leaf_digests(state), 0))
        checkpoints.save(2, state, {"config": {}})
    checkpoints.close()
    again = Checkpoints(tmp_path, keep=2, run_id="this")
    _, meta = again.restore(abstract(state))
    assert meta["next_step"] == 1
    again.close()


def test_an_empty_step_directory_is_not_a_checkpoint(tmp_path):
    state = state_on(mesh_of(1, 1))
    checkpoints = Checkpoints(tmp_path, keep=2, run_id="this")
    checkpoints.save(1, state, {"config": {}})
    checkpoints.close()
    (tmp_path / "99").mkdir()
    again = Checkpoints(tmp_path, keep=2, run_id="this")
    assert again.newest_meta()["next_step"] == 1
    assert again.restore(abstract(state))[1]["next_step"] == 1
    again.close()


def stray_file(place: pathlib.Path) -> None:
    (place / "7").write_text("no directory")


def stray_link(place: pathlib.Path) -> None:
    (place / "8").symlink_to(place / "1")


def names_of_others(place: pathlib.Path) -> None:
    (place / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    for name in ("lost+found", "1 (copy)", "-3", "1e3", "damaged-4-1"):
        (place / name).mkdir()


def unfinished_save(place: pathlib.Path) -> None:
    shutil.copytree(place / "1", place / "6.orbax-checkpoint-tmp")
    (place / "6.orbax-checkpoint-tmp/_CHECKPOINT_METADATA").unlink()


@pytest.mark.parametrize("stray", [stray_file, stray_link, names_of_others, unfinished_save])
def test_what_lies_about_is_no_checkpoint(tmp_path, stray):
    """The whole one is taken, and the run goes on to save as many as it keeps."""
    checkpoints = Checkpoints(tmp_path, keep=2, run_id="this")
    settled(checkpoints, 1)
    checkpoints.close()
    stray(tmp_path)
    assert restored_step(tmp_path) == 1
    again = Checkpoints(tmp_path, keep=2, run_id="this")
    again.restore(abstract(scaled(1)))
    for step in (7, 8, 9):
        settled(again, step)
    again.close()
    assert restored_step(tmp_path) == 9 and not list(tmp_path.glob("*tmp*"))


def test_clocks_say_nothing_of_which_checkpoint_is_newest(two_saved, tmp_path):
    """The clock of one start was a year ahead, that of the next a year behind."""
    copy = shutil.copytree(two_saved, tmp_path / "copy")
    for step, when in (("1", time.time() + 3e7), ("2", time.time() - 3e7)):
        for path in (*(copy / step).rglob("*"), copy / step):
            os.utime(path, (when, when))
    assert restored_step(copy) == 2
    checkpoints = Checkpoints(copy, keep=2, run_id="this")
    settled(checkpoints, 3)
    checkpoints.close()
    assert steps_in(copy) == ["2", "3"]


def test_nothing_but_damage_is_a_storage_error(tmp_path):
    (tmp_path / "5").mkdir()
    checkpoints = Checkpoints(tmp_path, keep=2, run_id="this")
    with pytest.raises(StorageError, match="none of the checkpoints"):
        checkpoints.restore(abstract(state_on(mesh_of(1, 1))))
    checkpoints.close()


def test_a_checkpoint_of_another_run_is_not_taken(tmp_path):
    state = state_on(mesh_of(1, 1))
    for run_id, step in (("this", 1), ("other", 2)):
        checkpoints = Checkpoints(tmp_path, keep=9, run_id=run_id)
        checkpoints.save(step, state, {"config": {}})
        checkpoints.close()
    again = Checkpoints(tmp_path, keep=9, run_id="this")
    assert again.newest_meta()["next_step"] == 1 and again.restore(abstract(state))[1]["next_step"] == 1
    again.close()
    assert list(tmp_path.glob("damaged-2-*"))


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory):
    """A directory with checkpoints 1 and 2, of different values."""
    directory = tmp_path_factory.mktemp("two")
    checkpoints = Checkpoints(directory, keep=2, run_id="this")
    state = state_on(mesh_of(1, 1))
    checkpoints.save(1, state, {"config": {}})
    checkpoints.save(2, jax.tree.map(lambda x: x + x, state), {"config": {}})
    checkpoints.close()
    return directory


def flip(path: pathlib.Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def truncate(path: pathlib.Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def zero(path: pathlib.Path, draw: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def remove(path: pathlib.Path, draw: random.Random) -> None:
    path.unlink()


def damaged_copy(two_saved, to: pathlib.Path, damage, draw: random.Random, sealed: bool) -> pathlib.Path:
    """Damage to one file of checkpoint 2, drawn with the square root of its size."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(two_saved, to)
    files = [path for path in sorted((to / "2").rglob("*")) if path.is_file() and path.stat().st_size]
    files = [path for path in files if path.relative_to(to / "2").as_posix() not in checkpoint._UNSEALED]
    damage(draw.choices(files, [path.stat().st_size ** 0.5 for path in files])[0], draw)
    if not sealed:
        (to / "2" / runtime_files.SEAL).unlink(missing_ok=True)
    return to


@pytest.mark.parametrize("damage, trials", [(flip, 60), (truncate, 10), (zero, 10), (remove, 10)])
def test_damage_anywhere_is_found_every_time(two_saved, tmp_path, damage, trials):
    assert restored_step(shutil.copytree(two_saved, tmp_path / "whole")) == 2
    draw = random.Random(0)
    copies = (damaged_copy(two_saved, tmp_path / "copy", damage, draw, sealed=True) for _ in range(trials))
    taken = [restored_step(copy) for copy in copies]
    assert taken == [1] * trials


def test_without_the_seal_no_wrong_weight_gets_through_either(two_saved, tmp_path):
    """The digests of the leaves alone: whatever is restored, `restored_step` compared every value of it."""
    draw = random.Random(1)
    taken = {restored_step(damaged_copy(two_saved, tmp_path / "copy", flip, draw, sealed=False)) for _ in range(30)}
    assert taken == {1, 2}  # 2 where the bit is in one of orbax's second copies


def full() -> Exception:
    return OSError(28, "No space left on device")


def collective() -> Exception:
    return ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer")


def barrier() -> Exception:
    error = TimeoutError("Timed out while waiting for async_write_complete barrier.")
    error.__cause__ = jax.errors.JaxRuntimeError("UNAVAILABLE: RPC: /xla.coordination.CoordinationService/Barrier")
    return error


def fails_as_orbax(cause: Exception, then_the_barrier: bool) -> None:
    """As in its background thread, where the next barrier fails too when the others do not come."""
    try:
        raise cause
    finally:
        if then_the_barrier:
            raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out")


@pytest.mark.parametrize("then_the_barrier", [False, True])
@pytest.mark.parametrize("cause, kind", [(full, StorageError), (collective, PeerError), (barrier, PeerError)])
def test_a_full_disk_and_a_lost_process_are_told_apart(tmp_path, monkeypatch, cause, kind, then_the_barrier):
    checkpoints = Checkpoints(tmp_path, keep=2, run_id="this")
    checkpoints.save(1, state_on(mesh_of(1, 1)), {})
    monkeypatch.setattr(checkpoints._manager, "wait_until_finished", lambda: fails_as_orbax(cause(), then_the_barrier))
    with pytest.raises(kind, match="No space left" if kind is StorageError else "the network is gone"):
        checkpoints.close()

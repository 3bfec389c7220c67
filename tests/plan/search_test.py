"""`vqdna plan`: the largest batch in few compilations, few chips beside many, slices, and what links cost."""

import importlib.util
import platform
import types

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from configs import hrq, mcm
from vqdna_jax import errors, partition, stages
from vqdna_jax.plan import compile, links, search, table

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None or platform.machine() != "x86_64",
    reason="libtpu, the TPU compiler, is not installed (tools/test.sh brings it on Linux x86_64)",
)
GIB = 2**30
TINY = stages.read_settings(mcm.get_config("tiny"))


@hypothesis.given(
    fixed=st.floats(0, 3),
    slope=st.floats(0.001, 2),
    bend=st.floats(0.9, 1.2),
    room=st.floats(4, 96),
    first=st.sampled_from([1, 2, 3, 8, 100, 1000]),
    known=st.booleans(),
)
def test_the_largest_batch_is_bracketed_in_few_compilations(fixed, slope, bend, room, first, known):
    """Memory need not grow in a straight line, and the room may be unknown."""

    def measure(size):
        peak = fixed + slope * size**bend
        return search.Trial(size, peak <= room, peak)

    trials = search.search(measure, first, lambda: room if known else None)
    assert len(trials) == len({trial.size for trial in trials}) <= search.MOST_COMPILED
    fits, others = ([trial.size for trial in trials if trial.fits == fit] for fit in (True, False))
    if not fits:
        assert min(others) == 1 or not known
    elif known:
        assert len(trials) <= 8 and max(fits) < min(others) <= max(fits) + max(1, max(fits) // search.GRAIN)


def fake_row(settings, shards: int, window_gib: float = 0.25) -> dict:
    """Of a step that takes 1 GiB and `window_gib` a window of a part, on chips of 16."""
    windows, parts = settings.data.global_batch // shards, settings.train.microbatches
    assert windows * shards == settings.data.global_batch and windows % parts == 0
    peak = GIB * (1 + window_gib * windows / parts)
    return {
        "global_batch": settings.data.global_batch,
        "rows_per_chip": windows,
        "microbatches": parts,
        "peak_bytes": peak,
        "hbm_bytes": 16 * GIB,
        "fits": peak <= 16 * GIB,
    }


def test_the_largest_batch_is_of_whole_shards_and_parts():
    mesh = partition.make_mesh(fsdp=2, devices=jax.devices()[:4])
    settings = TINY.changed({"train.microbatches": 3, "data.global_batch": 18})
    row = search.largest_batch(settings, mesh, lambda tried: fake_row(tried, 4))
    assert row["fits"] and row["global_batch"] == 60 * 3 * 4  # 15 GiB hold 60 windows of each of 3 parts
    assert row["largest_batch"]["does_not_fit"] == 64 * 3 * 4 and settings.data.global_batch == 18
    nothing = search.largest_batch(settings, mesh, lambda tried: fake_row(tried, 4, 20))
    assert not nothing["fits"] and nothing["global_batch"] == 3 * 4


@pytest.mark.parametrize(
    ("window_gib", "parts"), [(0.25, {1: 8, 2: 4, 4: 2, 8: 1}), (0.1, {1: 2, 2: 1, 4: 1, 8: 1}), (16, None)]
)
def test_scaling_holds_the_windows_a_chip_and_then_the_batch(window_gib, parts):
    meshes = {f"{n} chips": partition.make_mesh(devices=jax.devices()[:n]) for n in (4, 1, 8, 2)}
    compiled = []

    def measure(name, changed):
        compiled.append((name, changed.data.global_batch, changed.train.microbatches))
        return {"topology": name} | fake_row(changed, meshes[name].size, window_gib)

    rows = search.scaling_rows(TINY.changed({"data.global_batch": 256}), meshes, measure)
    names = ["1 chips", "2 chips", "4 chips", "8 chips"]
    weak, fixed = rows[:4], rows[4:]
    assert [row["topology"] for row in weak] == [row["topology"] for row in fixed] == names
    assert {row["rows_per_chip"] for row in weak} == {32} and {row["global_batch"] for row in fixed} == {256}
    assert len(compiled) == len(set(compiled))  # nothing twice
    if window_gib == 0.1:  # one chip cannot hold all 256, which two chips' peaks tell without a compilation
        assert len(compiled) == 4 + 3
    if parts:  # 15 GiB hold 60 windows of a part, or 150
        assert all(row["fits"] for row in rows)
        assert {int(row["topology"][0]): row["microbatches"] for row in fixed} == parts
    else:
        assert not any(row["fits"] for row in rows)


def test_scaling_refuses_a_batch_that_a_mesh_cannot_split():
    mesh = partition.make_mesh(devices=jax.devices()[:3])
    with pytest.raises(errors.InputError, match=r"data.global_batch: found 16, expected a multiple of the 3 shards"):
        search.scaling_rows(TINY, {"3": mesh}, lambda *_: pytest.fail("compiled"))


def test_a_stage_without_microbatches_is_tried_as_it_is():
    meshes = {str(n): partition.make_mesh(devices=jax.devices()[:n]) for n in (1, 8)}

    def measure(name, changed):
        return {"topology": name, "fits": name == "8", "batch": changed.data.global_batch}

    rows = search.scaling_rows(stages.read_settings(hrq.get_config("tiny")), meshes, measure)
    assert [(row["topology"], row["fits"], row["batch"]) for row in rows[2:]] == [("1", False, 16), ("8", True, 16)]


def test_links_carry_a_ring():
    """Half of a mesh of 4 x 2 along each axis, by hand: an all-reduce of n devices sends 2 (n - 1) / n of its bytes."""
    by_axes = {
        "data": {"all-reduce": {"count": 3, "bytes": 90_000_000}, "all-gather": {"count": 1, "bytes": 120_000_000}},
        "data+tensor": {"reduce-scatter": {"count": 1, "bytes": 80_000_000}},
        "tensor": {"collective-permute": {"count": 1, "bytes": 9_000_000}},
        "none": {"all-reduce": {"count": 1, "bytes": 10**12}},
    }
    between = {"count": 1, "bytes": 31_250_000}
    inside = 1.5 * 1e-3 + 0.75 * 120 / 90 * 1e-3 + 7 / 8 * 80 / 90 * 1e-3 + 1e-4
    found = links.seconds("TPU v5 lite", by_axes, between, {"data": 4, "fsdp": 1, "tensor": 2})
    assert found == pytest.approx((inside, 0.01))
    assert links.seconds("TPU v4", by_axes, between, {"data": 4}) is None


def test_a_ring_ends_at_the_slice():
    row = compile._sending(table_row(), {"data": 8, "fsdp": 1, "tensor": 1, "context": 1})
    assert row == pytest.approx({"ici_s": 2 * 3 / 4 * 3e6 / 90e9, "dcn_s": 3e6 / 3.125e9})  # of 4 of 2 x 4 chips
    assert compile._sending(table_row(fits=False), {"data": 8}) == {"ici_s": None, "dcn_s": None}


def chip(process: int, index: int, number: int, of: str = "tpu"):
    return types.SimpleNamespace(platform=of, process_index=process, slice_index=index, id=number)


def test_processes_are_numbered_slice_by_slice():
    mixed = [chip(process, process % 2, 4 * process + i) for process in range(4) for i in range(4)]
    with pytest.raises(errors.InputError, match="in the slices 0, 1, 0, 1, ..., expected all of a slice one after"):
        partition.make_mesh(devices=mixed)


@needs_libtpu
def test_slices_lie_along_data_and_processes_hold_their_rows():
    devices = compile.topology_devices("2xv5e:4x4")
    rng = np.random.default_rng(0)
    for axes in ({}, {"fsdp": 16}, {"fsdp": 2, "tensor": 2}, {"fsdp": 8, "tensor": 2}):
        mesh = partition.make_mesh(**axes, devices=rng.permutation(devices))
        slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
        assert (np.diff(slices, axis=0) >= 0).all() and (slices == slices[:, :1, :1]).all()
        rows = jax.NamedSharding(mesh, partition.spec("batch")).devices_indices_map((64,))
        for device, (held,) in rows.items():
            first = 64 // 8 * device.process_index  # of 8 hosts
            assert first <= held.start and held.stop <= first + 64 // 8
    with pytest.raises(errors.InputError, match="fsdp=32 x tensor=1 x context=1 is 32 devices, but a slice has 16"):
        partition.make_mesh(fsdp=32, devices=devices)


@needs_libtpu
def test_a_sum_over_slices_crosses_the_network_once_scattered():
    mesh = partition.make_mesh(devices=compile.topology_devices("2xv5e:2x2"))
    sharding = jax.NamedSharding(mesh, partition.spec("batch", None, None))
    x = jax.ShapeDtypeStruct((8, 1024, 128), jnp.float32, sharding=sharding)
    with jax.set_mesh(mesh):
        total = jax.jit(lambda x: jnp.sum(x, axis=0))
        found = compile._compile(total.lower(x), None, mesh.shape)
    # Of 2 x 4 chips each hands a quarter of the 524,288 bytes to the other slice, after a sum inside its own.
    assert found["fits"] and found["between_slices"] == {"count": 1, "bytes": 1024 * 128 * 4 // 4}
    assert set(found["collectives_by_axes"]) == {"data"}


@needs_libtpu
@pytest.mark.parametrize(("name", "chips"), [("v5e:1x1", 1), ("2xv5e:2x2", 8), ("3 x v5p:2x2x1", 12)])
def test_topologies_of_one_chip_and_of_slices(name, chips):
    assert len(compile.topology_devices(name)) == chips


def table_row(**changed) -> dict:
    amount = {"count": 2, "bytes": 3_000_000}
    return {
        "config": "c",
        "set": [],
        "topology": "2xv5e:2x2",
        "chip": "TPU v5 lite",
        "chips": 8,
        "slices": 2,
        "days": None,
        "mesh": {"data": 8},
        "global_batch": 1024,
        "rows_per_chip": 128,
        "codes_per_chip": 4096,
        "microbatches": 1,
        "compute": {},
        "parameters": 1e6,
        "base_parameters": None,
        "base_flops": None,
        "state_bytes": GIB,
        "flops": 8e12,
        "flops_per_chip": 1e12,
        "compile_s": 1.0,
        "fits": True,
        "peak_bytes": 2 * GIB,
        "hbm_bytes": 4 * GIB,
        "collectives": {"all-reduce": amount},
        "collectives_by_axes": {"data": {"all-reduce": amount}},
        "between_slices": amount,
        "loops_known": True,
        "ici_s": 0.02,
        "dcn_s": 0.03,
        "mfu": 0.4,
        "step_s": 0.15,
        "codes_per_s": 4e6,
        "bases_per_s": 8e6,
        "chip_hours": None,
        "cost_usd": None,
        "versions": {"jax": "1", "libtpu": "2"},
    } | changed


def test_the_table_says_what_the_rows_do():
    text = table.describe([table_row(), table_row(days=2.0, chip_hours=384.0, cost_usd=460.8)])
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[1:]]
    lines = {label: values for label, *values in cells}
    assert lines["handed to other slices"] == lines["sent along data"] == ["2, 3 MB"] * 2
    assert lines["collectives alone (model)"][0] == "20 ms + 30 ms between slices"
    assert lines["loss if nothing overlaps (model)"][0] == "25.0%"  # 50 of 200 ms
    assert lines["chip-hours"] == ["-", "384"] and lines["cost"] == ["-", "461 USD"]
    assert "largest global batch" not in lines  # a line that no column has
    found = {"compiled": 4, "does_not_fit": 1088}
    assert "| 1,024; 1,088 does not fit; 4 compiled |" in table.describe([table_row(largest_batch=found)])


def test_scaling_is_two_tables():
    rows = [table_row(scaling=kind, chip_hours=384.0) for kind in (search.WEAK, search.FIXED)]
    text = table.describe(rows)
    assert text.index(search.WEAK) < text.index("| loss if") < text.index(search.FIXED)
    assert text.index("| chip-hours") > text.index(search.FIXED)  # with another batch a run has other steps

"""What a compiled program sends, read off its text: how often, how much, along which mesh axes."""

import numpy as np
import pytest

from vqdna_jax.plan.collectives import collectives, device_groups

# A start and its done, one channel in two fusions, a reduce-scatter in both spellings, loops of 3, 5 and ? turns.
HLO = """\
HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(f32[] %a, f32[] %b)
}

%fused.1 (p: bf16[4,8]) -> bf16[16,8] {
  ROOT %all-gather.1 = bf16[16,8]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=7, dimensions={0}
}

%fused.2 (p: bf16[4,8]) -> bf16[16,8] {
  ROOT %all-gather.2 = bf16[16,8]{1,0:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=7, dimensions={0}
}

%all-reduce-scatter.1 (p: f32[64]) -> f32[16] {
  %all-reduce.9 = f32[64]{0} all-reduce(%p), channel_id=8, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %slice.9 = f32[16]{0} dynamic-slice(%all-reduce.9, %i)
}

%less (p: (s32[], f32[10])) -> pred[] {
  %constant.3 = s32[]{:T(128)} constant(3)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%i, %constant.3), direction=LT
}

%turn (p: (s32[], f32[10])) -> (s32[], f32[10]) {
  %all-reduce.2 = (f32[10]{0}, /*index=1*/s8[4]{0}) all-reduce(%x, %y), channel_id=2, to_apply=%add
  ROOT %t = (s32[], f32[10]) tuple(%i, %x)
}

%told (p: (s32[], f32[10])) -> (s32[], f32[10]) {
  %cp = (f32[10]{0}, f32[10]{0}, u32[], u32[]) collective-permute-start(%x), channel_id=3
  ROOT %cpd = f32[10]{0} collective-permute-done(%cp)
}

ENTRY %main (x: f32[10]) -> f32[10] {
  %w1 = (s32[], f32[10]) while(%t), condition=%less, body=%turn
  %w2 = (s32[], f32[10]) while(%t), condition=%never, body=%told, backend_config={"known_trip_count":{"n":"5"}}
  %f1 = bf16[16,8] fusion(%p), kind=kCustom, calls=%fused.1
  %f2 = bf16[16,8] fusion(%p), kind=kCustom, calls=%fused.2
  %f3 = f32[16] fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1
  %rs = f32[16]{0} reduce-scatter(%x), channel_id=11, replica_groups=[2,4]<=[8], dimensions={0}, to_apply=%add
  %ags = ((f32[2]{0}, f32[3]{0}), (f32[8]{0}, f32[12]{0})) all-gather-start(%a, %b), channel_id=12, dimensions={0}
  %agd = (f32[8]{0}, f32[12]{0}) all-gather-done(%ags)
  ROOT %ars = f32[] all-reduce(%s), channel_id=13, to_apply=%add
}
"""
EIGHT = {"data": 2, "fsdp": 2, "tensor": 2, "context": 1}
SENT = {
    "all-reduce": {"count": 3 + 1, "bytes": 3 * 44 + 4},
    "all-gather": {"count": 2, "bytes": 2 * 16 * 8 + 4 * (8 + 12)},
    "reduce-scatter": {"count": 2, "bytes": 4 * 64 + 4 * 4 * 16},
    "collective-permute": {"count": 5, "bytes": 5 * 40},
}


def test_collectives_of_a_program_count_once_a_run():
    sent = collectives(HLO, EIGHT)
    assert sent.loops_known and sent.by_kind == SENT and not sent.between_slices["count"]
    # Two have groups, of four neighbours of eight; the others are of all devices.
    assert sent.by_axes["fsdp+tensor"] == {"reduce-scatter": SENT["reduce-scatter"]}
    assert sent.by_axes["data+fsdp+tensor"] == {k: v for k, v in SENT.items() if k != "reduce-scatter"}


def test_a_loop_of_unknown_length_is_said_so():
    sent = collectives(HLO.replace("direction=LT", "direction=NE"), EIGHT)
    assert not sent.loops_known and sent.by_kind["all-reduce"] == {"count": 2, "bytes": 44 + 4}


def test_an_operation_name_is_no_operation():
    hlo = HLO.replace(" all-reduce(", " add(").replace("-scatter(", "-window(")
    assert collectives(hlo, EIGHT).by_kind.keys() == {"all-gather", "collective-permute"}


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", "tensor"),
        ("replica_groups={{0,2},{1,3},{4,6},{5,7}}", "fsdp"),
        ("replica_groups={{0,6},{1,7},{2,4},{3,5}}", "data+fsdp"),
        ("replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}", "none"),
        ("replica_groups={}", "data+fsdp+tensor"),
        ("dimensions={0}", "data+fsdp+tensor"),
        ("replica_groups=[4,2]<=[8]", "tensor"),
        ("replica_groups=[2,4]<=[8]", "fsdp+tensor"),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", "data"),
        ("replica_groups=[4,2]<=[4,2]T(0,1)", "tensor"),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", "data+fsdp"),
        ("replica_groups=[4,2]<=[2,2,2]T(0,2,1)", "fsdp"),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}", "data"),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, dimensions={0}", "data+fsdp"),
        ("replica_groups=mesh['a'=2,'b'=2,'c'=2] {'a','c'}", "data+tensor"),
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}", "data+fsdp"),
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}", "tensor"),
        ("source_target_pairs={{0,4},{4,0}}", "data"),
        ("source_target_pairs={{0,1},{1,3}}", "fsdp+tensor"),
    ],
)
def test_the_axes_are_those_along_which_a_group_differs(groups, axes):
    kind = "collective-permute" if groups.startswith("source") else "all-reduce"
    line = f"  ROOT %x = f32[10]{{0}} {kind}(%y), channel_id=1, {groups}"
    sent = collectives(f"ENTRY %main (x: f32[10]) -> f32[10] {{\n{line}\n}}\n", EIGHT)
    assert sent.by_axes == {axes: {kind: {"count": 1, "bytes": 40}}}


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 4, 1), (4, 1, 2), (1, 8, 1)])
@pytest.mark.parametrize("inside", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
def test_every_spelling_gives_the_same_groups(shape, inside):
    """The groups along axes of a mesh, written in three ways, against the mesh cut by hand."""
    ids = np.arange(8).reshape(shape)
    outside = tuple(axis for axis in range(3) if axis not in inside)
    size = int(np.prod([shape[axis] for axis in inside]))
    expected = np.array(
        [
            ids[np.ix_(*[[at[outside.index(a)]] if a in outside else range(shape[a]) for a in range(3)])].ravel()
            for at in np.ndindex(*[shape[a] for a in outside])
        ]
    )
    dims, order = (",".join(map(str, n)) for n in (shape, outside + inside))
    lists = ",".join("{" + ",".join(map(str, group)) + "}" for group in expected)
    names = ",".join(f"'{'abc'[a]}'" for a in inside)
    mesh = ",".join(f"'{name}'={n}" for name, n in zip("abc", shape))
    for text in (f"{{{lists}}}", f"[{8 // size},{size}]<=[{dims}]T({order})", f"mesh[{mesh}] {{{names}}}"):
        assert np.array_equal(device_groups(f"replica_groups={text}, dimensions={{0}}", 8), expected)


def test_collectives_of_one_channel_are_one_unless_a_shard_map_wrote_them():
    """Of which all have the channel 1; those that the compiler splits have a chain in common."""
    line = "  %g{} = f32[10]{{0}} all-gather(%y), channel_id={}, replica_groups={{{{0,1}}}}{}\n"
    chain = ', frontend_attributes={chain_id="4"}'
    for channel, more, count in ((1, "", 2), (1, chain, 1), (7, "", 1)):
        lines = "".join(line.format(i, channel, more) for i in range(2))
        sent = collectives(f"ENTRY %main (x: f32[10]) -> f32[10] {{\n{lines}}}\n", EIGHT)
        assert sent.by_kind == {"all-gather": {"count": count, "bytes": 40 * count}}


def test_what_goes_to_other_slices_is_counted_apart():
    """A sum over two slices: one inside each, then a send through the hosts, once a turn of a loop of three."""
    megascale = 'is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}'
    send = f"  %s = (f32[5]{{0:T(128)}}, u32[], token[]) send(%x, %token), channel_id=20, {megascale}\n"
    inside = HLO.replace("  ROOT %t = (s32[], f32[10]) tuple(%i, %x)\n", f"{send}  ROOT %t = (s32[]) tuple(%i)\n")
    to_host = send.replace("megascale", "other").replace("channel_id=20", "channel_id=21")
    sent = collectives(
        inside.replace("ENTRY %main (x: f32[10]) -> f32[10] {\n", "ENTRY %main (x: f32[10]) -> f32[10] {\n" + to_host),
        EIGHT,
    )
    assert sent.between_slices == {"count": 3, "bytes": 3 * 20} and sent.by_kind == SENT

"""`vqdna plan`: what a step sends, whether it fits, and every wrong question refused before anything is compiled."""

import importlib.util
import json
import platform
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mcm
from vqdna_jax import errors, hub, partition, plan, plan_table, window_stages
from vqdna_jax.collectives import collectives
from vqdna_jax.models.attention import HEADS, attention
from vqdna_jax.models.tokenizer import TokenizerConfig

TINY, TOPOLOGY = "configs/mcm.py:tiny", "v5e:2x2"
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None or platform.machine() != "x86_64",
    reason="libtpu, the TPU compiler, is not installed (tools/test.sh brings it on Linux x86_64)",
)
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
SENT = {
    "all-reduce": {"count": 3 + 1, "bytes": 3 * 44 + 4},
    "all-gather": {"count": 2, "bytes": 2 * 16 * 8 + 4 * (8 + 12)},
    "reduce-scatter": {"count": 2, "bytes": 4 * 64 + 4 * 4 * 16},
    "collective-permute": {"count": 5, "bytes": 5 * 40},
}


def test_collectives_of_a_program_count_once_a_run():
    assert collectives(HLO) == (SENT, True)


def test_a_loop_of_unknown_length_is_said_so():
    sent, known = collectives(HLO.replace("direction=LT", "direction=NE"))
    assert not known and sent["all-reduce"] == {"count": 2, "bytes": 44 + 4}


def test_an_operation_name_is_no_operation():
    assert collectives(HLO.replace(" all-reduce(", " add(").replace("-scatter(", "-window("))[0].keys() == {
        "all-gather", "collective-permute",
    }  # fmt: skip


def small_config(**mesh):
    config = mcm.get_config("tiny")
    config.model.update(layers=1, heads=2, width=256, hidden=1024, dtype="bfloat16")
    config.data.update(window_bp=128, global_batch=16)
    config.mesh.update(mesh)
    return config


def small_row(**mesh) -> dict:
    config = small_config(**mesh)
    tokenizer = TokenizerConfig(quantizer="vqvae", code_size=64, width=32, blocks=1, stem_channels=16)
    task = window_stages.masked_codes_task(config, tokenizer, "tpu")
    assert task.compute.attention == "splash"
    devices = partition.make_mesh(**config.mesh, devices=plan.topology_devices(TOPOLOGY))
    return {"config": "small", "set": [], "topology": TOPOLOGY} | plan.plan_row(config, task, devices, 0.4)


@needs_libtpu
def test_data_parallel_sums_the_gradients_and_sends_nothing_else():
    row = small_row()
    assert row["fits"] and row["state_bytes"] < row["peak_bytes"] < row["hbm_bytes"] == 15.75 * 2**30
    assert row["donated_bytes"] >= row["state_bytes"]
    assert row["loops_known"] and set(row["collectives"]) <= {"all-reduce", "all-gather"}
    # Gradients of matrices are bf16, of vectors f32.
    assert 2 * row["parameters"] < row["collectives"]["all-reduce"]["bytes"] < 2.2 * row["parameters"]
    # The broadcast CLS vector's gradient, a row a window, is all that may be gathered.
    assert row["collectives"].get("all-gather", {"bytes": 0})["bytes"] <= 16 * 256 * 2
    assert row["step_s"] == pytest.approx(row["flops"] / (4 * 197e12 * 0.4))
    assert "DOES NOT FIT" not in plan_table.describe([row])


@needs_libtpu
@pytest.mark.slow
def test_fsdp_splits_the_state_and_gathers_the_weights():
    whole, split = small_row(), small_row(fsdp=4)
    assert split["state_bytes"] < 0.3 * whole["state_bytes"]
    assert split["collectives"]["all-gather"]["bytes"] > 2 * split["parameters"]


@needs_libtpu
def test_what_does_not_fit_is_a_row():
    mesh = partition.make_mesh(devices=plan.topology_devices(TOPOLOGY)[:1])
    x = jax.ShapeDtypeStruct((400_000, 200_000), jnp.float32, sharding=jax.NamedSharding(mesh, jax.P()))
    found = plan._compile(jax.jit(lambda x: (jnp.sin(x), jnp.cos(x))).lower(x), None)
    assert not found["fits"] and found["hbm_bytes"] == 15.75 * 2**30
    assert found["peak_bytes"] == pytest.approx(3 * 4 * 8e10, rel=0.01)


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 21.90G of 15.75G hbm. Exceeded hbm by 6.15G.",
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (21.90G) exceeds"
        " available HBM (15.75G).",
    ],
)
def test_both_messages_of_the_compiler_are_read(message):
    def refuse():
        raise jax.errors.JaxRuntimeError(message)

    found = plan._compile(types.SimpleNamespace(compile=refuse), None)
    assert (found["fits"], found["peak_bytes"]) == (False, round(21.9 * 2**30))


def test_another_failure_of_the_compiler_is_no_answer():
    def refuse():
        raise jax.errors.JaxRuntimeError("INTERNAL: Mosaic failed to compile")

    with pytest.raises(jax.errors.JaxRuntimeError, match="Mosaic"):
        plan._compile(types.SimpleNamespace(compile=refuse), None)


@pytest.mark.parametrize(
    ("source", "overrides", "says"),
    [
        ("configs/none.py", [], "no file configs/none.py"),
        ("configs/mcm.py:huge", [], "expected tiny, base or large"),
        (TINY, ["model.layer=2"], "config key 'layer' does not exist"),
        (TINY, ["model.layers=two"], "model.layers=two"),
        (TINY, ["model.layers"], "expected KEY=VALUE"),
        (TINY, ["model.heads=5"], "config key model.width"),
        (TINY, ["compute.remat=some"], "config key compute.remat"),
        (TINY, ["compute.attention=cudnn"], "which is for GPUs"),
        (TINY, ["tokenizer=/nowhere"], "/nowhere/config.json"),
        (TINY, ["masking.kind=code_spans", "masking.span=2"], "masking.span=2"),
        (TINY, ["data.window_bp=4"], "config key data.window_bp: found 4"),
        (TINY, ["data.global_batch=30"], "config key data.global_batch: found 30, expected a multiple of the 4 shards"),
        (TINY, ["mesh.fsdp=3"], "config key mesh"),
        (TINY, ["mesh.tensor=4", "model.heads=2"], "config key model.heads: found 2, expected a multiple of mesh.ten"),
    ],
)
def test_bad_input_is_refused_before_anything_is_compiled(source, overrides, says, monkeypatch):
    device = jax.devices()[0]
    monkeypatch.setattr(plan, "topology_devices", lambda name: np.array(jax.devices()[:4]))
    monkeypatch.setattr(plan, "plan_row", lambda *_: pytest.fail(f"compiled, for {device}"))
    with pytest.raises(errors.InputError) as refused:
        plan.plan(source, [TOPOLOGY], overrides, 0.4)
    assert says in str(refused.value) and "\n" not in str(refused.value)


@needs_libtpu
@pytest.mark.parametrize("name", ["v9:2x2", "v5e", "v5e:3x5"])
def test_an_unknown_topology_is_named(name):
    with pytest.raises(errors.InputError, match=f"--topology={name}: expected for example v5e:16x16"):
        plan.topology_devices(name)


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.InputError, match=r"pip install \.\[tpu\]"):
        plan.topology_devices(TOPOLOGY)


def test_neither_a_topology_nor_a_share_may_be_missing():
    with pytest.raises(errors.InputError, match="--topology is missing"):
        plan.plan(TINY, [], [], 0.4)
    with pytest.raises(errors.InputError, match="--mfu: found 0"):
        plan.plan(TINY, [TOPOLOGY], [], 0)


def test_the_tokenizer_is_that_of_the_preset_or_the_one_named(tmp_path):
    def tokenizer(preset, *overrides):
        source = f"configs/mcm.py:{preset}"
        return plan.make_task(plan.read_config(source, overrides), source).tokenizer

    assert tokenizer("tiny").width == 96
    assert tokenizer("large") == tokenizer("base") == TokenizerConfig()
    model = {"code_size": 64} | {k: v for k, v in vars(TokenizerConfig()).items() if k != "code_size"}
    described = {"schema": hub.TOKENIZER, "model": model, "tokenizer_digest": "", "window_bp": 512}
    (tmp_path / "config.json").write_text(json.dumps(described))
    assert tokenizer("base", f"tokenizer={tmp_path}").code_size == 64


@pytest.mark.parametrize("lengths", [None, [129, 60]])
def test_splash_leaves_to_xla_what_it_cannot_do(lengths):
    """129 codes, as when parameters are made with CLS in front, or sequences of their own lengths."""
    qkv = jax.random.normal(jax.random.key(0), (3, 2, 129 if lengths is None else 256, 2, 8))
    mesh = partition.make_mesh(devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        qkv = jax.device_put(qkv, partition.spec(None, *HEADS))
        lengths = lengths and jax.device_put(jnp.array(lengths), partition.spec("batch"))
        assert jnp.array_equal(*(attention(*qkv, kernel, 0, lengths) for kernel in ("splash", "xla")))

"""`vqdna plan`: what a step sends, whether it fits, and every wrong question refused before anything is compiled."""

import importlib.util
import json
import platform
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_mesh import mesh_of

from configs import mcm
from vqdna_jax import errors, partition, stages
from vqdna_jax.labels.batches import Encoded, FeatureBatches, LabelledBatches, LabelledFeatures
from vqdna_jax.models.attention import HEADS, attention
from vqdna_jax.models.tokenizer import TokenizerConfig
from vqdna_jax.plan import compile, table, tasks
from vqdna_jax.plan.collectives import collectives
from vqdna_jax.runtime import exports
from vqdna_jax.stages import abstract, masked_codes
from vqdna_jax.training import experiments

TINY, TOPOLOGY = "configs/mcm.py:tiny", "v5e:2x2"
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None or platform.machine() != "x86_64",
    reason="libtpu, the TPU compiler, is not installed (tools/test.sh brings it on Linux x86_64)",
)


def small_settings(**mesh):
    config = mcm.get_config("tiny")
    config.model.update(layers=1, heads=2, width=256, hidden=1024, dtype="bfloat16")
    config.data.update(window_bp=128, global_batch=16)
    config.mesh.update(mesh)
    return stages.read_settings(config)


def settings_of(source: str, *overrides: str):
    return stages.read_settings(experiments.read_config(source, overrides))


def small_row(**axes) -> dict:
    settings = small_settings(**axes)
    tokenizer = TokenizerConfig(quantizer="vqvae", code_size=64, width=32, blocks=1, stem_channels=16)
    task = masked_codes.masked_codes_task(settings, tokenizer, "tpu")
    assert task.compute.attention == "splash"
    planned = abstract.Planned(task, tokenizer, settings.data.window_bp)
    mesh = partition.make_mesh(**axes, devices=compile.topology_devices(TOPOLOGY))
    return {"config": "small", "set": [], "topology": TOPOLOGY} | compile.plan_row(settings, planned, mesh, 0.4, 1.5)


@needs_libtpu
def test_data_parallel_sums_the_gradients_and_sends_nothing_else():
    row = small_row()
    assert row["fits"] and row["state_bytes"] < row["peak_bytes"] < row["hbm_bytes"] == 15.75 * 2**30
    assert row["donated_bytes"] >= row["state_bytes"]
    assert row["loops_known"] and set(row["collectives"]) <= {"all-reduce", "all-gather"}
    # Gradients of matrices are bf16, of vectors f32.
    assert 2 * row["parameters"] < row["collectives"]["all-reduce"]["bytes"] < 2.2 * row["parameters"]
    # The broadcast CLS vector's gradient, a row per window, is all that may be gathered.
    assert row["collectives"].get("all-gather", {"bytes": 0})["bytes"] <= 16 * 256 * 2
    assert row["collectives_by_axes"] == {"data": row["collectives"]} and row["between_slices"]["count"] == 0
    assert row["step_s"] == pytest.approx(row["flops"] / (4 * 197e12 * 0.4))
    assert row["codes_per_s"] == row["bases_per_s"] == pytest.approx(16 * 128 / row["step_s"])
    assert row["chip_hours"] == pytest.approx(4 * 24 * row["days"]) == pytest.approx(800 * 4 * row["step_s"] / 3600)
    assert row["cost_usd"] == pytest.approx(1.5 * row["chip_hours"])
    assert "DOES NOT FIT" not in table.describe([row])


@needs_libtpu
def test_fsdp_sends_weights_and_tensor_sends_activations():
    """Of one layer of width D = 256, by hand, in bf16: its 12 D^2 weights, split in two by `tensor`, are gathered once
    along `fsdp` and their gradients summed once; along `tensor` the 8 x 128 codes of a shard of the batch are summed
    twice forward and twice backward. What is not the layer's (norms, heads, the input's projection) is a tenth."""
    row = small_row(fsdp=2, tensor=2)
    sent = {
        axes: {kind: amount["bytes"] for kind, amount in kinds.items()}
        for axes, kinds in row["collectives_by_axes"].items()
    }
    weights, activations = 2 * 12 * 256**2 // 2, 4 * 2 * 8 * 128 * 256
    assert weights < sent["fsdp"]["all-gather"] < 1.1 * weights
    assert weights < sent["fsdp"]["all-reduce"] + sent["fsdp"].get("reduce-scatter", 0) < 1.1 * weights
    assert sent["tensor"].keys() == {"all-reduce"} and activations < sent["tensor"]["all-reduce"] < 1.1 * activations
    assert not any("data" in axes for axes in sent)
    for kind, amount in row["collectives"].items():
        assert sum(kinds.get(kind, 0) for kinds in sent.values()) == amount["bytes"]


@needs_libtpu
@pytest.mark.slow
def test_fsdp_splits_the_state_and_gathers_the_weights():
    whole, split = small_row(), small_row(fsdp=4)
    assert split["state_bytes"] < 0.3 * whole["state_bytes"]
    assert split["collectives"]["all-gather"]["bytes"] > 2 * split["parameters"]


@needs_libtpu
def test_what_does_not_fit_is_a_row():
    mesh = partition.make_mesh(devices=compile.topology_devices(TOPOLOGY)[:1])
    x = jax.ShapeDtypeStruct((400_000, 200_000), jnp.float32, sharding=jax.NamedSharding(mesh, jax.P()))
    found = compile._compile(jax.jit(lambda x: (jnp.sin(x), jnp.cos(x))).lower(x), None, mesh.shape)
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

    found = compile._compile(types.SimpleNamespace(compile=refuse), None, {})
    assert (found["fits"], found["peak_bytes"]) == (False, round(21.9 * 2**30))


def test_another_failure_of_the_compiler_is_no_answer():
    def refuse():
        raise jax.errors.JaxRuntimeError("INTERNAL: Mosaic failed to compile")

    with pytest.raises(jax.errors.JaxRuntimeError, match="Mosaic"):
        compile._compile(types.SimpleNamespace(compile=refuse), None, {})


@pytest.mark.parametrize(
    ("source", "overrides", "says"),
    [
        ("configs/none.py", [], "no Python file configs/none.py"),
        ("configs/mcm.py:huge", [], "expected tiny, mini, small, base or large"),
        (TINY, ["model.layer=2"], "config key 'model.layer' does not exist, the closest is model.layers"),
        (TINY, ["model.layers=two"], "model.layers=two"),
        (TINY, ["model.layers"], "expected KEY=VALUE"),
        (TINY, ["model.heads=5"], "config key model.width"),
        (TINY, ["compute.remat=some"], "config key compute.remat"),
        (TINY, ["compute.attention=cudnn"], "which is for GPUs"),
        (TINY, ["tokenizer=/nowhere"], "/nowhere: no such file or directory"),
        (TINY, ["masking.kind=code_spans", "masking.span=2"], "masking.span=2"),
        (TINY, ["data.window_bp=4"], "config key data.window_bp: found 4"),
        (TINY, ["data.global_batch=30"], "config key data.global_batch: found 30, expected a multiple of the 4 shards"),
        (TINY, ["mesh.fsdp=3"], "config key mesh"),
        ("configs/finetune.py:tiny", ["pretrained=/nowhere"], "/nowhere: no such file or directory"),
        ("configs/finetune.py:tiny", ["compute.attention=cudnn"], "which is for GPUs"),
        (TINY, ["mesh.tensor=4", "model.heads=2"], "config key model.heads: found 2, expected a multiple of mesh.ten"),
    ],
)
def test_bad_input_is_refused_before_anything_is_compiled(source, overrides, says, monkeypatch):
    device = jax.devices()[0]
    monkeypatch.setattr(compile, "topology_devices", lambda name: np.array(jax.devices()[:4]))
    monkeypatch.setattr(compile, "plan_row", lambda *_: pytest.fail(f"compiled, for {device}"))
    with pytest.raises(errors.InputError) as refused:
        compile.plan(source, [TOPOLOGY], overrides, 0.4)
    assert says in str(refused.value) and "\n" not in str(refused.value)


@needs_libtpu
@pytest.mark.parametrize("name", ["v9:2x2", "v5e", "v5e:3x5"])
def test_an_unknown_topology_is_named(name):
    with pytest.raises(errors.InputError, match=f"--topology={name}: expected for example v5e:16x16"):
        compile.topology_devices(name)


@pytest.mark.parametrize(
    ("overrides", "trained"),
    [
        ([], "lora"),
        (["tuning.method=full", "data.kind=multilabel", "data.label_names=('a','b','c')"], "transformer"),
        (["tuning.method=head", "data.kind=regression"], "head"),
    ],
)
def test_finetuning_is_lowered_with_the_batch_that_its_stage_gives(overrides, trained):
    """No base is named: its shapes are those of mcm.py and hrq.py beside the experiment."""
    source, mesh = "configs/finetune.py:tiny", partition.make_mesh(devices=jax.devices()[:4])
    settings = settings_of(source, "data.global_batch=8", *overrides)
    planned = tasks.make_task(settings, source)
    task, row = planned.task, planned.row()
    network = task.network
    assert (network.model.width, planned.window_bp) == (128, 256) and network.compute.attention == "xla"
    _, batch = abstract.abstract_inputs(planned, 8, mesh)
    labels = np.zeros(
        (8, network.outputs) if task.kind == "multilabel" else 8,
        np.int32 if task.kind == "classification" else np.float32,
    )
    codes = [np.zeros((row.codes, len(planned.tokenizer.codebook_sizes)), np.uint16)] * 8
    features = FeatureBatches(LabelledFeatures(np.zeros((8, network.width), np.float32), labels), 8, 0)
    of_codes = LabelledBatches(Encoded(codes, labels), 8, 0, row.codes, network.model.cls)
    real = (features if task.method == "head" else of_codes)[0]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), real) == jax.tree.map(lambda x: (x.shape, x.dtype), batch)
    state, _ = compile._lower_step(settings, planned, mesh)
    assert trained in state.params
    assert (row.bases, row.flops) == (255, 255 * task.flops_per_code(256))


def test_finetuning_a_base_that_is_named_has_its_shapes(tmp_path):
    base = {
        "layers": 2,
        "width": 64,
        "heads": 4,
        "hidden": 96,
        "activation": "geglu",
        "window": 0,
        "cls": False,
        "rope_base": 1e4,
        "dtype": "float32",
    }
    described = {
        "schema": exports.PRETRAINED,
        "model": dict(vars(TokenizerConfig())),
        "tokenizer_digest": "",
        "window_bp": 128,
        "transformer": base,
        "pretrained_digest": "",
    }
    (tmp_path / "config.json").write_text(json.dumps(described))
    source = "configs/finetune.py:tiny"
    settings = settings_of(source, f"pretrained={tmp_path}")
    planned = tasks.make_task(settings, source)
    assert (planned.task.network.model.width, planned.window_bp, planned.tokenizer) == (64, 128, TokenizerConfig())
    with pytest.raises(errors.InputError, match="mesh.tensor: found 3, expected a divisor of the base's heads=4"):
        tasks.make_task(settings.changed({"mesh.tensor": 3}), source)
    (tmp_path / "config.json").write_text(json.dumps(described | {"schema": "vqdna-fixed-pretrained/1"}))
    with pytest.raises(errors.InputError, match="schema"):
        tasks.make_task(settings, source)


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.InputError, match=r"pip install \.\[tpu\]"):
        compile.topology_devices(TOPOLOGY)


def test_neither_a_topology_nor_a_share_may_be_missing():
    with pytest.raises(errors.InputError, match="--price: found -1"):
        compile.plan(TINY, [TOPOLOGY], [], 0.4, price=-1.0)
    with pytest.raises(errors.InputError, match="--largest-batch and --scaling"):
        compile.plan(TINY, [TOPOLOGY], [], 0.4, largest_batch=True, scaling=True)
    with pytest.raises(errors.InputError, match="--topology is missing"):
        compile.plan(TINY, [], [], 0.4)
    with pytest.raises(errors.InputError, match="--mfu: found 0"):
        compile.plan(TINY, [TOPOLOGY], [], 0)


def test_the_tokenizer_is_that_of_the_preset_or_the_one_named(tmp_path):
    def tokenizer(preset, *overrides):
        source = f"configs/mcm.py:{preset}"
        return tasks.make_task(settings_of(source, *overrides), source).tokenizer

    assert tokenizer("tiny").width == 96
    assert tokenizer("large") == tokenizer("base") == TokenizerConfig()
    model = {"code_size": 64} | {k: v for k, v in vars(TokenizerConfig()).items() if k != "code_size"}
    described = {"schema": exports.TOKENIZER, "model": model, "tokenizer_digest": "", "window_bp": 512}
    (tmp_path / "config.json").write_text(json.dumps(described))
    assert tokenizer("base", f"tokenizer={tmp_path}").code_size == 64


@needs_libtpu
@pytest.mark.parametrize(
    ("window", "sent"),
    [
        (0, {"all-gather": (2, 2 * 1024 * 512), "reduce-scatter": (2, 2 * 1024 * 512)}),
        (100, {"collective-permute": (8, 8 * 128 * 512)}),
    ],
)
def test_devices_that_share_a_sequence_send_all_keys_and_values_or_those_in_a_window(window, sent):
    """1,024 codes of 2 heads of 128 in bf16: K and V and their gradients, of all codes or of 128 on each side."""
    mesh = partition.make_mesh(context=4, devices=compile.topology_devices(TOPOLOGY))

    def total(q, k, v):
        return jnp.sum(jnp.square(attention(q, k, v, "splash", window).astype(jnp.float32)))

    with jax.set_mesh(mesh):
        sharding = jax.NamedSharding(mesh, partition.spec(*HEADS))
        heads = jax.ShapeDtypeStruct((1, 1024, 2, 128), jnp.bfloat16, sharding=sharding)
        compiled = jax.jit(jax.grad(total, (0, 1, 2))).lower(heads, heads, heads).compile()
    found = collectives(compiled.as_text(), mesh.shape).by_axes
    assert found == {"context": {kind: {"count": n, "bytes": size} for kind, (n, size) in sent.items()}}


@needs_libtpu
@pytest.mark.parametrize(("topology", "most"), [("v5e:4x4", 4), ("v5e:2x4", 8), ("v5p:4x4x4", 4)])
def test_a_sequence_is_shared_within_a_host(topology, most):
    """Two of these have machines of four chips, and one is a machine of eight."""
    devices = compile.topology_devices(topology)
    mesh = partition.make_mesh(context=most, devices=devices)
    hosts = [{device.process_index for device in of.ravel()} for of in mesh.devices]
    assert all(len(host) == 1 for host in hosts)
    for context in (2 * most, 16):
        with pytest.raises(
            errors.InputError, match=f"context={context} (does not divide the {most} devices of a host|is 16)"
        ):
            partition.make_mesh(context=context, devices=devices)


@pytest.mark.parametrize("lengths", [None, [129, 60]])
def test_splash_leaves_to_xla_what_it_cannot_do(lengths):
    """129 codes, as when parameters are made with CLS in front, or sequences of their own lengths."""
    qkv = jax.random.normal(jax.random.key(0), (3, 2, 129 if lengths is None else 256, 2, 8))
    mesh = mesh_of()
    with jax.set_mesh(mesh):
        qkv = jax.device_put(qkv, partition.spec(None, *HEADS))
        lengths = lengths and jax.device_put(jnp.array(lengths), partition.spec("batch"))
        assert jnp.array_equal(*(attention(*qkv, kernel, 0, lengths) for kernel in ("splash", "xla")))


@needs_libtpu
def test_a_pod_gets_none_of_the_forms_for_a_cpu_in_a_process_that_has_only_a_cpu():
    ask = jax.jit(lambda x: x + partition.is_for_cpu())
    pod = partition.make_mesh(devices=compile.topology_devices(TOPOLOGY)[:1])
    for mesh, answer in ((mesh_of(), "True"), (pod, "False"), (mesh_of(), "True")):  # meshes of one shape
        with jax.set_mesh(mesh):
            assert f" {answer}:bool" in str(ask.trace(jax.ShapeDtypeStruct((), bool)).jaxpr)
    settings = small_settings()
    tokenizer = TokenizerConfig(quantizer="vqvae", code_size=64, width=32, blocks=1, stem_channels=16)
    planned = abstract.Planned(masked_codes.masked_codes_task(settings, tokenizer, "tpu"), tokenizer, 128)
    _, lowered = compile._lower_step(settings, planned, pod)
    assert "optimization_barrier" not in lowered.as_text()

"""Every bad config is one line that names its key, exit code 43, before anything is built."""

import dataclasses
import pathlib

import pytest

from configs import finetune, hrq, mcm, vqvae
from vqdna_jax import main, partition, stages
from vqdna_jax.errors import InputError
from vqdna_jax.models.hyena import HyenaConfig
from vqdna_jax.models.hyena_encoder import HyenaEncoderConfig
from vqdna_jax.models.transformer import TransformerConfig
from vqdna_jax.runtime import typed
from vqdna_jax.training import settings

ROOT = pathlib.Path(__file__).parents[2]
BAD_VALUES = {
    "data.window_bp": 0,
    "data.global_batch": -1,
    "data.max_n_share": 1.5,
    "data.temperature": 0.0,
    "model.quantizer": "rvq",
    "model.bases_per_code": 3,
    "model.dtype": "float16",
    "model.width": 0,
    "model.kernel_size": 4,
    "codebook.ema_decay": 1.0,
    "hidden_share": 1.0,
    "optimizer.learning_rate": float("nan"),
    "train.total_steps": -5,
    "eval.batch": 0,
    "mesh.context": 0,
    "seed": -1,
}

HYENA = {"model.kind": "hyena", "model.cls": False}

PRESETS = [
    (experiment, preset)
    for experiment in (hrq, vqvae, mcm, finetune)
    for preset in ("tiny", "base", *(["large"] if experiment is mcm else []))
]
EXPERIMENTS = {"vocabulary": hrq, "mcm": mcm, "finetune": finetune}
LEAVES = [
    (task, key) for task, of in EXPERIMENTS.items() for key in typed.flat(of.get_config().to_dict()) if key != "task"
]


def changed(experiment, values: dict, preset: str = "tiny"):
    config = experiment.get_config(preset)
    config.update_from_flattened_dict(values)
    return config


@pytest.mark.parametrize(("experiment", "preset"), PRESETS)
def test_every_key_of_the_shipped_configs_is_a_field(experiment, preset):
    config = experiment.get_config(preset)
    read = stages.read_settings(config)
    assert read.recorded == config.to_dict() and "task" in read.recorded
    fields = dataclasses.asdict(read)
    del fields["recorded"]
    told, known = typed.flat(config.to_dict()), typed.flat(fields)
    del told["task"]
    assert told.items() <= known.items()
    unsaid = {
        "optimizer.decay",
        "optimizer.head_rate",
        *(f"train.{field.name}" for field in dataclasses.fields(settings.TrainSettings)),
    }
    assert known.keys() - told.keys() <= unsaid


@pytest.mark.parametrize("key", BAD_VALUES)
def test_a_bad_value_names_its_key(key):
    with pytest.raises(InputError, match=f"config key {key}: found {BAD_VALUES[key]!r}, expected") as caught:
        stages.read_settings(changed(hrq, {key: BAD_VALUES[key]}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["seed", "data.window_bp", "model.code_size", "train.total_steps", "mesh.data"])
def test_an_integer_beyond_all_arrays_names_its_key(key):
    recorded = settings._replaced(hrq.get_config().to_dict(), key.split("."), 10**30)
    with pytest.raises(InputError, match=f"^config key {key}: found {10**30}, expected at most "):
        settings.read(settings.VocabularySettings, recorded)


@pytest.mark.parametrize(("task", "key"), LEAVES)
@pytest.mark.parametrize("value", [None, {"a": []}, float("nan")])
def test_a_value_of_another_type_names_its_key(task, key, value):
    recorded = settings._replaced(EXPERIMENTS[task].get_config().to_dict(), key.split("."), value)
    with pytest.raises(InputError, match=f"^config key {key}(.a)?: found .*, expected ") as caught:
        settings.read(stages.SETTINGS[task], recorded)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "closest"),
    [("data.windw_bp", "data.window_bp"), ("optimiser", "optimizer"), ("model.layer", "model.blocks|model.")],
)
def test_an_unknown_key_names_the_closest(key, closest):
    recorded = settings._replaced(hrq.get_config().to_dict(), key.split("."), 1)
    with pytest.raises(InputError, match=f"config key {key} does not exist; the closest is ({closest})"):
        settings.read(settings.VocabularySettings, recorded)


def test_a_key_that_only_some_stages_have_may_be_left_out():
    config = hrq.get_config("tiny")
    with config.unlocked():
        del config.train.stop_below_utilisation
    read = stages.read_settings(config)
    assert read.train.stop_below_utilisation == 0 and read.recorded == config.to_dict()
    with config.unlocked():
        del config.train.keep_checkpoints
    with pytest.raises(InputError, match="config key train.keep_checkpoints is missing"):
        stages.read_settings(config)


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(InputError, match="config key task: found 'mlm', expected one of vocabulary, mcm, finetune"):
        stages.read_settings(changed(hrq, {"task": "mlm"}))


@pytest.mark.parametrize(
    ("experiment", "values", "complaint"),
    [
        (
            hrq,
            {"data.window_bp": 100, "model.bases_per_code": 16},
            "key data.window_bp: 100 is not a multiple of model.b",
        ),
        (hrq, {"model.blocks": 1}, "key model.blocks: found 1, expected 2 or more: hrq"),
        (
            hrq,
            {"data.temperature": 2.0, "data.species_weights": {"a": 1}},
            "keys data.temperature and data.species_wei",
        ),
        (hrq, {"train.total_epochs": 1.0}, "keys train.total_steps and train.total_epochs: set one of them"),
        (finetune, {"train.total_epochs": 0.0}, "keys train.total_steps and train.total_epochs: set one of them"),
        (mcm, {"model.heads": 3}, "key model.width: found 128, expected a multiple of 2 x model.heads=3"),
        (mcm, {"model.kind": "mamba"}, "key model.kind: found 'mamba', expected one of transformer, hyena"),
        (mcm, {"model.causal": True}, "key model.causal: found True, expected False with model.kind=transformer"),
        (mcm, {"model.kind": "hyena"}, "key model.cls: found True, expected False with model.kind=hyena"),
        (mcm, HYENA | {"model.window": 8}, "key model.window: found 8, expected 0 with model.kind=hyena"),
        (mcm, HYENA | {"model.activation": "geglu"}, "key model.activation: found 'geglu', expected gelu with"),
        (
            mcm,
            {"train.microbatches": 3},
            "key data.global_batch: found 16, expected a multiple of train.microbatches=3",
        ),
    ],
)
def test_values_that_do_not_fit_together(experiment, values, complaint):
    with pytest.raises(InputError, match=f"config {complaint}") as caught:
        stages.read_settings(changed(experiment, values))
    assert "\n" not in str(caught.value)
    if values == {"model.blocks": 1}:
        stages.read_settings(changed(vqvae, values))


@pytest.mark.parametrize(
    ("experiment", "values", "shards", "complaint"),
    [
        (
            hrq,
            {},
            5,
            r"data.global_batch: found 16, expected a multiple of the 5 shards of the batch \(mesh data x fsdp\)$",
        ),
        (mcm, {"train.microbatches": 4}, 8, "data.global_batch: found 16, .* the 8 shards .* x train.microbatches=4$"),
        (finetune, {"eval.batch": 20}, 8, "eval.batch: found 20, expected a multiple of the 8 shards"),
        (hrq, {"mesh.fsdp": 5}, 1, "model.width: found 96, expected a multiple of mesh.fsdp=5"),
        (mcm, {"mesh.tensor": 8, "model.heads": 4}, 1, "model.heads: found 4, expected a multiple of mesh.tensor=8"),
        (mcm, HYENA | {"mesh.tensor": 2}, 1, "mesh.tensor: found 2, expected 1: model.kind=hyena splits no layer"),
        (mcm, HYENA | {"mesh.fsdp": 3}, 1, "model.width: found 128, expected a multiple of mesh.fsdp=3"),
        (hrq, {"mesh.context": 3}, 1, "mesh.context: found 3, expected a divisor of the 256 codes of a window; "),
        (hrq, {"mesh.context": 8, "data.window_bp": 4}, 1, "mesh.context: found 8, expected a divisor of the 4 codes"),
        (mcm, HYENA | {"mesh.context": 3}, 1, "model.width: found 128, expected a multiple of mesh.context=3"),
        (mcm, {"mesh.tensor": 4, "model.hidden": 6}, 1, "model.hidden: found 6, expected a multiple of mesh.tensor=4"),
    ],
)
def test_what_no_mesh_can_split(experiment, values, shards, complaint):
    read = stages.read_settings(changed(experiment, values))
    with pytest.raises(InputError, match=f"^config key {complaint}"):
        read.check(shards)


def test_a_mesh_divides_the_base_that_is_fine_tuned():
    base = TransformerConfig(width=12, heads=6, hidden=8)
    stages.read_settings(changed(finetune, {"mesh.tensor": 2, "mesh.fsdp": 3, "mesh.context": 4})).check_base(base, 64)
    for key, size, named in (("tensor", 4, "heads=6"), ("tensor", 3, "hidden=8"), ("fsdp", 5, "width=12")):
        read = stages.read_settings(changed(finetune, {f"mesh.{key}": size}))
        with pytest.raises(InputError, match=f"mesh.{key}: found {size}, expected a divisor of the base's {named}"):
            read.check_base(base, 64)


@pytest.mark.parametrize(
    ("base", "context", "complaint"),
    [
        (TransformerConfig(), 2, "found 2, expected a divisor of the 63 codes of the base's windows, CLS included"),
        (TransformerConfig(), 3, "found 3, expected a divisor of 8"),
        (HyenaEncoderConfig(width=12), 8, "found 8, expected a divisor of the base's width=12"),
        (HyenaConfig(), 2, "found 2, expected 1: a published network is not split"),
    ],
)
def test_what_devices_cannot_share_of_a_base_is_refused(base, context, complaint):
    read = stages.read_settings(changed(finetune, {"mesh.context": context}))
    with pytest.raises(InputError, match=f"^config key mesh.context: {complaint}"):
        read.check_base(base, 64 if isinstance(base, HyenaEncoderConfig) else 63)


@pytest.mark.parametrize("values", [{"seed": 7}, {"data.global_batch": 32, "train.microbatches": 4}])
def test_changed_settings_are_those_of_the_changed_config(values):
    read = stages.read_settings(mcm.get_config("tiny"))
    again = stages.read_settings(changed(mcm, values))
    assert read.changed(values) == again and read.changed(values).recorded == again.recorded
    assert read == stages.read_settings(mcm.get_config("tiny")) and read.seed == 0
    with pytest.raises(InputError, match="config key data.global_batch: found 0"):
        read.changed({"data.global_batch": 0})


def test_a_mesh_of_the_wrong_size_names_the_numbers():
    with pytest.raises(InputError, match="fsdp=3.* is 6 devices, but there are 8"):
        partition.make_mesh(fsdp=3)


def test_resume_lists_the_changed_keys_and_lets_the_harmless_ones_pass():
    def meta(config, corpus="a", tokenizer="t"):
        return {"config": config.to_dict(), "corpus_digest": corpus, "tokenizer_digest": tokenizer}

    old, new = hrq.get_config("tiny"), hrq.get_config("tiny")
    new.train.log_every_steps = 99
    new.eval.windows = 7
    kind = settings.VocabularySettings
    settings.refuse_changes(meta(old), meta(new), kind)
    new.model.width = 8
    with pytest.raises(InputError, match="model.width was 96, is 8"):
        settings.refuse_changes(meta(old), meta(new), kind)
    with pytest.raises(InputError, match="corpus_digest"):
        settings.refuse_changes(meta(old), meta(old, corpus="b"), kind)
    with pytest.raises(InputError, match="tokenizer_digest was 't', is 'u'"):
        settings.refuse_changes(meta(old), meta(old, tokenizer="u"), kind)


LATER = [
    (task, key, value)
    for task, kind in stages.SETTINGS.items()
    for key, value in typed.defaults_of(kind).items()
    if key in typed.flat(EXPERIMENTS[task].get_config().to_dict())
]


@pytest.mark.parametrize(("task", "key", "default"), LATER)
def test_a_run_that_is_older_than_a_key_goes_on_with_its_default_alone(task, key, default):
    def without(tree: dict, path: list[str]) -> dict:
        name, *rest = path
        return {k: without(v, rest) if k == name else v for k, v in tree.items() if rest or k != name}

    now = EXPERIMENTS[task].get_config().to_dict()
    saved, kind = {"config": without(now, key.split("."))}, stages.SETTINGS[task]
    assert key not in typed.flat(saved["config"])
    settings.refuse_changes(saved, {"config": settings._replaced(now, key.split("."), default)}, kind)
    if not settings._mutable(key):
        with pytest.raises(InputError, match=f"{key} was "):
            settings.refuse_changes(saved, {"config": settings._replaced(now, key.split("."), "another")}, kind)


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--config=configs/hrq.py:tiny", "--workdir=x", "--config.data.nope=3"], "nope"),
        (["--config=configs/hrq.py:tiny", "--workdir=x", "--config.seed=abc"], "seed=abc"),
        (["--config=configs/hrq.py:tiny", "--workdir=x", "--config.data=3"], "data=3"),
        (["--config=configs/hrq.py:huge", "--workdir=x"], "huge"),
        (["--config=configs/absent.py", "--workdir=x"], "configs/absent.py"),
        (["--config=configs/hrq.py:tiny"], "--workdir is missing"),
        (["--config=configs/hrq.py:tiny", "--workdir=x", "stray"], "stray"),
        (["--config=configs/hrq.py:tiny", "--workdir=/proc/x"], "/proc/x"),
        (["--config=configs/hrq.py:tiny", "--workdir=x", "--config.data.corpus=/absent"], "/absent"),
    ],
)
def test_a_bad_command_line_is_one_line_and_leaves_nothing(arguments, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stop:
        main.main(["main.py", *(a.replace("--workdir=x", f"--workdir={tmp_path}/x") for a in arguments)])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 43 and line.startswith("error: ") and named in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method, rate", [("lora", 3e-3), ("head", 3e-3), ("full", 1e-3)])
def test_the_rate_of_fine_tuning_falls_with_the_width_of_the_base(method, rate):
    left_open = stages.read_settings(changed(finetune, {"tuning.method": method}))
    rates = [left_open.with_rate(width).optimizer.learning_rate for width in (128, 192, 384, 768)]
    assert rates[:2] == [rate, rate] and rates[-1] == pytest.approx(rate / 10, rel=0.01)
    assert rates[1] > rates[2] > rates[3]
    said = stages.read_settings(changed(finetune, {"tuning.method": method, "optimizer.learning_rate": 0.5}))
    assert said.with_rate(768) == said


@pytest.mark.parametrize("experiment", [hrq, vqvae, mcm])
def test_the_other_stages_have_a_rate(experiment):
    with pytest.raises(InputError, match="config key optimizer.learning_rate: found 0.0, expected a positive number"):
        stages.read_settings(changed(experiment, {"optimizer.learning_rate": 0.0}))

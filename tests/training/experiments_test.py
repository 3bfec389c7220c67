"""Experiments by name or path, and KEY=VALUE: what is read is what is meant, what is not is refused in one line."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
import refusals

from configs import hrq
from vqdna_jax import main, stages
from vqdna_jax.benchmark import jobs
from vqdna_jax.errors import InputError
from vqdna_jax.plan import compile
from vqdna_jax.training import experiments

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = sorted(file.stem for file in (ROOT / "configs").glob("[!_]*.py"))


def refusal(source: str, *overrides: str) -> str:
    message = refusals.refusal(experiments.read_config, source, overrides)
    assert "\\n" not in message
    return message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("preset", ["", ":base", ":tiny"])
def test_a_name_and_its_path_are_one_experiment_wherever_one_is(name, preset, tmp_path, monkeypatch):
    here = experiments.read_config(f"{ROOT}/configs/{name}.py{preset}")
    monkeypatch.chdir(tmp_path)
    assert experiments.read_config(f"{name}{preset}") == here
    assert experiments.read_config(f"configs/{name}.py{preset}") == here
    assert experiments.read_config(f"./configs/{name}.py{preset}") == here


def test_the_file_that_is_here_wins_over_the_one_that_comes_with_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("configs").mkdir()
    own = (ROOT / "configs/hrq.py").read_text().replace("seed=0", "seed=17")
    pathlib.Path("configs/hrq.py").write_text(own)
    assert experiments.read_config("configs/hrq.py:tiny").seed == 17
    assert experiments.read_config("hrq:tiny").seed == 0
    assert experiments.beside("configs/mcm.py", "hrq") == pathlib.Path("configs/hrq.py")
    assert experiments.beside("configs/mcm.py", "vqvae") == experiments.find("vqvae")


@pytest.mark.parametrize("source", ["hqr:tiny", "configs/absent.py", "absent/hrq.py", "hrq.py", "", ROOT, "setup"])
def test_what_is_no_experiment_is_named_with_those_that_there_are(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = str(source).partition(":")[0] or "an empty name"
    assert refusal(str(source)) == (
        f"--config={name}: there is no Python file {name}; expected one, or one of {', '.join(NAMES)}"
    )


@pytest.mark.parametrize(
    "text, says",
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("def get_config(", "'(' was never closed"),
        ("def get_config(preset):\n    raise ValueError('not\\ntoday')", "not"),
        ("def get_config():\n    pass", "get_config() takes 0 positional arguments"),
        ("x = 1", "has no function get_config(preset)"),
    ],
)
def test_a_file_that_does_not_work_says_why(text, says, tmp_path):
    (tmp_path / "own.py").write_text(text)
    assert says in refusal(f"{tmp_path}/own.py:tiny")


def test_values_are_read_as_the_type_that_is_there():
    config = experiments.read_config(
        "finetune:tiny",
        [
            "seed=3",
            "train.total_epochs=2",
            "optimizer.learning_rate=1e-5",
            "head.mlp=False",
            "tuning.targets=q|k=v",
            "data.label_names=promoter,enhancer",
            "pretrained=",
        ],
    )
    assert (config.seed, config.train.total_epochs, config.optimizer.learning_rate) == (3, 2.0, 1e-5)
    assert type(config.train.total_epochs) is float
    assert (config.head.mlp, config.tuning.targets, config.pretrained) == (False, "q|k=v", "")
    assert config.data.label_names == ("promoter", "enhancer")


@pytest.mark.parametrize(
    "text, value",
    [("", ()), ("a", ("a",)), ("a,b", ("a", "b")), ("('a','b')", ("a", "b")), ("['a']", ("a",)), ("()", ())],
)
def test_lists_have_commas_or_are_written_as_in_python(text, value):
    assert experiments.read_config("finetune", [f"data.label_names={text}"]).data.label_names == value


def test_a_table_with_free_names_is_given_as_a_whole():
    config = experiments.read_config("hrq", ["data.species_weights={'human': 2.0, 'mouse': 1.0}"])
    assert config.data.species_weights.to_dict() == {"human": 2.0, "mouse": 1.0}


def test_the_last_value_of_a_key_counts():
    assert experiments.read_config("hrq", ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    "source, overrides, steps_and_epochs",
    [
        ("finetune", ["train.total_steps=30"], (30, 0.0)),
        ("hrq", ["train.total_steps=30"], (30, 0.0)),
        ("mcm", ["train.total_epochs=0.5"], (0, 0.5)),
        ("mcm:tiny", ["train.total_epochs=0"], (800, 0.0)),
        ("finetune", ["train.total_steps=0"], (0, 3.0)),
        ("finetune", ["train.total_epochs=10", "train.total_steps=30"], (30, 0.0)),
        ("finetune", ["train.total_steps=30", "train.total_epochs=10"], (0, 10.0)),
        ("finetune", ["train.total_epochs=0", "train.total_steps=30"], (30, 0.0)),
    ],
)
def test_a_length_given_by_hand_is_the_length_of_the_run(source, overrides, steps_and_epochs):
    """In steps or in epochs, whatever the experiment has; the last one counts, as of any key."""
    config = experiments.read_config(source, overrides)
    assert (config.train.total_steps, config.train.total_epochs) == steps_and_epochs
    stages.read_settings(config)


@pytest.mark.parametrize("preset", ["base", "tiny"])
def test_without_overrides_nothing_changes(preset):
    assert experiments.read_config(f"hrq:{preset}") == hrq.get_config(preset)


@pytest.mark.parametrize(
    "override, says",
    [
        ("seed=abc", "config key seed=abc: expected a whole number, such as 0"),
        ("seed=", "config key seed=: expected a whole number, such as 0"),
        ("model.code_size=1.5", "config key model.code_size=1.5: expected a whole number, such as 512"),
        ("optimizer.b1=high", "config key optimizer.b1=high: expected a number, such as 0.9"),
        ("data=3", "config key data=3: expected one of its keys, such as data.corpus"),
        ("data.species_weights=3", "config key data.species_weights=3: expected {'NAME': NUMBER, ...}"),
        ("data.species_weights={", "config key data.species_weights={: expected {'NAME': NUMBER, ...}"),
        ("seed", "config key 'seed': expected KEY=VALUE"),
        ("train.total_step=5", "config key 'train.total_step' does not exist, the closest is train.total_steps"),
        (
            "learning_rate=1",
            "config key 'learning_rate' does not exist, the closest is optimizer.learning_rate;",
        ),
        ("data.corpus.x=1", "config key 'data.corpus.x' does not exist, the closest is data.corpus;"),
        ("model.k\n=1", r"config key 'model.k\n' does not exist"),
    ],
)
def test_what_is_no_key_or_no_value_of_it_is_refused(override, says):
    with pytest.raises(InputError) as refused:
        experiments.read_config("hrq", [override])
    assert str(refused.value).startswith(says) and "\n" not in str(refused.value)


def read_by_main(override: str, place: pathlib.Path) -> None:
    main.parse(["main", "--config=finetune:tiny", f"--workdir={place}", f"--config.{override}"])


def read_by_plan(override: str, place: pathlib.Path) -> None:
    compile.plan("finetune:tiny", ["v5e:2x2"], [override], 0.4)


def read_by_benchmark(override: str, place: pathlib.Path) -> None:
    plan = jobs.Plan(place, {"model": place}, place / "out", preset="tiny", settings=[override])
    jobs.config_of(plan, place, jobs.Job("model", "tf/0", 0))


@pytest.mark.parametrize("read", [read_by_main, read_by_plan, read_by_benchmark])
@pytest.mark.parametrize(
    "override, says",
    [
        ("tuning.rang=3", "config key 'tuning.rang' does not exist, the closest is tuning.rank"),
        ("tuning.rank=three", "config key tuning.rank=three: expected a whole number, such as 8"),
    ],
)
def test_all_commands_read_keys_alike(read, override, says, tmp_path):
    with pytest.raises(InputError, match=f"^{re.escape(says)}"):
        read(override, tmp_path)


def test_reading_an_experiment_imports_no_jax():
    program = (
        "import sys\nfrom vqdna_jax.training import experiments\nexperiments.read_config('vqvae:tiny', ['seed=1'])\n"
        "print([name for name in ('jax', 'numpy') if name in sys.modules])"
    )
    end = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ)
    assert end.stdout.strip() == "[]", end.stderr

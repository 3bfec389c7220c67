"""Every bad config is one line that names its key, exit code 43, before anything is built."""

import pathlib
import subprocess
import sys

import pytest

from configs import finetune, hrq, mcm, vqvae
from vqdna_jax import partition
from vqdna_jax.errors import InputError
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
    "mesh.context": 2,
    "seed": -1,
}


@pytest.mark.parametrize("preset", ["tiny", "base"])
@pytest.mark.parametrize("experiment", [hrq, vqvae, mcm, finetune])
def test_the_shipped_configs_are_valid(experiment, preset):
    settings.validate(experiment.get_config(preset))


@pytest.mark.parametrize("key", BAD_VALUES)
def test_a_bad_value_names_its_key(key):
    config = hrq.get_config("tiny")
    config.update_from_flattened_dict({key: BAD_VALUES[key]})
    with pytest.raises(InputError, match=key) as caught:
        settings.validate(config)
    assert "\n" not in str(caught.value) and "expected" in str(caught.value)


def test_values_that_do_not_fit_together():
    config = hrq.get_config("tiny")
    config.update_from_flattened_dict({"data.window_bp": 100, "model.bases_per_code": 16})
    with pytest.raises(InputError, match="data.window_bp: 100 is not a multiple"):
        settings.validate(config)
    config = hrq.get_config("tiny")
    config.train.total_epochs = 1.0
    with pytest.raises(InputError, match="set one of them"):
        settings.validate(config)


def test_a_batch_that_no_mesh_can_split():
    config = hrq.get_config("tiny")
    with pytest.raises(InputError, match="data.global_batch: found 16, expected a multiple of the 5"):
        settings.validate_mesh(config, 5)


def test_a_mesh_of_the_wrong_size_names_the_numbers():
    with pytest.raises(InputError, match="fsdp=3.* is 6 devices, but there are 8"):
        partition.make_mesh(fsdp=3)


def test_resume_lists_the_changed_keys_and_lets_the_harmless_ones_pass():
    def meta(config, corpus="a", tokenizer="t"):
        return {"config": config.to_dict(), "corpus_digest": corpus, "tokenizer_digest": tokenizer}

    old, new = hrq.get_config("tiny"), hrq.get_config("tiny")
    new.train.log_every_steps = 99
    new.eval.windows = 7
    settings.refuse_changes(meta(old), meta(new))
    new.model.width = 8
    with pytest.raises(InputError, match="model.width was 96, is 8"):
        settings.refuse_changes(meta(old), meta(new))
    with pytest.raises(InputError, match="corpus_digest"):
        settings.refuse_changes(meta(old), meta(old, corpus="b"))
    with pytest.raises(InputError, match="tokenizer_digest was 't', is 'u'"):
        settings.refuse_changes(meta(old), meta(old, tokenizer="u"))


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
def test_a_bad_command_line_is_one_line_and_leaves_nothing(arguments, named, tmp_path):
    command = [sys.executable, "-m", "vqdna_jax.main", *arguments]
    arguments_in_tmp = [a.replace("--workdir=x", f"--workdir={tmp_path}/x") for a in command]
    run = subprocess.run(arguments_in_tmp, capture_output=True, text=True, cwd=ROOT, timeout=120)
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert run.returncode == 43 and len(errors) == 1 and named in errors[0]
    assert "Traceback" not in run.stderr and not list(tmp_path.iterdir())

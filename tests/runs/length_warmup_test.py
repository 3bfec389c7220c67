"""Fine-tuning runs that begin with stretches of the sequences: what is said, compiled, gone on with, and refused."""

import json
import re

import numpy as np
import pytest
import safetensors.numpy
from small_finetune import LENGTHS, ROWS, changed, refused, write_set
from small_run import rows_of, run, steps_on, stop_at
from tiny_pretrained import save_tiny_over_fixed, save_tiny_pretrained

from vqdna_jax.errors import EXIT_STOPPED
from vqdna_jax.tokenizers.byte_pairs import BytePairs

FIRST = 8  # bases; 31, of which a code has one each, take the lengths 8 and 16
STEPS = 16  # an epoch has 6


def config_of(place, **settings):
    """Of sequences of one length, whole in the last four steps."""
    if not (place / "whole").exists():
        write_set(place / "whole", lengths=LENGTHS[1:])
    settings = {"data__length_warmup_bp": FIRST, "data__labelled": str(place / "whole")} | settings
    return changed(place, **{"head__pool": "mean", "data__strands": "both"} | settings)


def said_of(err: str) -> list[tuple[int, str]]:
    """(steps done, length) at each change."""
    return [(int(step), length) for step, length in re.findall(r"^length after (\d+) steps?: (.*)$", err, re.MULTILINE)]


@pytest.mark.parametrize("method", ["lora", "head", pytest.param("full", marks=pytest.mark.slow)])
def test_a_run_says_its_lengths_and_goes_on_bitwise_in_the_middle_of_one(place, tmp_path, monkeypatch, capfd, method):
    config, whole, stopped = config_of(place, tuning__method=method), tmp_path / "whole", tmp_path / "stopped"
    assert run(config, whole) == 0
    out, err = capfd.readouterr()
    assert said_of(err) == [(0, "8 bases"), (6, "16 bases"), (12, "whole sequences")]
    assert "lengths    8, 16 bases, 6 steps each; then whole sequences" in out
    result = json.loads((whole / "result.json").read_text())
    assert result["bases_seen"] == 32 * (6 * 8 + 6 * 16 + 4 * 31)
    first, *_ = (value for _, value in rows_of(whole, "eval_mcc"))  # of whole sequences, as all evaluations
    assert first == pytest.approx(result["probe_dev_mcc"]) and result["dev_mcc"] >= first
    assert [step for step, _ in rows_of(whole, "bases_per_s")] == [14]  # step 13 compiles, and 15 is evaluated

    with monkeypatch.context() as patch:
        stop_at(patch, 9)
        assert run(config, stopped) == EXIT_STOPPED
    capfd.readouterr()
    assert run(config, stopped) == 0
    assert said_of(capfd.readouterr().err) == [(10, "16 bases"), (12, "whole sequences")]
    for name in ("loss", "eval_mcc"):
        assert rows_of(stopped, name) == rows_of(whole, name)
    found, expected = (safetensors.numpy.load_file(of / "export/model.safetensors") for of in (stopped, whole))
    assert found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in found)


def test_there_is_a_compiled_shape_a_length(place):
    with steps_on(config_of(place), 1) as on:
        shapes = [on.stage.data.batches[step].codes_BxWxLxN.shape[1:3] for step in range(STEPS)]
    assert shapes == 6 * [(1, 15)] + 6 * [(1, 23)] + 4 * [(1, 31)]  # with CLS a multiple of eight


@pytest.mark.slow
def test_losses_are_the_same_where_devices_share_the_sequences(place, tmp_path):
    for context in (1, 2):
        assert run(config_of(place, mesh__context=context), tmp_path / str(context), devices=context) == 0
    one, two = ([loss for _, loss in rows_of(tmp_path / str(context))] for context in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-4)


BAD = {
    "longer than all": ({"data__length_warmup_bp": 31}, "found 31, expected fewer than the 31 of the longest training"),
    "no time left": ({"data__length_warmup_bp": 4}, "found 4, expected more, or a longer run: 3 epochs of 6 steps are"),
    "counts": ({"head__pool": "mean+words"}, "head.pool: found 'mean+words', expected no words, pairs or"),
    "positions": ({"head__pool": "positions:4"}, "head.pool: found 'positions:4', expected no words"),
    "negative": ({"data__length_warmup_bp": -1}, "data.length_warmup_bp: found -1, expected an integer, 0 or more"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_work_is_one_line_before_anything_is_compiled(place, tmp_path, case):
    settings, message = BAD[case]
    assert message in refused(config_of(place, **settings), tmp_path / "run")


def test_a_length_that_codes_do_not_divide(place, tmp_path):
    save_tiny_pretrained(tmp_path / "fours", bases_per_code=4, context=32)
    message = refused(config_of(place, pretrained=str(tmp_path / "fours"), data__length_warmup_bp=10), tmp_path / "run")
    assert "data.length_warmup_bp: found 10, expected a multiple of the 4 bases of a code" in message


def test_tokens_of_no_fixed_length(place, tmp_path):
    save_tiny_over_fixed(tmp_path / "pairs", BytePairs((("A", "C"), ("T", "T"))))
    message = refused(config_of(place, pretrained=str(tmp_path / "pairs")), tmp_path / "run")
    assert "data.length_warmup_bp: found 8, expected 0: this base's codes are of no fixed number of bases" in message


def test_auto_leaves_out_what_only_whole_sequences_have(place):
    with steps_on(config_of(place, head__pool="auto"), 1) as on:
        tried = on.stage.plan_lines(on.init(on.put(on.stage.data.batches[0])))
    line = next(line for line in tried if "tried on dev" in line)
    assert {name.split()[0] for name in line.partition(": ")[2].split(", ")} == {"mean", "segments:8"}
    assert ROWS["dev"] == 64

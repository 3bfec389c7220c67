"""`vqdna plan --length`: memory by length, the longest sequence that fits, wrong questions refused in one line."""

import pytest

from vqdna_jax.errors import InputError
from vqdna_jax.plan import lengths

SMALL = ["compute.layers=scanned", "compute.remat=full", "model.layers=1"]


def on(*names: str) -> list[lengths.Device]:
    return [device for device in lengths.devices() if device.name in names]


def tiny(*overrides: str) -> lengths.Subject:
    return lengths.of_config("configs/mcm.py:tiny", [*SMALL, *overrides])


@pytest.fixture(scope="module")
def rows():
    """Of fine-tuning, on chips that differ in nothing but their memory."""
    subject = tiny()
    return {device.name: lengths.row_of(subject, "fine-tuning", device, 8192) for device in on("v5e", "v5p")}


def test_the_longest_fits_with_the_margin_and_a_longer_one_does_not(rows):
    subject, (device,) = tiny(), on("v5e")
    longest, room = rows["v5e"]["longest"], lengths.LEAST * device.room
    fits, does_not = (lengths.peak_of(subject, "fine-tuning", "tpu", n) for n in (longest, longest // 100 * 103))
    assert fits <= 1.01 * room < does_not


def test_more_room_fits_more(rows):
    small, large = rows["v5e"], rows["v5p"]
    assert small["peak_bytes"] == large["peak_bytes"] and small["fits"]
    assert large["longest"] / small["longest"] == pytest.approx(95.74 / 15.75, rel=0.02)  # it grows with the length


def test_devices_that_share_a_sequence_have_room_for_a_longer_one(rows):
    row = lengths.row_of(tiny("mesh.context=4"), "fine-tuning", on("v5e")[0], 8192)
    assert 1.5 * rows["v5e"]["longest"] < row["longest"] < 4 * rows["v5e"]["longest"]


def test_devices_that_share_the_layers_need_less_each():
    """Of the state a quarter where both axes split it, of what is on the way a half."""
    alone, shared = (
        lengths.peak_of(tiny(*of), "pretraining", "tpu", 512) for of in ((), ("mesh.fsdp=2", "mesh.tensor=2"))
    )
    assert alone / 4 < shared < 0.75 * alone


@pytest.mark.slow
def test_pretraining_takes_more_as_the_length_does():
    subject = tiny()
    peaks = [lengths.peak_of(subject, "pretraining", "cpu", length) for length in (32_768, 65_536)]
    assert peaks[1] / peaks[0] == pytest.approx(2, rel=0.02)


def test_a_trained_model_embeds_any_length_in_windows():
    subject = lengths.of_model("mini", [])
    (device,) = on("CPU")
    row = lengths.row_of(subject, "inference", device, 1 << 20)
    assert row["fits"] and row["longest"] is None and row["parameters"] == 1_820_736
    assert row["peak_bytes"] == lengths.peak_of(subject, "inference", "cpu", 1 << 15)


def test_the_table_says_it_in_words(rows):
    text = lengths.describe(list(rows.values()))
    assert text.startswith("configs/mcm.py:tiny: ") and "| v5e, 15.8 GiB | v5p, 95.7 GiB |" in text
    assert f"| longest sequence | {rows['v5e']['longest']:,} |" in text
    none = lengths.describe([row | {"longest": 0, "fits": False} for row in rows.values()])
    assert ": may not fit" in none and "| none |" in none


@pytest.mark.parametrize(
    ("config", "model", "length", "overrides", "says"),
    [
        ("", "", 8192, [], "--length: needs --config=configs/mcm.py:PRESET or --model=MODEL, one of them"),
        ("configs/mcm.py:tiny", "mini", 8192, [], "one of them"),
        ("configs/hrq.py:tiny", "", 8192, [], "expected configs/mcm.py:PRESET"),
        ("configs/mcm.py:tiny", "", 0, [], "--length=0: expected a multiple of the 1 bases of a code, at least 64"),
        ("configs/mcm.py:tiny", "", 8192, ["mesh.context=3"], "mesh.context: found 3, expected a divisor of 8"),
        ("configs/mcm.py:tiny", "", 8192, ["mesh.data=2"], "config key mesh.data: --length tells the memory of one"),
        ("configs/mcm.py:tiny", "", 8192, ["mesh.fsdp=3"], "mesh.fsdp: found 3, expected a divisor of the base's"),
        ("", "mini", 8192, ["mesh.tensor=7"], "mesh.tensor: found 7, expected a divisor of the base's heads"),
        ("configs/mcm.py:tiny", "", 8192, ["tokenizer=/nowhere"], "/nowhere: no such file or directory"),
        ("", "/nowhere", 8192, [], "/nowhere"),
    ],
)
def test_a_wrong_question_is_refused_in_one_line(config, model, length, overrides, says):
    with pytest.raises(InputError) as refused:
        lengths.plan(config, model, length, overrides)
    assert says in str(refused.value) and "\n" not in str(refused.value)

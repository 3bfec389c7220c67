"""Rows survive a kill and a resume; throughput leaves out pauses; the mesh words refuse nonsense."""

import json

import jax
import numpy as np
import pytest

from vqdna_jax import partition
from vqdna_jax.errors import NumericsError
from vqdna_jax.genome.windows import Windows
from vqdna_jax.training import metrics


def test_rows_after_the_resumed_step_and_a_line_cut_short_are_dropped(tmp_path):
    lines = [json.dumps({"step": step, "loss": 1.0 / step}) for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 4, "lo')
    assert [row["step"] for row in metrics.read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    writer = metrics.MetricWriter(tmp_path, first_step=2)
    writer.write(3, {"loss": float("nan"), "accuracy": 0.5})
    writer.close()
    rows = metrics.read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[-1] == {"step": 3, "loss": None, "accuracy": 0.5}


def test_throughput_counts_steps_and_leaves_out_pauses(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    counted = metrics.Throughput(bases_per_step=100, flops_per_step=5e9, chips=1)
    assert counted.measure(1) == {}
    now[0] = 2.0
    assert counted.measure(5) == {"bases_per_s": 200.0, "gflops_per_s": 10.0}
    counted.pause()
    now[0] = 50.0
    assert counted.measure(6) == {}
    now[0] = 51.0
    assert counted.measure(8)["bases_per_s"] == 200.0
    assert counted.bases_per_s() == 200.0


def test_no_rate_is_told_of_a_warm_up_of_the_length(monkeypatch):
    """Whose steps have fewer bases."""
    now = [0.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    counted = metrics.Throughput(bases_per_step=100, flops_per_step=5e9, chips=1, first_step=4)
    for step in (1, 3, 4):
        counted.resume(step)
        now[0] += 1.0
        assert counted.measure(step + 1) == ({} if step < 4 else {"bases_per_s": 100.0, "gflops_per_s": 5.0})
    assert counted.bases_per_s() == 100.0


def log_of(path, losses, **settings):
    log = metrics.StepLog(path, 0, 10, 1, lambda step: 0.1, metrics.Throughput(1, 1.0, 1), **settings)
    for step, loss in enumerate(losses):
        log.step(step, {"loss": np.float32(loss), "gradient_norm": np.float32(1.0)})
    return log


def test_three_losses_in_a_row_that_are_not_finite_end_the_run(tmp_path):
    with pytest.raises(NumericsError, match="step 3: loss nan.* 3 steps in a row"):
        log_of(tmp_path, [1.0, np.nan, np.inf, np.nan, np.inf]).close()


def test_fewer_are_said_and_the_run_goes_on(tmp_path, capsys):
    log_of(tmp_path, [np.nan, np.nan, 1.0, np.nan, np.inf, 1.0]).close()
    assert capsys.readouterr().err.count("this step changed nothing") == 4
    assert [row["loss"] for row in metrics.read_rows(tmp_path / "metrics.jsonl")][2::3] == [1.0, 1.0]


def test_a_collapsed_codebook_ends_the_run_where_that_is_asked_for(tmp_path):
    used = [{"codebook_1_utilisation": share, "codebook_2_utilisation": 1.0} for share in (0.2, 0.4, 0.2, 0.29)]
    for name in "ab":
        (tmp_path / name).mkdir()
    patient = log_of(tmp_path / "a", [], stop_below_utilisation=0.0)
    asked = log_of(tmp_path / "b", [], stop_below_utilisation=0.3)
    for step, values in enumerate(used[:3]):
        patient.evaluation(step, values)
        asked.evaluation(step, values)  # under it twice, but not in a row
    patient.evaluation(3, used[3])
    with pytest.raises(NumericsError, match="codebook_1_utilisation is 0.290, in 2 evaluations in a row under"):
        asked.evaluation(3, used[3])


def test_one_mesh_axis_cannot_split_two_dimensions():
    with pytest.raises(ValueError, match="used twice"):
        partition.spec("embed", "embed")


def test_rows_become_a_global_batch_split_over_data_and_fsdp():
    mesh = partition.make_mesh(data=4, fsdp=2)
    rows = np.arange(48, dtype=np.uint8).reshape(16, 3)
    batch = partition.batch_to_devices(Windows(rows), mesh, 16).bases_BxS
    np.testing.assert_array_equal(jax.device_get(batch), rows)
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2, 3)}

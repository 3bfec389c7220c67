"""Rows survive a kill and a resume; throughput leaves out pauses; the mesh words refuse nonsense."""

import json

import jax
import numpy as np
import pytest

from vqdna_jax import metrics, partition
from vqdna_jax.errors import NumericsError


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
    throughput = metrics.Throughput(bases_per_step=100, flops_per_step=5e9)
    assert throughput.measure(1) == {}
    now[0] = 2.0
    assert throughput.measure(5) == {"bases_per_s": 200.0, "gflops_per_s": 10.0}
    throughput.pause()
    now[0] = 50.0
    assert throughput.measure(6) == {}
    now[0] = 51.0
    assert throughput.measure(8)["bases_per_s"] == 200.0
    assert throughput.bases_per_s() == 200.0


def test_the_first_loss_that_is_not_finite_ends_the_run(tmp_path):
    throughput = metrics.Throughput(1, 1.0)
    log = metrics.StepLog(tmp_path, 0, 10, 1, lambda step: 0.1, throughput)
    log.step(0, {"loss": np.float32(1.0), "gradient_norm": np.float32(1.0)})
    log.step(1, {"loss": np.float32(np.inf), "gradient_norm": np.float32(1.0)})
    with pytest.raises(NumericsError, match="step 1: loss inf"):
        log.close()


def test_one_mesh_axis_cannot_split_two_dimensions():
    with pytest.raises(ValueError, match="used twice"):
        partition.spec("embed", "embed")


def test_rows_become_a_global_batch_split_over_data_and_fsdp():
    mesh = partition.make_mesh(data=4, fsdp=2)
    rows = np.arange(48, dtype=np.uint8).reshape(16, 3)
    batch = partition.batch_to_devices({"bases": rows}, mesh, 16)["bases"]
    np.testing.assert_array_equal(jax.device_get(batch), rows)
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2, 3)}

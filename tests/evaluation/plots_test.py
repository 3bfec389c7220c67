import struct
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from vqdna_jax.evaluation import plots

pytestmark = pytest.mark.filterwarnings("error")  # an empty log axis or a missing glyph must not pass unseen


def png_size(path) -> tuple[int, int]:
    """Width and height from the header, once it is a PNG with something drawn on it."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR"
    pixels = matplotlib.image.imread(path)[..., :3]
    assert 0.005 < np.mean(pixels.min(axis=-1) < 0.6) < 0.5, "blank or black"
    return struct.unpack(">II", data[16:24])


def full_metrics() -> list[dict]:
    rows = []
    for step in range(0, 300, 10):
        loss = 1.4 * np.exp(-step / 50)
        row = {"step": step, "loss": loss + 0.1, "reconstruction_loss": loss, "commitment_loss": 0.2}
        row |= {"reconstruction_accuracy": min(1.0, 0.25 + step / 200)}
        for level in (1, 2):
            row |= {f"codebook_{level}_perplexity": 10.0 * level, f"codebook_{level}_utilisation": 0.4 * level}
        rows.append(row)
        if step % 100 == 0:
            rows.append({"step": step, "eval_reconstruction_loss": loss, "eval_codebook_1_perplexity": 9.0})
    return rows


def test_importing_the_module_does_not_import_matplotlib():
    check = "import sys, vqdna_jax.evaluation.plots; sys.exit('matplotlib' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


def test_curves_have_a_panel_for_each_quantity(tmp_path):
    plots.plot_curves(full_metrics(), tmp_path / "all.png")
    plots.plot_curves([{"step": 0, "loss": 1.0}, {"step": 5, "loss": 0.5}], tmp_path / "one.png")
    (width, height), (one_width, one_height) = png_size(tmp_path / "all.png"), png_size(tmp_path / "one.png")
    assert (width, height) == (3 * one_width, 2 * one_height)
    assert one_width > 600 and (tmp_path / "all.png").stat().st_size < 1_000_000


@pytest.mark.parametrize(
    "metrics",
    [
        [{"step": 3, "eval_reconstruction_accuracy": 1.0}, {"bases_per_second": 10.0}],
        [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": None}, {"step": 3, "loss": 0.5}],
        [{"step": 1, "codebook_1_utilisation": 0.0}, {"step": 2, "eval_codebook_3_perplexity": 4.0}],
    ],
    ids=["evaluation only", "not finite", "one level only"],
)
def test_curves_stand_missing_keys(tmp_path, metrics):
    plots.plot_curves(metrics, tmp_path / "curves.png")
    png_size(tmp_path / "curves.png")


@pytest.mark.parametrize("metrics", [[], [{"step": 1}], [{"loss": 2.0}]])
def test_curves_of_an_empty_run_say_so(tmp_path, metrics):
    plots.plot_curves(metrics, tmp_path / "curves.png")
    plots.plot_curves([{"step": 1, "loss": 1.0}], tmp_path / "some.png")
    assert (tmp_path / "curves.png").stat().st_size < (tmp_path / "some.png").stat().st_size


def test_rows_that_lack_a_key_leave_no_gap_in_its_line():
    lines = {line["label"]: line for line in plots._panel_lines(full_metrics(), "codebook_{}_perplexity")}
    assert set(lines) == {"codebook 1, training", "codebook 2, training", "codebook 1, evaluation"}
    assert lines["codebook 1, training"]["steps"] == list(range(0, 300, 10))
    assert lines["codebook 1, evaluation"]["steps"] == [0, 100, 200]
    assert set(lines["codebook 2, training"]["values"]) == {20.0}
    colours = {label: line["color"] for label, line in lines.items()}
    assert colours["codebook 1, training"] == colours["codebook 1, evaluation"] != colours["codebook 2, training"]


def test_a_perfect_reconstruction_is_drawn_on_the_floor_of_the_log_axis():
    axes = Figure().subplots()
    plots._draw_curve(
        axes, "", [{"steps": [0, 1, 2], "values": [0.25, 0.999, 1.0], "label": "training"}], as_errors=True
    )
    drawn = axes.lines[0].get_ydata()
    np.testing.assert_allclose(drawn[:2], [0.75, 0.001])
    assert drawn[2] == axes.get_ylim()[0] < 0.001
    assert axes.get_yscale() == "log" and "floor" in axes.get_ylabel()


def axes_drawn(monkeypatch, call) -> list:
    """The axes a plot function fills, caught before they are written."""
    caught = []

    def keep(draw, rows, columns, path, *panel):
        caught.extend(Figure().subplots(rows, columns, squeeze=False).ravel())
        draw(caught)

    monkeypatch.setattr(plots, "_write", keep)
    call()
    return caught


def test_usage_shows_every_code_busiest_first(monkeypatch):
    counts = [np.array([10, 0, 30, 60]), np.array([5, 5])]
    first, second = axes_drawn(monkeypatch, lambda: plots.plot_codebook_usage(counts, "unused"))
    np.testing.assert_allclose(first.lines[0].get_ydata(), [0.6, 0.3, 0.1])
    assert set(first.lines[1].get_ydata()) == {0.25}
    assert "3 of 4 used" in first.get_title() and "2 of 2 used, perplexity 2.0" in second.get_title()
    labels = [text.get_text() for text in first.get_legend().get_texts()]
    assert "never used: 1" in labels


@pytest.mark.parametrize("counts", [[np.arange(2048), np.array([0, 7, 0, 0])], [np.zeros(8, int)]])
def test_usage_writes_a_png_for_dead_codebooks_too(tmp_path, counts):
    plots.plot_codebook_usage(counts, tmp_path / "usage.png")
    assert png_size(tmp_path / "usage.png")[0] > 600 * len(counts)


def rate_rows() -> list[dict]:
    rates = {"hrq": [(4, 1.97, 0.999), (1, 7.2, 1.0), (8, 1.5, 0.816)], "vqvae": [(4, 1.7, 0.93)]}
    keys = ("bases_per_code", "bits_per_base", "reconstruction_accuracy")
    return [{"kind": kind, **dict(zip(keys, row, strict=True))} for kind, rows in rates.items() for row in rows]


def test_rate_distortion_has_a_sorted_line_for_each_kind_and_every_label(monkeypatch):
    (axes,) = axes_drawn(monkeypatch, lambda: plots.plot_rate_distortion(rate_rows(), "unused"))
    hrq, vqvae, two_bits = axes.lines
    np.testing.assert_allclose(hrq.get_xydata(), [(1.5, 0.816), (1.97, 0.999), (7.2, 1.0)])
    assert (hrq.get_label(), vqvae.get_label()) == ("hrq", "vqvae")
    assert set(two_bits.get_xdata()) == {2}
    assert [(text.get_text(), text.xy[0]) for text in axes.texts] == [("8", 1.5), ("4", 1.97), ("1", 7.2), ("4", 1.7)]


def test_rate_distortion_writes_a_png_and_takes_name_for_kind(tmp_path):
    rows = [{"name": row.pop("kind"), **row} for row in rate_rows()]
    plots.plot_rate_distortion(rows, tmp_path / "named.png")
    plots.plot_rate_distortion(rate_rows(), tmp_path / "kinds.png")
    assert png_size(tmp_path / "named.png")[0] > 600
    assert (tmp_path / "named.png").read_bytes() == (tmp_path / "kinds.png").read_bytes()


def test_lines_by_length_have_intervals_and_twins_the_colour_of_their_model(monkeypatch):
    rows = [
        {"model": name, "like": "words", "control": name != "words", "length": length, "accuracy": share}
        | {"low": share - 0.2, "high": share + 0.1}
        for name in ("words", "words, untrained")
        for length, share in ((32_000, 0.9), (1000, 0.5))
    ]
    (axes,) = axes_drawn(monkeypatch, lambda: plots.plot_by_length(rows, 0.2, "unused"))
    trained, twin = (bars.lines[0] for bars in axes.containers)
    assert (trained.get_linestyle(), twin.get_linestyle()) == ("-", "--")
    assert trained.get_color() == twin.get_color()
    for bars in axes.containers:
        line, _, (intervals,) = bars.lines
        assert list(line.get_ydata()) == [0.5, 0.9] and np.allclose(line.get_xdata(), [1000, 32_000], rtol=0.13)
        ends = [segment[:, 1] for segment in intervals.get_segments()]
        np.testing.assert_allclose(ends, [(0.3, 0.6), (0.7, 1.0)])
    assert any(set(line.get_ydata()) == {0.2} for line in axes.lines)

"""A bigWig as the target: means of windows, and files that are none of this genome."""

import numpy as np
import pyBigWig
import pytest
from refusals import refusal
from small_peaks import WIDTH, make

from vqdna_jax.labels.peaks.build import Options, prepare
from vqdna_jax.labels.sets import read_set

LENGTH = 15_000


def write(path, names, length=LENGTH, seed=0) -> dict[str, np.ndarray]:
    """Values on the first 14,000 bases of each contig but every seventh; what is written, NaN elsewhere."""
    rng, found = np.random.default_rng(seed), {}
    file = pyBigWig.open(str(path), "w")
    file.addHeader([(name, length) for name in names])
    for name in names:
        values = rng.normal(size=length).astype(np.float32)
        values[14_000:], values[::7] = np.nan, np.nan
        at = np.flatnonzero(np.isfinite(values))
        file.addEntries([name] * at.size, at.tolist(), ends=(at + 1).tolist(), values=values[at].tolist())
        found[name] = values
    file.close()
    return found


def test_a_label_is_the_mean_of_the_window(genome, peaks, matched, tmp_path):
    """What has no value counts as 0; names of contigs are told; rows are the peaks of a classification."""
    values = write(tmp_path / "x.bw", [str(number) for number in range(1, 13)])
    made = make(genome, peaks, tmp_path / "set", signal=tmp_path / "x.bw")
    missing = 0
    for split, rows in made.rows.items():
        for row in rows:
            own = values[row["chrom"].removeprefix("chr")][int(row["start"]) : int(row["end"])]
            missing += np.isnan(own).sum()
            assert float(row["label"]) == pytest.approx(np.nansum(own, dtype=float) / WIDTH, rel=1e-5)
        assert [row["sequence"] for row in rows] == [
            row["sequence"] for row in matched.rows[split] if row["label"] == "1"
        ]
    assert made.prepared.without_signal == pytest.approx(missing / (WIDTH * len(made.all)))
    assert "chr1 is read as 1" in "\n".join(made.prepared.notes)
    assert read_set(made.path).kind == "regression"


def test_contigs_without_signal_are_counted(genome, peaks, tmp_path):
    write(tmp_path / "x.bw", [f"chr{number}" for number in range(1, 12)])
    made = make(genome, peaks, tmp_path / "set", signal=tmp_path / "x.bw", dev=["1"], test=["2"])
    assert "chr12" not in {row["chrom"] for row in made.all}
    assert 10 < made.prepared.left_out["peaks"]["on contigs that the bigWig lacks"] <= 20


@pytest.mark.parametrize("kept", [12, 64, 100, 300, 0.5])
def test_a_file_cut_short_is_refused(genome, peaks, kept, tmp_path):
    """The library ends its process for some of them."""
    file = tmp_path / "x.bw"
    write(file, ["chr1", "chr2"])
    size = int(kept * file.stat().st_size) if kept < 1 else kept
    file.write_bytes(file.read_bytes()[:size])
    assert "x.bw: the bigWig is damaged" in refusal(prepare, genome, peaks, tmp_path / "set", Options(signal=file))


def test_a_file_without_any_value_says_so(genome, peaks, tmp_path):
    with pyBigWig.open(str(tmp_path / "x.bw"), "w") as file:
        file.addHeader([("chr1", LENGTH), ("chr2", LENGTH)])
    assert "has no value in any window" in refusal(
        prepare, genome, peaks, tmp_path / "set", Options(signal=tmp_path / "x.bw")
    )


def bad(kind, path) -> None:
    names = ["zebra"] if kind == "names" else ["chr1", "chr2"]
    write(path, names, 14_999 if kind == "lengths" else LENGTH)
    if kind == "text":
        path.write_text("variableStep chrom=chr1\n")
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:500])
    if kind == "empty":
        path.write_bytes(b"")
    if kind == "folder":
        path.unlink()
        path.mkdir()
    if kind == "absent":
        path.unlink()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("text", "is no bigWig"),
        ("empty", "is no bigWig"),
        ("folder", "is no bigWig"),
        ("absent", "cannot be read"),
        ("cut", "is damaged"),
        ("names", "has no contig with peaks: it has 'zebra'"),
        ("lengths", "has 14,999 bases, in the FASTA file 15,000"),
    ],
)
def test_what_is_no_bigwig_of_this_genome_is_refused(kind, words, genome, peaks, tmp_path, capfd):
    bad(kind, tmp_path / "x.bw")
    options = Options(width=WIDTH, signal=tmp_path / "x.bw")
    message = refusal(prepare, genome, peaks, tmp_path / "set", options, False)
    assert message.startswith(f"{tmp_path}/x.bw: ") and words in message
    assert capfd.readouterr().err == ""  # nothing of the library

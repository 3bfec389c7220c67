"""A map of embeddings: every sequence is a point of its label, at the components that have most variance."""

import json
import pathlib
import zipfile

import numpy as np
import pytest
from matplotlib.figure import Figure
from refusals import refusal

from vqdna_jax.evaluation import embedding_map, plots
from vqdna_jax.evaluation.embedding_map import draw_map, labels_of, neighbours_alike, project
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.genome.fasta import load_fasta
from vqdna_jax.inference.jobs import embedding_files
from vqdna_jax.inference.jobs.embed import embed_fasta

SUFFIXES = ["npy", "parquet", "embeddings"]
NAMES = ["phage", "plant"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, bundled, pretrained_dir) -> pathlib.Path:
    """A set of slices of two genomes, with numbers for labels, and its embeddings in each kind of file."""
    place = tmp_path_factory.mktemp("map")
    genomes = [next(load_fasta(bundled / f"{n}.fa.gz")).bases for n in ("phiX174", "arabidopsis_chloroplast")]
    rows = [(number, genome[60 * i : 60 * i + 60]) for i in range(12) for number, genome in enumerate(genomes)]
    text = "".join(f"{to_text(bases)},{number}\n" for number, bases in rows)
    (place / "set.csv").write_text(f"sequence,label\n{text}")
    (place / "labels.txt").write_text("\n".join(NAMES))
    for suffix in SUFFIXES:
        embed_fasta(place / "set.csv", pretrained_dir, place / f"set.{suffix}", progress=False)
    embed_fasta(place / "set.csv", pretrained_dir, place / "codes.npy", pool="none", progress=False)
    embed_fasta(place / "set.csv", pretrained_dir, place / "codes.parquet", pool="none", progress=False)
    embed_fasta(place / "set.csv", pretrained_dir, place / "words.npy", pool="words", progress=False)
    return place


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_embeddings_is_read_as_it_was_written(place, suffix):
    found, expected = embedding_files.read(place / f"set.{suffix}"), np.load(place / "set.npy")
    np.testing.assert_array_equal(found.vectors_BxD, expected)
    assert found.ids == [str(number) for number in range(1, 25)] and found.vectors_BxD.dtype == np.float32


def figures(monkeypatch) -> list[Figure]:
    """Those that are written from now on."""
    written, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (written.append(self), save(self, *a, **k)))
    return written


def test_every_sequence_is_a_point_and_every_label_is_in_the_legend(place, tmp_path, monkeypatch):
    written = figures(monkeypatch)
    told = draw_map([place / "set.npy"], tmp_path / "map.png", place / "set.csv")
    (axes,) = written[0].axes
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert [len(dots.get_offsets()) for dots in axes.collections] == [12, 12]
    texts = [text.get_text().strip() for text in axes.get_legend().get_texts()]
    assert texts == ["phage (12)", "plant (12)"] and told["labels"] == {"phage": 12, "plant": 12}
    points, shares = project(np.load(place / "set.npy"))
    np.testing.assert_allclose(axes.collections[0].get_offsets(), points[::2])
    assert told["points"] == 24 and told["width"] == 16 and told["shares"] == shares
    assert axes.get_title(loc="left").startswith("24 sequences; ") and f"{told['alike']:.0%}" in axes.get_title(
        loc="left"
    )
    assert f"{shares[0]:.0%}" in axes.get_xlabel() and f"{shares[1]:.0%}" in axes.get_ylabel()


def test_without_labels_the_files_are_told_apart(place, tmp_path, monkeypatch):
    written = figures(monkeypatch)
    told = draw_map([place / "set.npy"], tmp_path / "one.png")
    assert told["labels"] == {"set": 24} and told["alike"] is None
    (tmp_path / "$x_$.parquet").write_bytes((place / "set.parquet").read_bytes())  # no formula
    told = draw_map([place / "set.npy", tmp_path / "$x_$.parquet"], tmp_path / "two.png")
    assert told["labels"] == {"set": 24, "$x_$": 24} and told["points"] == 48
    assert [len(figure.axes[0].collections) for figure in written] == [1, 2]


def test_components_are_those_of_most_variance():
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((200, 2)) * (5, 2)
    turn, _ = np.linalg.qr(rng.standard_normal((30, 30)))
    noisy = hidden @ turn[:2] + 0.1 * rng.standard_normal((200, 30)) + 7
    points, shares = project(noisy.astype(np.float32))
    for axis in range(2):
        assert abs(np.corrcoef(points[:, axis], hidden[:, axis])[0, 1]) > 0.95
    assert shares[0] > 5 * shares[1] and 0.95 < sum(shares) <= 1
    assert project(np.ones((4, 3), np.float32))[1] == [0, 0]


def test_neighbours_are_counted_without_oneself():
    vectors = np.array([[0, 0], [0, 0], [9, 9], [9, 9], [0.1, 0]], np.float32)
    assert neighbours_alike(vectors, ["a", "a", "b", "b", "b"])[0] == pytest.approx(4 / 5)  # the last is near a's
    assert neighbours_alike(vectors, ["a"] * 5) == (None, 1.0)
    many = np.random.default_rng(0).standard_normal((3000, 8)).astype(np.float32)
    labels = np.array(["a", "b", "c", "c"])[np.arange(3000) % 4]
    alike, chance = neighbours_alike(many, labels)
    assert chance == pytest.approx(6 / 16, abs=0.01) and alike == pytest.approx(chance, abs=0.03)
    assert neighbours_alike(many, (many[:, 0] > 0).astype(str))[0] > 0.6


def test_labels_are_of_the_rows_by_their_ids(tmp_path):
    (tmp_path / "rows.tsv").write_text("name\ty\tseq\nx\thigh\tACGT\nz\tlow\tACGT\n")
    assert labels_of(tmp_path / "rows.tsv", ["z", "x", "z"]) == ["low", "high", "low"]
    assert "has no row 'w'" in refusal(labels_of, tmp_path / "rows.tsv", ["z", "w"])
    (tmp_path / "plain.csv").write_text("sequence\nACGT\n")
    assert "expected 'label'" in refusal(labels_of, tmp_path / "plain.csv", ["1"])


def test_of_many_labels_the_rest_is_grey(tmp_path, monkeypatch):
    written = figures(monkeypatch)
    labels = [f"_{i:02}" for i in range(plots.MOST_LABELS + 3) for _ in range(2)] + ["_00"]
    points = np.random.default_rng(0).standard_normal((len(labels), 2))
    plots.plot_map(points, labels, [0.5, 0.2], "title", tmp_path / "many.png")
    (axes,) = written[0].axes
    texts = [text.get_text().strip() for text in axes.get_legend().get_texts()]
    assert len(texts) == plots.MOST_LABELS + 1 and texts[0] == "3 others (6)" and "_00 (3)" in texts
    assert sum(len(dots.get_offsets()) for dots in axes.collections) == len(labels)
    looks = {(tuple(dots.get_facecolor()[0]), dots.get_paths()[0].vertices.tobytes()) for dots in axes.collections}
    assert len(looks) == len(texts)


@pytest.mark.parametrize("spoil", [b"", b"\x93NUMPY", b"PK\x03\x04", b"PAR1"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_file_of_embeddings_is_one_line(place, tmp_path, suffix, spoil):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(spoil + (place / "set.csv").read_bytes())
    assert refusal(draw_map, [path], tmp_path / "map.png").startswith(f"{path}: cannot be read as embeddings (")
    good = (place / f"set.{suffix}").read_bytes()
    path.write_bytes(good[: len(good) // 2])
    assert refusal(embedding_files.read, path).startswith(f"{path}")


def test_packed_embeddings_are_refused_for_they_may_become_any_size(place, tmp_path):
    (packed,) = (place / f"set.{suffix}" for suffix in SUFFIXES if zipfile.is_zipfile(place / f"set.{suffix}"))
    path = tmp_path / packed.name
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "packed" in refusal(embedding_files.read, path)


def test_what_cannot_be_drawn_is_one_line(place, tmp_path, monkeypatch):
    out = tmp_path / "map.png"
    for codes in ("codes.npy", "codes.parquet"):
        assert "another --pool than none" in refusal(draw_map, [place / codes], out)
    message = refusal(draw_map, [place / "set.npy", place / "words.npy"], out)
    assert f"16 in {place / 'set.npy'}" in message and f"in {place / 'words.npy'}" in message
    assert "give it the suffix .png" in refusal(draw_map, [place / "set.npy"], tmp_path / "map.svg")
    np.save(tmp_path / "two.npy", np.zeros((2, 4), np.float32))
    (tmp_path / "two.npy.json").write_text(json.dumps({"ids": ["a", "b"]}))
    assert "2 vectors; a map needs three" in refusal(draw_map, [tmp_path / "two.npy"], out)
    assert "has no row '1'" in refusal(embedding_map.labels_of, _table(tmp_path), ["1"])
    assert not out.exists()


def _table(place: pathlib.Path) -> pathlib.Path:
    (place / "other.csv").write_text("id,sequence,label\na,ACGT,0\n")
    return place / "other.csv"

"""Tracks of a genome: every base has its numbers at its place in every file, a region those of the whole contig."""

import functools
import gzip
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import jax
import numpy as np
import pyBigWig
import pysam
import pytest
from refusals import refusal
from small_sequences import random_bases
from tiny_pretrained import save_tiny_over_fixed, save_tiny_pretrained
from tiny_tokenizer import save_tiny

from vqdna_jax import partition
from vqdna_jax.errors import StorageError
from vqdna_jax.evaluation import masked_bases
from vqdna_jax.genome.alphabet import N, to_bases, to_text
from vqdna_jax.genome.fasta import load_fasta
from vqdna_jax.genome.regions import of_option
from vqdna_jax.inference import likelihood, load
from vqdna_jax.inference.jobs import partial, track_files, tracks
from vqdna_jax.inference.likelihood import Stretch
from vqdna_jax.models.transformer import Compute
from vqdna_jax.tasks.masked_codes import FrozenTokenizer, MaskedCodes
from vqdna_jax.tasks.masking import Masking
from vqdna_jax.tokenizers.kmers import Kmers
from vqdna_jax.tokenizers.learned import LearnedTokenizer

CLOSE = {"atol": 3e-4, "rtol": 0}
LENGTHS = {"chr1": 310, "short": 7, "2": 150}


def contigs() -> dict[str, np.ndarray]:
    """With N at an end, alone, and over more than what is computed at once."""
    found = {name: random_bases(length, seed=seed) for seed, (name, length) in enumerate(LENGTHS.items())}
    found["chr1"][:3] = found["chr1"][90] = found["chr1"][150:230] = N
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Models of one and of four bases a code, and a genome."""
    place = tmp_path_factory.mktemp("tracks")
    for bases_per_code in (1, 4):
        save_tiny_pretrained(place / f"model{bases_per_code}", bases_per_code, 64)
    (place / "in.fa").write_text("".join(f">{name} text\n{to_text(b)}\n" for name, b in contigs().items()))
    return place


def write(place: Path, out: Path, bases_per_code: int, *regions: str) -> dict:
    asked = list(map(of_option, regions))
    return tracks.write_tracks(place / "in.fa", place / f"model{bases_per_code}", out, asked, progress=False)


@pytest.fixture(scope="module")
def whole(place) -> Callable[[int], Path]:
    """The tracks of all contigs, in pieces that are smaller than they are."""

    @functools.cache
    def made(bases_per_code: int) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tracks, "PIECE_BASES", 64)
            write(place, place / f"whole{bases_per_code}", bases_per_code)
        return place / f"whole{bases_per_code}"

    return made


def lines(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def values(directory: Path, track: str) -> dict[str, np.ndarray]:
    """Of a bigWig, by contig."""
    with pyBigWig.open(str(directory / f"{track}.bw")) as wig:
        return {name: wig.values(name, 0, length, numpy=True) for name, length in wig.chroms().items()}


@pytest.mark.parametrize("bases_per_code", [1, 4])
def test_bigwig_and_bedgraph_hold_the_same_and_have_gaps_where_bases_are_not_known(whole, bases_per_code):
    for track in track_files.TRACKS:
        found = values(whole(bases_per_code), track.name)
        text = {name: np.full(length, np.nan, np.float32) for name, length in LENGTHS.items()}
        for name, start, stop, value in lines(whole(bases_per_code) / f"{track.name}.bedgraph.gz"):
            assert int(stop) == int(start) + 1 and np.isnan(text[name][int(start)])
            text[name][int(start)] = np.float32(value)
        for name, bases in contigs().items():
            np.testing.assert_array_equal(found[name], text[name])
            np.testing.assert_array_equal(np.isnan(found[name]), bases == N)


@pytest.mark.parametrize("bases_per_code", [1, 4])
def test_codes_are_those_of_the_model_with_a_color_each(place, whole, bases_per_code):
    model, colors = load.load(place / f"model{bases_per_code}"), dict[str, str]()
    for level in (0, 1):
        rows = lines(whole(bases_per_code) / f"codes_{level + 1}.bed.gz")
        for name, bases in contigs().items():
            starts = range(0, len(bases), bases_per_code)
            spans = [(start, min(start + bases_per_code, len(bases))) for start in starts]
            mine = [row for row in rows if row[0] == name]
            assert [(int(row[1]), int(row[2])) for row in mine] == spans
            assert [int(row[3]) for row in mine] == model.encode(bases)[:, level].tolist()
        for row in rows:
            assert row[4:8] == ["0", "+", row[1], row[2]] and colors.setdefault(row[3], row[8]) == row[8]
    assert all(0 <= int(part) <= 255 for rgb in colors.values() for part in rgb.split(","))
    assert len({track_files.color(code) for code in range(4096)}) > 4000


@pytest.mark.parametrize("bases_per_code", [1, 4])
def test_likelihood_and_entropy_are_those_of_hidden_bases(place, whole, bases_per_code):
    """By the likelihood of stretches of the whole contig, one by one."""
    model = load.load(place / f"model{bases_per_code}").pretrained
    size = likelihood.longest(model) // bases_per_code * bases_per_code
    found, entropy = values(whole(bases_per_code), "likelihood"), values(whole(bases_per_code), "entropy")
    for name, bases in contigs().items():
        stretches = [Stretch(bases, at, min(at + size, len(bases))) for at in range(0, len(bases), size)]
        log2_Sx4 = np.concatenate(list(likelihood.log_probabilities(model, stretches))) / np.log(2)
        known = np.flatnonzero(bases < N)
        np.testing.assert_allclose(found[name][known], log2_Sx4[known, bases[known]], **CLOSE)
        expected = [-sum(2**log2 * log2 for log2 in row) for row in log2_Sx4[known].tolist()]
        np.testing.assert_allclose(entropy[name][known], expected, **CLOSE)


@pytest.mark.parametrize(("bases_per_code", "reach"), [(1, 7), (4, 1)])
def test_change_is_the_share_of_codes_nearby_that_are_others_when_a_base_is_hidden(place, whole, bases_per_code, reach):
    model, found = load.load(place / f"model{bases_per_code}"), values(whole(bases_per_code), "change")
    for name, position in [("chr1", 3), ("chr1", 100), ("chr1", 309), ("short", 4), ("2", 63), ("2", 64), ("2", 149)]:
        bases = contigs()[name]
        hidden = bases.copy()
        hidden[position % 16 :: 16] = N
        before, after = model.encode(bases), model.encode(hidden)
        code = position // bases_per_code
        near = slice(max(0, code - reach), code + reach + 1)
        assert found[name][position] == pytest.approx((before[near] != after[near]).mean(), abs=1e-4)


@pytest.mark.parametrize("bases_per_code", [1, 4])
def test_a_region_has_the_numbers_of_its_contig(place, whole, tmp_path, bases_per_code):
    """Its own place, whatever the order; what overlaps is one; 2 is chr2 where nothing else can be meant."""
    asked = ["chr2:30-90", "chr1:100-160", "chr1:41-110", "short"]
    summary = write(place, tmp_path / "out", bases_per_code, *asked)
    wanted = {"chr1": (40, 160), "short": (0, 7), "2": (29, 90)}
    assert summary["bases"] == 120 + 7 + 61 and "chr2 is read as 2" in "".join(summary["notes"])
    for track in track_files.TRACKS:
        parts, all_of = values(tmp_path / "out", track.name), values(whole(bases_per_code), track.name)
        for name, (start, stop) in wanted.items():
            inside = np.zeros(LENGTHS[name], bool)
            inside[start:stop] = True
            np.testing.assert_allclose(parts[name], np.where(inside, all_of[name], np.nan), **CLOSE)
    rows = lines(tmp_path / "out/codes_1.bed.gz")
    for name, (start, stop) in wanted.items():
        every = [row for row in lines(whole(bases_per_code) / "codes_1.bed.gz") if row[0] == name]
        inside = [row for row in every if int(row[1]) < stop and int(row[2]) > start]
        assert [row for row in rows if row[0] == name] == inside


def test_the_directory_is_whole_by_itself(whole):
    directory = whole(1)
    session = ElementTree.parse(directory / "session.xml").getroot()
    shown = [session.attrib["genome"], *(resource.attrib["path"] for resource in session.iter("Resource"))]
    assert all((directory / name).parent == directory and (directory / name).is_file() for name in shown)
    assert {line.attrib["id"] for line in session.iter("Track")} == set(shown[1:])
    with pysam.FastaFile(str(directory / "reference.fa")) as reference:
        assert {name: reference.fetch(name) for name in reference.references} == {
            name: to_text(bases) for name, bases in contigs().items()
        }
    sizes = dict(line.split("\t") for line in (directory / "chrom.sizes").read_text().splitlines())
    assert sizes == {name: str(length) for name, length in LENGTHS.items()}
    with pysam.TabixFile(str(directory / "likelihood.bedgraph.gz")) as text:
        (row,) = text.fetch("2", 100, 101)
        assert row.split("\t") == next(
            line for line in lines(directory / "likelihood.bedgraph.gz") if line[:2] == ["2", "100"]
        )
    facts = json.loads((directory / "tracks.json").read_text())
    known = np.concatenate([contigs()[name] < N for name in LENGTHS])
    assert facts["regions"] == ["chr1:1-310", "short:1-7", "2:1-150"]
    assert facts["known"] == known.sum() and facts["bases"] == known.size
    for track in track_files.TRACKS:
        numbers = np.concatenate([values(directory, track.name)[name] for name in LENGTHS])
        assert facts[track.name] == pytest.approx(numbers[known].mean(dtype=float), abs=1e-4)


def stop_at(monkeypatch, call: int) -> None:
    encode, calls = LearnedTokenizer.encode, itertools.count()

    def stopping(*arguments):
        if next(calls) == call:
            raise KeyboardInterrupt
        return encode(*arguments)

    monkeypatch.setattr(LearnedTokenizer, "encode", stopping)


def test_a_stopped_job_goes_on_and_gives_the_same_files(place, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(tracks, "PIECE_BASES", 64)
    monkeypatch.setattr(partial, "SECONDS_A_COMMIT", 0)
    for call in (7, 2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_at(patch, call)
            write(place, tmp_path / "out", 4)
        assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
    other = refusal(write, place, tmp_path / "out", 4, "chr1")
    assert "out.partial: begun with regions 3 of 467 bases, not 1 of 310 bases; remove it to begin again" in other
    (place / "changed.fa").write_text((place / "in.fa").read_text()[::-1].replace("A", "C", 1)[::-1])
    changed = place / "changed.fa", place / "model4", tmp_path / "out"
    assert "out.partial: begun with sequences" in refusal(tracks.write_tracks, *changed, progress=False)
    assert write(place, tmp_path / "out", 4)["resumed"] > 62
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    for made in whole(4).iterdir():
        assert made.read_bytes() == (tmp_path / "out" / made.name).read_bytes(), made.name


REFUSED = {
    "no such contig": (
        ["chr9:1-5"],
        b"",
        "--region=chr9:1-5: no sequence is named 'chr9'; there are 'chr1', 'short', '2'",
    ),
    "beyond the end": (["2:100-151"], b"", "--region=2:100-151: 2:100-151 is not within 2, which has 150 bases"),
    "nothing but N": (["chr1:151-230"], b"", "in.fa: holds nothing but N in chr1:151-230"),
    "an empty file": ([], b"\n", "in.fa:2: the file is empty"),
    "a name twice": ([], b">a\nACGT\n>a b\nACGT\n", "in.fa:3: "),
    **{
        f"the name {name}": ([], f">z\nACGT\n>{name}\nACGTACGT\n".encode(), "in.fa: a contig is named")
        for name in ("#a", "track", "browser", "a\1b", "a\u2028b")
    },
    "no DNA": ([], b">a\nACGT\n>b\tx\nACXT\n", "in.fa:4: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line(place, tmp_path, case):
    regions, fasta, complaint = REFUSED[case]
    (tmp_path / "in.fa").write_bytes(fasta or (place / "in.fa").read_bytes())
    (tmp_path / "model1").symlink_to(place / "model1")
    assert complaint in refusal(write, tmp_path, tmp_path / "out", 1, *regions)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("out.partial"))


def test_what_is_there_stays_and_other_models_are_refused(place, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    assert "exists and is not an empty directory" in refusal(write, place, tmp_path / "out", 1)
    save_tiny(place / "model2")
    assert "is a tokenizer, tracks needs a pretrained model" in refusal(write, place, tmp_path / "new", 2)
    save_tiny_over_fixed(place / "model3", Kmers(3))
    assert "tracks needs a model over learned codes" in refusal(write, place, tmp_path / "new", 3)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("out", "said"), [("-", "-: is a pipe"), ("", "is empty"), ("/dev/null", "exists")])
def test_what_is_no_place_for_a_directory_is_refused(place, out, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refusal(tracks.write_tracks, place / "in.fa", place / "model1", out)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_bits_of_a_trained_model_are_those_of_its_evaluation(bundled, tmp_path):
    """Of the same bases, one strand in a window of training there, both and their means here."""
    model, start = load.load("mini").pretrained, 200_000
    region = f"{next(iter(load_fasta(bundled / 'h_pylori_G27.fa.gz'))).id}:{start + 1}-{start + 512}"
    tracks.write_tracks(bundled / "h_pylori_G27.fa.gz", "mini", tmp_path / "out", [of_option(region)], progress=False)
    with pyBigWig.open(str(tmp_path / "out/likelihood.bw")) as wig:
        found_S = -wig.values(*wig.chroms(), start, start + 512, numpy=True)
    with pysam.FastaFile(str(tmp_path / "out/reference.fa")) as reference:
        window_S = to_bases(reference.fetch(reference.references[0], start, start + 512))

    task = MaskedCodes(model.tokenizer.config, model.transformer, Compute(), Masking("bases"), 1.0)
    frozen = FrozenTokenizer(model.tokenizer.params["encoder"], model.tokenizer.codes_KxD)

    def predict(batch):
        with jax.set_mesh(model.mesh):
            on_device = partition.batch_to_devices(batch, model.mesh, len(batch.rows.bases_BxS))
            return jax.device_get(jax.jit(task.predict)(model.weights, (), frozen, on_device))

    hidden = masked_bases.hidden_bases(task, predict, np.tile(window_S, (32, 1)))
    inside = (hidden.positions_P > 64) & (hidden.positions_P < 448)  # where both have neighbours enough
    expected_P, found_P = hidden.bits_P[inside], found_S[hidden.positions_P[inside]]
    assert np.corrcoef(expected_P, found_P)[0, 1] > 0.9
    assert abs(expected_P.mean() - found_P.mean()) < 0.05


def test_a_bigwig_that_is_cut_short_is_not_kept(place, whole, tmp_path):
    """pyBigWig says nothing when it closes one on a full disk."""
    (tmp_path / "x.bw").write_bytes((whole(4) / "entropy.bw").read_bytes())
    track_files.check_end(tmp_path / "x.bw")
    (tmp_path / "x.bw").write_bytes((whole(4) / "entropy.bw").read_bytes()[:-1])
    with pytest.raises(StorageError, match="x.bw is cut short"), track_files.told_in_one_line(tmp_path):
        track_files.check_end(tmp_path / "x.bw")

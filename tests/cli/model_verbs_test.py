"""The verbs that use a model: what they print and where, several files, batches, devices."""

import contextlib
import csv
import io
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from small_two_bit import two_bit
from tiny_finetuned import save_tiny_finetuned

from vqdna_jax.cli import main
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.genome.fasta import load_fasta
from vqdna_jax.inference import load
from vqdna_jax.inference.jobs.code_file import open_codes

LENGTHS = (500, 90, 30, 1100)  # the last two are beside the training windows, and beyond them
VERBS = ("encode", "decode", "embed", "predict")


@pytest.fixture(scope="module")
def place(tmp_path_factory, bundled) -> pathlib.Path:
    """Slices of a genome in one file and in two, a model that can all, and what it encodes to."""
    place = tmp_path_factory.mktemp("verbs")
    save_tiny_finetuned(place / "model", long="window", bases_per_code=4, context=64)
    genome = next(load_fasta(bundled / "human_chr20_30-31Mb.fa.gz")).bases
    starts = [0, *itertools.accumulate(LENGTHS)]
    records = [f">r{i} text\n{to_text(genome[a:b])}\n" for i, (a, b) in enumerate(itertools.pairwise(starts))]
    (place / "all.fa").write_text("".join([">none\n", *records]))
    (place / "one.fa").write_text("".join(records[:2]))
    (place / "two.fa").write_text("".join([">none\n", *records[2:]]))
    run("encode", place / "all.fa", f"--model={place / 'model'}", f"--out={place / 'all.codes'}")
    return place


def run(*arguments) -> tuple[str, str]:
    """What the command prints on stdout and on stderr."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        main.main(list(map(str, arguments)))
    return out.getvalue(), err.getvalue()


def call(
    verb: str, place: pathlib.Path, out: pathlib.Path, *arguments, files=("all.fa",), model: pathlib.Path | None = None
) -> tuple[str, str]:
    names = ["all.codes"] if verb == "decode" else files
    model = model or place / "model"
    return run(verb, *(place / name for name in names), f"--model={model}", f"--out={out}", *arguments)


def arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name != "meta.json"}


def probabilities(path: pathlib.Path) -> np.ndarray:
    with open(path, newline="") as file:
        return np.array([[float(row[f"label-{i}"] or "nan") for i in range(3)] for row in csv.DictReader(file)])


@pytest.mark.parametrize("verb", VERBS)
def test_results_are_on_stdout_in_words_or_as_json_and_quiet_says_neither(place, tmp_path, verb):
    words, _ = call(verb, place, tmp_path / "out")
    assert str(tmp_path / "out") in words
    told, _ = call(verb, place, tmp_path / "out", "--json")
    summary = json.loads(told)
    assert summary["records"] == 4 + (verb == "predict") and summary["out"] == str(tmp_path / "out")
    out, err = call(verb, place, tmp_path / "out", "--quiet")
    noted = {"encode": 1, "embed": 1, "predict": 1, "decode": 0}  # an empty record is left out, which is no progress
    assert out == "" and len(err.splitlines()) == noted[verb]
    both, _ = call(verb, place, tmp_path / "out", "--quiet", "--json")
    assert json.loads(both).keys() == summary.keys()


def test_of_what_is_written_to_standard_output_the_summary_is_on_stderr(place, tmp_path):
    call("decode", place, tmp_path / "back.fa")
    command = [sys.executable, "-m", "vqdna_jax", "decode", place / "all.codes", f"--model={place / 'model'}"]
    result = subprocess.run([*command, "--out=-", "--json"], capture_output=True, text=True, timeout=120)
    assert result.stdout == (tmp_path / "back.fa").read_text()
    assert json.loads(result.stderr)["records"] == 4


def test_several_files_are_one_after_another(place, tmp_path):
    for verb in ("encode", "embed"):
        call(verb, place, tmp_path / f"{verb}.1")
        call(verb, place, tmp_path / f"{verb}.2", files=("one.fa", "two.fa"))
        assert (tmp_path / f"{verb}.1").read_bytes() == (tmp_path / f"{verb}.2").read_bytes()


def test_a_region_is_a_sequence_of_its_own(place, tmp_path):
    """Encoded and embedded as the same stretch in a file of its own, whether an option or a BED file names it."""
    whole = {record.id: to_text(record.bases) for record in load_fasta(place / "all.fa")}
    slices = {"r0:11-130": whole["r0"][10:130], "r3:1001-1100": whole["r3"][1000:1100]}
    (tmp_path / "slices.fa").write_text("".join(f">{id}\n{text}\n" for id, text in slices.items()))
    (tmp_path / "slices.bed").write_text("r3\t1000\t1100\nr0\t10\t130\n")
    options = [f"--region={id}" for id in slices]
    for verb in ("encode", "embed"):
        for name, how in (("option", options), ("bed", [f"--bed={tmp_path}/slices.bed"])):
            call(verb, place, tmp_path / f"{verb}.{name}", *how)
        call(verb, tmp_path, tmp_path / f"{verb}.file", files=("slices.fa",), model=place / "model")
        expected = (tmp_path / f"{verb}.file").read_bytes()
        assert (tmp_path / f"{verb}.option").read_bytes() == (tmp_path / f"{verb}.bed").read_bytes() == expected


def test_inside_a_region_codes_are_those_of_the_whole_sequence(place, tmp_path):
    """Where it begins with a code of the whole, as far from its ends as the tokenizer sees."""
    call("encode", place, tmp_path / "part", "--region=r3:401-1000")
    with open_codes(tmp_path / "part") as part, open_codes(place / "all.codes") as whole:
        codes, expected = part.record("r3:401-1000"), whole.record("r3")[100:250]
    far = load.load(place / "model").tokenizer.config.receptive_codes
    assert 0 < far < 60
    assert np.array_equal(codes[far:-far], expected[far:-far]) and not np.array_equal(codes, expected)


@pytest.mark.parametrize("verb", ["encode", "embed"])
def test_a_region_that_is_not_there_is_one_line_before_the_work(place, tmp_path, verb, capsys):
    (tmp_path / "x.bed").write_text("r0\t0\t10\nr0\t0\n")
    for option, says in (
        ("--region=r0:400-501", "r0, which has 500 bases"),
        ("--region=r9:1-2", "no sequence is named 'r9'"),
        (f"--bed={tmp_path}/x.bed", f"{tmp_path}/x.bed:2: "),
        (f"--bed={tmp_path}/y.bed", f"{tmp_path}/y.bed: "),
    ):
        with pytest.raises(SystemExit) as stop:
            main.main([verb, str(place / "all.fa"), f"--model={place / 'model'}", f"--out={tmp_path}/out", option])
        (line,) = capsys.readouterr().err.splitlines()
        assert stop.value.code == 43 and says in line
    assert [path.name for path in tmp_path.iterdir()] == ["x.bed"]


READ = ["all", "model/config.json", "model/model.safetensors", "model/README.md", "link"]


@pytest.mark.parametrize(
    ("verb", "taken"), [*itertools.product(VERBS, READ), ("encode", "all.bed"), ("embed", "all.bed")]
)
def test_what_is_read_is_not_written(place, tmp_path, verb, taken, capsys):
    shutil.copytree(place / "model", tmp_path / "model")
    source = shutil.copy(place / ("all.codes" if verb == "decode" else "all.fa"), tmp_path / "all")
    (tmp_path / "all.bed").write_text("r0\t0\t10\n")
    (tmp_path / "link").symlink_to("model/model.safetensors")
    out, bed = tmp_path / taken, [f"--bed={tmp_path}/all.bed"] if taken == "all.bed" else []
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stop:
        main.main([verb, str(source), f"--model={tmp_path / 'model'}", f"--out={out}", *bed])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 43 and line.startswith(f"error: {out}: ")  # embed has another complaint of some
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_somebody_put_beside_unfinished_work_stays_and_stops_nothing(place, tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial/notes").write_text("mine")
    call("embed", place, tmp_path / "out")
    assert len(arrays(tmp_path / "out")["embeddings"]) == len(LENGTHS)
    assert [path.name for path in (tmp_path / "out.partial").iterdir()] == ["notes"]


@pytest.mark.parametrize("batch", [1, 64, 5000])
def test_a_batch_changes_no_code_and_vectors_by_rounding_alone(place, tmp_path, batch):
    for verb in VERBS:
        call(verb, place, tmp_path / verb)
        call(verb, place, tmp_path / f"{verb}.batch", f"--batch={batch}")
    for verb in ("encode", "decode"):
        assert (tmp_path / verb).read_bytes() == (tmp_path / f"{verb}.batch").read_bytes()
    usual, batched = (arrays(tmp_path / f"embed{suffix}") for suffix in ("", ".batch"))
    np.testing.assert_allclose(batched["embeddings"], usual["embeddings"], rtol=1e-4, atol=1e-5)
    usual, batched = (probabilities(tmp_path / f"predict{suffix}") for suffix in ("", ".batch"))
    np.testing.assert_allclose(batched, usual, rtol=1e-4, atol=1e-6)


def test_a_batch_is_how_many_codes_are_computed_at_once(place, tmp_path):
    model = load.load(place / "model", batch=300)
    assert model.pretrained.slots_per_call == model.finetuned.base.slots_per_call == 300
    assert model.tokenizer.codes_per_call == model.pretrained.tokenizer.codes_per_call == 300
    with open_codes(place / "all.codes") as file:
        assert file.tokenizer_digest == model.tokenizer.digest


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("batch", "says"), [(-1, "batch: -1"), (10**12, "memory: "), (10**30, f"batch: {10**30}")])
def test_a_batch_below_nothing_or_beyond_memory_is_refused(place, tmp_path, verb, batch, says, capsys):
    source = place / ("all.codes" if verb == "decode" else "all.fa")
    with pytest.raises(SystemExit) as stop:
        main.main([verb, str(source), f"--model={place / 'model'}", f"--out={tmp_path}/out", f"--batch={batch}"])
    line = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 43 and line.startswith(f"error: {says}") and not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["encode", "embed", "predict", "species"])
def test_no_file_is_no_work_nor_is_standard_input_twice(place, tmp_path, verb, capsys):
    model = [] if verb == "species" else [f"--model={place / 'model'}"]
    with pytest.raises(SystemExit) as stop:
        main.main([verb, "-", str(place / "all.fa"), "-", *model, f"--out={tmp_path}/out"])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 43 and line.startswith("error: -: is named twice") and not list(tmp_path.iterdir())
    with pytest.raises(SystemExit) as stop:
        main.main([verb, *model, f"--out={tmp_path}/out"])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 43 and "no file was given" in line and not list(tmp_path.iterdir())


def test_a_two_bit_file_is_encoded_as_its_fasta_and_not_from_a_pipe(place, tmp_path):
    sequences = {f"sequence_{record.id}": to_text(record.bases) for record in load_fasta(place / "one.fa")}
    sequences["none"] = ""
    (tmp_path / "one.2bit").write_bytes(two_bit(sequences))
    (tmp_path / "one.fa").write_text("".join(f">{name}\n{text}\n" for name, text in sequences.items()))
    for verb in ("encode", "embed", "predict"):
        for name in ("one.fa", "one.2bit"):
            call(verb, tmp_path, tmp_path / f"{verb}.{name}", files=(name,), model=place / "model")
        assert (tmp_path / f"{verb}.one.fa").read_bytes() == (tmp_path / f"{verb}.one.2bit").read_bytes()
    command = [sys.executable, "-m", "vqdna_jax", "encode", "-", f"--model={place / 'model'}", f"--out={tmp_path}/no"]
    result = subprocess.run(command, input=(tmp_path / "one.2bit").read_bytes(), capture_output=True, timeout=120)
    assert result.returncode == 43 and b"this is .2bit" in result.stderr and not (tmp_path / "no").exists()


def process(place: pathlib.Path, out: pathlib.Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "vqdna_jax", "encode", place / "one.fa", f"--model={place / 'model'}"]
    env = {**os.environ, **environment}
    return subprocess.run([*command, f"--out={out}", *arguments], capture_output=True, text=True, env=env, timeout=120)


def test_the_device_is_chosen_before_jax_starts_whatever_the_environment_says(place, tmp_path):
    result = process(place, tmp_path / "out", "--device=cpu", JAX_PLATFORMS="cuda")
    assert result.returncode == 0, result.stderr
    call("encode", place, tmp_path / "expected", files=("one.fa",))
    assert (tmp_path / "out").read_bytes() == (tmp_path / "expected").read_bytes()


@pytest.mark.parametrize(
    "arguments, environment, says",
    [
        (["--device=tpu"], {"JAX_PLATFORMS": "cpu"}, ["--device=tpu", "finds none here", "only "]),
        (["--device=abacus"], {}, ["--device", "abacus", "cpu"]),
        ([], {"JAX_PLATFORMS": "abacus"}, ["JAX_PLATFORMS=abacus", "does not start", "vqdna doctor"]),
    ],
)
def test_a_device_that_is_not_there_is_one_line(place, tmp_path, arguments, environment, says):
    result = process(place, tmp_path / "out", *arguments, **environment)
    told = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 43 and len(told) == 1, result.stderr
    assert all(word in told[0] for word in says) and not list(tmp_path.iterdir())

"""The command line as a user meets it: a process, its exit code, what it prints."""

import inspect
import io
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time
from importlib import metadata

import jax
import pytest
from refusals import refusal as refused

import vqdna_jax
from vqdna_jax import errors
from vqdna_jax.cli import doctor, main

ROOT = pathlib.Path(__file__).resolve().parents[2]


def vqdna(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "vqdna_jax.cli.main", *arguments]
    env = {**os.environ, "PYTHONWARNINGS": "ignore", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)


def refusal(result: subprocess.CompletedProcess) -> str:
    """The one line that a refused command prints."""
    assert result.returncode == errors.InputError.exit_code, result
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_help_is_quick_and_lists_every_verb():
    start = time.perf_counter()
    result = vqdna("--help")
    seconds = time.perf_counter() - start
    assert result.returncode == 0
    assert all(word in result.stdout for verb in main.VERBS for word in verb.split())
    assert seconds < 5  # about 0.3 alone; importing jax on a busy machine would take longer than this


@pytest.mark.parametrize("verb", main.VERBS)
def test_every_verb_explains_every_argument_and_breaks_lines_only_where_the_terminal_ends(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as stop:
        main.parse([*verb.split(), "--help"])
    assert stop.value.code == 0
    options = [name for name in main.VERBS[verb].__annotations__ if name != "return"]
    text = capsys.readouterr().out
    assert all(name.removeprefix("as_").replace("_", "-").upper() in text.upper() for name in options)
    told = re.split(r"\n {4}\w+: ", inspect.getdoc(main.VERBS[verb]))[1:]
    assert len(told) == len(options) and [words for words in told if " ".join(words.split()) not in text] == []
    assert text.startswith(f"usage: vqdna {verb} ")


@pytest.mark.parametrize(
    "argv, said",
    [
        (["score"], "Missing from vqdna score: VCF, --fasta PATH, --model MODEL, --out FILE"),
        (["import"], "Missing from vqdna import: RIVAL, DIR, --out STR"),
        (["report", "benchmark"], "Missing from vqdna report benchmark: PATH, --out FILE"),
        (["encode", "--bogus"], "Missing from vqdna encode: --model MODEL, --out FILE; Unrecognized options: --bogus"),
    ],
)
def test_what_is_missing_is_named_without_its_help_which_the_verb_has(argv, said):
    with pytest.raises(errors.InputError) as refused:
        main.parse(argv)
    verb = " ".join(word for word in argv if not word.startswith("--"))
    assert str(refused.value) == f"{said} (see vqdna {verb} --help)"


def test_the_documentation_has_every_verb_and_whose_options_are_whose():
    page, readme = (ROOT / "docs/commands.md").read_text(), (ROOT / "README.md").read_text()
    assert [verb for verb in main.VERBS if f"\n| `{verb}` |" not in page or f"`{verb}`" not in readme] == []
    said = re.findall(r"\n\| `--(json|quiet|device|batch|region)\b.*? \| `?([a-z ]+?)`? \|", page)
    said = {"as_json" if option == "json" else option: verbs.split() for option, verbs in said}
    has = {option: [verb for verb, f in main.VERBS.items() if option in f.__annotations__] for option in said}
    assert len(said) == 5 and has.pop("as_json") == list(main.VERBS)
    has = {option: list(dict.fromkeys(verb.split()[0] for verb in verbs)) for option, verbs in has.items()}
    assert has == {option: verbs for option, verbs in said.items() if option in has}


@pytest.mark.parametrize("out, goes_on", [("-", False), ("/dev/stdout", False), ("x.vcf", True)])
def test_a_job_that_writes_to_a_stream_does_not_go_on(out, goes_on):
    assert main._goes_on(main.parse(["score", "x.vcf", "--fasta=x.fa", "--model=mini", f"--out={out}"])) == goes_on


def test_importing_the_package_and_the_verbs_does_not_import_jax():
    heavy = ("jax", "numpy", "matplotlib")
    code = f"import sys, vqdna_jax.cli.main; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_unknown_attribute_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        vqdna_jax.lod  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["frobnicate"], ["frobnicate", "corpus", "doctor"]),
        ([], ["corpus", "doctor"]),
        (["doctor", "--loud"], ["--loud"]),
        (["report"], ["benchmark", "see vqdna report --help"]),
        (["report", "frobnicate"], ["frobnicate", "benchmark"]),
        (["corpus", "genome.fa"], ["--out"]),
        (["corpus", "--out=somewhere"], ["FASTA"]),
        (["corpus", "genome.fa", "--out=c", "--validation-share=half"], ["--validation-share", "half"]),
    ],
)
def test_a_usage_error_names_what_is_wrong(arguments, names):
    with pytest.raises(errors.InputError) as refused:
        main.parse(arguments)()
    assert "\n" not in str(refused.value) and all(name in str(refused.value) for name in names)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["encode", "a.fa", "--model=", "--out=x"], "--model: what follows"),
        (["encode", "", "--model=mini", "--out=x"], "the name of a file"),
        (["encode", "a.fa", "", "--model=mini", "--out=x"], "the name of a file"),
        (["embed", "a.fa", "--model=mini", "--out", ""], "--out: what follows"),
        (["corpus", "--species=", "--out=x"], "--species: what follows"),
        (["benchmark", "--data=", "--model=mini", "--out=x"], "--data: what follows"),
        (["report", "benchmark", "", "--out=x"], "the name of a file"),
    ],
)
def test_a_value_that_is_empty_is_not_the_folder_one_is_in(arguments, what):
    said = refused(main.parse, arguments)
    assert said.startswith(f"{what} is empty; is it of a variable that is not set? (see vqdna {arguments[0]} ")
    assert said.endswith("benchmark --help)") == ("benchmark" in arguments)


def test_what_may_be_empty_may_be_empty():
    call = main.parse(["corpus", "a.fa", "--out=c", "--beam-runner=", "--downloads=x=", "--beam-option=--x="])
    assert (call.keywords["beam_runner"], call.keywords["beam_option"]) == ("", ("--x=",))


STREAMS = {"closed": None} | {
    encoding: io.TextIOWrapper(io.BytesIO(), encoding) for encoding in ("ascii", "latin-1", "UTF-8", "utf-16")
}


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize(
    "arguments", [["frobnicate"], [], ["corpus", "a.fa"], ["corpus", "a.fa", "--out=c", "--validation-share=", "--x"]]
)
def test_a_usage_error_is_the_same_whatever_standard_output_is(arguments, stream, monkeypatch):
    said = refused(main.parse, arguments)
    monkeypatch.setattr(sys, "stdout", STREAMS[stream])
    assert refused(main.parse, arguments) == said


def test_a_name_of_two_lines_is_told_in_one(capsys):
    with pytest.raises(SystemExit):
        main.main(["encode", "a\nb.fa", "--model=mini", "--out=x"])
    assert capsys.readouterr().err.startswith("error: a\\nb.fa: no such file")


@pytest.mark.parametrize("verb", main.VERBS)
def test_help_shows_what_a_value_is_and_never_none(verb, capsys):
    with pytest.raises(SystemExit):
        main.parse([*verb.split(), "--help"])
    assert "None" not in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--version"], ["encode", "--help"], ["frobnicate"]])
def test_the_package_is_the_command(arguments):
    """`python -m vqdna_jax` is for those whose path lacks the folder in which pip puts `vqdna`."""
    command = [sys.executable, "-m", "vqdna_jax", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    expected = vqdna(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (expected.returncode, expected.stdout, expected.stderr)
    assert result.stdout + result.stderr


def test_a_usage_error_is_one_line_and_exit_code_43():
    assert "frobnicate" in refusal(vqdna("frobnicate"))


@pytest.mark.parametrize("verb", ["corpus", "encode"])
def test_a_missing_fasta_is_named(verb, tmp_path):
    arguments = [f"--out={tmp_path}/out"] + ([f"--model={tmp_path}"] if verb == "encode" else [])
    assert str(tmp_path / "absent.fa") in refusal(vqdna(verb, f"{tmp_path}/absent.fa", *arguments))
    assert not (tmp_path / "out").exists()


def test_corpus_from_a_bundled_genome(bundled, tmp_path):
    result = vqdna("corpus", str(bundled / "phiX174.fa.gz"), f"--out={tmp_path}/corpus", "--json")
    assert result.returncode == 0, result.stderr
    (species,) = json.loads(result.stdout)["species"]
    assert species["name"] == "phiX174"
    assert sum(split["bases"] for split in species["splits"].values()) == 5386
    assert json.loads((tmp_path / "corpus/manifest.json").read_text()) == json.loads(result.stdout)


def test_quiet_is_silent_but_for_what_was_changed(bundled, tmp_path, capsys):
    (tmp_path / "r.fa").write_text(">a\n" + "ACGTR" * 2000 + "\n")
    main.main(["corpus", str(bundled / "phiX174.fa.gz"), f"--out={tmp_path}/phage", "--quiet"])
    assert capsys.readouterr() == ("", "")
    main.main(["corpus", str(tmp_path / "r.fa"), f"--out={tmp_path}/letters", "--quiet", "--json"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["species"][0]["ambiguous"] == {"R": 2000} and "R:2000" in printed.err


@pytest.mark.parametrize("options", [[], ["--json"], ["--quiet"]])
def test_a_species_set_is_told_in_words_as_json_or_not(bundled, tmp_path, capsys, options):
    genomes = [str(bundled / f"{name}.fa.gz") for name in ("phiX174", "arabidopsis_chloroplast")]
    main.main(["species", *genomes, f"--out={tmp_path}/set", "--length=200", "--items=5", *options])
    out, err = capsys.readouterr()
    if options == ["--json"]:
        assert json.loads(out)["items"] == {"train": 5, "dev": 1, "test": 1}
    else:
        assert ("phiX174: split by" in out) == (not options) and (out == "") == bool(options)
    assert err == "" and (tmp_path / "set/train.csv").exists()


def test_doctor_reports_this_machine():
    result = vqdna("doctor", "--json")
    findings = json.loads(result.stdout)
    assert result.returncode == bool(findings["problems"])
    assert findings["packages"]["jax"]["installed"] == findings["jax"]["version"] == jax.__version__
    assert findings["jax"]["backend"] == findings["jax"]["devices"][0]["platform"] == jax.default_backend()
    assert findings["jax"]["matmul"]["ms"] > 0 and findings["host"]["cpu_cores"] >= 1


def test_doctor_speaks_to_a_person_too():
    result = vqdna("doctor")
    assert jax.__version__ in result.stdout and "device" in result.stdout
    assert "\ninstall   python -m pip install" in result.stdout
    assert ("PROBLEM" in result.stdout) == (result.returncode == 1)


def test_doctor_survives_a_jax_that_does_not_start():
    result = vqdna("doctor", "--json", JAX_PLATFORMS="no_such_platform")
    findings = json.loads(result.stdout)
    assert result.returncode == 1 and findings["jax"]["devices"] == []
    assert any("JAX_PLATFORMS" in problem["do"] for problem in findings["problems"])


@pytest.mark.parametrize(
    ("driver", "forced", "line"),
    [
        ("580.65.06", None, '"jax[cuda13]==0.12.0"'),
        ("535.104.05", None, '"jax[cuda12]==0.12.0"'),
        ("470.57", None, "update the NVIDIA driver"),
        ("580.65.06", "cpu", "unset JAX_PLATFORMS"),
    ],
)
def test_doctor_names_the_install_line_for_an_idle_gpu(driver, forced, line, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    if forced:
        monkeypatch.setenv("JAX_PLATFORMS", forced)
    problems = []
    hardware = {"gpus": [{"name": "H100", "driver": driver}], "tpu_chips": 0}
    doctor._unused_hardware(hardware, {"version": "0.12.0", "backend": "cpu"}, problems)
    assert [line in problem["do"] for problem in problems] == [True]


@pytest.mark.parametrize(
    ("driver", "chips", "extra"),
    [("", 0, ""), ("580.65.06", 0, "[cuda]"), ("535.1", 0, "[cuda12]"), ("470.57", 0, ""), ("", 4, "[tpu]")],
)
def test_doctor_names_the_install_line_of_any_machine(driver, chips, extra):
    gpus = [{"name": "H100", "driver": driver}] if driver else []
    line = doctor._install_line({"gpus": gpus, "tpu_chips": chips})
    assert shlex.split(line) == ["python", "-m", "pip", "install", f"{ROOT}{extra}"]
    assert not extra or extra.strip("[]") in metadata.metadata("vqdna-jax").get_all("Provides-Extra")


def test_doctor_finds_old_and_missing_packages():
    problems = []
    doctor._check_version(doctor.Requirement("flax>=0.12"), "0.10.2", problems)
    doctor._check_version(doctor.Requirement("grain>=0.2.12"), None, problems)
    doctor._check_version(doctor.Requirement("jax>=0.10.2"), "0.12.0.1", problems)
    assert [problem["do"].split('"')[1] for problem in problems] == ["flax>=0.12", "grain>=0.2.12"]

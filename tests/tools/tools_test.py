"""Every tool starts, and those that take seconds are run."""

import gzip
import json
import pathlib
import runpy
import sys
from collections import Counter

import numpy as np
import pytest
from small_sequences import random_bases

import vqdna_jax
from vqdna_jax.stages import read_settings
from vqdna_jax.tokenizers.kmers import OverlappingKmers
from vqdna_jax.training import experiments

ROOT = pathlib.Path(__file__).parents[2]
PHIX = ROOT / "vqdna_jax/genome/bundled/phiX174.fa.gz"
# processes.py is the start of a training process, and the tests of several processes run it; the others need torch.
COMMANDS = sorted(
    path.name
    for path in (ROOT / "tools").glob("*.py")
    if path.name not in ("processes.py", "bench_step_torch.py", "rivals_reference.py")
)


@pytest.fixture
def run(monkeypatch):
    """Runs a tool in this process; returns its exit code."""

    def run(name: str, *arguments: object) -> int | str | None:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.syspath_prepend(str(ROOT))
        monkeypatch.syspath_prepend(str(ROOT / "tools"))  # as Python does for a script
        try:
            runpy.run_path(str(ROOT / "tools" / name), run_name="__main__")
        except SystemExit as end:
            return end.code
        return 0

    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_how_to_use_it(run, name, capsys):
    assert not run(name, "--help")
    printed = capsys.readouterr().out
    assert printed.startswith("usage: ") and "--help" in printed


def test_compare_fasta_counts_what_came_back(run, tmp_path, capsys):
    text = gzip.decompress(PHIX.read_bytes()).decode()
    header, _, sequence = text.partition("\n")
    letters = sequence.replace("\n", "")
    other = "".join("A" if letter != "A" else "C" for letter in letters[:100]) + letters[100:].lower()
    (tmp_path / "other.fa").write_text(f"{header}\n{other}\n")
    assert run("compare_fasta.py", PHIX, tmp_path / "other.fa") == 0
    same = len(letters) - 100
    assert capsys.readouterr().out == f"{same:,} of {len(letters):,} bases came back ({same / len(letters):.2%})\n"
    (tmp_path / "short.fa").write_text(f"{header}\n{letters[:-1]}\n")
    assert f"has {len(letters):,} bases" in run("compare_fasta.py", PHIX, tmp_path / "short.fa")


def test_bench_data_measures_what_there_is(tmp_path):
    bench = runpy.run_path(str(ROOT / "tools/bench_data.py"))
    genomes = sorted(PHIX.parent.glob("*.fa.gz"))
    assert bench["_build"](genomes[0], tmp_path) > 0 and bench["_parse_ours"](genomes[0]) > 0
    bench["_bench_windows"](tmp_path, 1, 1000)


@pytest.mark.slow
def test_bench_vocab_is_the_step_over_the_product(tmp_path, run, capsys):
    """Of numbers that it wrote, so that a slow machine changes nothing."""
    report = tmp_path / "report.json"
    assert run("bench_vocab.py", "--batch=2", "--window=64", "--steps=1", "--repeats=1", f"--json={report}") == 0
    ((step, product),) = (turn.values() for turn in json.loads(report.read_text())["blocks"])
    model = read_settings(experiments.read_config("hrq:tiny", [])).model
    rates = 3 * model.flops_per_base() * 2 * 64 / step["seconds"], 2 * 2048**3 / product["seconds"]
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| step"))
    assert f"| {rates[0] / rates[1]:.2f} (" in row


def test_compare_words_counts_words_as_a_counter_does(tmp_path):
    """3-mers that overlap are words whose bag is known: of a learned tokenizer it would only be what it is."""
    tool = runpy.run_path(str(ROOT / "tools/compare_words.py"))
    OverlappingKmers(3).save(tmp_path / "3-mers")
    model, bases_BxS = vqdna_jax.load(tmp_path / "3-mers"), random_bases(20, 50)
    bags = [Counter(zip(x, x[1:], x[2:])) for x in bases_BxS.tolist()]
    for counts_BxK in (tool["kmer_bag"](list(bases_BxS), 3), tool["bag"](model, list(bases_BxS))):
        assert [sorted(row[row > 0]) for row in counts_BxK.toarray()] == [sorted(bag.values()) for bag in bags]
    ended = [Counter(zip(x, x[1:], x[2:])) for x in ([4, 4, *x, 4, 4] for x in bases_BxS.tolist())]
    counts_BxK = tool["ended_bag"](list(bases_BxS), 3)
    assert [sorted(row[row > 0]) for row in counts_BxK.toarray()] == [sorted(bag.values()) for bag in ended]
    codes_BxLxN = np.stack(model.encode(list(bases_BxS)))
    for edited_BxS in tool["edited"](bases_BxS).values():
        after = [Counter(zip(x, x[1:], x[2:])) for x in edited_BxS.tolist()]
        lost = np.mean([(bag - other).total() for bag, other in zip(bags, after)])
        assert tool["lost_words"](model, codes_BxLxN, edited_BxS) == f"{lost:.1f}" and lost > 1

"""Tables beside FASTA: the same sequences under the same names are the same embeddings."""

import gzip
import json
import os
import subprocess

import numpy as np
import pytest
from refusals import refusal
from small_sequences import random_sequences

from vqdna_jax.cli import main
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.genome.regions import of_option
from vqdna_jax.inference.jobs import embed
from vqdna_jax.inference.jobs.sequence_files import SequenceFiles

TEXTS = [to_text(bases) for bases in random_sequences(1, 300, 70, 63)]
ROWS = {
    "plain.csv": ("id,sequence", ",", lambda i, text: [f"r{i}", text]),
    "labelled.csv": ("sequence,label,id", ",", lambda i, text: [text, "7", f"r{i}"]),
    "tabs.tsv": ("note\tname\tSeq", "\t", lambda i, text: ["a, b", f"r{i}", f" {text} "]),
    "by_first_line": ("id,dna,label_a", ",", lambda i, text: [f"r{i}", text.lower(), "1"]),
}


def write(path, first, separator, row, texts=TEXTS):
    lines = [first, *(separator.join(row(i, text)) for i, text in enumerate(texts))]
    raw = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("name", ROWS)
def test_a_table_is_embedded_as_the_fasta_of_its_sequences(pretrained_dir, tmp_path, name, packed):
    (tmp_path / "in.fa").write_text("".join(f">r{i}\n{text}\n" for i, text in enumerate(TEXTS)))
    table = write(tmp_path / f"{name}{packed}", *ROWS[name])
    for source, out in ((tmp_path / "in.fa", "fasta"), (table, "table")):
        embed.embed_fasta(source, pretrained_dir, tmp_path / out, progress=False)
    assert (tmp_path / "fasta").read_bytes() == (tmp_path / "table").read_bytes()


def test_a_table_may_come_through_a_pipe(tmp_path):
    table = write(tmp_path / "x.csv", *ROWS["labelled.csv"])
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cp", table, tmp_path / "pipe"]), SequenceFiles([tmp_path / "pipe"]) as files:
        assert [to_text(record.bases) for record in files.read()] == TEXTS


def test_rows_without_names_are_numbered_over_all_files(tmp_path):
    row = ("sequence", ",", lambda i, text: [text])
    paths = [write(tmp_path / f"{name}.csv", *row) for name in "ab"]
    (tmp_path / "c.fa").write_text(">c\nACGT\n")
    with SequenceFiles([paths[0], tmp_path / "c.fa", paths[1]]) as files:
        for _ in range(2):
            records = list(files.read())
            assert [record.id for record in records] == ["1", "2", "3", "4", "c", "5", "6", "7", "8"]
    assert [to_text(record.bases) for record in records] == [*TEXTS, "ACGT", *TEXTS]


def test_what_is_not_to_the_letter_is_said(pretrained_dir, tmp_path, capsys):
    table = write(tmp_path / "x.tsv", *ROWS["tabs.tsv"])
    main.main(["embed", str(table), f"--model={pretrained_dir}", f"--out={tmp_path}/x.npy", "--quiet", "--json"])
    out, err = capsys.readouterr()
    notes = json.loads(out)["notes"]
    assert notes == [
        "columns are separated by tabs",
        "the column 'Seq' is read as 'sequence'",
        "blanks around fields are dropped",
    ]
    assert err.splitlines() == [f"{table}: {note}" for note in notes]


@pytest.mark.parametrize(
    "text, says",
    [
        ("id,sequence\na,ACGT\nb,ACXT\n", "x.csv:3:5: 'X' is not a DNA letter"),
        ("id,sequence\na,ACGT\nb,\n", "x.csv:3:3: the sequence is empty"),
        ("id,sequence\na,ACGT\na,ACGT\n", "x.csv:3:1: a second row is named 'a'"),
        ("id,sequence\n", "x.csv:1:1: no rows"),
        ("id,read\na,ACGT\n", "x.csv:1:1: "),
        ("id,sequence\na\n", "x.csv:2:"),
        (f"id,sequence\n{'a' * 256},ACGT\n", "x.csv:2: "),
    ],
)
def test_a_bad_row_is_named_before_the_work(pretrained_dir, tmp_path, text, says):
    (tmp_path / "x.csv").write_text(text)
    assert f"{tmp_path}/{says}" in refusal(embed.embed_fasta, tmp_path / "x.csv", pretrained_dir, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_repeated_names_are_numbered_if_asked_for_and_regions_are_of_fasta(tmp_path):
    (tmp_path / "x.csv").write_text("id,sequence\na,ACGT\na,GG\nb,CC\na,T\n")
    with SequenceFiles([tmp_path / "x.csv"], "rename") as files:
        assert [record.id for record in files.read()] == ["a", "a_2", "b", "a_3"]
        assert files.skipped["renamed_records"] == 2
    files = SequenceFiles([tmp_path / "x.csv"], regions=[of_option("a:1-2")])
    assert "regions are of FASTA" in refusal(files.__enter__)


def test_tables_are_read_as_they_are_for_training(tmp_path):
    """Letters in either case, IUPAC letters as N."""
    (tmp_path / "x.csv").write_text("sequence,label\nacgtRYn,0\n")
    with SequenceFiles([tmp_path / "x.csv"]) as files:
        (record,) = files.read()
    assert np.array_equal(record.bases, [0, 1, 2, 3, 4, 4, 4])

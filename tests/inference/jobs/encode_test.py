"""FASTA to a file of codes and back: what must survive does, and every base that does not is on the list."""

import gzip
import json
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from refusals import refusal
from tiny_tokenizer import save_tiny

from vqdna_jax.cli import main
from vqdna_jax.errors import InputError, StorageError
from vqdna_jax.genome import fasta_files
from vqdna_jax.inference import load
from vqdna_jax.inference.jobs import encode
from vqdna_jax.tokenizers.learned import LearnedTokenizer

RECORDS = {  # id: (description, sequence)
    "chr1": ("Tiny chromosome, assembly 1", "acgtNNNNNacgtRYACGTTGCATTGACCAgggtttaaacccN" * 9),
    "one": ("", "a"),
    "hole": ("nothing but N", "n" * 85),
    "odd/../name": ("", "GATTACA" * 23),
}
EMPTY = ">empty no sequence at all\n\n"  # after the third of them


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "in.fa"
    texts = [f">{id} {text}\n{sequence}\n" for id, (text, sequence) in RECORDS.items()]
    path.write_text("".join([*texts[:3], EMPTY, *texts[3:]]))
    return path


@pytest.fixture
def encoded(tokenizer_dir, fasta, tmp_path):
    """(code file, summary)"""
    return tmp_path / "out.codes", encode.encode_fasta(fasta, tokenizer_dir, tmp_path / "out.codes", progress=False)


def read_text(path) -> dict[str, tuple[str, str]]:
    """A FASTA file in the plainest way: {id: (description, sequence)}."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    records = [record.partition("\n") for record in text.split(">")[1:]]
    heads = [head.partition(" ") for head, _, _ in records]
    return {head[0]: (head[2], lines.replace("\n", "")) for head, (_, _, lines) in zip(heads, records)}


def names(directory) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_round_trip_keeps_headers_lengths_n_and_case_and_lists_every_other_difference(tokenizer_dir, encoded, tmp_path):
    path, summary = encoded
    result = encode.decode_to_fasta(path, tokenizer_dir, tmp_path / "back.fa", progress=False)
    back = read_text(tmp_path / "back.fa")
    assert list(back) == list(RECORDS)
    differing = []
    for id, (text, sequence) in RECORDS.items():
        assert back[id][0] == text and len(back[id][1]) == len(sequence)
        for position, (was, now) in enumerate(zip(sequence, back[id][1])):
            assert was.islower() == now.islower()
            assert (now.upper() == "N") == (was.upper() in "NRY")
            if was.upper() in "ACGT" and was != now:
                differing.append([id, str(position), was.upper(), now.upper()])
    header, *listed = [line.split("\t") for line in (tmp_path / "out.codes.mismatches.tsv").read_text().splitlines()]
    assert header == ["contig", "position", "base", "rebuilt"]
    assert listed == differing and 100 < len(differing) < 500
    assert summary["mismatches"] == result["mismatches"] == len(differing)
    letters = "".join(sequence for _, sequence in RECORDS.values()).upper()
    unknown = sum(letters.count(letter) for letter in "NRY")
    assert (summary["records"], summary["bases"], summary["n"]) == (4, len(letters), unknown)
    assert summary["codes"] == sum(-(-len(sequence) // 8) for _, sequence in RECORDS.values())
    assert summary["ambiguous"] == {"R": 9, "Y": 9} and summary["skipped"] == {"empty_records": 1}
    assert summary["mismatch_share"] == len(differing) / (len(letters) - unknown)
    assert names(tmp_path) == {"in.fa", "out.codes", "out.codes.mismatches.tsv", "back.fa"}


def test_the_summary_is_printed(tokenizer_dir, fasta, tmp_path, capsys):
    """By the verbs; what was left out or changed goes to stderr."""
    model = f"--model={tokenizer_dir}"
    main.main(["encode", str(fasta), model, f"--out={tmp_path}/out.codes"])
    main.main(["decode", f"{tmp_path}/out.codes", model, f"--out={tmp_path}/back.fa"])
    printed = capsys.readouterr()
    assert printed.out.count("4 records, 634 bases") == 2 and "bases/s" in printed.out
    notes = ["empty records: 1", "IUPAC letters read as N, and restored as N: R 9, Y 9"]
    assert printed.err.splitlines() == [f"{fasta}: {note}" for note in notes]  # no bar where there is no terminal


def test_python_users_get_codes_with_coordinates(tokenizer_dir, encoded):
    model = load.load(tokenizer_dir)
    with encode.open_codes(encoded[0]) as file:
        assert (file.tokenizer_digest, file.codebook_sizes, file.bases_per_code) == (model.digest, (16, 32), 8)
        assert [(info.id, info.description, info.length) for info in file] == [
            (id, text, len(sequence)) for id, (text, sequence) in RECORDS.items()
        ]
        for id, (_, sequence) in RECORDS.items():
            codes_LxN = file.record(id)
            assert codes_LxN.shape == (-(-len(sequence) // 8), 2) and codes_LxN.dtype == np.uint16
            assert np.array_equal(codes_LxN, model.encode(sequence))
            assert [sequence[a : a + n].strip("NRYnry") for a, n in file.n_runs(id)] == [""] * len(file.n_runs(id))
            assert sum(n for _, n in file.soft_mask_runs(id)) == sum(letter.islower() for letter in sequence)
        assert "odd/../name2" in refusal(file.record, "odd/../name2")


def test_numpy_opens_the_file_without_pickle(encoded):
    with np.load(encoded[0], allow_pickle=False) as file:
        meta = json.loads(file["meta.json"])
        assert meta["schema"] == "vqdna-codes/1"
        arrays = {name: file[name] for name in file.files if name != "meta.json"}
    assert arrays["0/codes"].shape == (meta["records"][0]["codes"], 2)
    assert {name.split("/")[0] for name in arrays} == {"0", "1", "2", "3"}


def test_grouping_and_file_order_do_not_change_the_codes(tokenizer_dir, fasta, encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(fasta_files, "GROUP_BASES", 1)
    monkeypatch.setattr(encode, "TSV_LINES", 7)
    encode.encode_fasta(fasta, tokenizer_dir, tmp_path / "single.codes", progress=False)
    assert (tmp_path / "single.codes").read_bytes() == encoded[0].read_bytes()
    one, two = "single.codes.mismatches.tsv", "out.codes.mismatches.tsv"
    assert (tmp_path / one).read_bytes() == (tmp_path / two).read_bytes()


@pytest.mark.parametrize(("name", "width"), [("back.fa.gz", 80), ("back.fa", 60), ("wide.fa", 1000)])
def test_decoding_writes_lines_of_the_asked_width_and_gzip_by_name(tokenizer_dir, encoded, tmp_path, name, width):
    encode.decode_to_fasta(encoded[0], tokenizer_dir, tmp_path / name, width=width, progress=False)
    raw = (tmp_path / name).read_bytes()
    lines = (gzip.decompress(raw) if name.endswith(".gz") else raw).decode().splitlines()
    assert [len(s) for _, s in read_text(tmp_path / name).values()] == [len(s) for _, s in RECORDS.values()]
    assert max(len(line) for line in lines if line[0] != ">") == min(width, 387)
    assert lines[0] == ">chr1 Tiny chromosome, assembly 1"


HEADERS = [
    "chr1\tAC:CM01\tgi:5",
    "chr2   two  spaces ",
    " chr3",
    "gi|1| one\x01gi|2| two",
    "chr5",
    "chr6 ",
    "é ü\u3000",
]


def test_headers_come_back_as_they_were(tokenizer_dir, tmp_path):
    text = "".join(f">{header}\nACGTNNNN\n" for header in HEADERS)
    (tmp_path / "in.fa").write_text(text + ">chr1 again\tand again\nNNNN\n>chr9\n")
    encode.encode_fasta(tmp_path / "in.fa", tokenizer_dir, tmp_path / "out", progress=False, on_duplicate="rename")
    encode.decode_to_fasta(tmp_path / "out", tokenizer_dir, tmp_path / "back.fa", progress=False)
    back = (tmp_path / "back.fa").read_text().split("\n")
    assert [line[1:] for line in back if line.startswith(">")] == [*HEADERS, "chr1_2 again\tand again"]
    with np.load(tmp_path / "out", allow_pickle=False) as file:
        infos = json.loads(file["meta.json"])["records"]
    assert ["header" in info for info in infos] == [True, True, True, False, False, True, True, True]


def test_a_repeated_name_is_refused_with_what_helps_or_numbered(tokenizer_dir, tmp_path):
    for name in ("one.fa", "two.fa"):
        (tmp_path / name).write_text(">a x\nACGT\n>b\nACGT\n")
    paths = [tmp_path / "one.fa", tmp_path / "two.fa"]
    message = refusal(encode.encode_fasta, paths, tokenizer_dir, tmp_path / "out")
    assert f"{paths[1]}:1: " in message and "--on-duplicate=rename" in message
    summary = encode.encode_fasta(paths, tokenizer_dir, tmp_path / "out", progress=False, on_duplicate="rename")
    assert summary["skipped"] == {"renamed_records": 2}
    with encode.open_codes(tmp_path / "out") as file:
        assert [info.header for info in file] == ["a x", "b", "a_2 x", "b_2"]


def test_files_of_before_with_an_empty_record_are_decoded(tokenizer_dir, tmp_path):
    tokenizer = load.load(tokenizer_dir).tokenizer
    nothing = np.zeros((0, 2), np.int64)
    with encode.CodeFileWriter(tmp_path / "old", tokenizer.digest, tokenizer.codebook_sizes, 8) as writer:
        for id, length in (("a", 0), ("b", 8)):
            codes_LxN = np.zeros((length // 8, 2), np.uint16)
            writer.write(encode.CodeRecord(id, "x", length, codes_LxN, nothing, nothing, nothing[:, 0], {}, f"{id} x"))
    encode.decode_to_fasta(tmp_path / "old", tokenizer_dir, tmp_path / "back.fa", progress=False)
    lines = (tmp_path / "back.fa").read_text().splitlines()
    assert lines[:2] == [">a x", ">b x"] and len(lines[2]) == 8


def test_standard_input_and_output(tokenizer_dir, fasta, encoded, tmp_path):
    model, verbs = str(tokenizer_dir), [sys.executable, "-m", "vqdna_jax.cli.main"]

    def run(*arguments, content: bytes) -> bytes:
        return subprocess.run([*verbs, *arguments], input=content, check=True, stdout=subprocess.PIPE).stdout

    run("encode", "-", f"--model={model}", f"--out={tmp_path}/piped", content=gzip.compress(fasta.read_bytes()))
    assert (tmp_path / "piped").read_bytes() == encoded[0].read_bytes()
    encode.decode_to_fasta(encoded[0], tokenizer_dir, tmp_path / "back.fa", progress=False)
    back = run("decode", "/dev/stdin", f"--model={model}", "--out=-", content=encoded[0].read_bytes())
    assert back == (tmp_path / "back.fa").read_bytes()
    (tmp_path / "long.fa").write_text(">a\n" + "ACGT" * 50_000 + "\n")  # more than a pipe holds
    encode.encode_fasta(tmp_path / "long.fa", tokenizer_dir, tmp_path / "long", progress=False)
    arguments = ["decode", tmp_path / "long", f"--model={model}", "--out=-"]
    with subprocess.Popen([*verbs, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as unread:
        unread.stdout.close()
        assert unread.stderr.read() == b"" and unread.wait() == 128 + signal.SIGPIPE


def test_a_file_of_codes_is_no_stream(tokenizer_dir, fasta, tmp_path):
    assert "is no stream" in refusal(encode.encode_fasta, fasta, tokenizer_dir, "-")
    assert names(tmp_path) == {"in.fa"}


def test_another_tokenizer_is_refused(encoded, tmp_path):
    digest = save_tiny(tmp_path / "other", "hrq", 8, seed=1)
    message = refusal(encode.decode_to_fasta, encoded[0], tmp_path / "other", tmp_path / "back.fa")
    assert digest[:12] in message and str(encoded[0]) in message
    assert not (tmp_path / "back.fa").exists()


def test_a_damaged_code_file_is_refused(tokenizer_dir, encoded, tmp_path):
    good = encoded[0].read_bytes()
    path = tmp_path / "damaged.codes"
    with zipfile.ZipFile(encoded[0]) as archive:
        start = archive.getinfo("0/codes.npy").header_offset
    for damaged in [good[:-30], good[: len(good) // 2], b"", b"ACGT" * 100, _flip(good, start + 250)]:
        path.write_bytes(damaged)
        assert str(path) in refusal(encode.decode_to_fasta, path, tokenizer_dir, tmp_path / "back.fa")
    path.write_bytes(good.replace(b"vqdna-codes/1", b"vqdna-codes/7"))
    assert str(path) in refusal(encode.open_codes, path)
    assert str(tmp_path / "absent") in refusal(encode.open_codes, tmp_path / "absent")
    assert not (tmp_path / "back.fa").exists()


def test_a_packed_code_file_is_refused_for_it_may_become_any_size(encoded, tmp_path):
    with zipfile.ZipFile(encoded[0]) as old, zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "it is packed" in refusal(encode.open_codes, tmp_path / "x")


def _flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def _rewrite(source, target, change) -> None:
    """A code file with `change` made to its parts, and checksums that fit."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        parts = {name: old.read(name) for name in old.namelist()}
        change(parts)
        for name, content in parts.items():
            new.writestr(name, content)


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: parts.pop("0/codes.npy"),
        lambda parts: parts.pop("meta.json"),
        lambda parts: parts.update({"0/codes.npy": parts["1/codes.npy"]}),
        lambda parts: parts.update({"0/codes.npy": parts["0/codes.npy"].replace(b"<u2", b"<f2")}),
        lambda parts: parts.update({"0/codes.npy": parts["0/codes.npy"][:-2] + b"\xff\xff"}),
        lambda parts: parts.update({"meta.json": parts["meta.json"].replace(b'"length": 387', b'"length": 3870')}),
        lambda parts: parts.update({"meta.json": parts["meta.json"].replace(b'"length"', b'"size"')}),
        lambda parts: parts.update({"meta.json": b"[]"}),
    ],
)
def test_a_code_file_whose_parts_do_not_fit_is_refused(tokenizer_dir, encoded, tmp_path, change):
    path = tmp_path / "odd.codes"
    _rewrite(encoded[0], path, change)
    assert str(path) in refusal(encode.decode_to_fasta, path, tokenizer_dir, tmp_path / "back.fa")
    assert not (tmp_path / "back.fa").exists()


def test_ids_are_unique_over_all_files(tokenizer_dir, fasta, tmp_path):
    (tmp_path / "more.fa").write_text(">new\nACGT\n>one again\nACGT\n")
    message = refusal(encode.encode_fasta, [fasta, tmp_path / "more.fa"], tokenizer_dir, tmp_path / "out.codes")
    assert f"{tmp_path / 'more.fa'}:3" in message and "'one'" in message
    assert names(tmp_path) == {"in.fa", "more.fa"}


def test_an_output_that_cannot_be_written_is_named(tokenizer_dir, fasta, encoded, tmp_path):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for work, source in [(encode.encode_fasta, fasta), (encode.decode_to_fasta, encoded[0])]:
        for out in (tmp_path, source, tmp_path / "no/such/out"):
            assert str(out) in refusal(work, source, tokenizer_dir, out, error=InputError)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), RuntimeError])
def test_what_stops_the_work_leaves_nothing_half_written(tokenizer_dir, fasta, encoded, tmp_path, monkeypatch, error):
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(fasta_files, "GROUP_BASES", 1)
    decode, calls = LearnedTokenizer.decode, []

    def stop(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise error
        return decode(self, *arguments)

    monkeypatch.setattr(LearnedTokenizer, "decode", stop)
    expected = StorageError if isinstance(error, OSError) else error
    for work, source, out in [
        (encode.encode_fasta, fasta, "out.codes"),
        (encode.decode_to_fasta, encoded[0], "back.fa"),
    ]:
        calls.clear()
        with pytest.raises(expected):
            work(source, tokenizer_dir, tmp_path / out)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old


def test_bad_fasta_leaves_nothing(tokenizer_dir, tmp_path):
    (tmp_path / "bad.fa").write_text(">a\nACGT\n>b\nAC-T\n")
    bad = tmp_path / "bad.fa"
    assert f"{bad}:4" in refusal(encode.encode_fasta, bad, tokenizer_dir, tmp_path / "out.codes")
    assert names(tmp_path) == {"bad.fa"}


def test_the_bar_ends_at_the_size_of_the_files(tokenizer_dir, fasta, tmp_path, monkeypatch):
    bars = []
    monkeypatch.setattr(encode.sys.stderr, "isatty", lambda: True, raising=False)
    bar_class = encode.tqdm.tqdm

    def remember(**keywords):
        bars.append(bar_class(**keywords))
        return bars[-1]

    monkeypatch.setattr(encode.tqdm, "tqdm", remember)
    monkeypatch.setattr(fasta_files, "GROUP_BASES", 100)
    encode.encode_fasta(fasta, tokenizer_dir, tmp_path / "out.codes")
    assert bars[0].total == fasta.stat().st_size == pytest.approx(bars[0].n)

"""What can be fuzzed: for each kind of file some good ones, and what must hold of any bytes in their place.

A target takes the bytes and a directory of its own. It raises InputError, or what it read is what a second reader finds
there; the reasons where that one finds something else are beside the comparisons.
"""

import csv
import functools
import gzip
import io
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pysam
from Bio.SeqIO.FastaIO import SimpleFastaParser
from small_fasta import bgzip
from tiny_finetuned import save_tiny_finetuned
from tiny_tokenizer import save_tiny

from vqdna_jax.genome import htslib
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.genome.build.assemblies import read_assemblies
from vqdna_jax.genome.build.build import build_corpus
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.genome.fasta import load_fasta
from vqdna_jax.genome.regions import read_bed
from vqdna_jax.genome.streams import GZIP_MAGIC, read_chunks
from vqdna_jax.genome.windows import evaluation_windows
from vqdna_jax.inference.jobs.code_file import open_codes
from vqdna_jax.inference.jobs.encode import encode_fasta
from vqdna_jax.inference.load import load
from vqdna_jax.inference.saved import finetuned, pretrained
from vqdna_jax.labels.csv_rows import read_rows
from vqdna_jax.runtime.exports import read_tensors
from vqdna_jax.variants import vcf

DNA = b"ACGTTGCATTGACCAGGTACCATTGGCAnnNRYacgt"
FASTA = b">a one\nACGTTGCA\nACG\n\n>b\x01c\nNNacgRY\r\n>c\t2\nTTGACA \n"


class Target(NamedTuple):
    seeds: Callable[[], list[bytes]]
    check: Callable[[bytes, pathlib.Path], None]
    words: tuple[bytes, ...] = ()  # that are put in between


def _written(data: bytes, place: pathlib.Path, name: str) -> pathlib.Path:
    path = place / name
    path.write_bytes(data)
    return path


def fasta(data: bytes, place: pathlib.Path) -> None:
    path = _written(data, place, "x.fa")
    ours = [(record.header.rstrip(), to_text(record.bases)) for record in load_fasta(path)]
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        theirs = [(header.rstrip(), text.upper().replace("\t", "")) for header, text in SimpleFastaParser(file)]
    # Biopython keeps empty records, and tabs at the ends of lines, but no blanks at those of headers.
    assert ours == [(header, re.sub("[^ACGT]", "N", text)) for header, text in theirs if text]


def packed(data: bytes, place: pathlib.Path) -> None:
    path = _written(data, place, "x.gz")
    ours = b"".join(read_bytes(path))
    theirs = gzip.decompress(data) if data.startswith(GZIP_MAGIC) else data
    theirs = theirs.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert ours == theirs


def read_bytes(path: pathlib.Path) -> list[bytes]:
    from vqdna_jax.errors import InputError

    try:
        return list(read_chunks(path))
    except OSError as error:
        raise InputError(str(error)) from error


def table(data: bytes, place: pathlib.Path) -> None:
    path = _written(data, place, "x.csv")
    ours = [row.fields for row in read_rows(path)]
    text = data.decode("utf-8-sig")
    # Blanks around quotes are no part of a field here; the csv module takes such quotes for letters.
    text = re.sub(' *("(?:[^"]|"")*") *', r"\1", text) if '"' in text else text
    theirs = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    assert ours == theirs


def variants(data: bytes, place: pathlib.Path) -> None:
    path = _written(data, place, "x.vcf")
    # htslib gives an empty allele, which is no DNA here, as ".".
    alternatives = [tuple(allele or "." for allele in site.alternatives) for site in vcf.sites(path)]
    ours = [(*site[:3], alleles) for site, alleles in zip(vcf.sites(path), alternatives)]
    vcf._header(path)  # htslib's say, which a run asks for, too
    try:
        with htslib.quiet(), pysam.VariantFile(os.fspath(path)) as file:
            theirs = [(record.contig, record.pos - 1, record.ref, record.alts or ()) for record in file]
    except UnicodeDecodeError:  # pysam has no way to show such bytes; here they are written as they were
        return
    assert ours == theirs


def regions(data: bytes, place: pathlib.Path) -> None:
    path = _written(data, place, "x.bed")
    lines = data.decode("utf-8", "backslashreplace").split("\n")
    for region in read_bed(path):
        assert 0 <= region.start < region.stop and any(region.sequence in line for line in lines)


def species(data: bytes, place: pathlib.Path) -> None:
    for digits, short in HEX_DIGITS.items():  # written out, most edits would be of them
        data = data.replace(short, digits)
    ours = read_assemblies(_written(data, place, "x.tsv"))
    lines = [line for line in data.decode("utf-8-sig").split("\n") if line.strip() and not line.startswith("#")]
    cells = csv.reader((line.replace("\r", " ") for line in lines), delimiter="\t", quoting=csv.QUOTE_NONE)
    columns, *rows = ([cell.strip() for cell in row] for row in cells)  # blanks, \r among them, are around cells
    theirs = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [assembly.name for assembly in ours] == [row["name"] for row in theirs]
    assert [str(assembly.size or "") for assembly in ours] == [row.get("bytes", "") for row in theirs]
    for assembly, row in zip(ours, theirs, strict=True):
        assert re.fullmatch(r"[\w.+-]{1,100}", assembly.name, re.ASCII)
        assert re.fullmatch("[0-9a-f]{32}|[0-9a-f]{64}", assembly.checksum.hex)
        assert assembly.size is None or assembly.size > 0
        assert row["checksum"].lower().endswith(f":{assembly.checksum.hex}")
        assert assembly.url.endswith(row["url"]) or row["url"].lower().startswith("file://")


def codes(data: bytes, place: pathlib.Path) -> None:
    path = _written(data, place, "x.codes")
    with open_codes(path) as file:
        for number, record in enumerate(file):
            found = file.record(record.id)
            file.n_runs(record.id), file.soft_mask_runs(record.id), file.mismatches(record.id)
            with np.load(path, allow_pickle=False) as stored:
                theirs = stored[f"{number}/codes"] if f"{number}/codes" in stored else found[:0]
            np.testing.assert_array_equal(found, theirs)


def manifest(data: bytes, place: pathlib.Path) -> None:
    _linked(_corpus(), place, "manifest.json", data)
    evaluation_windows(open_corpus(place), "validation", 64, 4)


def config(data: bytes, place: pathlib.Path) -> None:
    _linked(_model(), place, "config.json", data)
    model = load(place)
    assert model.encode("ACGTACGT").ndim == 2


def tensors(data: bytes, place: pathlib.Path) -> None:
    ours = read_tensors(_written(data, place, "x.safetensors"))
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    said = {name: entry for name, entry in header.items() if name != "__metadata__"}
    assert ours.keys() == said.keys()
    for name, entry in said.items():
        first, last = entry["data_offsets"]
        kinds = {"F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16, "I64": np.int64, "U8": np.uint8}
        if kind := kinds.get(entry["dtype"]):
            theirs = np.frombuffer(body[first:last], kind).reshape(entry["shape"])
            np.testing.assert_array_equal(ours[name], theirs)


def adapter(data: bytes, place: pathlib.Path) -> None:
    _linked(_adapter(), place, "config.json", data)
    finetuned.load(place, _base())


def adapter_tensors(data: bytes, place: pathlib.Path) -> None:
    _linked(_adapter(), place, "model.safetensors", data)
    finetuned.load(place, _base())


def _linked(source: pathlib.Path, place: pathlib.Path, name: str, data: bytes) -> None:
    """`source` with other bytes in one of its files."""
    if not (place / name).exists():  # the others stay from one call to the next
        for file in source.iterdir():
            if file.name != name:
                (place / file.name).symlink_to(file)
    _written(data, place, name)


@functools.cache
def _made() -> pathlib.Path:
    """Where good files are made, once a process."""
    holder = tempfile.TemporaryDirectory(prefix="vqdna-fuzz-")
    _KEPT.append(holder)
    return pathlib.Path(holder.name)


_KEPT: list[tempfile.TemporaryDirectory] = []


@functools.cache
def _model() -> pathlib.Path:
    save_tiny(_made() / "model", "hrq", 4)
    return _made() / "model"


@functools.cache
def _adapter() -> pathlib.Path:
    save_tiny_finetuned(_made() / "adapter", bases_per_code=4)
    return _made() / "adapter"


@functools.cache
def _base() -> pretrained.Pretrained:
    return pretrained.load(_adapter().with_name("adapter-base"))


@functools.cache
def _corpus() -> pathlib.Path:
    (_made() / "c.fa").write_bytes(b">a\n" + b"ACGTTGCATTGACC" * 300 + b"\n")
    build_corpus([_made() / "c.fa"], _made() / "corpus", progress=False)
    return _made() / "corpus"


def _code_files() -> list[bytes]:
    (_made() / "x.fa").write_bytes(FASTA)
    encode_fasta(_made() / "x.fa", _model(), _made() / "x.codes", progress=False)
    return [(_made() / "x.codes").read_bytes()]


def _stored(path: Callable[[], pathlib.Path], name: str) -> Callable[[], list[bytes]]:
    return lambda: [(path() / name).read_bytes()]


VCF = b"""##fileformat=VCFv4.2
##contig=<ID=a,length=9>
##INFO=<ID=DP,Number=1,Type=Integer,Description="d">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO
a\t1\t.\tA\tC\t.\tPASS\tDP=3
a\t2\trs1\tCG\tC,<DEL>\t30\t.\t.
a\t0\t.\tN\t.\t.\t.\t.
"""
HEX_DIGITS = {b"0" * 32: b"@", b"1" * 64: b"%"}
SPECIES = b"name\turl\tchecksum\tbytes\n# x\na\thttps://h/a.fa.gz\tmd5:@\t12\nb\tb.fa\tsha256:%\t\n"
SPECIES_WORDS = (b"\t", b"\n", b"..", b"/", b":", b"\0", b"file://", b"c\tc\tmd5:@\t3\n", b"#", b"\r\n", b" ")
CSV = b'sequence,label,note\nACGT,0,"a ""b"" c"\n AC ,1, "x\n,y" \n\nTT,2,\r\n'
JSON = (b"null", b"-1", b"1e999", b"NaN", b'"\\u0000"', b"[]", b"{}", b"true", b"9" * 40)
TARGETS = {
    "fasta": Target(
        lambda: [FASTA, FASTA.replace(b"\n", b"\r")], fasta, (b">", b"\n", b"\r", b">a\n", DNA, b"\0", b" ")
    ),
    "gzip": Target(lambda: [gzip.compress(FASTA), bgzip(FASTA), bgzip(FASTA[:9]) + gzip.compress(DNA)], packed),
    "csv": Target(lambda: [CSV, b"\xef\xbb\xbf" + CSV], table, (b'"', b'""', b",", b"\n", b"\r\n", b" ", b"\0")),
    "vcf": Target(lambda: [VCF], variants, (b"\t", b"\n", b".", b",", b"<X>", b"#", b"\r\n", b"\r", b"\0")),
    "bed": Target(lambda: [b"#x\ntrack a\nchr1\t0\t10\tn\nchr 2\t5\t6\n"], regions, (b"\t", b"\n", b" ", b"-", b"\0")),
    "species": Target(lambda: [SPECIES], species, SPECIES_WORDS),
    "codes": Target(_code_files, codes, (b"PK\1\2", b"PK\5\6", *JSON)),
    "manifest": Target(_stored(_corpus, "manifest.json"), manifest, (b"..", b"/", *JSON)),
    "config": Target(_stored(_model, "config.json"), config, JSON),
    "safetensors": Target(_stored(_model, "model.safetensors"), tensors, JSON),
    "adapter": Target(_stored(_adapter, "config.json"), adapter, JSON),
    "adapter-tensors": Target(_stored(_adapter, "model.safetensors"), adapter_tensors, JSON),
}

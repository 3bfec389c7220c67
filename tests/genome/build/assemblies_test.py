"""Lists of assemblies: mistakes have their line, and a list becomes a corpus."""

import hashlib
from pathlib import Path

import fsspec
import pytest
from small_server import CONTENT, HASTY, MD5

from vqdna_jax.cli.verbs import corpus as corpus_verb
from vqdna_jax.errors import InputError
from vqdna_jax.genome.build.assemblies import fetch_assemblies, read_assemblies
from vqdna_jax.genome.build.bundled import BUNDLED
from vqdna_jax.genome.corpus import open_corpus


def listed(tmp_path, text: str) -> Path:
    path = tmp_path / "species.tsv"
    path.write_text(text.replace(" ", "\t"))
    return path


GOOD = f"a http://h/a.fa {MD5}"


@pytest.mark.parametrize(
    ("lines", "line", "word"),
    [
        (["name url"], 1, "no column 'checksum'"),
        (["name url checksum sha1"], 1, "'sha1'"),
        (["name url checksum name"], 1, "'name'"),
        (["a http://h/a.fa md5:00"], 1, "no column 'name'"),
        (["# of 2026", "", "name url checksum", GOOD, "b http://h/b.fa"], 5, "2 columns, expected 3"),
        (["name url checksum", GOOD, f"a http://h/b.fa {MD5}"], 3, "'a' is also in line 2"),
        (["name url checksum", GOOD, f"b http://h/a.fa {MD5}"], 3, "also in line 2"),
        (["name url checksum", f"../a http://h/a.fa {MD5}"], 2, "name is"),
        (["name url checksum", f" http://h/a {MD5}"], 2, "name"),
        (["name url checksum", "a http://h/a.fa md5:0123"], 2, "checksum is 'md5:0123'"),
        (["name url checksum", f"a http://h/a.fa {MD5.hex}"], 2, "expected md5: or sha256:"),
        (["name url checksum", "a http://h/a.fa sha1:" + "0" * 40], 2, "sha1"),
        (["name url checksum", f"a  {MD5}"], 2, "url is ''"),
        (["name url checksum bytes", f"{GOOD} many"], 2, "bytes is 'many'"),
        (["name url checksum bytes", f"{GOOD} 0"], 2, "bytes"),
    ],
)
def test_a_list_with_a_mistake_is_refused_by_line(tmp_path, lines, line, word):
    with pytest.raises(InputError) as refused:
        read_assemblies(listed(tmp_path, "\n".join(lines) + "\n"))
    assert f"species.tsv:{line}: " in str(refused.value) and word in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_list_is_refused(tmp_path):
    for content in (b"", b"# nothing\n", b"name\turl\tchecksum\n", b"\x1f\x8b\xff\x00", b"name\turl\n"):
        (tmp_path / "species.tsv").write_bytes(content)
        with pytest.raises(InputError, match=r"species\.tsv"):
            read_assemblies(tmp_path / "species.tsv")
    with pytest.raises(InputError, match="No such file"):
        read_assemblies(tmp_path / "absent.tsv")


def test_a_list_becomes_a_corpus(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VQDNA_CACHE", str(tmp_path / "cache"))
    phage, plant = ((BUNDLED / f"{name}.fa.gz").read_bytes() for name in ("phiX174", "arabidopsis_chloroplast"))
    server.files |= {"/phage.fa.gz": phage, "/a%20b/genome.fa.gz?v=1": plant}
    (tmp_path / "here.fa").write_text(">a\nACGTACGTACGT\n")
    sums = [hashlib.sha256(content).hexdigest() for content in (phage, plant, (tmp_path / "here.fa").read_bytes())]
    species = listed(
        tmp_path,
        f"# comment\nchecksum name bytes url\n"
        f"sha256:{sums[0].upper()} virus {len(phage)} {server.url('/phage.fa.gz')}\r\n\n"
        f"sha256:{sums[1]} plant  {server.url('/a%20b/genome.fa.gz?v=1')}\nsha256:{sums[2]} here  here.fa\n",
    )
    corpus_verb(str(tmp_path / "out"), species=species)
    entries = open_corpus(tmp_path / "out").manifest["species"]
    assert [entry["name"] for entry in entries] == ["virus", "plant", "here"]
    assert [entry["source"]["sha256"] for entry in entries] == sums
    assert [entry["source"]["name"] for entry in entries] == ["phage.fa.gz", "genome.fa.gz", "here.fa"]
    assert entries[0]["source"]["url"] == server.url("/phage.fa.gz") and "url" not in entries[2]["source"]
    before = len(server.requests)
    corpus_verb(str(tmp_path / "again"), species=species)
    assert len(server.requests) == before
    assert open_corpus(tmp_path / "again").digest == open_corpus(tmp_path / "out").digest


def test_a_list_may_name_a_store(tmp_path):
    fsspec.filesystem("memory").pipe_file("/species/genome.fa", CONTENT)
    lines = f"name url checksum\na memory://species/genome.fa {MD5}\n"
    for _ in range(2):  # the second time it is there
        (source,) = fetch_assemblies(read_assemblies(listed(tmp_path, lines)), tmp_path / "downloads", progress=False)
        assert Path(source.path).read_bytes() == CONTENT and source.name == "genome.fa"
    for url, word in [("memory://species/no.fa", "No such file"), ("htp://h/a.fa", "nothing is known of htp")]:
        with pytest.raises(InputError, match=rf"species\.tsv:2: {url}: .*{word}"):
            fetch_assemblies(read_assemblies(listed(tmp_path, f"name url checksum\na {url} {MD5}\n")), tmp_path / "d")


def test_all_others_are_fetched_before_the_first_failure_is_told(server, tmp_path):
    lines = [f"s{index} {server.url(f'/{index}')} {MD5}" for index in range(6)]
    lines[2] = f"s2 {server.url('/2')} md5:{'0' * 32}"
    lines[4] = f"s4 absent.fa {MD5}"
    assemblies = read_assemblies(listed(tmp_path, "\n".join(["name url checksum", *lines])))
    with pytest.raises(InputError, match=r"species\.tsv:4: .*md5 is .* \(and 1 more of 6 assemblies\)"):
        fetch_assemblies(assemblies, tmp_path / "downloads", HASTY, progress=False)
    whole_files = [path for path in (tmp_path / "downloads").iterdir() if not path.name.endswith(".lock")]
    assert len(whole_files) == 4 and all(path.read_bytes() == CONTENT for path in whole_files)

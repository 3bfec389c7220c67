import csv
import gzip
import io
import pathlib
import tracemalloc

import numpy as np
import pytest
import refusals

from vqdna_jax.labels.csv_rows import MAX_FIELD, read_rows

GOOD = "sequence,label\nAC,0\nGT,1\n"


def refusal(path: pathlib.Path) -> str:
    """The message, which is one line, after the name of the file."""
    message = refusals.refusal(lambda: list(read_rows(path)))
    assert message.startswith(f"{path}:")
    return message.removeprefix(f"{path}:")


BAD_FILES = {
    "quoted semicolons": ('"sequence";"label"\nAC;0\n', "1:11: ';' after a quoted field; expected a comma"),
    "CR line ends": ("sequence,label\rAC,0\rGT,1\r", "1:15: a carriage return alone; expected lines that end in LF"),
    "CR in a row": (GOOD + "A\rC,0\n", "4:2: a carriage return alone"),
    "too few fields": (GOOD + "ACG\n", "4:4: 1 fields; expected 2 as in the header; complete the row"),
    "too many fields": (
        GOOD + "AC,0,7,8\n",
        "4:6: 4 fields; expected 2 as in the header; quote fields that hold a comma",
    ),
    "open quote": (GOOD + 'AC,"0\nGT,1\n', "4:4: a quote not closed by the end of the file; expected a second one"),
    "text after a quote": (GOOD + '"AC"GT,0\n', "4:5: 'G' after a quoted field; expected a comma"),
    "quote within a field": (GOOD + 'AC"GT,0\n', "4:3: a quote within a field; expected it around the field"),
    "NUL": (GOOD + "AC,\0\n", "4:4: a NUL byte; expected text"),
    "not UTF-8": (GOOD.encode() + b"AC,0\xe9\n", "4:5: the byte 0xe9 is not UTF-8; expected UTF-8"),
    "UTF-16": (GOOD.encode("utf-16"), "1:1: this is UTF-16; expected UTF-8"),
    "UTF-16 without a mark": (GOOD.encode("utf-16-le"), "1:2: a NUL byte; expected text"),
    "gzip": (gzip.compress(GOOD.encode()), "1:1: this is gzip, not text; expected a CSV file; decompress it first"),
    "spreadsheet": (b"PK\x03\x04...", "1:1: this is a zip archive or a spreadsheet; expected a CSV file"),
    "empty file": ("", "1:1: the file is empty; expected a header line"),
    "only line ends": ("\n\n", "1:1: the file is empty; expected a header line"),
}


class TestReadRows:
    def test_fields_are_those_of_the_csv_module_and_places_are_where_they_stand(self, tmp_path):
        rng = np.random.default_rng(0)
        rows = [["".join(rng.choice(list('ab,"\n é'), rng.integers(0, 6))) for _ in range(4)] for _ in range(300)]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([row for row in rows if any(row)])
        (tmp_path / "a.csv").write_text(text.getvalue(), encoding="utf-8")
        found = list(read_rows(tmp_path / "a.csv"))
        assert [row.fields for row in found] == list(csv.reader(io.StringIO(text.getvalue(), newline="")))
        lines = text.getvalue().split("\n")
        for row in found:
            for column, field in enumerate(row.fields):
                line, offset = map(int, row.place(column).split(":")[-2:])
                assert offset == 1 or lines[line - 1][offset - 2] == ","
                first = field[:1] if field[:1] not in ('"', "\n") else ""
                assert lines[line - 1][offset - 1 :].removeprefix('"').startswith(first)

    @pytest.mark.parametrize("name", ["a.tsv", "A.TSV", "a.tsv.gz", "a.Tsv.GZ"])
    def test_name_says_tabs_and_gzip(self, tmp_path, name):
        text = b'one\ttwo,three\n"a\tb"\tc\n'
        (tmp_path / name).write_bytes(gzip.compress(text) if name.lower().endswith("gz") else text)
        assert [row.fields for row in read_rows(tmp_path / name)] == [["one", "two,three"], ["a\tb", "c"]]
        bad = text + b"a\tb\tc\n"
        (tmp_path / name).write_bytes(gzip.compress(bad) if name.lower().endswith("gz") else bad)
        assert refusal(tmp_path / name) == "3:5: 3 fields; expected 2 as in the header; quote fields that hold a tab"

    @pytest.mark.parametrize("cut", [1, 8, 12, 40])
    def test_damaged_gzip_is_refused(self, tmp_path, cut):
        path = tmp_path / "a.csv.gz"
        path.write_bytes(gzip.compress(GOOD.encode() * 9)[:-cut])
        assert "damaged or truncated" in refusal(path)

    def test_packed_lines_end_as_others_do(self, tmp_path):
        (tmp_path / "a.csv.gz").write_bytes(gzip.compress(GOOD.replace("\n", "\r\n").encode()))
        assert [row.fields for row in read_rows(tmp_path / "a.csv.gz")][1:] == [["AC", "0"], ["GT", "1"]]
        (tmp_path / "b.csv.gz").write_bytes(gzip.compress(GOOD.replace("\n", "\r").encode()))
        assert "1:15: a carriage return alone; expected lines that end in LF" in refusal(tmp_path / "b.csv.gz")

    def test_gzip_is_read_by_its_name_or_where_that_is_asked_for(self, tmp_path):
        large = "sequence,label\r\n" + "".join(f"{'ACGT' * 30},{i}\r\n" for i in range(30_000))
        for name, packed in (("a.csv.gz", None), ("a.csv", True)):
            (tmp_path / name).write_bytes(gzip.compress(large.encode(), 1))
            rows = list(read_rows(tmp_path / name, packed))
            assert [row.fields[1] for row in rows[1:]] == list(map(str, range(30_000)))
        (tmp_path / "plain.csv.gz").write_text(GOOD)
        assert len(list(read_rows(tmp_path / "plain.csv.gz"))) == 3

    def test_blanks_around_quotes(self, tmp_path):
        (tmp_path / "a.csv").write_text('one,two , three\n "a,b" ,  "" ,"c" \n')
        rows = list(read_rows(tmp_path / "a.csv"))
        assert [row.fields for row in rows] == [["one", "two ", " three"], ["a,b", "", "c"]]
        assert [rows[1].place(column).rsplit(":", 1)[1] for column in range(3)] == ["2", "11", "15"]
        (tmp_path / "a.csv").write_text('one,two\n x "a",b\n')
        assert refusal(tmp_path / "a.csv").startswith("2:4: a quote within a field")

    @pytest.mark.parametrize("name", BAD_FILES)
    def test_bad_file_is_named_with_line_and_column(self, tmp_path, name):
        text, message = BAD_FILES[name]
        (tmp_path / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        found = refusal(tmp_path / "a.csv")
        assert found.startswith(message) and found.count("; ") >= 2

    @pytest.mark.parametrize(
        ("before", "after", "message"),
        [
            ("", ",0\n", "4:1: too many characters; expected at most 8,000,000 in a field"),
            ("AC,0", "\n", "4:4: too many characters"),
            ('AC,"', '"\n', "4:4: a quote not closed in 16,000,000 characters"),
        ],
    )
    def test_field_of_a_hundred_megabytes_is_refused_in_little_memory(self, tmp_path, before, after, message):
        path = tmp_path / "a.csv"
        with open(path, "w") as file:
            file.write(GOOD + before)
            file.writelines("A" * 1_000_000 for _ in range(100))
            file.write(after)
        tracemalloc.start()
        found = refusal(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.startswith(message) and peak < 60e6

    def test_quote_left_open_in_a_large_file_is_refused_in_little_memory(self, tmp_path):
        path = tmp_path / "a.csv"
        with open(path, "w") as file:
            file.write(GOOD + '"AC,0\n')
            file.writelines("ACGTACGTAC,0\n" * 1000 for _ in range(3000))
        assert refusal(path).startswith("4:1: a quote not closed in 16,000,000 characters")

    def test_longest_field(self, tmp_path):
        path = tmp_path / "a.csv"
        path.write_text("sequence,label\n" + "A" * MAX_FIELD + ",0\n")
        assert [len(field) for row in read_rows(path) for field in row.fields] == [8, 5, MAX_FIELD, 1]
        path.write_text("sequence,label\n" + "A" * (MAX_FIELD + 1) + ",0\n")
        assert refusal(path).startswith("2:1: too many characters; expected at most 8,000,000 in a field")

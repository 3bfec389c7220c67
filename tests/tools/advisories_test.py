"""tools/advisories.py: which advisories apply, by OSV's rules; without data nothing passes for checked."""

import json
import pathlib
import zipfile

import pytest

from tools import advisories

LOCK = "# a lock\nsome-package==2.5.1 \\\n    --hash=sha256:00\nother==1.0\n"


def advisory(name="some-package", number="PYSEC-1", withdrawn=None, ecosystem="PyPI", **affected) -> dict:
    package = {"name": name, "ecosystem": ecosystem}
    said = {"id": number, "modified": "2026-01-02T03:04:05Z", "affected": [{"package": package} | affected]}
    return said | ({"withdrawn": withdrawn} if withdrawn else {})


def between(*events: tuple[str, str], kind="ECOSYSTEM") -> dict:
    return {"ranges": [{"type": kind, "events": [dict([event]) for event in events]}]}


def packed(place: pathlib.Path, *found: dict) -> pathlib.Path:
    with zipfile.ZipFile(place / "all.zip", "w") as archive:
        for number, said in enumerate(found):
            archive.writestr(f"{number}.json", json.dumps(said))
    return place / "all.zip"


APPLY = {
    "listed": advisory(versions=["1.0", "2.5.1"]),
    "from the first on": advisory(**between(("introduced", "0"))),
    "from this one on": advisory(**between(("introduced", "2.5.1"), ("fixed", "2.10"))),
    "up to this one": advisory(**between(("introduced", "0"), ("last_affected", "2.5.1"))),
    "fixed later, as versions are compared": advisory(**between(("introduced", "2.4"), ("fixed", "2.10"))),
    "events in any order": advisory(**between(("fixed", "2"), ("introduced", "2.5"), ("introduced", "0"))),
    "a name in other letters": advisory(name="Some.Package", **between(("introduced", "0"))),
}
DO_NOT = {
    "another version": advisory(versions=["2.5", "2.5.1.1"]),
    "fixed in this one": advisory(**between(("introduced", "0"), ("fixed", "2.5.1"))),
    "introduced later": advisory(**between(("introduced", "2.5.2"))),
    "up to the one before": advisory(**between(("introduced", "0"), ("last_affected", "2.5.0"))),
    "another package": advisory(name="some-packages", **between(("introduced", "0"))),
    "commits": advisory(**between(("introduced", "0"), kind="GIT")),
}


@pytest.mark.parametrize("case", [*APPLY, *DO_NOT])
def test_an_advisory_applies_by_its_versions(case, tmp_path):
    found = advisories.check(LOCK, packed(tmp_path, (APPLY | DO_NOT)[case]))
    assert found.said.startswith("2 packages of the lock, 1 advisories, the newest of 2026-01-02: ")
    assert [line.split(":")[:2] for line in found.applying] == [["PYSEC-1", " some-package 2.5.1"]] * (case in APPLY)


NO_DATA = {
    "nothing": [],
    "another ecosystem": [advisory(ecosystem="npm", **between(("introduced", "0")))],
    "withdrawn": [advisory(withdrawn="2026-01-01T00:00:00Z", **between(("introduced", "0")))],
}


@pytest.mark.parametrize("case", NO_DATA)
def test_data_without_advisories_is_refused_and_does_not_pass(case, tmp_path):
    with pytest.raises(ValueError, match="has no advisory for PyPI; expected OSV's all.zip"):
        advisories.check(LOCK, packed(tmp_path, *NO_DATA[case]))


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "all.zip").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match="all.zip: File is not a zip file; expected OSV's"):
        advisories.check(LOCK, tmp_path / "all.zip")


def test_without_data_it_is_said_that_nothing_was_checked():
    found = advisories.check(LOCK, None)
    assert found.text() == "NOT CHECKED: no advisories were given for the 2 packages of the lock.\n"

"""tools/release.py: the same bytes whoever builds, an sdist that builds the wheel, a bill of all that is locked."""

import io
import json
import os
import pathlib
import re
import subprocess
import tarfile
import zipfile

import pytest
import yaml

from tools import release
from vqdna_jax.version import __version__

ROOT = pathlib.Path(release.__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
DATE = 1_700_000_000
pytestmark = pytest.mark.skipif(
    bool(subprocess.run(["git", "-C", ROOT, "rev-parse"], capture_output=True).returncode), reason="no clone"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> list[pathlib.Path]:
    """Two releases of one commit, one by who lets nobody else read."""
    places = [tmp_path_factory.mktemp("made") / name for name in ("first", "second")]
    for place, mask in zip(places, (0o022, 0o077)):
        before = os.umask(mask)
        try:
            release.release(place)
        finally:
            os.umask(before)
    return places


@pytest.mark.slow
def test_two_builds_have_the_same_bytes(made):
    first, second = ({path.name: path.read_bytes() for path in place.iterdir()} for place in made)
    assert first == second and len(first) == 6
    said = subprocess.run(["sha256sum", "-c", release.SUMS], cwd=made[0], capture_output=True, text=True)
    assert said.returncode == 0 and said.stdout.count(": OK") == 5


@pytest.mark.slow
def test_the_source_distribution_builds_the_same_wheel(made, tmp_path):
    (sdist,), (wheel,) = made[0].glob("*.tar.gz"), made[0].glob("*.whl")
    with tarfile.open(sdist) as archive:
        assert len({(member.mtime, member.uid, member.uname) for member in archive}) == 1
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    (tmp_path / "out").mkdir()
    release.build(source, tmp_path / "out", DATE)
    (again,) = (tmp_path / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert one.namelist() == other.namelist()
        assert [name for name in one.namelist() if one.read(name) != other.read(name)] == []


def test_nothing_is_released_of_a_lock_to_which_an_advisory_applies(tmp_path):
    package = {"name": "numpy", "ecosystem": "PyPI"}
    affected = {"package": package, "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]}
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("1.json", json.dumps({"id": "1", "modified": "2026-01-02", "affected": [affected]}))
    with pytest.raises(ValueError, match="nothing is released"):
        release.release(tmp_path / "out", known=tmp_path / "all.zip")
    assert not (tmp_path / "out").exists()


def test_a_repacked_archive_holds_the_same_files_by_their_names():
    def packed(names: str, date: int) -> bytes:
        with tarfile.open(fileobj=(file := io.BytesIO()), mode="w:gz") as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size, member.mtime, member.uname = 3, date, f"user {date}"
                archive.addfile(member, io.BytesIO(name.encode() * 3))
        return file.getvalue()

    one, other = (release.repacked(packed(names, date), DATE) for names, date in (("abc", 1), ("cab", 2)))
    assert one == other
    with tarfile.open(fileobj=io.BytesIO(one)) as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}
    assert found == {name: 3 * name.encode() for name in "abc"}


def test_every_locked_package_is_in_the_bill_with_its_hashes():
    found = release.bill(LOCK, "1.2", DATE)
    versions = {(part["name"], part["version"]) for part in found["components"]}
    assert versions == set(re.findall(r"^([\w.-]+)==([^ \\]+)", LOCK, re.MULTILINE)) and len(versions) > 50
    assert sum(len(part["hashes"]) for part in found["components"]) == LOCK.count("--hash=sha256:")
    refs = [part["bom-ref"] for part in found["components"]]
    assert len(set(refs)) == len(refs) and found["dependencies"][0]["dependsOn"] == refs
    without = [part["name"] for part in found["components"] if not part["licenses"]]
    assert len(without) < 0.4 * len(refs)  # those of other systems and Pythons are not here
    assert release.bill(LOCK, "1.2", DATE) == found != release.bill(LOCK, "1.3", DATE)
    rows = [line.split("\t") for line in release.licence_table(found["components"]).splitlines()]
    assert {(name, version) for name, version, _ in rows[1:]} == versions
    assert [licence for name, _, licence in rows if name == "numpy"][0].startswith("BSD-3-Clause")
    assert sum(licence.startswith("not known here") for *_, licence in rows) == len(without)


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_and_only_a_push_may_write(path):
    said = yaml.safe_load(path.read_text())
    used = [step["uses"] for job in said["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used)
    assert said["permissions"] == {"contents": "read"}
    granted = {name: job for name, job in said["jobs"].items() if "permissions" in job}
    assert granted.keys() <= {"publish"}
    assert all("github.event_name == 'push'" in job["if"] and job["needs"] for job in granted.values())


def test_nothing_is_published_but_what_passed_everything_else():
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    assert set(jobs["publish"]["needs"]) == jobs.keys() - {"publish"}
    assert "ref_type == 'tag'" in jobs["publish"]["if"]
    assert not any(
        "publish" in step.get("uses", "") for name in jobs.keys() - {"publish"} for step in jobs[name]["steps"]
    )
    assert jobs["test"]["steps"][-1]["run"] == "bash .ci/run"


def test_the_version_is_one_and_the_changelog_has_it():
    (newest, *_) = re.findall(r"^## \[(.+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert newest == cited == __version__

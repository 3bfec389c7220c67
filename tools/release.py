"""What is released of a commit, the same bytes wherever it is made: wheel, sdist, a bill of materials, sums of them.

    python tools/release.py --out=dist            [--commit=HEAD] [--advisories=all.zip]

Files have the commit's date and plain modes, whatever those of the clone are. The bill (CycloneDX 1.6) lists every
package of requirements.lock with its hashes and, of those installed here, its licence; licences.tsv says the latter to
people. advisories.txt says which known vulnerabilities apply to the lock (tools/advisories.py): where one does nothing
is released, and where no advisories were given it says that nothing was checked.
"""

import argparse
import datetime
import gzip
import hashlib
import importlib.metadata
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, os.fspath(ROOT))  # the repository is no package
from tools import advisories  # noqa: E402

BILL, LICENCES, ADVISORIES, SUMS = "bill-of-materials.cdx.json", "licences.tsv", "advisories.txt", "SHA256SUMS"
_BUILD = "from setuptools import build_meta as b; b.build_wheel({0!r}); b.build_sdist({0!r})"
_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^ \\]+)(?: ; ([^\\]+?))? \\$")


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", ROOT, *arguments], check=True, stdout=subprocess.PIPE).stdout


def unpack(commit: str, place: pathlib.Path, date: int) -> None:
    """The files of a commit."""
    with tarfile.open(fileobj=io.BytesIO(git("archive", commit))) as archive:
        archive.extractall(place, filter="data")
    for path in sorted(place.rglob("*"), reverse=True):  # a directory after what is in it
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (date, date))


def build(source: pathlib.Path, out: pathlib.Path, date: int) -> None:
    """Wheel and sdist of unpacked files, with what the environment of this Python has."""
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(date)}
    command = [sys.executable, "-c", _BUILD.format(os.fspath(out.resolve()))]
    subprocess.run(command, cwd=source, env=environment, check=True, stdout=subprocess.DEVNULL, umask=0o022)
    (sdist,) = out.glob("*.tar.gz")
    sdist.write_bytes(repacked(sdist.read_bytes(), date))


def repacked(packed: bytes, date: int) -> bytes:
    """A .tar.gz in the order of its names, with one date and no owner."""
    with (
        tarfile.open(fileobj=io.BytesIO(packed)) as old,
        tarfile.open(fileobj=(text := io.BytesIO()), mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = date, 0, 0, "", ""
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member))
    return gzip.compress(text.getvalue(), mtime=0)


def locked(lock: str) -> Iterator[dict[str, Any]]:
    """The packages of a lock as components."""
    for lines in re.split(r"\n(?=\S)", lock):
        if not (found := _LOCKED.match(lines.split("\n")[0])):
            continue
        name, version, marker = found.groups()
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", lines)
        yield {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "hashes": [{"alg": "SHA-256", "content": content} for content in hashes],
            "properties": [{"name": "marker", "value": marker}] if marker else [],
        }


def licences(name: str, version: str) -> list[dict[str, Any]]:
    """As the package itself says; none where another version is installed, or none."""
    try:
        said = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return []
    if said["Version"] != version:
        return []
    if expression := said.get("License-Expression"):
        return [{"expression": expression}]
    classified = [
        value.rpartition(" :: ")[2] for value in said.get_all("Classifier", []) if value.startswith("License ::")
    ]
    short = (said.get("License") or "").strip().split("\n")[0][:80]
    return [{"license": {"name": text}} for text in classified or [short] if text]


def bill(lock: str, version: str, date: int) -> dict[str, Any]:
    components = [part | {"licenses": licences(part["name"], part["version"])} for part in locked(lock)]
    ours = {"type": "library", "bom-ref": "vqdna-jax", "name": "vqdna-jax", "version": version}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, lock + version)}",
        "version": 1,
        "metadata": {"timestamp": _time(date), "component": ours | {"licenses": [{"expression": "Apache-2.0"}]}},
        "components": components,
        "dependencies": [{"ref": "vqdna-jax", "dependsOn": [part["bom-ref"] for part in components]}],
    }


def licence_table(components: list[dict[str, Any]]) -> str:
    """A line for each package of a bill: name, version, licence."""
    rows = [["package", "version", "licence"]]
    for part in components:
        said = [entry.get("expression") or entry["license"]["name"] for entry in part["licenses"]]
        rows.append([part["name"], part["version"], "; ".join(said) or "not known here: of another system or Python"])
    return "".join("\t".join(row) + "\n" for row in rows)


def _time(date: int) -> str:
    return datetime.datetime.fromtimestamp(date, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def release(out: pathlib.Path, commit: str = "HEAD", known: pathlib.Path | None = None) -> None:
    """Everything into `out`, which must not exist. Raises ValueError: of the vulnerabilities in `known` one applies, or
    there are none in it."""
    checked = advisories.check(git("show", f"{commit}:requirements.lock").decode(), known)
    print(checked.text(), end="", file=sys.stderr)
    if checked.applying:
        raise ValueError("nothing is released: move the lock (tools/lock.sh --upgrade-package NAME)")
    out.mkdir(parents=True)
    date = int(git("show", "-s", "--format=%ct", commit))
    with tempfile.TemporaryDirectory() as place:
        source = pathlib.Path(place) / "source"
        source.mkdir()
        unpack(commit, source, date)
        lock = (source / "requirements.lock").read_text()
        build(source, out, date)
    (wheel,) = out.glob("*.whl")
    listed = bill(lock, wheel.name.split("-")[1], date)
    (out / BILL).write_text(json.dumps(listed, indent=1) + "\n")
    (out / LICENCES).write_text(licence_table(listed["components"]))
    (out / ADVISORIES).write_text(checked.text())
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())}
    (out / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a directory that does not exist")
    parser.add_argument("--commit", default="HEAD")
    parser.add_argument("--advisories", type=pathlib.Path, help="OSV's export for PyPI, all.zip")
    asked = parser.parse_args()
    try:
        release(asked.out, asked.commit, asked.advisories)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")

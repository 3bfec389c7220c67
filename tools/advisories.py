"""Known vulnerabilities of what requirements.lock holds, by advisories that lie on this machine.

    python tools/advisories.py all.zip

all.zip is OSV's export for PyPI, https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip. Nothing is asked of
a network. Ends with 1 where an advisory applies, and where the file has none at all: no data is no good news.
"""

import argparse
import json
import pathlib
import re
import sys
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = pathlib.Path(__file__).resolve().parents[1]
Advisory = dict[str, Any]  # as https://ossf.github.io/osv-schema/ has it


class Checked(NamedTuple):
    """What was found, to read: a line of what was looked at, then one for each advisory that applies."""

    said: str
    applying: list[str]

    def text(self) -> str:
        return "\n".join([self.said, *self.applying]) + "\n"


def check(lock: str, data: pathlib.Path | None) -> Checked:
    """The packages of a lock. Raises ValueError: `data` is no zip archive, or has no advisory for PyPI."""
    pinned = re.findall(r"^([\w.-]+)==([^ \\]+)", lock, re.MULTILINE)  # one may have a version for each Python
    if data is None:
        return Checked(f"NOT CHECKED: no advisories were given for the {len(pinned)} packages of the lock.", [])
    try:
        advisories = list(read(data))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{data}: {error}; expected OSV's all.zip") from error
    if not advisories:
        raise ValueError(f"{data}: has no advisory for PyPI; expected OSV's all.zip")
    newest = max(advisory["modified"] for advisory in advisories)[:10]
    against = f"{len(pinned)} packages of the lock, {len(advisories)} advisories, the newest of {newest}"
    found = [
        f"{advisory['id']}: {name} {version}: {_summary(advisory)}"
        for name, version in pinned
        for advisory in advisories
        if applies(advisory, name, version)
    ]
    return Checked(f"{against}: {len(found)} apply.", found)


def read(data: pathlib.Path) -> Iterator[Advisory]:
    """Those of PyPI that were not withdrawn."""
    with zipfile.ZipFile(data) as archive:
        for name in sorted(archive.namelist()):
            advisory = json.loads(archive.read(name)) if name.endswith(".json") else {}
            if not advisory.get("withdrawn") and any(True for _ in _affected(advisory)):
                yield advisory


def applies(advisory: Advisory, name: str, version: str) -> bool:
    """By the versions that it lists, or by its ranges."""
    for said, entry in _affected(advisory):
        if said == canonicalize_name(name):
            ranges = [found["events"] for found in entry.get("ranges", []) if found["type"] == "ECOSYSTEM"]
            if version in entry.get("versions", []) or any(_within(events, Version(version)) for events in ranges):
                return True
    return False


def _affected(advisory: Advisory) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name of the package, which of its versions)."""
    for entry in advisory.get("affected", []):
        if entry.get("package", {}).get("ecosystem") == "PyPI":
            yield canonicalize_name(entry["package"]["name"]), entry


def _within(events: list[dict[str, str]], version: Version) -> bool:
    """As OSV says it: in the order of their versions, events turn it on and off."""
    within = False
    for kind, at in sorted((pair for event in events for pair in event.items()), key=lambda pair: Version(pair[1])):
        if kind == "introduced" and version >= Version(at):
            within = True
        elif (kind == "fixed" and version >= Version(at)) or (kind == "last_affected" and version > Version(at)):
            within = False
    return within


def _summary(advisory: Advisory) -> str:
    return " ".join((advisory.get("summary") or advisory.get("details") or "").split())[:120]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    try:
        found = check((ROOT / "requirements.lock").read_text(), parser.parse_args().data)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(found.text(), end="")
    sys.exit(bool(found.applying))


if __name__ == "__main__":
    main()

"""Where the locked versions of what the package needs are wheels, as a table of docs/release.md.

    python tools/platforms.py

Each cell is resolved by `uv pip compile` with no package built from source but promise, which is plain Python and has
no wheel anywhere: how many packages are installed, or the first that has no wheel there.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = {
    "Linux x86-64": "x86_64-unknown-linux-gnu",
    "Linux ARM": "aarch64-unknown-linux-gnu",
    "macOS ARM": "aarch64-apple-darwin",
    "macOS Intel": "x86_64-apple-darwin",
}
EXTRAS = ("", "tracks")


def requirements(extra: str) -> list[str]:
    """Of setup.py, with those of an extra."""
    import setuptools  # noqa: F401, I001  # brings distutils, which newer Pythons lack
    from distutils.core import run_setup

    os.chdir(ROOT)
    said = run_setup("setup.py", stop_after="init")
    return said.install_requires + (said.extras_require[extra] if extra else [])


def resolved(wanted: list[str], python: str, platform: str) -> str:
    command = [sys.executable, "-m", "uv", "pip", "compile", "-q", "-", "--constraint", ROOT / "requirements.lock"]
    command += ["--only-binary", ":all:", "--no-binary", "promise"]
    command += ["--python-version", python, "--python-platform", platform]
    end = subprocess.run(command, input="\n".join(wanted), capture_output=True, text=True)
    if not end.returncode:
        return f"{end.stdout.count('==')} packages"
    said = " ".join(end.stderr.split())
    missing = re.search(r"Because (\S+?)==\S+ has no (?:usable )?wheels", said)
    if not missing:
        sys.exit(said)
    return f"no wheel of {missing[1]}"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("| | " + " | ".join(PYTHONS) + " |\n|---|" + "---|" * len(PYTHONS))
    for extra in EXTRAS:
        wanted = requirements(extra)
        for name, platform in PLATFORMS.items():
            cells = [resolved(wanted, python, platform) for python in PYTHONS]
            print(f"| {name}{', with `tracks`' * bool(extra)} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

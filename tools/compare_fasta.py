"""Prints how many bases two FASTA files share, position by position: python tools/compare_fasta.py A B"""

import argparse
import gzip
import pathlib
import sys


def bases(path: str) -> str:
    """All sequence letters of a file, in upper case."""
    raw = pathlib.Path(path).read_bytes()
    text = (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode()
    return "".join(line.strip().upper() for line in text.splitlines() if not line.startswith(">"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("original")
    parser.add_argument("other")
    original, other = vars(parser.parse_args()).values()
    first, second = bases(original), bases(other)
    if len(first) != len(second):
        sys.exit(f"error: {original} has {len(first):,} bases, {other} has {len(second):,}")
    same = sum(a == b for a, b in zip(first, second))
    print(f"{same:,} of {len(first):,} bases came back ({same / max(len(first), 1):.2%})")


if __name__ == "__main__":
    main()

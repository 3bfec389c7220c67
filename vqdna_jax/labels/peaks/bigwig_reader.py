"""Reads a bigWig in a process of its own, run as a script by `signal`, which says why.

On standard output a line of JSON: {contig: bases}. Then for each line [contig, start, stop] on standard input one with
the sum of the values there and how many bases have one. It ends with its input, or where there is nothing to be had.
"""

import json
import os
import sys
from typing import Any

import numpy as np
import pyBigWig


def main(path: str) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what is said of damage is said by the one that asks
    file = pyBigWig.open(path)
    _say(file.chroms())
    for line in sys.stdin:
        _say(_sum(file, *json.loads(line)))


def _sum(file: Any, contig: str, start: int, stop: int) -> tuple[float, int]:
    values = np.asarray(file.values(contig, start, stop, numpy=True))  # empty where the whole file has no value
    found = np.isfinite(values)
    return float(values[found].sum(dtype=np.float64)), int(found.sum())


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

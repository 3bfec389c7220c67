"""The library that pysam wraps, kept from writing to standard error: errors say what it would."""

import contextlib
from collections.abc import Iterator

import pysam


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    before = pysam.set_verbosity(0)
    try:
        yield
    finally:
        pysam.set_verbosity(before)

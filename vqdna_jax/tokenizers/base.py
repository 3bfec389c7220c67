"""What every tokenizer takes: DNA as letters or as bases."""

from collections.abc import Callable

import numpy as np

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, to_bases

DNA = str | bytes | np.ndarray
Advance = Callable[[int], None]


def as_bases(index: int, sequence: DNA) -> np.ndarray:
    if isinstance(sequence, np.ndarray):
        if sequence.dtype != np.uint8 or sequence.ndim != 1:
            found = f"{sequence.dtype}{list(sequence.shape)}"
            raise InputError(f"sequence {index}: expected letters or uint8 bases [S], found {found}")
        if sequence.size and sequence.max() > N:
            at = int(np.argmax(sequence > N))
            raise InputError(f"sequence {index}, position {at}: {sequence[at]} is not a base (A C G T N = 0 1 2 3 4)")
        bases = sequence
    elif isinstance(sequence, str | bytes):
        try:
            bases = to_bases(sequence)
        except InputError as error:
            raise InputError(f"sequence {index}, {str(error).removeprefix('sequence ')}") from error
    else:
        raise InputError(f"sequence {index}: expected letters or uint8 bases [S], found {type(sequence).__name__}")
    if not bases.size:
        raise InputError(f"sequence {index}: is empty; expected at least one base")
    return bases

"""A disk that takes no more, without one: the system allows this process no larger file."""

import contextlib
import resource


@contextlib.contextmanager
def largest_file(count: int):
    """Bytes; a write beyond them raises EFBIG, in C++ too."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

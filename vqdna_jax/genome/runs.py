"""Runs of positions, (start, length) pairs [R, 2]: where the N and the soft-masked bases are."""

import numpy as np


def runs_of(flags: np.ndarray) -> np.ndarray:
    """The runs of True in bool [S], int64 [R, 2]."""
    if not flags.any():
        return np.zeros((0, 2), np.int64)
    edges = np.flatnonzero(np.diff(flags.view(np.int8), prepend=0, append=0)).reshape(-1, 2)
    return np.stack([edges[:, 0], edges[:, 1] - edges[:, 0]], axis=1).astype(np.int64)


def spread_runs(runs: np.ndarray, offset: np.ndarray | int = 0) -> np.ndarray:
    """Every position inside runs [R, 2], int64, each run moved by `offset` (one number or one a run)."""
    starts, lengths = runs[:, 0] + np.asarray(offset, np.int64), runs[:, 1].astype(np.int64)
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def clip_runs(runs: np.ndarray, start: int, stop: int) -> np.ndarray:
    """The parts of runs inside [start, stop), counted from start, int32."""
    begin = np.maximum(runs[:, 0], start)
    end = np.minimum(runs[:, 0] + runs[:, 1], stop)
    return np.stack([begin - start, end - begin], axis=1)[end > begin].astype(np.int32)

"""Runs of positions, (start, length) pairs [runs, 2]: where the N and the soft-masked bases are."""

import numpy as np


def runs_of(flags: np.ndarray) -> np.ndarray:
    """The runs of True in bool [S], int64 [runs, 2]."""
    if not flags.any():
        return np.zeros((0, 2), np.int64)
    edges = np.flatnonzero(np.diff(flags.view(np.int8), prepend=0, append=0)).reshape(-1, 2)
    return np.stack([edges[:, 0], edges[:, 1] - edges[:, 0]], axis=1).astype(np.int64)


def spread_runs(runs: np.ndarray, offset: np.ndarray | int = 0) -> np.ndarray:
    """Every position inside runs [runs, 2], int64, each run moved by `offset` (one number or one for each run)."""
    starts, lengths = runs[:, 0] + np.asarray(offset, np.int64), runs[:, 1].astype(np.int64)
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def split_runs(runs: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs cut at the edges of pieces that lie end to end, `edges` [pieces + 1], and counted from the start of each.

    Returns how many runs each piece has, int64 [pieces], and the runs, int32 [parts, 2], piece after piece.
    """
    if not runs.size:
        return np.zeros(edges.size - 1, np.int64), np.zeros((0, 2), np.int32)
    start, end = runs[:, 0], runs.sum(axis=1)
    first, last = (np.searchsorted(edges, position, side="right") - 1 for position in (start, end - 1))
    parts = last - first + 1
    run = np.repeat(np.arange(start.size), parts)
    piece = np.arange(run.size) - (np.cumsum(parts) - parts - first)[run]
    begin, end = np.maximum(start[run], edges[piece]), np.minimum(end[run], edges[piece + 1])
    counts = np.bincount(piece, minlength=edges.size - 1)
    return counts, np.stack([begin - edges[piece], end - begin], axis=1).astype(np.int32)

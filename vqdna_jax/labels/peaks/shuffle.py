"""Shuffles that keep how often each pair of neighbouring bases occurs (Altschul and Erickson, 1985).

A sequence is a walk over its letters, a step for each pair. Every walk of the same steps in another order is as likely:
the last step out of each letter is drawn until these lead to the last letter of all, the others in any order.
"""

import numpy as np


def shuffle_pairs(bases: np.ndarray, seed: int) -> np.ndarray:
    """uint8 [S], the first and the last base in their places; a pure function of its arguments."""
    if bases.size < 3:
        return bases.copy()
    random, end = np.random.PCG64(seed), int(bases[-1])  # raw numbers are the same under every version of numpy
    steps = {int(base): bases[1:][bases[:-1] == base] for base in np.unique(bases[:-1])}
    last = _last_steps(steps, end, random)
    order = {base: _ordered(out, last.get(base), random) for base, out in steps.items()}
    walk, at = [int(bases[0])], dict.fromkeys(steps, 0)
    for _ in range(bases.size - 1):
        base = walk[-1]
        walk.append(order[base][at[base]])
        at[base] += 1
    return np.array(walk, np.uint8)


def _last_steps(steps: dict[int, np.ndarray], end: int, random: np.random.PCG64) -> dict[int, int]:
    """By letter, which of the steps out of it is the last; none of the end, where the walk may stop."""
    while True:
        last = {base: int(random.random_raw()) % out.size for base, out in steps.items() if base != end}
        if all(_leads(base, steps, last, end) for base in last):
            return last


def _leads(base: int, steps: dict[int, np.ndarray], last: dict[int, int], end: int) -> bool:
    """Whether the last steps go from a letter to the end."""
    for _ in range(len(last)):
        base = int(steps[base][last[base]])
        if base == end:
            return True
    return False


def _ordered(out: np.ndarray, last: int | None, random: np.random.PCG64) -> list[int]:
    """Steps in any order, but for the last."""
    kept = out if last is None else np.delete(out, last)
    keys = np.array([random.random_raw() for _ in kept], np.uint64)
    return [*kept[np.argsort(keys, kind="stable")].tolist(), *([] if last is None else [int(out[last])])]

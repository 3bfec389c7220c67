"""How far a long job is, on stderr: a bar on a terminal, lines elsewhere."""

import io
import sys
from typing import Any

import tqdm

SECONDS_A_LINE = 30.0  # where there is no terminal
_LINE_FORMAT = "{desc} {percentage:.0f}% of {total_fmt}, {elapsed} elapsed, {remaining} to go, {rate_noinv_fmt}"
_BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"


def progress_bar(name: str, total: int, unit: str, wanted: bool, done: int = 0) -> tqdm.tqdm:
    """On a terminal a bar; elsewhere lines, and none of what is done before the first is due."""
    style: dict[str, Any] = {"dynamic_ncols": True, "bar_format": _BAR_FORMAT}
    if not sys.stderr.isatty():
        style = dict.fromkeys(("mininterval", "maxinterval", "delay"), SECONDS_A_LINE)
        style |= {"file": _Lines(), "bar_format": _LINE_FORMAT, "leave": False}
    scaled = not 0 < total < 1000  # tqdm would call 50 of them 50.0
    return tqdm.tqdm(desc=name, total=total, initial=done, unit=unit, unit_scale=scaled, disable=not wanted, **style)


class _Lines(io.TextIOBase):
    """What tqdm draws again and again, as lines on stderr."""

    def write(self, text: str) -> int:
        if text.strip():
            print(text.strip().replace(",  ", ", "), file=sys.stderr, flush=True)
        return len(text)

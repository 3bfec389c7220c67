"""The rows of `vqdna plan` as a table in Markdown, one column a topology."""

import functools
from collections.abc import Sequence

from vqdna_jax.collectives import KINDS

GIB = 2**30


def describe(rows: Sequence[dict]) -> str:
    """Rows of plan.plan, for a person to read or for a document."""
    columns = [["", *(row["topology"] for row in rows)], ["---"] * (len(rows) + 1)]
    columns += [[label, *(cell(row) for row in rows)] for label, cell in _LINES]
    widths = [max(len(line[i]) for line in columns) for i in range(len(rows) + 1)]
    table = ["| " + " | ".join(text.ljust(width) for text, width in zip(line, widths)) + " |" for line in columns]
    first = rows[0]
    title = " ".join([first["config"], *first["set"]])
    notes = [f"{title}; jax {first['versions']['jax']}, libtpu {first['versions']['libtpu']}"]
    if not all(row["loops_known"] for row in rows):
        notes.append("collectives: in a loop whose length the compiled program does not say, each is counted once")
    return "\n".join([*notes, *table])


def _memory(row: dict) -> str:
    of = f" of {row['hbm_bytes'] / GIB:.2f}" if row["hbm_bytes"] else ""
    return f"{row['peak_bytes'] / GIB:.2f}{of} GiB" + ("" if row["fits"] else ": DOES NOT FIT")


def _sent(kind: str, row: dict) -> str:
    sent = row["collectives"].get(kind)
    return f"{sent['count']}, {sent['bytes'] / 1e6:,.3g} MB" if sent else "-"


_LINES = [
    ("chips", lambda row: f"{row['chips']} x {row['chip']}"),
    ("mesh", lambda row: " x ".join(f"{axis} {size}" for axis, size in row["mesh"].items()) or "-"),
    ("windows, codes a chip", lambda row: f"{row['rows_per_chip']}, {row['codes_per_chip']:,}"),
    ("microbatches", lambda row: f"{row['microbatches']}"),
    ("layers, remat, attention", lambda row: ", ".join(row["compute"].values()) or "-"),
    ("parameters", lambda row: f"{row['parameters'] / 1e6:,.2f} M"),
    ("state a chip", lambda row: f"{row['state_bytes'] / GIB:.3f} GiB"),
    ("peak memory a chip", _memory),
    ("model TFLOP a step, a chip", lambda row: f"{row['flops'] / 1e12:,.4g}, {row['flops_per_chip'] / 1e12:.3g}"),
    *((f"{kind}: times, size", functools.partial(_sent, kind)) for kind in KINDS),
    ("compiled in", lambda row: f"{row['compile_s']:.0f} s"),
    ("step at this MFU", lambda row: f"{1e3 * row['step_s']:.3g} ms at {row['mfu']:.0%}" if row["step_s"] else "-"),
    ("codes a second", lambda row: f"{row['codes_per_s'] / 1e6:,.1f} M" if row["step_s"] else "-"),
    ("whole run", lambda row: f"{row['days']:.2g} days" if row["days"] else "-"),
]

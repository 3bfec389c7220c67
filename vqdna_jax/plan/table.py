"""The rows of `vqdna plan` as tables in Markdown, one column per topology."""

import functools
from collections.abc import Callable, Sequence

from vqdna_jax.plan.collectives import KINDS
from vqdna_jax.plan.search import FIXED
from vqdna_jax.plan.tasks import COMPARED_BASES

GIB = 2**30
Line = tuple[str, Callable[[dict], str]]


def describe(rows: Sequence[dict]) -> str:
    """Rows of plan.plan, for a person to read or for a document."""
    first = rows[0]
    title = " ".join([first["config"], *first["set"]])
    notes = [f"{title}; jax {first['versions']['jax']}, libtpu {first['versions']['libtpu']}"]
    if not all(row["loops_known"] for row in rows):
        notes.append("collectives: in a loop whose length the compiled program does not say, each is counted once")
    kinds = list(dict.fromkeys(row.get("scaling") for row in rows))
    if kinds == [None]:
        return "\n".join([*notes, *_table(rows, [*_LINES, *_axes_lines(rows), *_TIMES, *_WHOLE_RUN])])
    for kind in kinds:
        lines = [*_SCALING, *_WHOLE_RUN] if kind == FIXED else _SCALING  # a run of another batch has other steps
        notes += [f"\n{kind}", "", *_table([row for row in rows if row["scaling"] == kind], lines)]
    return "\n".join(notes)


def _table(rows: Sequence[dict], lines: Sequence[Line]) -> list[str]:
    cells = [["", *(row["topology"] for row in rows)], ["---"] * (len(rows) + 1)]
    cells += [[label, *(cell(row) for row in rows)] for label, cell in lines]
    cells = [line for line in cells if set(line[1:]) != {"-"}]
    widths = [max(len(line[i]) for line in cells) for i in range(len(rows) + 1)]
    return ["| " + " | ".join(text.ljust(width) for text, width in zip(line, widths)) + " |" for line in cells]


def _axes_lines(rows: Sequence[dict]) -> list[Line]:
    """A line for each set of mesh axes that something is sent along."""
    found = sorted({axes for row in rows for axes in row["collectives_by_axes"]})
    return [(f"sent along {axes}", functools.partial(_along, axes)) for axes in found]


def _along(axes: str, row: dict) -> str:
    kinds = row["collectives_by_axes"].get(axes, {})
    return _amount({"count": sum(k["count"] for k in kinds.values()), "bytes": sum(k["bytes"] for k in kinds.values())})


def _amount(sent: dict | None) -> str:
    return f"{sent['count']}, {_number(sent['bytes'] / 1e6)} MB" if sent and sent["count"] else "-"


def _number(x: float) -> str:
    """Three digits, without an exponent."""
    return f"{float(f'{x:.3g}'):,.12g}"


def _tera(x: float) -> str:
    return _number(x / 1e12)


def _sent(kind: str, row: dict) -> str:
    return _amount(row["collectives"].get(kind))


def _memory(row: dict) -> str:
    of = f" of {row['hbm_bytes'] / GIB:.2f}" if row["hbm_bytes"] else ""
    return f"{row['peak_bytes'] / GIB:.2f}{of} GiB" + ("" if row["fits"] else ": DOES NOT FIT")


def _largest(row: dict) -> str:
    found = row.get("largest_batch")
    if not found:
        return "-"
    other = f"; {found['does_not_fit']:,} does not fit" if found["does_not_fit"] and row["fits"] else ""
    size = f"{row['global_batch']:,}" if row["fits"] else f"none: {row['global_batch']:,} does not fit"
    return f"{size}{other}; {found['compiled']} compiled"


def _forward(row: dict) -> str:
    if not row["base_flops"]:
        return "-"
    flops, relative = row["base_flops"]
    return f"{_number(flops / 1e9)} GFLOP, {_number(relative)} of DNABERT-2's"


def _alone(row: dict) -> str:
    if row["ici_s"] is None:
        return "-"
    between = f" + {_number(1e3 * row['dcn_s'])} ms between slices" if row["dcn_s"] else ""
    return f"{_number(1e3 * row['ici_s'])} ms{between}"


def _loss(row: dict) -> str:
    if row["ici_s"] is None or not row["step_s"]:
        return "-"
    alone = row["ici_s"] + row["dcn_s"]
    return f"{alone / (row['step_s'] + alone):.1%}"


def _step(row: dict) -> str:
    return f"{_number(1e3 * row['step_s'])} ms at {row['mfu']:.0%}" if row["step_s"] else "-"


def _rate(key: str, row: dict) -> str:
    return f"{_number(row[key] / 1e6)} M" if row[key] else "-"


_SIZE: list[Line] = [
    ("chips", lambda row: f"{row['chips']} x {row['chip']}"),
    ("mesh", lambda row: " x ".join(f"{axis} {size}" for axis, size in row["mesh"].items()) or "-"),
    ("global batch", lambda row: f"{row['global_batch']:,}"),
    ("windows, codes per chip", lambda row: f"{row['rows_per_chip']:,}, {row['codes_per_chip']:,}"),
    ("microbatches", lambda row: f"{row['microbatches']}"),
]
_PEAK: Line = ("peak memory per chip", _memory)
_KINDS: list[Line] = [(f"{kind}: times, size", functools.partial(_sent, kind)) for kind in KINDS]
_BETWEEN: Line = ("handed to other slices", lambda row: _amount(row["between_slices"]))
_TIMES: list[Line] = [
    _BETWEEN,
    ("step at this MFU", _step),
    ("collectives alone (model)", _alone),
    ("loss if nothing overlaps (model)", _loss),
    ("codes per second", functools.partial(_rate, "codes_per_s")),
    ("bases per second", functools.partial(_rate, "bases_per_s")),
]
_LINES: list[Line] = [
    *_SIZE,
    ("largest global batch", _largest),
    ("layers, remat, attention", lambda row: ", ".join(row["compute"].values()) or "-"),
    ("parameters", lambda row: f"{row['parameters'] / 1e6:,.2f} M"),
    ("of the base", lambda row: f"{row['base_parameters'] / 1e6:,.2f} M" if row["base_parameters"] else "-"),
    (f"of a forward pass of {COMPARED_BASES} bases", _forward),
    ("state per chip", lambda row: f"{row['state_bytes'] / GIB:.3f} GiB"),
    _PEAK,
    ("model TFLOP per step, per chip", lambda row: f"{_tera(row['flops'])}, {_tera(row['flops_per_chip'])}"),
    ("compiled in", lambda row: f"{row['compile_s']:.0f} s"),
    *_KINDS,
]
_WHOLE_RUN: list[Line] = [
    ("whole run", lambda row: f"{row['days']:.2g} days" if row["days"] else "-"),
    ("chip-hours", lambda row: f"{row['chip_hours']:,.0f}" if row["chip_hours"] else "-"),
    ("cost", lambda row: f"{row['cost_usd']:,.0f} USD" if row["cost_usd"] is not None else "-"),
]
_SCALING: list[Line] = [
    *_SIZE,
    _PEAK,
    ("model TFLOP per chip", lambda row: _tera(row["flops_per_chip"])),
    *_KINDS,
    *_TIMES,
]

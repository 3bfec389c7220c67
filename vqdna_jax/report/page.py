"""One self-contained HTML page: no file and no network beside it, light and dark, on paper, tables that sort.

What comes from data goes through `escape` where it enters; the page's own policy forbids any script but `_SCRIPT` and
any request, so that not even a mistake here could run or load something.
"""

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vqdna_jax.report.style import STYLE


class TableCell(NamedTuple):
    """Markup of a table cell, what it sorts by (None: last), its style and further classes."""

    markup: str
    value: float | str | None = None
    style: str = ""
    classes: str = ""


class Block(NamedTuple):
    """Rows that stay together when a table is sorted, under a line of their own if there is a title."""

    title: str
    rows: list[list[TableCell]]  # the first cell of a row is its header


def escape(text: object) -> str:
    """As text or within a quoted attribute."""
    return html.escape(str(text), quote=True)


def text_cell(text: object) -> TableCell:
    return TableCell(escape(text), str(text))


def table(name: str, caption: str, columns: Sequence[str], blocks: Iterable[Block], classes: str = "") -> str:
    """A table that sorts by a press on a column's title, or by the address PAGE#sort=name,column,ascending|descending.

    `name` is its id; caption, column titles and block titles are plain text. Columns whose values are numbers are set
    to the right.
    """
    blocks = [block for block in blocks if block.rows]
    rows = [row for block in blocks for row in block.rows]
    numeric = [_numeric([row[column].value for row in rows]) for column in range(len(columns))]
    head = "".join(
        f'<th scope="col" aria-sort="none"{_classes(number)}><button type="button">{escape(title)}</button></th>'
        for title, number in zip(columns, numeric)
    )
    bodies = "".join(_body(block, numeric) for block in blocks)
    return (
        f'<div class="scroll" role="region" aria-label="{escape(caption)}" tabindex="0"><table id="{escape(name)}" '
        f'class="sortable {classes}"><caption><span>{escape(caption)}</span></caption>'
        f"<thead><tr>{head}</tr></thead>{bodies}</table></div>"
    )


def _numeric(values: Iterable[float | str | None]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and not any(isinstance(value, str) for value in known)


def _classes(number: bool, others: str = "") -> str:
    names = " ".join(filter(None, ["number" if number else "", others]))
    return f' class="{names}"' if names else ""


def _body(block: Block, numeric: Sequence[bool]) -> str:
    head = f'<th scope="rowgroup" colspan="{len(numeric)}"><span>{escape(block.title)}</span></th>'
    title = f'<tr class="block">{head}</tr>' if block.title else ""
    return f"<tbody>{title}{''.join(_row(row, numeric) for row in block.rows)}</tbody>"


def _row(row: Sequence[TableCell], numeric: Sequence[bool]) -> str:
    cells = []
    for place, (cell, number) in enumerate(zip(row, numeric, strict=True)):
        tag = 'th scope="row"' if place == 0 else "td"
        value = "" if cell.value is None else f' data-value="{escape(cell.value)}"'
        style = f' style="{cell.style}"' if cell.style else ""
        cells.append(f"<{tag}{_classes(number, cell.classes)}{value}{style}>{cell.markup}</{tag[:2]}>")
    return f"<tr>{''.join(cells)}</tr>"


def section(title: str, *parts: str, name: str = "") -> str:
    """A part of the page under a heading; `parts` are markup."""
    return f'<section id="{escape(name)}"><h2>{escape(title)}</h2>{"".join(parts)}</section>'


def paragraph(text: str, classes: str = "") -> str:
    return f'<p class="{classes}">{escape(text)}</p>' if classes else f"<p>{escape(text)}</p>"


def findings(first: str, others: Iterable[str], *after: str) -> str:
    """What a page found, at its head: sentences, of which the first is the outcome, and markup after them."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in others)
    parts = f"<h2>Finding</h2>{paragraph(first, 'lead')}<ul>{items}</ul>{''.join(after)}"
    return f'<section class="findings" id="finding">{parts}</section>'


def definitions(pairs: Iterable[tuple[str, object]]) -> str:
    """Names and what they mean, as plain text."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(what)}</dd>" for name, what in pairs) + "</dl>"


def page(title: str, subtitle: str, sections: Iterable[str]) -> str:
    """The whole document; `sections` are markup."""
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f'<body><main><header><h1>{escape(title)}</h1><p class="subtitle">{escape(subtitle)}</p></header>\n'
        + "\n".join(sections)
        + f"\n</main><script>{_SCRIPT}</script></body></html>\n"
    )


_SCRIPT = """
(() => {
  const value = cell => cell.dataset.value ?? '';
  const order = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, 'en', {numeric: true}) : x - y;
  };
  const sort = (table, column, direction) => {
    const sign = direction === 'descending' ? -1 : 1;
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter(row => !row.classList.contains('block'));
      rows.sort((one, other) => {
        const [a, b] = [value(one.cells[column]), value(other.cells[column])];
        return a === '' || b === '' ? (a === '') - (b === '') : sign * order(a, b);
      });
      body.append(...rows);
    }
    [...table.tHead.rows[0].cells].forEach((head, place) =>
      head.setAttribute('aria-sort', place === column ? direction : 'none'));
  };
  for (const table of document.querySelectorAll('table.sortable')) {
    [...table.tHead.rows[0].cells].forEach((head, column) => head.querySelector('button').onclick = () => {
      const first = head.classList.contains('number') ? 'descending' : 'ascending';
      const other = first === 'ascending' ? 'descending' : 'ascending';
      sort(table, column, head.getAttribute('aria-sort') === first ? other : first);
    });
  }
  const asked = /^#sort=([a-z0-9-]+),([0-9]+),(ascending|descending)$/.exec(location.hash);
  const table = asked && document.getElementById(asked[1]);
  if (table && table.tHead.rows[0].cells[asked[2]]) sort(table, Number(asked[2]), asked[3]);
  addEventListener('beforeprint', () => document.querySelectorAll('details').forEach(part => part.open = true));
})();
"""

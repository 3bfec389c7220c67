"""The page is opened in a real browser by its address, and within frames as wide as a telephone and a desk."""

import html
import html.parser
import json
import pathlib
import re
import shutil
import subprocess

import pytest
from small_benchmark import DATASETS, HOSTILE, make_cells

from vqdna_jax.benchmark.report import lanes
from vqdna_jax.benchmark.report.page import render, write_page
from vqdna_jax.errors import InputError
from vqdna_jax.report.page import Block, TableCell, table
from vqdna_jax.report.style import STYLE

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def make_results(**changes) -> dict:
    published = [
        dict(
            model="DNABERT-2",
            source="its README",
            parameters_m=117,
            train_tokens_b=262,
            scores={name: 70.0 + place for place, name in enumerate(DATASETS)},
        ),
        dict(model=f"x{HOSTILE}", source=HOSTILE, parameters_m=None, train_tokens_b=None, scores={"tf/0": 12.0}),
    ]
    card = dict(title=HOSTILE, metric=HOSTILE, classes=2, sizes={HOSTILE: 600, "dev": 100})
    known = dict(
        title=f"Six sets {HOSTILE}",
        command=f"vqdna benchmark {HOSTILE} --out={'long/' * 60}",
        date=HOSTILE,
        machine=HOSTILE,
        budget={HOSTILE: HOSTILE, "pretraining": "12 Mbases"},
        cells=make_cells(),
        published=published,
        cards={"tf/0": card},
    )
    return known | changes


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("report") / "page.html"
    write_page(make_results(), path)
    return path


def browse(address: str) -> tuple[str, list[str]]:
    """The document after its scripts ran, and the lines of the console."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
        "--v=0",
        "--dump-dom",
    ]
    command = [browser, *flags, "--virtual-time-budget=4000", "--window-size=1280,2400", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


FRAMES = """<!doctype html><meta charset="utf-8"><body><pre id="found"></pre>
<iframe width="390" height="900" srcdoc="{page}"></iframe><iframe width="1280" height="900" srcdoc="{page}"></iframe>
<script>
const look = frame => {
  const view = frame.contentWindow, page = view.document, all = query => [...page.querySelectorAll(query)];
  const inside = (one, other) => one.left >= other.left - 1 && one.right <= other.right + 1;
  const boxes = all('figure').flatMap(figure => [...figure.querySelectorAll('text, .mark, figcaption')].map(
    part => inside(part.getBoundingClientRect(), figure.getBoundingClientRect())));
  const [names, head] = page.querySelectorAll('#overview thead th');
  for (let press = 0; press < 2; press++) names.querySelector('button').click();  // a row without a mean comes first
  const named_last = [...page.querySelectorAll('#overview tbody')].map(body => body.rows[1].cells[0].dataset.value);
  const column = () => [...page.querySelectorAll('#overview tbody')].map(body =>
    [...body.rows].filter(row => !row.classList.contains('block')).map(row => row.cells[1].dataset.value ?? null));
  const sorted = [];
  for (let press = 0; press < 2; press++) {
    head.querySelector('button').click();
    sorted.push([head.getAttribute('aria-sort'), column()]);
  }
  return {
    width: page.documentElement.scrollWidth, parts: boxes.length, outside: boxes.filter(fits => !fits).length,
    sorted, named_last,
    plots: all('svg[role=img]').length, marks: all('svg[role=img] .mark').length,
    named: all('svg[role=img][aria-label]').length, tables: all('table').length, captions: all('caption').length,
    headings: all('section > h2').length, scripts: all('script').length, images: all('img').length,
    pwned: view.pwned ?? null, loaded: view.performance.getEntriesByType('resource').length,
  };
};
onload = () => {
  document.getElementById('found').textContent = JSON.stringify([...document.querySelectorAll('iframe')].map(look));
  console.log('looked at both');
};
</script>"""


@pytest.fixture(scope="module")
def looks(page, tmp_path_factory) -> dict[int, dict]:
    """What a telephone and a desk show."""
    frames = tmp_path_factory.mktemp("frames") / "frames.html"
    frames.write_text(FRAMES.replace("{page}", html.escape(page.read_text())))
    document, console = browse(frames.as_uri())
    assert len(console) == 1 and "looked at both" in console[0], console
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', document, re.DOTALL)[1]))
    return dict(zip((390, 1280), found, strict=True))


@pytest.mark.parametrize("width", [390, 1280])
def test_everything_is_there_and_nothing_runs_over(looks, width):
    look = looks[width]
    assert look["width"] == width, "the page scrolls sideways"
    assert look["parts"] > 200 and look["outside"] == 0
    assert look["plots"] == len(DATASETS) + 2 == look["named"]
    runs, published = sum(one["test"] is not None for one in make_cells()), len(DATASETS) + 1
    assert look["marks"] > runs + published
    assert look["tables"] == look["captions"] == 7 and look["headings"] == 8


@pytest.mark.parametrize("width", [390, 1280])
def test_text_from_data_stays_text_and_nothing_is_loaded(looks, width):
    look = looks[width]
    assert (look["scripts"], look["images"], look["pwned"], look["loaded"]) == (1, 0, None, 0)


def test_a_press_on_a_title_sorts_within_each_block(looks):
    assert looks[1280]["named_last"] == ["VQVAE", f"one-hot {HOSTILE}", f"x{HOSTILE}"], "by name, falling"
    (first, falling), (second, rising) = looks[1280]["sorted"]
    assert (first, second) == ("descending", "ascending")
    assert [len(block) for block in falling] == [2, 3, 2] and falling[2][1] is None, "no value comes last"
    for block, turned in zip(falling, rising):
        values = [float(value) for value in block if value is not None]
        assert values == sorted(values, reverse=True)
        assert [float(value) for value in turned if value is not None] == values[::-1]
        assert (turned[-1] is None) == (block[-1] is None)


class Rows(html.parser.HTMLParser):
    """First cells of the rows of one table, in order."""

    def __init__(self, table_id: str):
        super().__init__()
        self.wanted, self.inside, self.taking, self.names = table_id, False, False, []

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        if tag == "table":
            self.inside = known.get("id") == self.wanted
        if self.inside and tag == "th" and known.get("scope") == "row":
            self.names.append(known["data-value"])


def first_cells(document: str, table_id: str) -> list[str]:
    rows = Rows(table_id)
    rows.feed(document)
    return rows.names


def test_an_address_sorts_and_the_console_stays_empty(page):
    document, console = browse(f"{page.as_uri()}#sort=overview,1,ascending")
    before, after = (first_cells(text, "overview") for text in (page.read_text(), document))
    assert before[:2] == ["HRQ", "VQVAE"] and after[:2] == ["VQVAE", "HRQ"]
    assert before[2:5] == after[2:5][::-1] and sorted(before) == sorted(after)
    assert console == []


def test_the_same_results_give_the_same_bytes_in_any_order():
    results = make_results()
    turned = results | {"cells": results["cells"][::-1], "published": results["published"][::-1]}
    assert render(results) == render(turned)


def test_every_score_is_on_the_page(page):
    text = page.read_text()
    for one in make_cells():
        if one["test"] is not None:
            title = html.escape(f"{one['model']}, seed {one['seed']}: {100 * one['test']:.2f}")
            assert f"<title>{title}" in text
    assert text.count("seed 1: 0.00, collapsed") == 1, "a collapsed run keeps its score and its reason"


def test_nothing_points_outside_the_page(page):
    text = page.read_text()
    assert not re.search(r"""(?:src|href)=["'](?!data:,)""", text.replace(html.escape(HOSTILE), ""))
    assert "url(" not in text and "@import" not in text and "http" not in STYLE
    assert re.search(r"default-src 'none';[^\"]*script-src 'sha256-[A-Za-z0-9+/=]{44}'", text)


@pytest.mark.parametrize("key", ["title", "cells", "cards", "budget"])
def test_a_missing_key_is_named(key):
    results = make_results()
    del results[key]
    with pytest.raises(InputError, match=f"results: {key} is missing; expected"):
        render(results)


def test_unsound_cells_and_cards_are_named(tmp_path):
    with pytest.raises(InputError, match=r"results.cells\[0\].test"):
        render(make_results(cells=[make_cells()[0] | {"test": None}]))
    with pytest.raises(InputError, match=r"results.cards\['tf/0'\]: metric is missing"):
        render(make_results(cards={"tf/0": {"title": "x"}}))
    with pytest.raises(InputError, match="cannot be written"):
        write_page(make_results(), tmp_path / "no" / "page.html")


def test_a_page_of_controls_alone_without_published_rows_can_be_written():
    text = render(make_results(cells=make_cells({"6-mer counts": 0}), published=[], cards={}))
    assert "Only controls were run." in text and "Difference to published rows" not in text


@pytest.mark.parametrize(("lowest", "highest"), [(0, 0), (39.2, 41), (-100, 100), (0.001, 0.002), (55, 55.5), (12, 97)])
def test_an_axis_is_even_and_encloses_its_values(lowest, highest):
    ticks = lanes.axis(lowest, highest)
    steps = {round(after - before, 6) for before, after in zip(ticks, ticks[1:])}
    assert ticks[0] <= lowest and highest <= ticks[-1] and 3 <= len(ticks) <= 6 and len(steps) == 1


@pytest.mark.parametrize("rows", range(1, 40))
def test_an_axis_of_ranks_begins_at_1(rows):
    ticks = lanes.axis(1, rows, whole=True)
    assert ticks[0] == 1 and ticks[-1] >= rows and len(ticks) <= 7 and all(tick == int(tick) for tick in ticks)


def test_a_table_refuses_a_row_of_another_width():
    with pytest.raises(ValueError):
        table("name", "caption", ["a", "b"], [Block("", [[TableCell("1")] * 2, [TableCell("1")] * 3])])


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance of WCAG 2 of an sRGB colour, 0 to 255."""
    linear = [one / 255 / 12.92 if one <= 10 else ((one / 255 + 0.055) / 1.055) ** 2.4 for one in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_and_marks_stand_out_in_every_theme(theme, page):
    block = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[theme]
    colours = {}
    for name, digits in re.findall(r"--([a-z]+): #([0-9a-f]{3,6});", block):
        digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
        colours[name] = tuple(int(digits[at : at + 2], 16) for at in (0, 2, 4))
    for ground in ("page", "card", "wash"):
        assert all(contrast(colours[ink], colours[ground]) >= 4.5 for ink in ("ink", "soft"))
    assert all(contrast(colours[role], colours["card"]) >= 3 for role in ("model", "control", "published"))
    tints = set(re.findall(r"background:rgb\((\d+) (\d+) (\d+) / ([0-9.]+)\)", page.read_text()))
    assert len(tints) > 10
    for *tint, share in tints:
        blend = tuple(float(share) * float(t) + (1 - float(share)) * c for t, c in zip(tint, colours["card"]))
        assert contrast(colours["ink"], blend) >= 4.5

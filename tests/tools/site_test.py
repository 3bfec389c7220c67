"""tools/site: scripts become pages with what they printed, and a built site that is not whole is found out."""

import pathlib
import runpy
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = [*sorted((ROOT / "docs/tutorials").glob("*.sh")), *sorted((ROOT / "docs/notebooks").glob("*.py"))]
SHELL = """#!/usr/bin/env bash
# # Title
#
# Prose.
set -euo pipefail

word=one
printf '%s\\n' "$word"

# ## More
# ![a picture](made/it.png)
mkdir made && echo "$word" >made/it.png
seq 100
"""
PAGE = '<html><body><h1 id="top">x</h1>{}</body></html>'


@pytest.fixture(scope="module")
def run() -> dict:
    return runpy.run_path(str(ROOT / "tools/site/run.py"))


@pytest.fixture(scope="module")
def check() -> dict:
    return runpy.run_path(str(ROOT / "tools/site/check.py"))


def test_a_script_becomes_a_page_with_what_it_printed_and_its_pictures(run, tmp_path):
    (tmp_path / "docs.sh").write_text(SHELL)
    run["render"](tmp_path / "docs.sh", tmp_path / "out")
    page = (tmp_path / "out/docs.md").read_text()
    assert page.startswith("# Title\n\nProse.\n\n```sh\nword=one\n") and "set -euo" not in page
    assert "```text { .output }\none\n```" in page, "variables live on from block to block"
    assert "![a picture](docs/made_it.png)" in page and (tmp_path / "out/docs/made_it.png").read_text() == "one\n"
    shown = page.rpartition("{ .output }\n")[2].splitlines()
    assert shown[0] == "1" and "... 61 lines ..." in shown and shown[-2] == "100" and len(shown) == run["LONGEST"] + 1


@pytest.mark.parametrize("line", ["false", "vqdna nothing", "false | cat", 'echo "$absent"'])
def test_a_block_that_fails_ends_it(run, tmp_path, line):
    (tmp_path / "x.sh").write_text(f"# # Title\n{line}\n\n# Then\ntrue\n")
    with pytest.raises(subprocess.CalledProcessError):
        run["render"](tmp_path / "x.sh", tmp_path / "out")
    assert not (tmp_path / "out/x.md").exists()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_has_a_title_prose_and_code(run, script):
    blocks = run["blocks"](script.read_text())
    assert blocks[0].text.startswith("# ") and "\n\n" in blocks[0].text and not blocks[0].code
    assert sum(block.code for block in blocks) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_runs_and_makes_its_pictures(run, script, tmp_path):
    """Notebooks as plain programs here; `tools/docs.sh` runs them in Jupyter."""
    if script.suffix == ".sh":
        run["render"](script, tmp_path)
        assert (tmp_path / f"{script.stem}.md").read_text().count("{ .output }") >= 2
    else:
        environment = run["environment"](tmp_path) | {"MPLBACKEND": "agg"}
        done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


GOOD = {
    "a.html": PAGE.format(
        '<a href="b.html#there">b</a><a href="#top">up</a><img src="p.png"><a href="https://x.org">x</a>'
    ),
    "b.html": PAGE.format('<p id="there"></p><a href="sub/">sub</a><link href="https://x.org/b" rel="canonical">'),
    "sub/index.html": PAGE.format('<a href="../a.html">a</a>'),
    "p.png": "",
    "style.css": "a { background: url(p.png) }",
}


@pytest.mark.parametrize(
    "file, text, fault",
    [
        ("p.png", "other", ""),
        ("c.html", PAGE.format('<a href="nowhere.html">x</a>'), "c.html: nowhere.html: no such file in the site"),
        ("c.html", PAGE.format('<a href="b.html#gone">x</a>'), "c.html: b.html#gone: no such place on the page"),
        ("c.html", PAGE.format('<a href="#gone">x</a>'), "c.html: #gone: no such place on the page"),
        ("c.html", PAGE.format('<img src="lost.png">'), "c.html: lost.png: no such file in the site"),
        ("c.html", PAGE.format('<script src="https://x.org/a.js"></script>'), "c.html: loads https://x.org/a.js from"),
        ("c.html", PAGE.format('<link rel="stylesheet" href="//x.org/a.css">'), "c.html: loads //x.org/a.css from"),
        ("style.css", "@import 'https://x.org/font.css';", "style.css: loads https://x.org/font.css"),
        ("style.css", "a { background: url(//x.org/p.png) }", "style.css: loads //x.org/p.png"),
    ],
)
def test_what_is_broken_in_a_site_is_named(check, tmp_path, file, text, fault):
    for name, content in (GOOD | {file: text}).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    found = check["faults"](tmp_path)
    assert len(found) == bool(fault) and all(each.startswith(fault) for each in found)


@pytest.mark.parametrize(
    "reference, missing",
    [
        ("::: vqdna_jax.work.load\n::: vqdna_jax.work.Model\n", ["vqdna_jax.work.Model.silent: has no docstring"]),
        ("::: vqdna_jax.work.Model.told\n", ["vqdna_jax.__all__ has load, docs/reference/ does not"]),
        ("::: vqdna_jax.work.load\n", []),
    ],
)
def test_a_public_name_without_a_docstring_is_named(check, tmp_path, reference, missing):
    pytest.importorskip("griffe", reason="the site's tools are not installed: tools/docs.sh")
    (tmp_path / "vqdna_jax").mkdir()
    (tmp_path / "vqdna_jax/__init__.py").write_text('"""x"""\n__all__ = ["__version__", "load"]\n')
    (tmp_path / "vqdna_jax/work.py").write_text(
        'def load():\n    """x"""\n\n\nclass Model:\n    """x"""\n\n    def told(self):\n        """x"""\n\n'
        "    def silent(self):\n        pass\n\n    def _own(self):\n        pass\n"
    )
    (tmp_path / "page.md").write_text(reference)
    assert check["undocumented"](tmp_path, tmp_path) == missing

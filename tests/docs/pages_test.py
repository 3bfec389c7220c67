"""What the pages show is there: verbs with their options, keys of configs, Python that compiles, files that exist."""

import inspect
import pathlib
import re
import subprocess
import sys

import pytest

from vqdna_jax.cli.verbs import GROUPS, VERBS

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = [*sorted((ROOT / "docs/tutorials").glob("*.sh")), *sorted((ROOT / "docs/notebooks").glob("*.py"))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *SCRIPTS]
KEYS = set(re.findall(r"^- `([\w.]+)`", (ROOT / "docs/configs.md").read_text(), re.MULTILINE))
SPELT = {"as_json": "json"}  # options whose name is another than the parameter's
pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def commands(text: str) -> list[str]:
    """What follows `vqdna` in code, continued lines joined, up to where the command ends."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return re.findall(r"(?:^(?:    |\$ )?|[`|(] ?)vqdna ((?:[^`\n|#;]|#(?!\s))+)", joined, re.MULTILINE)


def unknown(text: str) -> list[str]:
    """Verbs and options in it that there are not."""
    wrong = []
    for verb, *rest in map(str.split, commands(text)):
        if verb in GROUPS:  # of two words
            verb, *rest = [f"{verb} {rest[0]}", *rest[1:]]
        if verb not in VERBS:
            wrong += [verb] if re.fullmatch("[a-z ]+", verb) else []
        else:
            names = {SPELT.get(name, name).replace("_", "-") for name in inspect.signature(VERBS[verb]).parameters}
            asked = {match[1] for word in rest if (match := re.match(r"--([a-z-]+)", word))}
            wrong += [f"{verb} --{option}" for option in sorted(asked - names - {"help"})]
    return wrong


@pages
def test_every_verb_has_the_options_that_are_shown(page):
    assert unknown(page.read_text()) == []


@pytest.mark.parametrize(
    "text, found",
    [
        ("    vqdna embed x.fa --model=mini --out=x.npy\n", []),
        ("    vqdna embed x.fa --modle=mini\n", ["embed --modle"]),
        ("by `vqdna paint x`", ["paint"]),
        ("    vqdna report vocabulary mini --fasta=x.fa --motif=x --out=x.html\n", ["report vocabulary --motif"]),
        ("by `vqdna report weather x`", ["report weather"]),
        ("vqdna embed x.fa \\\n  --fancy --json\n", ["embed --fancy"]),
        ("    cat x | vqdna score - --fasta=x --deep  # not --this\n", ["score --deep"]),
        ("the command `vqdna VERB --help`", []),
    ],
)
def test_a_verb_or_option_that_is_none_is_found(text, found):
    assert unknown(text) == found


@pages
def test_every_key_of_a_config_is_one(page):
    text = page.read_text()
    keys = set(re.findall(r"--config\.([a-z_0-9.]+)[=` ]", text))
    assert {key for key in keys if key not in KEYS} == set()


@pages
def test_python_compiles(page):
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        compile(block, str(page), "exec")


@pages
def test_links_to_pages_and_sources_lead_somewhere(page):
    """Of README and of the scripts, too; anchors, and what the build makes, `tools/docs.sh` looks after."""
    links = re.findall(r"\]\((?!https?:)([^)#\s]+\.(?:md|py|sh))[)#]", page.read_text())
    made = [ROOT / "docs" / script.parent.name / f"{script.stem}.md" for script in SCRIPTS]
    assert [
        link for link in links if not (target := (page.parent / link).resolve()).exists() and target not in made
    ] == []


@pytest.mark.slow
@pytest.mark.parametrize("page", ["start", "faq"])
def test_python_of_a_page_runs(page, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / f"docs/{page}.md").read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    subprocess.run([sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, check=True)

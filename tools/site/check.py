"""Is the built site whole? Links and anchors of every page, no file of another server, and a docstring for each name.

python tools/site/check.py build/site
"""

import pathlib
import re
import sys
import urllib.parse
from html.parser import HTMLParser
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOADED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data"}
REFERENCE = re.compile(r"^::: (\S+)$", re.MULTILINE)
ASKED = re.compile(r"(?:url\(|@import\s+)['\"]?((?:https?:)?//[^'\")]+)")


class Page(NamedTuple):
    """What a page has that can be linked to, what it links to, and what a browser loads with it."""

    ids: set[str]
    links: set[str]
    loads: set[str]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page(set(), set(), set())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value for key, value in attrs if value}
        self.page.ids.update(found[key] for key in ("id", "name") if key in found)
        if tag == "a" and "href" in found:
            self.page.links.add(found["href"])
        if LOADED.get(tag) in found and found.get("rel") not in ("canonical", "next", "prev"):
            self.page.loads.add(found[LOADED[tag]])


def read(file: pathlib.Path) -> Page:
    reader = _Reader()
    reader.feed(file.read_text())
    return reader.page


def faults(site: pathlib.Path) -> list[str]:
    """What is wrong with the pages of `site`, a line each."""
    pages = {file.resolve(): read(file) for file in sorted(site.rglob("*.html")) if file.name != "404.html"}
    found = []
    for file, page in pages.items():
        place = file.relative_to(site.resolve())
        found += [f"{place}: loads {url} from elsewhere" for url in page.loads if _elsewhere(url)]
        local = {url for url in page.links | page.loads if not urllib.parse.urlsplit(url).scheme and url[:2] != "//"}
        found += [f"{place}: {url}: {fault}" for url in sorted(local) if (fault := _fault(url, file, pages))]
    for style in sorted(site.rglob("*.css")):
        found += [f"{style.relative_to(site)}: loads {url}" for url in ASKED.findall(style.read_text())]
    return found


def _elsewhere(url: str) -> bool:
    return url.startswith("//") or urllib.parse.urlsplit(url).scheme in ("http", "https")


def _fault(url: str, file: pathlib.Path, pages: dict[pathlib.Path, Page]) -> str:
    path, _, anchor = url.partition("#")
    target = (file.parent / urllib.parse.unquote(path)).resolve() if path else file
    if target.is_dir():
        target = target / "index.html"
    if not target.exists():
        return "no such file in the site"
    if anchor and target in pages and urllib.parse.unquote(anchor) not in pages[target].ids | {"__skip"}:
        return "no such place on the page"
    return ""


def undocumented(docs: pathlib.Path, root: pathlib.Path = ROOT) -> list[str]:
    """Public names of what the reference has that lack a docstring; modules, classes, functions, methods."""
    import griffe  # of the site's tools alone

    named = {name for page in sorted(docs.glob("*.md")) for name in REFERENCE.findall(page.read_text())}
    loader = griffe.GriffeLoader(search_paths=[root])
    package = loader.load("vqdna_jax", try_relative_path=False)
    loader.resolve_aliases()
    exported = {str(name) for name in package.exports or [] if not str(name).startswith("__")}
    lacking = sorted(exported - {name.rpartition(".")[2] for name in named})
    missing = [f"vqdna_jax.__all__ has {name}, docs/reference/ does not" for name in lacking]
    for name in sorted(named):
        missing += [f"{path}: has no docstring" for path in _silent(package[name.removeprefix("vqdna_jax.")])]
    return missing


def _silent(thing: Any) -> list[str]:
    own = [] if thing.docstring else [str(thing.path)]
    if not (thing.is_class or thing.is_module):
        return own
    members = [
        member
        for name, member in thing.members.items()
        if not name.startswith("_") and not member.is_alias and (member.is_class or member.is_function)
    ]
    return own + [path for member in members for path in _silent(member)]


def main() -> None:
    found = faults(pathlib.Path(sys.argv[1])) + undocumented(ROOT / "docs/reference")
    for fault in found:
        print(f"error: {fault}", file=sys.stderr)
    sys.exit(43 if found else 0)


if __name__ == "__main__":
    main()

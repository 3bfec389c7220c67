"""What MkDocs is told beside mkdocs.yml: pages that were made by tools/site/run.py, and files outside docs/.

A link of a page to a file of the repository, `../configs/mcm.py`, becomes one to a copy of the file in the site.
"""

import pathlib
import posixpath
import re
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).resolve().parents[2]
MADE = ROOT / "build/run"
OUTSIDE = re.compile(r"\]\((?:\.\./)+([^)#]+)")


def on_files(files: Files, config: Any) -> Files:
    """Adds what was made, and each file outside docs/ that a page links to."""
    for script in [file for file in files if file.src_uri.endswith(".py")]:
        files.remove(script)  # a notebook is there as .ipynb
    made = [file for file in MADE.rglob("*") if file.is_file() and file.name != "digest"]
    for file in made:
        files.append(File.generated(config, file.relative_to(MADE).as_posix(), abs_src_path=str(file)))
    pages = [file for file in files if file.src_uri.endswith(".md")]
    for name in {name for page in pages for name in OUTSIDE.findall(page.content_string) if _is_source(name)}:
        files.append(File.generated(config, f"files/{name}.txt", abs_src_path=str(ROOT / name)))
    return files


def _is_source(name: str) -> bool:
    return not name.startswith((".", "docs/", "build/")) and (ROOT / name).is_file()


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files outside docs/ lead to their copies."""
    up = posixpath.relpath("files", posixpath.dirname(page.file.src_uri) or ".")

    def copy(found: re.Match[str]) -> str:
        return f"]({up}/{found[1]}.txt" if _is_source(found[1]) else found[0]

    return OUTSIDE.sub(copy, markdown)

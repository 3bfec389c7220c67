"""Runs the tutorials (docs/tutorials/*.sh) and notebooks (docs/notebooks/*.py), and writes them with what they printed.

    python tools/site/run.py [--out=build/run] [NAME...]

A script is prose in comments that begin a line, and code between them; it can be run as it is. Of each, OUT holds a
page in Markdown, the pictures that its prose names, and of a notebook the executed .ipynb. What neither the script nor
the package has changed since is not run again.
"""

import argparse
import base64
import hashlib
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = {"tutorials": ".sh", "notebooks": ".py"}
END = "\x1e"  # printed behind each block of a tutorial
LONGEST = 40  # lines of output that a page shows of a block
PICTURE = re.compile(r"!\[[^]]*\]\(([^)]+)\)")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Block(NamedTuple):
    """Prose in Markdown, or code, of a script."""

    code: bool
    text: str


def scripts() -> list[pathlib.Path]:
    return [file for kind, suffix in KINDS.items() for file in sorted((ROOT / "docs" / kind).glob(f"*{suffix}"))]


def blocks(script: str) -> list[Block]:
    """Comments that begin a line are prose; the first line of a shell script and its settings are neither."""
    lines = [line for line in script.splitlines() if not line.startswith(("#!", "set -"))]
    found = []
    for prose, group in itertools.groupby(lines, key=lambda line: line.startswith("#")):
        text = "\n".join(line.removeprefix("#").removeprefix(" ") if prose else line for line in group).strip("\n")
        if text:
            found.append(Block(not prose, text))
    return found


def run_shell(code: list[str], place: pathlib.Path) -> list[str]:
    """What blocks print that run one after the other in one shell, in `place`.

    Raises CalledProcessError where one fails."""
    script = "".join(f"{block}\nprintf '{END}'\n" for block in code)
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        command, cwd=place, env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, command)
    return done.stdout.split(END)[:-1]


def run_notebook(cells: list[Block], place: pathlib.Path) -> dict:
    """A notebook, as .ipynb has it, of the blocks as cells, run in `place`.

    Raises nbclient's CellExecutionError where one fails."""
    import nbclient
    from nbformat import v4

    made = [v4.new_code_cell(cell.text) if cell.code else v4.new_markdown_cell(cell.text) for cell in cells]
    for number, cell in enumerate(made):
        cell["id"] = f"cell-{number}"  # not at random, so that two runs differ by what they computed alone
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = v4.new_notebook(cells=made, metadata={"kernelspec": kernel})
    os.environ.update(environment(place))
    client = nbclient.NotebookClient(
        notebook, timeout=600, coalesce_streams=True, resources={"metadata": {"path": str(place)}}
    )
    client.execute()
    return notebook


def environment(place: pathlib.Path) -> dict[str, str]:
    """`python` and `vqdna` are those of this environment, and the package that of this repository."""
    commands = place.parent / f"{place.name}.commands"
    commands.mkdir(exist_ok=True)
    for name, call in {"python": "", "vqdna": "-m vqdna_jax.cli.main"}.items():
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {call} "$@"\n')
        (commands / name).chmod(0o755)
    paths = {"PATH": [commands, os.environ["PATH"]], "PYTHONPATH": [ROOT, os.environ.get("PYTHONPATH", "")]}
    joined = {key: os.pathsep.join(map(str, filter(None, each))) for key, each in paths.items()}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}  # a compiler that was slow because the machine is busy is not for a page
    return os.environ | joined | quiet | {"VQDNA_REPOSITORY": str(ROOT)}


def page_of(script: list[Block], printed: list[str], name: str) -> str:
    """The page of a tutorial: its prose, its code, and what that printed."""
    outputs, parts = iter(printed), []
    for block in script:
        if not block.code:
            parts.append(PICTURE.sub(lambda found: found[0].replace(found[1], f"{name}/{_flat(found[1])}"), block.text))
            continue
        parts.append(f"```sh\n{block.text}\n```")
        if shown := _shown(next(outputs)):
            parts.append(f"```text {{ .output }}\n{shown}\n```")
    return "\n\n".join(parts) + "\n"


def _shown(printed: str) -> str:
    lines = [COLOUR.sub("", line.rsplit("\r", 1)[-1]).rstrip() for line in printed.strip("\n").split("\n")]
    if len(lines) > LONGEST:
        cut = len(lines) - LONGEST + 1
        lines = [*lines[: LONGEST // 2], f"... {cut} lines ...", *lines[cut + LONGEST // 2 :]]
    return "\n".join(lines).strip("\n")


def _flat(path: str) -> str:
    """The name of a picture beside the page."""
    return path.replace("/", "_")


def page_of_notebook(notebook: dict, name: str, out: pathlib.Path) -> str:
    """The page of a notebook; its pictures go to `out`/`name`."""
    parts, pictures = [f"[Download this notebook]({name}.ipynb)."], itertools.count(1)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            parts.append(cell["source"])
            continue
        parts.append(f"```python\n{cell['source']}\n```")
        for output in cell["outputs"]:
            parts.extend(_output(output, name, out, pictures))
    title = parts.pop(1)
    return "\n\n".join([title, *parts]) + "\n"


def _output(output: dict, name: str, out: pathlib.Path, pictures: Iterator[int]) -> Iterator[str]:
    data = output.get("data", {})
    if "image/png" in data:
        picture = f"{name}/{next(pictures)}.png"
        (out / picture).write_bytes(base64.b64decode(data["image/png"]))
        yield f"![what the cell draws]({picture})"
    elif shown := _shown(output.get("text") or data.get("text/plain", "")):
        yield f"```text {{ .output }}\n{shown}\n```"


def render(script: pathlib.Path, out: pathlib.Path) -> None:
    """Runs a script in an empty folder and writes its page into `out`."""
    parts, name = blocks(script.read_text()), script.stem
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory) / name
        place.mkdir()
        (out / name).mkdir(parents=True, exist_ok=True)
        if script.suffix == ".py":
            notebook = run_notebook(parts, place)
            page = page_of_notebook(notebook, name, out)
            (out / f"{name}.ipynb").write_text(json.dumps(notebook, indent=1).replace(f"{place}/", "") + "\n")
        else:
            page = page_of(parts, run_shell([part.text for part in parts if part.code], place), name)
            for picture in PICTURE.findall("\n".join(part.text for part in parts if not part.code)):
                shutil.copyfile(place / picture, out / name / _flat(picture))
        (out / f"{name}.md").write_text(page.replace(f"{place}/", "").replace(f"{ROOT}/", ""))


def digest(script: pathlib.Path) -> str:
    """Of all that a script's output follows from, but for the machine."""
    package = [file for folder in ("vqdna_jax", "configs", "launch") for file in (ROOT / folder).rglob("*")]
    files = [script, pathlib.Path(__file__), ROOT / "requirements.lock", *sorted(package)]
    whole = hashlib.sha256()
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of scripts, without suffix; all by default")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/run")
    options = parser.parse_args()
    for script in scripts():
        out, wanted = options.out / script.parent.name, digest(script)
        stamp = out / script.stem / "digest"
        if options.names and script.stem not in options.names:
            continue
        if stamp.exists() and stamp.read_text() == wanted:
            continue
        print(f"running {script.relative_to(ROOT)}", file=sys.stderr, flush=True)
        render(script, out)
        stamp.write_text(wanted)


if __name__ == "__main__":
    main()

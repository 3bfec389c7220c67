"""docs/reliability.md names tests that there are, for every fault from F1 to F45."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text()
FAULTS = re.findall(r"^\| (F\d.*?) \|(.*)\|$", PAGE, re.MULTILINE)


def test_every_test_that_it_names_is_there():
    files = {path.stem: path.read_text() for path in (ROOT / "tests").rglob("*_test.py")}
    named = re.findall(r"`(\w+_test)(?:::(\w+))?`", PAGE)
    assert len(named) > 60
    assert [(file, name) for file, name in named if f"def {name}(" not in files.get(file, "") and name] == []
    assert [file for file, _ in named if file not in files] == []


def test_each_fault_has_its_line_and_its_test():
    numbers = []
    for faults, _ in FAULTS:
        ranges = re.findall(r"F(\d+)(?: to F(\d+))?", faults)
        numbers += [number for low, high in ranges for number in range(int(low), int(high or low) + 1)]
    assert sorted(numbers) == list(range(1, 46))
    assert [faults for faults, rest in FAULTS if "_test::" not in rest] == []

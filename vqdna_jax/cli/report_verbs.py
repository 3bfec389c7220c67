"""The verbs `report KIND`, which make pages. As in `cli/verbs.py`, docstrings are the help."""

from pathlib import Path

import tyro

from vqdna_jax.cli.options import AsJson, OutputFile, must_exist, tell


def benchmark(
    results: tyro.conf.Positional[Path],
    out: OutputFile,
    quiet: bool = False,
    as_json: AsJson = False,
) -> None:
    """Make the page of a benchmark anew: every score with its spread, beside controls and published rows.

    Args:
        results: the results.json of a benchmark
        out: the page to write, or - for standard output
        quiet: do not say that it is there
        as_json: print where it is as JSON on stdout, or on stderr if the page is not a file
    """
    must_exist(results)
    from vqdna_jax.benchmark.report import publish

    publish.page_of(results, out)
    tell({"out": out}, f"page written to {out}", quiet, as_json, out)


REPORTS = {"benchmark": benchmark}

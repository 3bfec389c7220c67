"""`vqdna report covid`: from a table of genotypes to a page, and a JSON file beside it with every number."""

import datetime
import os
import shlex
import sys
from typing import Any

from vqdna_jax.report import output
from vqdna_jax.report.covid import maps, page, study
from vqdna_jax.report.covid.findings import claims, lead
from vqdna_jax.report.covid.genotypes import read_genomes
from vqdna_jax.runtime.devices import machine
from vqdna_jax.version import versions


def publish(
    genotypes: str | os.PathLike,
    reference: str | os.PathLike,
    model: str,
    out: str | os.PathLike,
    genomes: int,
    seed: int,
    kind: maps.Kind,
    progress: bool = False,
) -> dict[str, Any]:
    """Writes the page, and beside it the JSON file, and returns what that holds.

    Raises InputError before anything is computed: an input is not what it has to be, the model has no two levels of
    learned words, what draws the maps is not installed, the page cannot be written. StorageError: the disk is full.
    """
    numbers = output.numbers_beside(out, [genotypes, reference])
    if kind == "umap":
        maps.library()
    tokenizer = study.open_tokenizer(model)
    read = read_genomes(genotypes, reference, genomes, seed)
    found = {
        "title": page.TITLE,
        "command": shlex.join(["vqdna", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "model": model,
        "vocabulary": tokenizer.description,
        "digest": tokenizer.digest,
        "reference": f"{read.record}, {len(read.reference):,} bases",
        "seed": seed,
        "numbers": numbers.name,
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        **study.study(tokenizer, read, kind, seed, progress),
    }
    found |= {"lead": lead(found), "claims": [claim._asdict() for claim in claims(found)]}
    output.write(out, page.render(found), numbers, found)
    return found

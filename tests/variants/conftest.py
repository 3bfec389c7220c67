"""A genome of two contigs, and a model of random weights that scores its variants."""

import pathlib

import pytest
from small_variants import genome, write_genome
from tiny_pretrained import save_tiny_pretrained


@pytest.fixture(scope="session")
def contigs(bundled) -> dict[str, str]:
    return genome(bundled)


@pytest.fixture(scope="session")
def fasta(contigs, tmp_path_factory) -> pathlib.Path:
    return write_genome(tmp_path_factory.mktemp("genome") / "genome.fa", contigs)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> pathlib.Path:
    """Two bases per code, windows of 62 bases. Read-only."""
    directory = tmp_path_factory.mktemp("exports") / "scorer"
    save_tiny_pretrained(directory, bases_per_code=2, context=32)
    return directory

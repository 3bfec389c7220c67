#!/usr/bin/env bash
# Lints and tests. Further arguments go to pytest: `tools/test.sh tests/cli -k doctor`, `tools/test.sh -m slow`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# The TPU compiler, for the tests that compile for pods. It lies beside the environment, not in it: jax would look for
# a TPU at every start, with warnings, wherever libtpu is installed.
if [ "$(uname -sm)" = "Linux x86_64" ]; then beside libtpu tests/libtpu.lock; fi
export PYTHONPATH="$PWD/.venv/libtpu${PYTHONPATH:+:$PYTHONPATH}"

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/python -m mypy
# The whole suite on all cores; what is named, in this process.
if [ $# = 0 ]; then set -- -n auto --dist worksteal --durations=25; fi
.venv/bin/python -m pytest "$@"

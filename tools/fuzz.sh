#!/usr/bin/env bash
# Wrong files of one kind for so many seconds: `tools/fuzz.sh TARGET SECONDS`; without arguments it names the kinds.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec .venv/bin/python tests/fuzzing.py "$@"

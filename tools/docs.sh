#!/usr/bin/env bash
# Builds the site of docs/ into build/site: runs the tutorials and notebooks, makes the pages, and fails on a broken link
# or anchor, on what a page would load from another server, or on a public name of the reference without a docstring.
# Needs no network but to install, from requirements.lock and tests/docs.lock. `tools/docs.sh --serve` shows it then.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

case "$*" in
  "" | --serve) ;;
  *)
    echo "error: unexpected $*; the only option is --serve" >&2
    exit 43
    ;;
esac

beside docs tests/docs.lock
beside libtpu tests/libtpu.lock # for the plan of a pod
export PYTHONPATH="$PWD/.venv/docs:$PWD/.venv/libtpu" JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}" NO_MKDOCS_2_WARNING=1

.venv/bin/python tools/site/run.py
.venv/bin/python -m mkdocs build --clean
.venv/bin/python tools/site/check.py build/site
echo "site in build/site, begin with build/site/index.html"
if [ "$*" = --serve ]; then exec .venv/bin/python -m http.server --bind 127.0.0.1 --directory build/site 8000; fi

#!/usr/bin/env bash
# Makes requirements.lock (the package and its tests) and tests/libtpu.lock (the TPU compiler that matches its jax) anew.
# Versions already in the lock stay unless asked for: `tools/lock.sh --upgrade`, `tools/lock.sh --upgrade-package jax`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

compile() {
  .venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-emit-find-links --custom-compile-command tools/lock.sh --output-file "$1" "${@:2}" setup.py
}

compile requirements.lock --extra test "$@" >/dev/null
all=$(mktemp)
trap 'rm -f "$all"' EXIT
compile "$all" --extra tpu --constraint requirements.lock >/dev/null
{
  echo "# The TPU compiler that matches requirements.lock's jax; made by tools/lock.sh"
  awk '/^[a-zA-Z]/ { keep = /^libtpu==/ } keep && !/^ *#/' "$all"
} >tests/libtpu.lock

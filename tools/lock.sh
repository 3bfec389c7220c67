#!/usr/bin/env bash
# Makes requirements.lock (the package and its tests), tests/libtpu.lock (the TPU compiler that matches its jax) and
# tests/docs.lock (what builds the site, beside that) anew.
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

# beside FILE EXTRA TEXT: what the extra needs that requirements.lock lacks, or has for other systems alone.
beside() {
  compile "$all" --extra "$2" --constraint requirements.lock >/dev/null
  {
    echo "# $3; made by tools/lock.sh"
    awk 'FNR == NR { if (/^[a-zA-Z]/) { known[$0] } next } /^[a-zA-Z]/ { keep = !($0 in known) } keep && !/^ *#/' \
      requirements.lock "$all"
  } >"$1"
}
beside tests/libtpu.lock tpu "The TPU compiler that matches requirements.lock's jax"
beside tests/docs.lock docs "What builds the site, beside requirements.lock"

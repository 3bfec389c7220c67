# shellcheck shell=bash
# Sourced by test.sh, demo.sh and docs.sh: changes to the repository's folder and makes .venv there from requirements.lock.
# Needs a Python (3.11 or newer) with venv and nothing else; PYTHON=python3.12 chooses one. Quick when nothing changed.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
# uv leaves sources uncompiled. Where nothing may be kept either, each of the many processes that follow compiles those of
# jax anew, for seconds.
unset PYTHONDONTWRITEBYTECODE

find_python() {
  local candidate candidates=(python3 python3.12 python3.11)
  if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python 3.11 or newer found; name one: PYTHON=/path/to/python3.12 $0" >&2
  return 1
}

# One hash over what decides the content of .venv: the lock, the package's own metadata, the Python, the place.
fingerprint() {
  "$1" -c 'import hashlib, os, sys
files = b"".join(open(name, "rb").read() for name in ("requirements.lock", "setup.py"))
print(hashlib.sha256(files + repr((sys.version, sys.base_prefix, os.getcwd())).encode()).hexdigest())'
}

# The lines of one package in requirements.lock, hashes included.
locked() { awk -v name="$1" '/^[a-zA-Z]/ { keep = index($0, name "==") == 1 } keep' requirements.lock; }

install() {
  # uv installs in seconds what takes pip most of a minute. pip remains for machines where only pip knows the way out
  # (a mirror or a certificate in pip's own configuration).
  .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r <(locked uv)
  # One dependency has no wheel: what builds it comes from the lock too.
  .venv/bin/uv pip install -q --python .venv/bin/python --require-hashes --build-constraint requirements.lock \
    --only-binary :all: --no-binary promise -r requirements.lock ||
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
  .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
}

# beside NAME LOCK: puts what LOCK holds into .venv/NAME, where only those who name it in PYTHONPATH see it.
beside() {
  if cmp -s "$2" ".venv/$1/lock"; then return; fi
  rm -rf ".venv/$1"
  .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps --no-compile \
    --target ".venv/$1" -r "$2"
  cp "$2" ".venv/$1/lock"
}

setup() {
  local python wanted
  python=$(find_python)
  wanted=$(fingerprint "$python")
  if [ "$(cat .venv/fingerprint 2>/dev/null)" = "$wanted" ]; then return; fi
  echo "Installing into .venv from requirements.lock ..." >&2
  "$python" -m venv --clear .venv
  install
  echo "$wanted" >.venv/fingerprint
}

setup

#!/usr/bin/env bash
# What tpu_vm.sh and gke_xpk.sh run on every host:
#   install            makes .venv from requirements.lock and tests/libtpu.lock; quick when nothing changed
#   run ARGUMENT...    installs, then becomes python -m vqdna_jax.main ARGUMENT... (in a container)
#   start ARGUMENT...  starts the same detached from this connection; if it is going on already, nothing
#   status             a line: vqdna-status HOST running | ended CODE | stopped CODE | lost | idle
#   follow BYTES       the log after so many bytes, until the run ends
#   report LINES       the last lines of the log, each behind the name of the host
#   stop               ends the run politely: it saves, and no launcher starts it again
#   kill               ends the run at once
# The log and the state of the run are in ~/vqdna-launch/run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/common.sh
source launch/common.sh

state=$HOME/vqdna-launch/run

# A Python of 3.11 or newer. A TPU VM's own is 3.10; then uv, whose hash is in the lock, fetches one.
find_python() {
  local candidate tools=$HOME/vqdna-launch/uv
  for candidate in python3 python3.12 python3.11; do
    if "$candidate" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  if ! { python3 -m pip install -q --disable-pip-version-check --require-hashes --no-deps --upgrade \
    --target "$tools" -r <(awk '/^[a-zA-Z]/ { keep = /^uv==/ } keep' requirements.lock) &&
    "$tools/bin/uv" python install 3.12; } >&2; then
    try_again "$(hostname): there is no Python of 3.11 or newer, and uv cannot fetch one; the reason is above"
  fi
  "$tools/bin/uv" python find --managed-python 3.12
}

install() {
  PYTHON=${PYTHON:-$(find_python)}
  export PYTHON
  # shellcheck source=tools/setup.sh
  (source tools/setup.sh) # it has functions of the same names
  if ! cmp -s tests/libtpu.lock .venv/libtpu.lock; then
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r tests/libtpu.lock
    cp tests/libtpu.lock .venv/libtpu.lock
  fi
}

# The lock is open in every process of a run, so the kernel knows whether one is left, whatever happened to the others.
is_running() { [ -e "$state/lock" ] && ! flock --nonblock "$state/lock" true; }

start() {
  mkdir -p "$state"
  if is_running; then
    if [ "$(quoted "$@")" = "$(cat "$state/command")" ]; then return; fi
    bad_input "$(hostname): another run is going on: $(cat "$state/command"); wait for it or stop it"
  fi
  rm -f "$state/ended" "$state/stopped"
  quoted "$@" >"$state/command"
  exec 9>"$state/lock"
  flock --nonblock 9
  # A session of its own, and no file of this connection: it neither ends with ssh nor keeps ssh waiting.
  setsid bash launch/worker.sh detached "$@" </dev/null >"$state/log" 2>&1 3>&- &
  echo $! >"$state/session"
}

detached() {
  local code=0
  export PYTHONUNBUFFERED=1
  .venv/bin/python -m vqdna_jax.main "$@" &
  echo $! >"$state/trainer"
  wait $! || code=$?
  echo $code >"$state/ended.new"
  mv "$state/ended.new" "$state/ended"
}

status() {
  local now=idle
  if [ -e "$state/ended" ]; then
    now="ended $(cat "$state/ended")"
    if [ -e "$state/stopped" ]; then now="stopped ${now#* }"; fi
  elif is_running; then
    now=running
  elif [ -e "$state/command" ]; then
    now=lost
  fi
  echo "vqdna-status $(hostname) $now"
}

follow() { # BYTES
  local shown=$1 size going_on=true
  while $going_on; do
    is_running || going_on=false # asked before the size: nothing is written after that
    size=$(wc -c <"$state/log")
    # No more than that, which may stop tail in the middle; what counts is that head could write.
    tail --bytes="+$((shown + 1))" "$state/log" | head --bytes=$((size - shown)) || [ "${PIPESTATUS[1]}" = 0 ]
    shown=$size
    if $going_on; then sleep 0.2; fi
  done
}

report() { tail --lines="$1" "$state/log" | sed "s/^/$(hostname)| /"; }

stop() {
  if ! is_running; then return; fi
  touch "$state/stopped"
  kill -TERM "$(cat "$state/trainer")"
}

kill_run() { if is_running; then kill -KILL -- "-$(cat "$state/session")" || true; fi; }

case "${1:-}" in
  install | start | detached | status | follow | report | stop) "$@" ;;
  kill) kill_run ;;
  run)
    install
    exec .venv/bin/python -m vqdna_jax.main "${@:2}"
    ;;
  *)
    usage
    exit 43
    ;;
esac

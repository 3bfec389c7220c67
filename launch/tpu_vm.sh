#!/usr/bin/env bash
# Trains on a TPU VM slice, or several: makes it, copies this clone there, installs, starts the run on every host,
# follows the first host's log, and starts it again after what a restart helps against.
#
#   launch/tpu_vm.sh --name=NAME --zone=ZONE --type=TYPE [OPTION...] -- --config=FILE[:PRESET] --workdir=DIR [...]
#
# After -- come the arguments of vqdna_jax.main. The workdir must be a path that all hosts share: see --setup.
#   --name=NAME          of the TPU; one that is there and ready is used as it is
#   --zone=ZONE          for example us-west4-a
#   --type=TYPE          for example v5litepod-256, v5p-128, v6e-64
#   --version=VERSION    TPU software version; the one for the type, if left out
#   --project=PROJECT    gcloud's own, if left out
#   --spot               cheaper, and can be taken away at any time: then it is made again and the run goes on
#   --queued             wait in the queue for capacity instead of asking once
#   --slices=N           N slices of this type as one run; implies --queued
#   --setup=COMMAND      a shell command for every host before the start, for example one that mounts the workdir's disk
#   --create-flag=FLAG   a further flag for `gcloud ... create`, for example --create-flag=--reserved; may be repeated
#   --ssh-flag=FLAG      a further flag for `gcloud ... ssh` and `scp`, for example --ssh-flag=--internal-ip; the same
#   --restarts=N         restarts after exit codes 46, 134, 137, 143: 20; those after 42 and lost TPUs are not counted
#   --wait=MINUTES       how long to wait for the TPU: 60, with --queued 1440
#   --poll=SECONDS       between two looks: 20
#   --delete             delete the TPU when the run has ended, however it ended
#   --dry-run            print every command, run none
# Exit code: the run's (docs/launching.md); 43 for what has to be mended first, 46 for what may go well another time.
# Ctrl-C ends only this script: the run goes on, and the same command follows it again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$(dirname "${BASH_SOURCE[0]}")/tpu_gcloud.sh"

name="" zone="" type="" version="" project="" setup="" kind=tpu-vm
spot=false queued=false delete=false slices=1 restarts=20 wait="" poll=20
create_flags=(--quiet) connect_flags=(--quiet)
values="name zone type version project setup slices restarts wait poll" switches="spot queued delete dry-run"
GRACE_S=900 # for the other hosts once the first one has ended: more than they need to notice that a peer is gone
code_folder=vqdna-launch/code
worker="bash $code_folder/launch/worker.sh"

own_option() { # ARGUMENT
  case "$1" in
    --create-flag=*) create_flags+=("${1#*=}") ;;
    --ssh-flag=*) connect_flags+=("${1#*=}") ;;
    *) return 1 ;;
  esac
}

check_options() {
  where=()
  check_common_options name zone type
  if $queued || [ "$slices" -gt 1 ]; then kind="queued-resources"; fi
  if [ -z "$wait" ]; then if [ "$kind" = tpu-vm ]; then wait=60; else wait=1440; fi; fi
  whole_number --wait "$wait" 0
  if [ -z "$version" ]; then version=$(default_version); fi
  need_shared_workdir "mount a disk with --setup (docs/launching.md)"
  if $spot; then create_flags+=(--spot); fi
}

default_version() { # as of https://cloud.google.com/tpu/docs/runtimes
  case "$type" in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    tpu7x-*) bad_input "--type=$type: this generation is on GKE only; use launch/gke_xpk.sh" ;;
    *) bad_input "--type=$type: no known software version; name it with --version" ;;
  esac
}

# One line per host. Fails when a host does not answer.
statuses() { on_hosts all "$worker status" 2>"$scratch/said" | grep '^vqdna-status '; }

# Whether the run is going on already, from an earlier call of this script that was ended.
is_going_on() {
  local found
  found=$(on_hosts all "if [ -e $code_folder/launch/worker.sh ]; then $worker status; fi" 2>"$scratch/said") || return 1
  grep -q ' running$' <<<"$found"
}

begin() {
  local answer=0
  : >"$scratch/log"
  say "starting on all hosts: $(quoted python -m vqdna_jax.main "${trainer[@]}")"
  on_hosts all "$worker start $(quoted "${trainer[@]}")" || answer=$?
  if [ $answer = 43 ]; then bad_input "$name cannot start this run; the reason is above"; fi
  return $answer
}

# The first host's log, after what was printed already, until its part of the run ends.
follow() {
  on_hosts 0 "$worker follow $(wc -c <"$scratch/log")" 2>"$scratch/said" | tee -a "$scratch/log"
}

# Prints the first host's log until all hosts have ended, through broken connections. Sets `outcome`: an exit code,
# "stopped" after `worker.sh stop`, or "lost" when the TPU is gone.
watch() {
  local deadline=0 found
  while :; do
    if follow && [ $deadline = 0 ]; then deadline=$((SECONDS + GRACE_S)); fi
    found=$(statuses) || found=""
    if "$dry_run"; then outcome=0 && return; fi
    if [ -n "$found" ] && ! grep -q ' running$' <<<"$found"; then
      if [ $deadline = 0 ]; then follow || true; fi # the rest of what a broken connection cut off
      break
    fi
    if is_gone; then outcome=lost && return; fi
    if [ $deadline != 0 ] && [ $SECONDS -ge $deadline ]; then on_hosts all "$worker kill" || true; fi
    sleep "$poll"
  done
  judge "$found"
}

judge() { # THE-LINE-OF-EVERY-HOST
  local codes culprit
  codes=$(awk '{ print $2, $4 == "" ? 137 : $4 }' <<<"$1")
  outcome=$(cut -d " " -f 2 <<<"$codes" | verdict)
  case "$outcome" in
    0) return ;;
    42)
      if grep -q ' stopped ' <<<"$1"; then outcome=stopped; fi
      return
      ;;
  esac
  culprit=$(culprit "$outcome" <<<"$codes")
  say "${culprit/ / ended with }: $(meaning "$outcome"); its last lines:"
  on_hosts all "$worker report 20" 2>"$scratch/said" | grep "^${culprit% *}| " >&2 || true
}

# Runs until there is nothing left to try again. Sets `code`, the run's.
supervise() {
  local left=$restarts prepared=false
  obtain
  if is_going_on; then say "the run is going on already: following it" && prepared=true; fi
  while :; do
    if { $prepared || prepare; } && begin; then
      watch
    elif is_gone; then
      outcome=lost
    else
      try_again "copying, installing or starting on $name failed; the reason is above, and this can be run again"
    fi
    case "$outcome" in
      lost) say "$name is gone ($state): making it again" ;;
      42) say "stopped by a signal, everything saved: starting again" ;;
      46)
        if [ "$left" = 0 ]; then code=46 && return; fi
        left=$((left - 1))
        say "starting again, $left more times at most"
        ;;
      stopped) code=42 && return ;;
      *) code=$outcome && return ;;
    esac
    sleep "$poll"
    obtain
  done
}

# shellcheck disable=SC2329  # called by trap
interrupted() {
  say "the run, if it was started, goes on; the same command follows it again, and this one has it save and end:"
  dry_run=true
  on_hosts all "$worker stop" 3>&2
  exit 130
}

read_options "$@"
check_options
need gcloud "see https://cloud.google.com/sdk/docs/install"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap interrupted INT
supervise
say "$name ended with $code: $(meaning "$code")"
if $delete; then
  remove
else
  say "$name is still there and costs money; $0 with --delete, or gcloud, deletes it"
fi
exit "$code"

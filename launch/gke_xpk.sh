#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster through xpk (https://github.com/AI-Hypercomputer/xpk): copies this clone into an
# image, creates the workload, follows the first host's log, and names the host that failed. GKE starts the run again
# after what a restart helps against.
#
#   launch/gke_xpk.sh --cluster=CLUSTER --name=NAME --type=TYPE [OPTION...] -- --config=FILE[:PRESET] --workdir=DIR
#
# After -- come the arguments of vqdna_jax.main. The workdir must be a path that all hosts share: see --storage.
#   --cluster=CLUSTER    one that `xpk cluster create` or `xpk cluster adapt` has made ready
#   --name=NAME          of the workload; one that is queued or running is followed, one that has ended is replaced
#   --type=TYPE          for example v5litepod-256, v5p-128, v6e-64
#   --zone=ZONE  --project=PROJECT    gcloud's own, if left out
#   --slices=N           N slices of this type as one run: 1
#   --priority=LEVEL     very-low, low, medium, high or very-high: medium
#   --storage=NAME       a storage of `xpk storage create|attach` that every host mounts; may be repeated
#   --base-image=IMAGE   what the clone is copied into: python:3.12; every host then installs the packages at its start
#   --image=IMAGE        one that has the clone and the packages already (docs/launching.md); no image is built then
#   --create-flag=FLAG   a further flag for `xpk workload create`, for example --create-flag=--spot; may be repeated
#   --restarts=N         how often GKE starts the run again after exit codes 42, 46, 134, 137, 143: 50
#   --poll=SECONDS       between two looks: 20
#   --delete             delete the workload when the run has ended, however it ended
#   --dry-run            print every command, run none
# Exit code: the run's (docs/launching.md); 43 for what has to be mended first, 46 for what may go well another time.
# Ctrl-C ends only this script: the run goes on, and the same command follows it again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cluster="" name="" type="" zone="" project="" image="" base_image=python:3.12
slices=1 priority=medium restarts=50 poll=20 delete=false
create_flags=() GRACE_S=300 # from SIGTERM to SIGKILL, for the last checkpoint
values="cluster name type zone project image base-image slices priority restarts poll" switches="delete dry-run"

own_option() { # ARGUMENT
  case "$1" in
    --storage=*) create_flags+=("$1") ;;
    --create-flag=*) create_flags+=("${1#*=}") ;;
    *) return 1 ;;
  esac
}

check_options() {
  where=(--cluster="$cluster")
  check_common_options cluster name type
  need_shared_workdir "mount a storage with --storage (docs/launching.md)"
  # xpk puts the command into YAML, a line of its own in a block.
  case "${trainer[*]}" in *$'\n'*) bad_input "a line break in the arguments after --: xpk cannot carry one" ;; esac
}

# xpk's words are kept for the line that a failure ends with.
xpk_workload() { run xpk workload "$@" "${where[@]}" >"$scratch/said" 2>&1; }

explain() { # WHAT-WAS-TRIED
  local last
  sed 's/^/  /' "$scratch/said" | tail -n 20 >&2
  last=$(grep -iE 'error|failed|quota|credential' "$scratch/said" | tail -n 1 || true)
  case "$(tr '[:upper:]' '[:lower:]' <"$scratch/said")" in
    *"active account"* | *"auth login"* | *"auth tokens"* | *"default credentials"*)
      bad_input "gcloud is not logged in; run: gcloud auth login && gcloud auth application-default login"
      ;;
    *quota*) bad_input "cannot $1 $name: ${last:-no quota}; ask for more in the console, IAM, Quotas" ;;
  esac
  bad_input "cannot $1 $name: ${last:-xpk said the lines above}"
}

# Whether xpk lists this very workload with that status: EVERYTHING, FINISHED, RUNNING ...
is_listed() { # STATUS
  xpk_workload list --filter-by-job="$name" --filter-by-status="$1" || explain "look for"
  awk -v name="$name" '$1 == name { found = 1 } END { exit !found }' "$scratch/said"
}

create() {
  local from=(--docker-image="$image")
  if [ -z "$image" ]; then
    run mkdir "$scratch/code"
    pack "$scratch/code.tar.gz"
    run tar -xzf "$scratch/code.tar.gz" -C "$scratch/code"
    from=(--base-docker-image="$base_image" --script-dir="$scratch/code")
  fi
  say "creating $name: $slices x $type on $cluster"
  # exec: xpk sends SIGTERM to the shell it starts this in.
  xpk_workload create --workload="$name" --tpu-type="$type" --num-slices="$slices" --priority="$priority" \
    --max-restarts="$restarts" --restart-on-exit-codes=42,46,134,137,143 \
    --termination-grace-period-seconds=$GRACE_S "${from[@]}" ${create_flags[@]+"${create_flags[@]}"} \
    --command="exec bash launch/worker.sh run $(quoted "${trainer[@]}")" || explain create
}

pods() { # SELECTOR FLAG...
  run kubectl get pods --namespace=default --selector="jobset.sigs.k8s.io/jobset-name=$name$1" "${@:2}"
}

# The log of the first host as long as its present container lives; after a broken connection, what is new.
follow() {
  local pod since=()
  pod=$(pods ,jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0 \
    --sort-by=.metadata.creationTimestamp --output=name 2>/dev/null | tail -n 1) || pod=""
  if "$dry_run"; then pod=pod/FIRST-HOST; fi
  if [ -z "$pod" ]; then return; fi
  if [ "$pod" = "$followed" ]; then since=(--since="$((poll + 1))s"); fi
  if run kubectl logs "$pod" --namespace=default --all-containers --follow ${since[@]+"${since[@]}"} 2>/dev/null; then
    followed=$pod
  fi
}

# Returns when the workload has finished; fails if it did not succeed.
watch() {
  local failures=0 answer followed=""
  while :; do
    follow
    answer=0
    xpk_workload list --wait-for-job-completion="$name" --timeout="$poll" || answer=$?
    case $answer in
      0) return 0 ;;
      125) return 1 ;;
      124) failures=0 ;; # not yet
      *)
        failures=$((failures + 1))
        if [ $failures = 10 ]; then
          try_again "xpk cannot look at $name ($(tail -n 1 "$scratch/said")); run this again to follow it"
        fi
        sleep "$poll"
        ;;
    esac
  done
}

judge() {
  local codes culprit
  local each='{.metadata.name}{range .status.containerStatuses[*]} {.state.terminated.exitCode}{end}{"\n"}'
  codes=$(pods "" --output="jsonpath={range .items[*]}$each{end}" |
    awk '{ for (i = 2; i <= NF; i++) print $1, $i }') || codes=""
  code=$(awk '{ print $2 }' <<<"${codes:-? 46}" | verdict)
  if [ "$code" = 0 ]; then code=46; fi # no container says why, so its host went away
  culprit=$(culprit "$code" <<<"$codes")
  if [ -z "$culprit" ]; then return; fi
  say "${culprit/ / ended with }: $(meaning "$code"); its last lines:"
  culprit=${culprit% *}
  kubectl logs "$culprit" --namespace=default --all-containers --tail=20 2>/dev/null | sed "s/^/$culprit| /" >&2 || true
}

# shellcheck disable=SC2329  # called by trap
interrupted() {
  say "the run, if it was started, goes on; the same command follows it again, and this one ends it:"
  quoted xpk workload delete --workload="$name" "${where[@]}" >&2
  exit 130
}

read_options "$@"
check_options
need xpk "pip install xpk; see https://github.com/AI-Hypercomputer/xpk"
need kubectl "gcloud components install kubectl gke-gcloud-auth-plugin"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap interrupted INT
code=0
if ! is_listed EVERYTHING; then
  create
elif is_listed FINISHED; then
  say "an earlier $name has ended: replacing it"
  xpk_workload delete --workload="$name" || explain delete
  create
else
  say "$name is queued or running, with the arguments it was created with: following it"
fi
if ! watch; then judge; fi
say "$name ended with $code: $(meaning "$code")"
if $delete; then xpk_workload delete --workload="$name" || explain delete; fi
exit "$code"

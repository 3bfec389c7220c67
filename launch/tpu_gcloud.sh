# shellcheck shell=bash
# Sourced by tpu_vm.sh, whose options it reads: one TPU and its hosts, as gcloud sees them. `kind` is tpu-vm for a slice
# made directly, queued-resources for one or several slices from the queue.
# shellcheck disable=SC2034,SC2154

# gcloud for this TPU. What it says about its own doings is kept for `explain`.
tpu() { run gcloud compute tpus "$kind" "$@" "${where[@]}" 2>"$scratch/said"; }

on_hosts() { # WORKER ("all" or 0) COMMAND
  local who=(--worker="$1")
  if [ "$kind" = queued-resources ]; then who+=(--node="$1"); fi
  run gcloud compute tpus "$kind" ssh "$name" "${who[@]}" --command="$2" \
    --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 "${connect_flags[@]}" "${where[@]}"
}

copy() { # FILE ITS-NAME-THERE
  local who=(--worker=all)
  if [ "$kind" = queued-resources ]; then who+=(--node=all); fi
  run gcloud compute tpus "$kind" scp "$1" "$name:$2" "${who[@]}" "${connect_flags[@]}" "${where[@]}"
}

# Ends the script with one line for what gcloud said.
explain() { # WHAT-WAS-TRIED
  local quotas="https://console.cloud.google.com/iam-admin/quotas" first
  first=$(grep -m 1 ERROR "$scratch/said" || head -n 1 "$scratch/said")
  case "$(tr '[:upper:]' '[:lower:]' <"$scratch/said")" in
    *"active account"* | *"auth login"* | *"auth tokens"*)
      bad_input "gcloud is not logged in; run: gcloud auth login"
      ;;
    *"property [project]"*) bad_input "no project; name one with --project, or run: gcloud config set project NAME" ;;
    *quota*)
      bad_input "no quota for $type in $zone ($first); ask for more at $quotas (spot has a quota of its own)"
      ;;
    *capacity* | *stockout* | *resource_exhausted* | *"resource exhausted"*)
      try_again "no $type is free in $zone ($first); use --queued to wait for one, or another zone"
      ;;
    *"could not resolve"* | *"unable to connect"* | *"timed out"* | *unavailable*)
      try_again "cannot $1 $name ($first); is the network down? This can be run again"
      ;;
  esac
  bad_input "cannot $1 $name: $first"
}

# Sets `state`, ABSENT if there is none. Fails if gcloud does not answer.
look() {
  local fields="state,acceleratorType" answer found
  state=ABSENT
  if [ "$kind" = queued-resources ]; then fields="state.state,tpu.nodeSpec[0].node.acceleratorType"; fi
  if ! answer=$(tpu describe "$name" --format="value($fields)"); then
    grep -qiE 'not_found|not found' "$scratch/said"
    return
  fi
  if "$dry_run"; then return; fi
  read -r state found <<<"$answer"
  if [ -n "$found" ] && [ "$found" != "$type" ]; then
    bad_input "$name is there already, of type $found instead of $type; choose another --name or delete it"
  fi
}

make() {
  local spec=(--accelerator-type="$type" --version="$version")
  if [ "$kind" = queued-resources ]; then
    spec=(--accelerator-type="$type" --runtime-version="$version")
    if [ "$slices" -gt 1 ]; then
      spec+=(--node-count="$slices" --node-prefix="$name")
    else
      spec+=(--node-id="$name")
    fi
  fi
  say "making $name: $slices x $type in $zone"
  tpu create "$name" "${spec[@]}" "${create_flags[@]}" || explain create
  made=true prepared=false
}

remove() {
  local force=()
  if [ "$kind" = queued-resources ]; then force=(--force); fi
  say "deleting $name"
  tpu delete "$name" --quiet ${force[@]+"${force[@]}"} || explain delete
}

explain_failed() {
  local reason
  reason=$(tpu describe "$name" --format="value(state.failedData.error.message)") || true
  echo "${reason:-its state is FAILED, and gcloud gives no reason}" >"$scratch/said"
  explain get
}

# Returns when the TPU is there.
obtain() {
  local deadline=$((SECONDS + 60 * wait)) said="" made=false
  while look || explain "look for"; do
    if [ "$state" != "$said" ]; then say "$name is $state"; fi
    said=$state
    case "$state" in
      READY | ACTIVE) return ;;
      ABSENT) make ;;
      FAILED)
        if $made; then explain_failed; fi
        remove
        ;;
      PREEMPTED | TERMINATED | SUSPENDED) remove ;;
      STOPPED | HIDDEN)
        if ! $spot; then bad_input "$name is $state; start it, or delete it and run this again"; fi
        remove
        ;;
      *)
        if [ $SECONDS -ge $deadline ]; then
          try_again "$name is still $state after $wait minutes; run this again to go on waiting, or delete it"
        fi
        sleep "$poll"
        ;;
    esac
    if "$dry_run"; then return; fi
  done
}

# Whether the TPU was taken away, as far as gcloud answers.
is_gone() {
  if "$dry_run" || ! look; then return 1; fi
  case "$state" in
    ABSENT | PREEMPTED | TERMINATED | SUSPEND* | FAILED | DELETING | STOP*) return 0 ;;
  esac
  return 1
}

# Code and packages on every host. Fails when a host cannot be reached, or cannot install.
prepare() {
  local archive=vqdna-code.tar.gz
  local unpack="mkdir -p $code_folder && find $code_folder -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} + &&"
  unpack+=" tar -xzf $archive -C $code_folder && $worker install"
  pack "$scratch/$archive" && copy "$scratch/$archive" "$archive" || return
  say "installing on all hosts"
  on_hosts all "$unpack" || return
  if [ -n "$setup" ]; then on_hosts all "$setup" || return; fi
  prepared=true
}

# shellcheck shell=bash
# Sourced by the launchers: messages, --dry-run, what is copied to the hosts, what the exit codes of all hosts mean.

dry_run=false
root=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
exec 3>&1 # where --dry-run prints, also within $(...)

# The header of the script, which is its manual.
usage() { awk 'NR > 1 { if (!/^#/) exit; if (!/^#SBATCH/) { sub(/^# ?/, ""); print } }' "$0"; }

say() { "$dry_run" || echo "$(date +%H:%M:%S) $*" >&2; }

bad_input() { # MESSAGE: never start it again as it is
  echo "error: $1" >&2
  exit 43
}

try_again() { # MESSAGE: it may go well another time
  echo "error: $1" >&2
  exit 46
}

# Words as a line that a shell reads back as the same words.
quoted() {
  local word line="" quote="'" escaped="'\\''"
  for word in "$@"; do
    case "$word" in
      "" | *[!a-zA-Z0-9_./:=,@%+-]*) word=$quote${word//$quote/$escaped}$quote ;;
    esac
    line+="$word "
  done
  printf '%s\n' "${line% }"
}

# Runs a command; with --dry-run prints it instead.
run() { if "$dry_run"; then quoted "$@" >&3; else "$@"; fi; }

need() { # COMMAND WHERE-IT-COMES-FROM
  "$dry_run" || command -v "$1" >/dev/null || bad_input "$1 is not installed or not on PATH; $2"
}

whole_number() { # OPTION VALUE LEAST
  if ! [[ $2 =~ ^[0-9]{1,6}$ ]] || [ "$2" -lt "$3" ]; then
    bad_input "$1=$2: expected a whole number of at least $3"
  fi
}

# Reads the command line of a launcher for TPUs: --NAME=VALUE of the names in `values` and --NAME of those in `switches`
# set the variable NAME, with _ for -; `own_option ARGUMENT` takes what else there is, or fails.
read_options() {
  while [ $# -gt 0 ]; do
    case "$1" in
      --help | -h) usage && exit 0 ;;
      --) break ;;
      --*) set_option "$1" || own_option "$1" || unexpected "$1" ;;
      *) unexpected "$1" ;;
    esac
    shift
  done
  read_trainer_arguments tpu "${@:2}"
}

unexpected() { # ARGUMENT
  bad_input "unexpected $1; $0 --help lists the options, and the trainer's arguments come after --"
}

# shellcheck disable=SC2154
set_option() { # ARGUMENT
  local option=${1#--} value=true known=$switches # none of these is the name of an option
  if [ "$option" != "${option%%=*}" ]; then value=${1#*=} known=$values; fi
  option=${option%%=*}
  if [[ $option == *[!a-z-]* || " $known " != *" $option "* ]]; then return 1; fi
  printf -v "${option//-/_}" %s "$value"
}

# Refuses a command line without the options NAME..., and values that cannot be of those that both launchers have; adds
# to `where` in which zone and project the TPU is.
# shellcheck disable=SC2034,SC2154
check_common_options() { # NAME...
  local option
  for option in "$@"; do
    if [ -z "${!option}" ]; then bad_input "--$option is missing; $0 --help lists the options"; fi
  done
  whole_number --slices "$slices" 1
  whole_number --restarts "$restarts" 0
  whole_number --poll "$poll" 0
  if [ -n "$zone" ]; then where+=(--zone="$zone"); fi
  if [ -n "$project" ]; then where+=(--project="$project"); fi
}

# What comes after `--` on the command line, with or without `python -m vqdna_jax.main`, becomes `trainer`.
# MULTIHOST says how the processes find each other, unless the arguments do.
read_trainer_arguments() { # MULTIHOST ARGUMENT...
  local multihost=$1 example="-- --config=configs/mcm.py:base --workdir=/mnt/runs/mcm" argument
  shift
  if [ "${*:1:3}" = "python -m vqdna_jax.main" ]; then shift 3; fi
  trainer=("$@")
  case " $*" in
    *" --config="* | *" --config "*) ;;
    *) bad_input "--config is missing; give it after --: $example" ;;
  esac
  workdir=""
  for argument in "$@"; do
    case "$argument" in
      --workdir=*) workdir=${argument#*=} ;;
      --multihost=* | --coordinator=*) multihost="" ;;
    esac
  done
  if [ -z "$workdir" ]; then bad_input "--workdir=DIR is missing; give it after --: $example"; fi
  if [ -n "$multihost" ]; then trainer+=("--multihost=$multihost"); fi
}

# A relative place would be the host's own, which the other hosts do not see and which goes with the host.
need_shared_workdir() { # HOW-TO-MOUNT-ONE
  case "$workdir" in
    /* | *://*) ;;
    *) bad_input "--workdir=$workdir: expected a whole path that all hosts share and that outlives them; $1" ;;
  esac
}

# The tracked files of the clone in `root`, with their changes, as an archive. Nothing untracked leaves this machine.
pack() { # FILE
  local changed="" commit
  if "$dry_run"; then
    quoted git -C "$root" archive --format=tar.gz "--output=$1" HEAD >&3
    return
  fi
  commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null) ||
    bad_input "$root is not a git clone with a commit; what is copied to the hosts is what git tracks"
  # A commit of the changed files that no branch sees; none if there are none.
  changed=$(git -C "$root" stash create) || bad_input "$root: git cannot tell its changes; the reason is above"
  if [ -n "$changed" ]; then say "copying $commit with its uncommitted changes"; else say "copying $commit"; fi
  if [ -n "$(git -C "$root" ls-files --others --exclude-standard)" ]; then
    say "untracked files are not copied: git add what the run needs"
  fi
  git -C "$root" archive --format=tar.gz --output="$1" "${changed:-HEAD}"
}

# Reads the exit codes of all hosts, one per line, and prints the one that says what happened. Hosts that lost a peer end
# with 46, 134, 137 or 143: never the cause while another host has a code of its own.
verdict() {
  awk '$1 == 0 || $1 == 42 { seen[$1] = 1; next }
    $1 == 46 || $1 == 134 || $1 == 137 || $1 == 143 { seen[46] = 1; next }
    cause == "" || $1 < cause { cause = $1 + 0 }
    END { print cause != "" ? cause : 46 in seen ? 46 : 42 in seen ? 42 : 0 }'
}

# Reads lines HOST CODE and prints the first host that is the reason for this verdict. After 46 that is one that was
# killed, say for memory, rather than those that missed it.
culprit() { # VERDICT
  sort | awk -v causes="${1/#46/137 143 46 134}" '
    !($2 in first) { first[$2] = $0 }
    END {
      n = split(causes, cause, " ")
      for (i = 1; i <= n; i++) if (cause[i] in first) { print first[cause[i]]; exit }
    }'
}

meaning() { # CODE
  case "$1" in
    0) echo "done" ;;
    42) echo "stopped by a signal, everything saved" ;;
    43) echo "bad input" ;;
    44) echo "numerics" ;;
    45) echo "storage" ;;
    46 | 134 | 137 | 143) echo "a process or the network is gone, or a process was stuck" ;;
    *) echo "a failure that has no code of its own" ;;
  esac
}

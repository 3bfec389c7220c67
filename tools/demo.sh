#!/usr/bin/env bash
# From a fresh clone to a trained genome tokenizer, on a CPU, in minutes: installs, trains the tiny HRQ tokenizer on the
# bundled genomes, shows where everything lies, then encodes a genome with it and decodes it back.
# Arguments go to the training run: `tools/demo.sh --workdir=runs/other --config.seed=1`. Stopped half-way, it goes on
# where it stopped when run again; finished, it only shows the results again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

workdir=runs/hrq
for argument in "$@"; do
  case "$argument" in --workdir=*) workdir=${argument#*=} ;; esac
done

.venv/bin/python -m vqdna_jax.main --config=configs/hrq.py:tiny --workdir="$workdir" "$@"

echo
echo "Results:   $workdir/result.json"
echo "Curves:    $workdir/curves.png"
echo "Codebooks: $workdir/codebooks.png"
echo "Model:     $workdir/export"

genome=vqdna_jax/genome/bundled/phiX174.fa.gz
run() {
  echo "\$ $*"
  ".venv/bin/$1" "${@:2}"
}
echo
echo "Its use, from bases to codes and back:"
run vqdna encode "$genome" --model="$workdir/export" --out="$workdir/phix174.codes"
run vqdna decode "$workdir/phix174.codes" --model="$workdir/export" --out="$workdir/phix174.decoded.fa"
run python tools/compare_fasta.py "$genome" "$workdir/phix174.decoded.fa"

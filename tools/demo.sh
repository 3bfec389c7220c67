#!/usr/bin/env bash
# From a fresh clone to a pretrained DNA model, on a CPU, in minutes: installs, trains the tiny HRQ tokenizer on the
# bundled genomes, pretrains the tiny transformer on its codes, shows where everything lies, then encodes a genome,
# decodes it back and embeds it.
# `tools/demo.sh --out=DIR` puts it elsewhere than runs/. Stopped half-way, it goes on where it stopped when run again;
# finished, it only shows the results again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

out=runs
for argument in "$@"; do
  case "$argument" in
    --out=*) out=${argument#*=} ;;
    *)
      echo "error: unexpected $argument; the only option is --out=DIR" >&2
      exit 43
      ;;
  esac
done

run() {
  echo "\$ $*"
  ".venv/bin/$1" "${@:2}"
}

echo "Stage 1: a vocabulary. A share of the bases is hidden, so that the tokenizer knows hidden bases in stage 2."
run python -m vqdna_jax.main --config=configs/hrq.py:tiny --workdir="$out/hrq" --config.hidden_share=0.15
echo
echo "Stage 2: masked code modelling over the frozen vocabulary."
run python -m vqdna_jax.main --config=configs/mcm.py:tiny --workdir="$out/mcm" --config.tokenizer="$out/hrq/export"

echo
for stage in hrq mcm; do
  echo "$stage: results $out/$stage/result.json, curves $out/$stage/curves.png, model $out/$stage/export"
done

genome=vqdna_jax/genome/bundled/phiX174.fa.gz
echo
echo "Its use, from bases to codes and back, and to vectors:"
run vqdna encode "$genome" --model="$out/mcm/export" --out="$out/phix174.codes"
run vqdna decode "$out/phix174.codes" --model="$out/mcm/export" --out="$out/phix174.decoded.fa"
run python tools/compare_fasta.py "$genome" "$out/phix174.decoded.fa"
run vqdna embed "$genome" --model="$out/mcm/export" --out="$out/phix174.embeddings"

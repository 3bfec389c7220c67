#!/usr/bin/env bash
# From a fresh clone to a fine-tuned DNA model and a benchmark page, on a CPU, in minutes: installs, and uses the model
# that comes with the package: vectors of a genome, a map of six species, a head for them. Then all from nothing: trains
# the tiny HRQ tokenizer on the bundled genomes, pretrains the tiny transformer on its codes, encodes a genome, decodes it
# back and embeds it; then fine-tunes on a small real set, which species a stretch of the bundled genomes is from, predicts
# with the result, and compares it with its untrained network and with k-mer counts.
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

genome=vqdna_jax/genome/bundled/phiX174.fa.gz
species=()
for name in arabidopsis_chloroplast c_elegans_chrX_5-6Mb d_melanogaster_chr2R_5-6Mb e_coli_K12_MG1655 h_pylori_G27 \
  human_chr20_30-31Mb; do
  species+=("vqdna_jax/genome/bundled/$name.fa.gz")
done

# species_set DIRECTORY BASES ROWS: which of the six is a stretch from, on chromosomes or blocks never seen?
species_set() {
  if [ ! -e "$1/train.csv" ]; then
    run vqdna species "${species[@]}" --out="$1" --length="$2" --items="$3"
  fi
}

echo "A model comes with the package: nothing is trained yet."
run vqdna models
mkdir -p "$out/shipped"
run vqdna embed "$genome" --model=mini --out="$out/shipped/phix174.npy"
echo
echo "A map of six species: windows of 500 bases, by how often each learned word occurs in them."
windows="$out/shipped/windows"
species_set "$windows" 500 50
run vqdna embed "$windows/train.csv" --model=mini --pool=words --out="$out/shipped/windows.npy"
run vqdna map "$out/shipped/windows.npy" --labels="$windows/train.csv" --out="$out/shipped/map.png"
echo
echo "A head on its frozen features names the species of windows that it has not seen:"
run python -m vqdna_jax.main --config=configs/finetune.py:tiny --workdir="$out/shipped/species" \
  --config.pretrained=mini --config.data.labelled="$windows" \
  --config.data.long=window --config.data.strands=one --config.tuning.method=head --config.head.pool=mean+words
run vqdna predict "$windows/test.csv" --model="$out/shipped/species/export" --out="$out/shipped/predictions.csv"

echo
echo "Now all of it from nothing."
echo "Stage 1: a vocabulary. A share of the bases is hidden, so that the tokenizer knows hidden bases in stage 2."
run python -m vqdna_jax.main --config=configs/hrq.py:tiny --workdir="$out/hrq" --config.hidden_share=0.15
echo
echo "Stage 2: masked code modelling over the frozen vocabulary."
run python -m vqdna_jax.main --config=configs/mcm.py:tiny --workdir="$out/mcm" --config.tokenizer="$out/hrq/export"

echo
for stage in hrq mcm; do
  echo "$stage: results $out/$stage/result.json, curves $out/$stage/curves.png, model $out/$stage/export"
done

echo
echo "Its use, from bases to codes and back, and to vectors:"
run vqdna encode "$genome" --model="$out/mcm/export" --out="$out/phix174.codes"
run vqdna decode "$out/phix174.codes" --model="$out/mcm/export" --out="$out/phix174.decoded.fa"
run python tools/compare_fasta.py "$genome" "$out/phix174.decoded.fa"
run vqdna embed "$genome" --model="$out/mcm/export" --out="$out/phix174.embeddings"

echo
echo "Stage 3: fine-tuning. Which of six species is a stretch of 250 bases from, on chromosomes or blocks never seen?"
sets="$out/sets"
species_set "$sets/species_hyenadna" 250 150
run python -m vqdna_jax.main --config=configs/finetune.py:tiny --workdir="$out/species" \
  --config.pretrained="$out/mcm/export" --config.data.labelled="$sets/species_hyenadna"
run vqdna predict "$sets/species_hyenadna/test.csv" --model="$out/species/export" --out="$out/species_predictions.csv"
echo
echo "The same as a benchmark, beside the untrained network and k-mer counts:"
run vqdna benchmark --data="$sets" --model="$out/mcm/export" --untrained --preset=tiny --seeds=1 \
  --set=train.total_epochs=1 --out="$out/benchmark"

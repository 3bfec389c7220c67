#!/usr/bin/env bash
# # Learn a vocabulary
#
# A tokenizer whose words are *learned* from your genomes, not chosen by hand. About a minute on two CPU cores, and it
# works from any folder in which `vqdna --version` does.
set -euo pipefail

# ## Your genomes
# One FASTA file is one species. Here they are two that come with the package: a chloroplast and a phage.
genomes=$(python -c 'from vqdna_jax.genome.build.bundled import BUNDLED; print(BUNDLED)')
vqdna corpus chloroplast="$genomes"/arabidopsis_chloroplast.fa.gz phage="$genomes"/phiX174.fa.gz --out=corpus

# A corpus is made once. A tenth of each species is kept apart, and no model is trained on it. What was left out is
# printed and is in `corpus/manifest.json`.
#
# ## Train
# `hrq` is the paper's tokenizer with two levels of words, coarse ones and fine ones. `tiny` is its size for a laptop. A
# real run has more steps: take the last three settings away, and `tiny` does 500 of them.
# `hidden_share` hides bases from the network, which has to rebuild them all the same. Give it where a transformer is to
# be trained on the words.
python -m vqdna_jax.main --config=hrq:tiny --workdir=words --config.data.corpus=corpus --config.hidden_share=0.15 \
  --config.train.total_steps=60 --config.model.blocks=3 --config.eval.windows=128

# ## Read the result
# The share of bases that are rebuilt (`reconstruction_accuracy`) says little at one code per base: it is near 100 %
# even while most of a codebook is dead. Read the lines of the codebooks: how many codes are used, how evenly
# (perplexity), and how much of them a plain k-mer explains. [Vocabulary](../vocabulary.md) says what to make of it.
#
# ![loss and codebook use over the steps](words/curves.png)
#
# ![how often each code occurs](words/codebooks.png)
#
# ## Use it
# A trained tokenizer lies in `words/export`. It turns a genome into codes and back:
vqdna encode "$genomes"/phiX174.fa.gz --model=words/export --out=phage.codes
vqdna decode phage.codes --model=words/export --out=phage.fa
head -c 200 phage.fa

# Where decoding would not give back the same base, `phage.codes.mismatches.tsv` lists the place:
head -3 phage.codes.mismatches.tsv

# ## Next
# Stage 2 trains a transformer on these words: `python -m vqdna_jax.main --config=mcm:tiny --workdir=mine
# --config.data.corpus=corpus --config.tokenizer=words/export`. [Pretraining](../pretraining.md) has the rest.

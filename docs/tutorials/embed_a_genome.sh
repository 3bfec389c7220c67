#!/usr/bin/env bash
# # Embed a genome and plot it
#
# From FASTA to vectors to a picture, with `mini`, the small model that comes with the package. Nothing is downloaded and
# nothing is trained.
set -euo pipefail

# ## One vector for a sequence
genomes=$(python -c 'from vqdna_jax.genome.build.bundled import BUNDLED; print(BUNDLED)')
vqdna embed "$genomes"/phiX174.fa.gz --model=mini --out=phage.npy
python -c 'import numpy as np; print(np.load("phage.npy").shape)'

# Any length is taken: long sequences pass through overlapping windows. `--pool=none` gives a vector for every code, and
# `--region=NAME:START-END` takes a part. N and lower case need no care: N is an unknown base, case changes nothing.
vqdna embed "$genomes"/phiX174.fa.gz --model=mini --pool=none --region=NC_001422.1:101-200 --out=part.npy
python -c 'import numpy as np; print(np.load("part.npy").shape)'

# ## A map of species
# Windows of four genomes, 40 of each, with the species as their label:
vqdna species "$genomes"/{arabidopsis_chloroplast,e_coli_K12_MG1655,h_pylori_G27,human_chr20_30-31Mb}.fa.gz \
  --out=windows --length=400 --items=40

# `--pool=words` counts how often each learned word occurs. The default is the mean of the context vectors.
vqdna embed windows/train.csv --model=mini --pool=words --out=windows.npy
vqdna map windows.npy --labels=windows/train.csv --out=map.png

# ![windows of four genomes at their first two principal components](map.png)
#
# Two axes show little of what is there. The title says how often the nearest other window, in all dimensions, is of the
# same genome.
#
# ## Next
# [The command](../commands.md) has all outputs (`.npy`, `.parquet`), and the notebook
# [embeddings of genomes](../notebooks/embeddings.md) does the same in Python.

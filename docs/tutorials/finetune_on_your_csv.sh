#!/usr/bin/env bash
# # Fine-tune on your CSV
#
# You have sequences with labels. A model that comes with the package learns to tell them apart, and predicts new ones.
set -euo pipefail

# ## The table
# Two columns, `sequence` and `label`. Here 160 pieces of two genomes stand for yours: which one is a piece from?
genomes=$(python -c 'from vqdna_jax.genome.build.bundled import BUNDLED; print(BUNDLED)')
vqdna species "$genomes"/{h_pylori_G27,s_aureus_N315}.fa.gz --out=pieces --length=200 --items=80 --quiet
head -3 pieces/train.csv | cut -c 1-70

# ## Fine-tune
# One CSV is split 80/10/10; a folder of `train.csv`, `dev.csv` and `test.csv` is taken as it is. A mistake in the table
# is said with its line and column before anything is compiled. `tuning.method=head` trains a head over frozen features,
# in seconds. Leave it out for LoRA. Leave `head.pool` and `data.strands` out too, and the probe on dev chooses them.
python -m vqdna_jax.main --config=finetune:tiny --workdir=run --config.pretrained=mini --config.data.labelled=pieces \
  --config.tuning.method=head --config.head.pool=mean+words --config.data.strands=one

# ## What it reached
# `result.json` has every score of dev and test, and `probe_...` those of the linear probe it began with: on dev,
# fine-tuning is never below it. A score without a control says little. `vqdna benchmark` runs k-mer counts and the
# untrained network on the same rows.
python -c 'import json; result = json.load(open("run/result.json")); print({key: round(value, 3) for key, value in result.items() if key in ("test_mcc", "test_accuracy", "probe_test_mcc")})'

# ## Predict
# The export is small, for it holds what was trained and knows its base by a digest.
vqdna predict pieces/test.csv --model=run/export --out=predictions.csv
head -4 predictions.csv
du -sh run/export | cut -f 1

# ## Next
# [Fine-tuning and the benchmark](../finetuning.md) has labels of every kind, readouts and settings.
# [Peaks and labels](../peaks.md) makes such a table from a BED file.

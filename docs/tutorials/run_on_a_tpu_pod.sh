#!/usr/bin/env bash
# # Run on a TPU pod
#
# First what a step needs there, read without a TPU. Then the commands that start it. You need a clone of the repository
# and `pip install -e '.[tpu]'`, on any Linux machine (x86-64).
set -euo pipefail

# ## What will it need?
# `vqdna plan` compiles the real training step with the TPU compiler, for a pod that you do not have: memory of a chip,
# what is sent between chips, and the time at a share of peak FLOP/s that you state (`--mfu`, 0.4 by default). A
# plan is a model, not a measurement. This one is of the small experiment; name `mcm:base` and `v5e:16x16` for the
# paper's, which takes minutes to compile.
vqdna plan --config=mcm:tiny --topology=v5e:2x2 2>/dev/null

# `--set=mesh.fsdp=4` shards parameters, `--largest-batch` finds what fits. [Scaling](../scaling.md) has the plans of the
# paper's recipe on four pods.
#
# ## Start it
# `launch/tpu_vm.sh` makes the TPU, copies this clone, installs by hash, starts the run on every host, follows its log and
# starts it again when a slice is taken away. `--dry-run` prints all commands and runs none. The workdir must be on a disk
# that all hosts see.
cd "${VQDNA_REPOSITORY:-.}"
launch/tpu_vm.sh --name=words --zone=us-west4-a --type=v5litepod-16 --spot --queued --delete --dry-run -- \
  --config=configs/hrq.py:base --workdir=/mnt/runs/hrq --config.hidden_share=0.15 | sed 's/ --/\n    --/g'

# ## When something goes wrong
# The exit code says whether to start again: 42 and 46 go on with the same command, 43 wants something mended.
# [Many hosts](../launching.md) has the table, and the scripts for GKE and Slurm.
#
# No pod has been started with these scripts so far: they are tested against stand-ins for the cloud's commands.

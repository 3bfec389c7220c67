# # Fine-tuning
#
# From a list of labelled sequences to predictions, in Python. Training is one command, so that a run is a function of
# its config; all else is a function call.

import json
import pathlib

import matplotlib.pyplot as plt
import numpy as np

import vqdna_jax
from vqdna_jax import main
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.genome.build.bundled import BUNDLED
from vqdna_jax.genome.fasta import load_fasta

# ## Labelled sequences
# Pieces of 150 bases of a chloroplast and of a bacterium. In place of these, take your own table with the columns
# `sequence` and `label`.

rng = np.random.default_rng(0)
rows = []
for name in ("arabidopsis_chloroplast", "h_pylori_G27"):
    bases = next(load_fasta(BUNDLED / f"{name}.fa.gz")).bases
    for start in rng.integers(0, len(bases) - 150, 120):
        rows.append((to_text(bases[start : start + 150]), name))
pathlib.Path("pieces.csv").write_text("sequence,label\n" + "".join(f"{text},{label}\n" for text, label in rows))

# ## Train a head on the model in the box
# The same as `python -m vqdna_jax.main ...` in a shell. 80/10/10 is by a hash of the sequence, so equal sequences and
# reverse complements stay on one side.

main.main(
    [
        "main.py",
        "--config=finetune:tiny",
        "--workdir=run",
        "--config.pretrained=mini",
        "--config.data.labelled=pieces.csv",
        "--config.tuning.method=head",
        "--config.head.pool=mean+words",
        "--config.data.strands=one",
    ]
)

# ## What it reached

result = json.loads(pathlib.Path("run/result.json").read_text())
{key: round(value, 3) for key, value in result.items() if key in ("test_accuracy", "test_mcc", "probe_test_mcc")}

# ## Predict

model = vqdna_jax.load("run/export")
predicted = model.predict([text for text, _ in rows[:3] + rows[-3:]])
print(predicted.labels)
predicted.values.round(3)

# A sequence that cannot be predicted is an error, or with `errors="coerce"` a row of NaN that says why.

model.predict(["ACGTACGTTG", "ACGTXX"], errors="coerce").errors

# How sure is it along a sequence that is half of one genome and half of the other?

joined = rows[0][0] + rows[-1][0]
starts = range(0, 151, 10)
values = model.predict([joined[start : start + 150] for start in starts]).values

fig, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for column, name in enumerate(model.label_names):
    axes.plot(starts, values[:, column], label=name)
axes.set(xlabel="start of a window of 150 bases", ylabel="probability", ylim=(0, 1))
axes.legend()
plt.show()

# # Variants
#
# What does the model make of a change? Likelihoods, distances and codes, of one change and of all of a stretch.

import matplotlib.pyplot as plt
import numpy as np

import vqdna_jax
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.genome.build.bundled import BUNDLED
from vqdna_jax.genome.fasta import load_fasta

model = vqdna_jax.load("mini")
(phage,) = load_fasta(BUNDLED / "phiX174.fa.gz")
letters = to_text(phage.bases)

# ## One change
# Reference and alternative have the same bases around the change. `llr` is ln p(alternative) − ln p(reference),
# with the changed base hidden before the tokenizer.

place, around = 392, 64
reference = letters[place - around : place + around]
alternative = reference[:around] + {"A": "G", "G": "A", "C": "T", "T": "C"}[reference[around]] + reference[around + 1 :]
scores = model.score(reference, alternative)
print("llr", scores.llr.round(3), "distance", scores.distance.round(3), "codes changed", scores.codes_changed)

# ## Every substitution of 24 bases
# Rows are what a base becomes; a cell is how much likelier that is than the base that is there. Blue: unlikely.

stretch = range(place - 12, place + 12)
changes = [(at, base) for at in stretch for base in "ACGT" if letters[at] != base]
references = [letters[at - around : at + around] for at, _ in changes]
alternatives = [text[:around] + base + text[around + 1 :] for text, (_, base) in zip(references, changes)]
llr = np.full((4, len(stretch)), np.nan)
for (at, base), value in zip(changes, model.score(references, alternatives).llr):
    llr["ACGT".index(base), at - stretch.start] = value

fig, axes = plt.subplots(figsize=(8, 2.2), layout="constrained")
most = np.nanmax(abs(llr))
image = axes.imshow(llr, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
axes.set_xticks(range(len(stretch)), [letters[at] for at in stretch])
axes.set_yticks(range(4), list("ACGT"))
axes.set(xlabel=f"phiX174, bases {stretch.start + 1} to {stretch.stop}", ylabel="becomes")
fig.colorbar(image, label="ln p(alt) − ln p(ref)")
plt.show()

# ## Vectors of a change
# For a classifier of variants: the mean vector of the reference, and what the alternative changes of it. They are
# float32, for the second half is small beside the first, and smaller in a longer window.

vectors = scores.embeddings
half = vectors.shape[1] // 2
print(vectors.shape, "reference", np.linalg.norm(vectors[0, :half]).round(3))
print("change", np.linalg.norm(vectors[0, half:]).round(4))

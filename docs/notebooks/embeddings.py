# # Embeddings of genomes
#
# Load the model in the box, look at codes and vectors, and draw windows of three genomes.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA

import vqdna_jax
from vqdna_jax.genome.build.bundled import BUNDLED
from vqdna_jax.genome.fasta import load_fasta

model = vqdna_jax.load("mini")
model

# ## Codes
# One row for every `bases_per_code` bases, one column for each level: coarse words, then fine ones.

codes = model.encode("ACGTTGCATTGACCA")
print(codes.shape, codes[:3].tolist())
model.decode(codes)

# ## Vectors
# The mean over a sequence by default. `pool="none"` gives a vector for every code, `layer` takes an earlier layer. A
# vector depends on its own sequence alone, not on its neighbours in the list.

pair = model.embed(["ACGTTGCATTGACCA" * 8, "TTTTTTTTGGGGGGGGAAAA" * 6])
print(pair.shape, pair.dtype)
model.embed("ACGTTGCATTGACCA", pool="none", layer=2).shape

# ## Three genomes
# Thirty windows of 300 bases of each, evenly spaced.


def windows(name, length=300, count=30):
    bases = max(load_fasta(BUNDLED / f"{name}.fa.gz"), key=lambda record: len(record.bases)).bases
    return [bases[start : start + length] for start in np.linspace(0, len(bases) - length, count).astype(int)]


names = ["arabidopsis_chloroplast", "h_pylori_G27", "human_chr20_30-31Mb"]
sequences = {name: windows(name) for name in names}
words = {name: model.embed(sequences[name], pool="words") for name in names}
points = PCA(2).fit_transform(np.concatenate(list(words.values())))

fig, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, part in zip(names, np.split(points, len(names))):
    axes.scatter(*part.T, s=14, label=name)
axes.set(xlabel="first component", ylabel="second component", title="how often each learned word occurs")
axes.legend()
plt.show()

# ## Which layer, which pooling?
# There is no best one for all questions: a probe on your own labels decides. Here the nearest other window is asked
# whether it is of the same genome.


def nearest_agrees(vectors, labels):
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    return (labels[distances.argmin(axis=1)] == labels).mean()


labels = np.repeat(names, 30)
everything = [bases for name in names for bases in sequences[name]]
for pool, layer in [("words", -1), ("mean", 0), ("mean", 2), ("mean", -1)]:
    vectors = model.embed(everything, pool=pool, layer=layer)
    print(f"{pool:6} layer {layer:2}: {nearest_agrees(vectors, labels):.2f}")

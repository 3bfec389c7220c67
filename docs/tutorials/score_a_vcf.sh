#!/usr/bin/env bash
# # Score a VCF
#
# How much does a variant change what the model expects? VCF in, the same VCF with scores out.
set -euo pipefail

# ## A genome and variants
# The genome is a phage of 5,386 bases. Twenty substitutions and a deletion stand for your variants, and the last record
# has a wrong REF.
genomes=$(python -c 'from vqdna_jax.genome.build.bundled import BUNDLED; print(BUNDLED)')
gzip -dc "$genomes"/phiX174.fa.gz >phage.fa
python - <<'PY'
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.genome.fasta import load_fasta

(record,) = load_fasta("phage.fa")
letters = to_text(record.bases)
with open("variants.vcf", "w") as file:
    print("##fileformat=VCFv4.2", f"##contig=<ID={record.id},length={len(letters)}>", sep="\n", file=file)
    print("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", sep="\t", file=file)
    for place in range(200, 5200, 250):
        reference = letters[place - 1]
        alternative = {"A": "G", "G": "A", "C": "T", "T": "C"}[reference]
        print(record.id, place, ".", reference, alternative, ".", ".", ".", sep="\t", file=file)
    print(record.id, 5250, "deletion", letters[5249:5252], letters[5249], ".", ".", ".", sep="\t", file=file)
    wrong = "A" if letters[5299] != "A" else "C"
    print(record.id, 5300, "wrong", wrong, "G", ".", ".", ".", sep="\t", file=file)
PY

# ## Score
# `--window` is how many bases around a variant are read. The default is the model's own window; 128 is six times as fast.
vqdna score variants.vcf --fasta=phage.fa --model=mini --window=128 --out=scored.vcf
grep -v '^#' scored.vcf | cut -f 2-5,8 | head -5

# `VQDNA_LLR` is ln p(ALT) − ln p(REF), with the changed base hidden *before* the tokenizer, so that nothing leaks: below
# 0 the model expects ALT less than REF. [Variants](../variants.md) explains every field.
#
# A record that cannot be scored says why, and does not stop the others:
grep -v '^#' scored.vcf | cut -f 2-5,8 | tail -2

# If more than a tenth of the records do not fit the FASTA, it is another build of the genome, and the command says so
# with exit code 43.
#
# ## Vectors for a classifier
# The mean vector of the reference's window, and what the alternative changes of it, in float32: the differences are
# small beside the vectors.
vqdna score variants.vcf --fasta=phage.fa --model=mini --window=128 --out=scored.vcf --embeddings=variants.npy --quiet
python -c 'import numpy as np; x = np.load("variants.npy"); print(x.shape, x.dtype)'

# ## Next
# The notebook [variants](../notebooks/variants.md) draws the effect of every substitution of a stretch.

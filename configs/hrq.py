"""Stage 1: a genome vocabulary by hierarchical residual quantization (HRQ), https://arxiv.org/abs/2405.10812.

    python -m vqdna_jax.main --config=configs/hrq.py:tiny --workdir=runs/hrq

tiny: 500 steps, two minutes on two CPU cores with evaluation and all. On held-out sequence 100 % of the bases rebuilt,
all 256 + 512 codes used (docs/results.md).
mini: the tokenizer of the model that comes with the package: 1,500 steps, 12 Mbases, twelve minutes on one core; all of
1024 and 99.6 % of 2048 codes used, hidden bases rebuilt in 36 % of cases.
base (the default): the paper's recipe. K=512 (codebooks of 1024 and 2048), D=384, six blocks, AdamW 1e-4 with a cosine,
global batch 1024, one epoch. What the paper does not say is this project's choice: betas, weight decay, warm-up,
clipping, EMA decay, revival, window, dtype.
"""

from ml_collections import config_dict


def get_config(preset: str = "base") -> config_dict.ConfigDict:
    c = config_dict.create(
        task="vocabulary",
        seed=0,
        init_from="",  # an export, or a shipped model, whose parameters and codebooks the run begins with
        data=dict(
            corpus="",  # a directory made by `vqdna corpus`; empty: the bundled genomes
            window_bp=512,
            global_batch=1024,  # windows per step, over all devices
            max_n_share=0.0,  # windows with a larger share of N are skipped
            temperature=1.0,  # species are drawn in proportion to their windows ** (1 / temperature)
            species_weights=dict(),  # or by these weights, species: weight
        ),
        model=dict(
            quantizer="hrq",
            code_size=512,
            bases_per_code=1,  # 1, 2, 4, 8 or 16
            width=384,
            blocks=6,
            kernel_size=7,
            expansion=4,
            stem_channels=256,
            stem_kernel_size=5,
            reach=0,  # the paper's decoder; above: bases to each side of a code that it alone predicts
            dtype="bfloat16",
        ),
        codebook=dict(
            commitment_weight=0.5,
            ema_decay=0.9,  # 0.99 lags behind the encoder, and the codebook dies: docs/vocabulary.md
            revive_below=0.03,  # of the mean count
            revive_to=0.1,
        ),
        hidden_share=0.0,  # of the bases of every second window, hidden and rebuilt (denoising)
        optimizer=dict(
            learning_rate=1e-4,
            warmup_steps=100,
            final_fraction=0.0,
            b1=0.9,
            b2=0.95,
            weight_decay=0.01,
            clip_norm=1.0,
            skip_above=10.0,  # times the running mean of the gradient norm; 0: no step is skipped
        ),
        train=dict(
            total_epochs=1.0,
            total_steps=0,  # instead of total_epochs
            log_every_steps=10,
            checkpoint_every_steps=500,
            keep_checkpoints=3,
            timeout_s=600.0,  # no sign of life from a step for so long ends the process with its stacks, exit code 46
            stop_below_utilisation=0.0,  # exit code 44 where two evaluations in a row are below; 0: warn only
        ),
        eval=dict(
            every_steps=500,
            windows=2048,
            batch=256,
        ),
        mesh=dict(data=-1, fsdp=1, tensor=1, context=1),  # -1: all devices that are left
    )
    if preset == "tiny":
        c.data.update(window_bp=256, global_batch=16)
        c.model.update(code_size=128, width=96, expansion=2, stem_channels=64, dtype="float32")
        c.optimizer.update(learning_rate=1e-3, warmup_steps=50)
        c.train.update(total_epochs=0.0, total_steps=500, checkpoint_every_steps=250)
        c.eval.update(every_steps=250, windows=1024, batch=64)
    elif preset == "mini":
        c.data.update(window_bp=256, global_batch=32)
        c.model.update(width=128, expansion=2, stem_channels=64, dtype="float32")
        c.hidden_share = 0.15
        c.optimizer.update(learning_rate=1e-3)
        c.train.update(total_epochs=0.0, total_steps=1500)
        c.eval.update(windows=1024, batch=64)
    elif preset != "base":
        raise ValueError(f"preset {preset!r}: expected tiny, mini or base")
    return c

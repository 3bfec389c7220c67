"""Stage 2: masked code modelling, a BERT-style transformer over the codes of a frozen tokenizer.

    python -m vqdna_jax.main --config=configs/mcm.py:tiny --workdir=runs/mcm --config.tokenizer=runs/hrq/export

tiny: 800 steps, three and a half minutes on two CPU cores; on held-out sequence of the bundled genomes 1.917 bits per
hidden base, where a Markov model of order 11 has 1.929 and a table of the five bases on both sides 1.890
(docs/results.md).
mini: the model that comes with the package: 3,200 steps, 26 Mbases of 112 Mb, 71 minutes on one core, other work on the
other; 1.835 bits per hidden base of its own eleven genomes, where such a Markov model has 1.908 and such a table 1.882.
small: 25 M parameters, bfloat16; 2,400 of its steps took 90 s of an H200 and gave 1.753 bits on mini's corpus.
base (the default): the paper's 12 x 768 with 12 heads (86 M parameters), AdamW 5e-4 with a cosine, global batch 2048,
500,000 steps, 25 % masked. What the paper does not say is this project's choice: what hides a base, betas, weight
decay, warm-up, clipping, window.
large: 24 x 2048 with 16 heads (1.2 billion parameters), to show that the sharding carries it.

--config.model.kind=hyena --config.model.cls=False: Hyena in the transformer's place; over single bases as HyenaDNA, but
seeing both sides, or over any other tokenizer (docs/pretraining.md).
"""

from ml_collections import config_dict


def get_config(preset: str = "base") -> config_dict.ConfigDict:
    c = config_dict.create(
        task="mcm",
        seed=0,
        tokenizer="",  # a directory that stage 1 exported
        init_from="",  # an export, or a shipped model, whose parameters the run begins with
        data=dict(
            corpus="",  # a directory made by `vqdna corpus`; empty: the bundled genomes
            window_bp=512,
            global_batch=2048,  # windows per step, over all devices
            max_n_share=0.0,  # windows with a larger share of N are skipped
            temperature=1.0,  # species are drawn in proportion to their windows ** (1 / temperature)
            species_weights=dict(),  # or by these weights, species: weight
        ),
        masking=dict(
            kind="bases",  # codes (the paper's), code_spans, bases, base_spans; "codes+base_spans" mixes windows
            rate=0.25,  # of the codes
            span=16,  # codes a span
        ),
        base_weight=1.0,  # of the loss of the head that names bases; 0: the paper's objective
        model=dict(
            kind="transformer",  # or hyena
            layers=12,
            width=768,
            heads=12,
            hidden=3072,
            activation="gelu",  # or geglu
            window=0,  # codes seen on both sides; 0: all
            cls=True,
            rope_base=10000.0,
            causal=False,  # of hyena alone
            dtype="bfloat16",
        ),
        compute=dict(
            layers="unrolled",  # or scanned
            remat="none",  # dots, full
            attention="auto",  # splash on a TPU, cudnn on a GPU, cpu on a CPU, else xla
        ),
        optimizer=dict(
            learning_rate=5e-4,
            warmup_steps=10_000,
            final_fraction=0.0,
            b1=0.9,
            b2=0.98,
            weight_decay=0.01,
            clip_norm=1.0,
            skip_above=10.0,  # times the running mean of the gradient norm; 0: no step is skipped
        ),
        train=dict(
            total_epochs=0.0,
            total_steps=500_000,  # or total_epochs
            microbatches=1,  # parts of the global batch, one after the other: more when it does not fit
            params_ema_decay=0.0,  # of averaged parameters for evaluation and export; 0: none
            log_every_steps=10,
            checkpoint_every_steps=1000,
            keep_checkpoints=3,
            timeout_s=600.0,  # no sign of life from a step for so long ends the process with its stacks, exit code 46
        ),
        eval=dict(
            every_steps=5000,
            windows=2048,
            batch=256,
            probe="",  # a directory of labelled sets (GUE layout) for linear probes at the end
            probe_rows=2000,
        ),
        mesh=dict(data=-1, fsdp=1, tensor=1, context=1),  # -1: all devices that are left
    )
    if preset == "tiny":
        c.data.update(window_bp=256, global_batch=16)
        c.model.update(layers=4, width=128, heads=4, hidden=512, dtype="float32")
        c.optimizer.update(learning_rate=1e-3, warmup_steps=100)
        c.train.update(total_steps=800, checkpoint_every_steps=200)
        c.eval.update(every_steps=400, windows=1024, batch=64)
    elif preset == "mini":
        c.data.update(window_bp=512, global_batch=16)
        c.model.update(layers=4, width=192, heads=6, hidden=768, dtype="float32")
        c.optimizer.update(learning_rate=1e-3, warmup_steps=300)
        c.train.update(total_steps=3200, checkpoint_every_steps=200)
        c.eval.update(every_steps=1000, windows=1024, batch=64)
    elif preset == "small":
        c.data.update(window_bp=512, global_batch=128)
        c.model.update(layers=8, width=512, heads=8, hidden=2048)
        c.optimizer.update(learning_rate=8e-4, warmup_steps=300)
        c.train.update(total_steps=2400, checkpoint_every_steps=1000)
        c.eval.update(every_steps=1000, windows=1024)
    elif preset == "large":
        c.model.update(layers=24, width=2048, heads=16, hidden=8192)
        c.optimizer.update(learning_rate=2e-4)
    elif preset != "base":
        raise ValueError(f"preset {preset!r}: expected tiny, mini, small, base or large")
    return c

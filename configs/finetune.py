"""Stage 3: fine-tuning of a pretrained model on labelled sequences.

    python -m vqdna_jax.main --config=configs/finetune.py:tiny --workdir=runs/tf0 \
        --config.pretrained=runs/mcm/export --config.data.labelled=GUE/tf/0

data.labelled is a folder of train.csv, dev.csv and test.csv (`sequence,label`), or one CSV, which is split 80/10/10.
The best parameters on dev are kept, and scored once on test.
base (the default): DNABERT-2's protocol for GUE, batch 32, three epochs, evaluation every 200 steps, warm-up of 50
steps and a linear decay, with LoRA of rank 8 on the attention projections; `vqdna benchmark` sets epochs by data set.
The learning rate is this project's choice, by the width of the base. tiny: evaluates more often, for small sets.
"""

from ml_collections import config_dict


def get_config(preset: str = "base") -> config_dict.ConfigDict:
    c = config_dict.create(
        task="finetune",
        seed=0,
        pretrained="",  # a directory that stage 2 exported
        data=dict(
            labelled="",  # a folder of train.csv, dev.csv, test.csv, or one CSV
            kind="auto",  # or classification, multilabel, regression
            label_names=(),  # names of the labels 0, 1, ...
            class_weights="none",  # or balanced
            strands="auto",  # by dev; both: predictions are the same for a sequence and its reverse complement; one
            length_warmup_bp=0,  # as HyenaDNA: stretches of so many bases, twice as many in each epoch, then all
            long="refuse",  # sequences longer than the context: refuse, or window (features are averaged)
            global_batch=32,
            train_rows=0,  # at most so many, each label with its share; 0: all
            dev_rows=0,
            test_rows=0,
        ),
        tuning=dict(
            method="lora",  # or full, head
            rank=8,
            alpha=16.0,
            dropout=0.05,
            targets="q|k|v|out",  # a regular expression over q, k, v, out, up, down
        ),
        head=dict(
            pool="auto",  # the readout whose linear probe is best on dev; or mean, words, segments:8, positions:8, ...
            align="start",  # of sequences of unequal lengths, for positions:N
            mlp=False,  # True: one hidden layer beside the linear map
            dropout=0.1,
        ),
        compute=dict(layers="unrolled", remat="none", attention="auto"),
        optimizer=dict(
            learning_rate=0.0,  # by tuning.method and the width of the base
            warmup_steps=50,
            decay="linear",
            final_fraction=0.0,
            b1=0.9,
            b2=0.999,
            weight_decay=0.01,
            clip_norm=1.0,
            skip_above=0.0,
            head_rate=0.1,  # of the learning rate: the head starts from a linear probe
        ),
        train=dict(
            total_epochs=3.0,
            total_steps=0,  # instead of total_epochs
            params_ema_decay=0.99,  # of averaged parameters for evaluation and export; 0: none
            patience=0,  # evaluations without a better dev score before the run ends; 0: it goes to its end
            retries=2,  # with another seed, if it predicts one class
            log_every_steps=20,
            checkpoint_every_steps=500,
            keep_checkpoints=2,
            timeout_s=600.0,  # no sign of life from a step for so long ends the process with its stacks, exit code 46
        ),
        eval=dict(every_steps=200, batch=256),
        mesh=dict(data=-1, fsdp=1, tensor=1, context=1),  # -1: all devices that are left
    )
    if preset == "tiny":
        c.eval.every_steps = 100
    elif preset != "base":
        raise ValueError(f"preset {preset!r}: expected tiny or base")
    return c

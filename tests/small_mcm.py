"""A masked-code run of seconds on the bundled genomes, over a tokenizer of random weights."""

import pathlib

from tiny_tokenizer import save_tiny

from configs import mcm

STEPS = 8


def small_config(directory: pathlib.Path, bases_per_code: int = 1):
    """`directory` gets the tokenizer, unless it has one."""
    tokenizer = directory / f"tokenizer_{bases_per_code}"
    if not tokenizer.exists():
        save_tiny(tokenizer, "hrq", bases_per_code)
    c = mcm.get_config("tiny")
    c.tokenizer = str(tokenizer)
    c.data.update(window_bp=64 * bases_per_code, global_batch=8)
    c.model.update(layers=2, width=16, heads=2, hidden=32)
    c.optimizer.warmup_steps = 2
    c.train.update(total_steps=STEPS, log_every_steps=1, checkpoint_every_steps=3)
    c.eval.update(every_steps=5, windows=64, batch=32)
    return c

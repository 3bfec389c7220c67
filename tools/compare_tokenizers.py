"""Tokenizers under one equal budget: the same transformer, corpus, steps and fine-tuning for each, and controls.

    python tools/compare_tokenizers.py --corpus=CORPUS --data=GUE --budget=hours --out=runs/tokenizers

the poster's six systems alone: --tokenizers=3-mer,6-mer,BPE,Hyena,VQVAE-1,HRQ-1 --methods=head,lora,full --seeds=3

One-hot (a base a token), the same with Hyena, of both sides, in the transformer's place (HyenaDNA), overlapping 3-mers
(DNABERT), 6-mers side by side (NT), byte pairs (DNABERT-2), VQVAE and HRQ; each with its untrained twin, and linear
models of k-mer counts and of bases by position. Stopped, it goes on where it was; with --shard=0/2 and --shard=1/2 two
processes share the benchmark. Ends with a table and a page.
"""

import argparse
import dataclasses
import pathlib
import subprocess
import sys

from vqdna_jax.benchmark import runner
from vqdna_jax.benchmark.command import rows_of, shard_of
from vqdna_jax.benchmark.jobs import Plan
from vqdna_jax.benchmark.report import publish
from vqdna_jax.benchmark.untrained import save_untrained
from vqdna_jax.errors import report_and_exit
from vqdna_jax.genome.build.bundled import bundled_corpus
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.tokenizers.kmers import Kmers, OneHot, OverlappingKmers
from vqdna_jax.tokenizers.train_bpe import train_bpe


@dataclasses.dataclass(frozen=True)
class Budget:
    """Equal for all tokenizers. rows: of training, dev and test of each set, the same draw for all."""

    preset: str  # of configs/hrq.py, vqvae.py and mcm.py
    vocabulary: dict[str, object]  # stage 1, learned tokenizers only
    pretraining: dict[str, object]  # stage 2
    finetuning: dict[str, object]  # stage 3, preset "tiny"
    byte_pairs: int = 4096
    seeds: int = 3


def steps(total: int, **rest) -> dict[str, object]:
    return {"train.total_steps": total, "train.total_epochs": 0.0} | rest


def rows(train: int, dev: int, test: int) -> dict[str, object]:
    return {"data.train_rows": train, "data.dev_rows": dev, "data.test_rows": test}


_TINY_WINDOWS = {"data.window_bp": 512, "data.global_batch": 16}
_HOURS = Budget(
    "tiny",
    steps(1200, **{"model.code_size": 512, "data.global_batch": 64, "eval.every_steps": 600}),
    steps(1500, **_TINY_WINDOWS | {"eval.every_steps": 750, "train.checkpoint_every_steps": 500}),
    steps(60, **rows(600, 200, 500) | {"eval.every_steps": 20, "optimizer.warmup_steps": 10}),
)
_OF_AN_EVENING = steps(600, **{"eval.every_steps": 600, "train.checkpoint_every_steps": 300})
BUDGETS = {
    "minutes": Budget(
        "tiny",
        steps(20, **{"model.code_size": 64, "eval.windows": 64}),
        steps(20, **_TINY_WINDOWS | {"model.layers": 2, "model.width": 32, "model.hidden": 64, "eval.windows": 64}),
        steps(10, **rows(64, 64, 64) | {"eval.every_steps": 5}),
        byte_pairs=256,
        seeds=2,
    ),
    "hours": _HOURS,
    "evening": dataclasses.replace(_HOURS, pretraining=_HOURS.pretraining | _OF_AN_EVENING),  # for a code a base, too
    "gpu": Budget(
        "base",
        steps(3000, **{"data.global_batch": 256, "eval.every_steps": 1000}),
        steps(
            8000,
            **{
                "data.window_bp": 512,
                "data.global_batch": 256,
                "optimizer.warmup_steps": 500,
                "model.layers": 6,
                "model.width": 512,
                "model.heads": 8,
                "model.hidden": 2048,
                "eval.every_steps": 4000,
            },
        ),
        steps(600, **rows(6000, 1000, 1000) | {"eval.every_steps": 100, "optimizer.learning_rate": 5e-4}),
    ),
}
FIXED = {
    "one-hot": OneHot(),
    "3-mer": OverlappingKmers(3),
    "6-mer": Kmers(6),
    "BPE": None,  # trained on the corpus
}
NETWORKS = {  # another than the transformer: its tokenizer, and what stage 2 has other
    "Hyena": ("one-hot", {"model.kind": "hyena", "model.cls": False}),
}
LEARNED = ("vqvae", "hrq")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=pathlib.Path, default=None, help="from `vqdna corpus`; the bundled genomes")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="a folder of GUE sets")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/tokenizers"))
    parser.add_argument("--budget", choices=BUDGETS, default="hours")
    parser.add_argument("--seeds", type=int, default=0, help="of each model on each set; as the budget says")
    parser.add_argument(
        "--tokenizers",
        default="one-hot,Hyena,3-mer,6-mer,BPE,VQVAE-1,HRQ-1,VQVAE-4,HRQ-4",
        help="learned ones with their bases per code",
    )
    parser.add_argument("--tasks", default="", help="names of sets; all that are found")
    parser.add_argument("--methods", default="", help="of tuning: head,lora,full, each a row; lora")
    parser.add_argument("--shard", default="0/1", help="i/n: do every n-th cell of the benchmark from the i-th on")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the fine-tuning, after the budget's")
    arguments = parser.parse_args()
    with report_and_exit():
        sys.exit(compare(arguments))


def compare(arguments) -> int:
    budget, out = BUDGETS[arguments.budget], arguments.out
    models = {}
    for name in arguments.tokenizers.split(","):
        of, other = NETWORKS.get(name, (name, {}))
        models[name] = pretrain(name, tokenizer(of, arguments, budget), other, arguments, budget)
        save_untrained(models[name], out / "untrained" / name)
    table, own = rows_of(models, [method for method in arguments.methods.split(",") if method], out / "untrained")
    settings = [f"{key}={value}" for key, value in budget.finetuning.items()] + arguments.set
    shard = shard_of(arguments.shard)
    tasks = [task for task in arguments.tasks.split(",") if task]
    seeds = arguments.seeds or budget.seeds
    plan = Plan(arguments.data, table, out / "benchmark", tasks, seeds, "tiny", settings, shard, own=own)
    code = runner.run(plan)
    if not code:
        facts = {"pretraining": text_of(budget.pretraining), "fine-tuning": " ".join(settings)}
        facts |= {"learned tokenizers": text_of(budget.vocabulary), "corpus": described(corpus_of(arguments))}
        page = publish.publish(out / "benchmark", " ".join(["python", *sys.argv]), facts)
        print((out / "benchmark/table.md").read_text())
        print(f"page: {page}")
    return code


def tokenizer(name: str, arguments, budget: Budget) -> pathlib.Path:
    """The directory of a tokenizer, made or trained unless it is there."""
    directory = arguments.out / "tokenizers" / name
    if name in FIXED:
        if not (directory / "config.json").exists():
            made = FIXED[name] or train_bpe(corpus_of(arguments), budget.byte_pairs)
            made.save(directory)
        return directory
    quantizer, per_code = name.lower().split("-")
    settings = budget.vocabulary | {"model.bases_per_code": int(per_code), "hidden_share": 0.15}
    train(f"{quantizer}.py:{budget.preset}", directory, settings, arguments)
    return directory / "export"


def pretrain(
    name: str, tokenizer_dir: pathlib.Path, other: dict[str, object], arguments, budget: Budget
) -> pathlib.Path:
    workdir = arguments.out / "pretrained" / name
    train(f"mcm.py:{budget.preset}", workdir, budget.pretraining | other | {"tokenizer": tokenizer_dir}, arguments)
    return workdir / "export"


def train(config: str, workdir: pathlib.Path, settings: dict[str, object], arguments) -> None:
    """One run of the trainer, unless it is finished."""
    if (workdir / "result.json").exists():
        return
    settings = settings | ({"data.corpus": arguments.corpus} if arguments.corpus else {})
    command = [sys.executable, "-m", "vqdna_jax.main", f"--config=configs/{config}", f"--workdir={workdir}"]
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    print(" ".join(command[1:]), file=sys.stderr, flush=True)
    code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    if code:
        sys.exit(code)


def corpus_of(arguments):
    return open_corpus(arguments.corpus or bundled_corpus())


def described(corpus) -> str:
    bases = sum(entry["splits"]["train"]["bases"] for entry in corpus.manifest["species"])
    return f"{bases / 1e6:.1f} Mb of {len(corpus.species)} species for training, digest {corpus.digest[:12]}"


def text_of(settings: dict[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


if __name__ == "__main__":
    main()

"""Pretrains small models that differ in what they mask, and prints what each learned: the leak, honest bits, probes.

    python tools/compare_masking.py --steps 400 --probe ../GUE

Every cell is one run of `vqdna_jax.main` over a tokenizer that the cells of its kind share, each in its own workdir
under --out: a comparison that was stopped goes on where it stopped. All see 256 codes per window. Probes are optional:
--probe names a folder of labelled sets in the GUE layout, of which only train and dev are read.
"""

import argparse
import json
import pathlib
import subprocess
import sys

CODES = 256  # a window
# (bases per code, share of the bases hidden from the tokenizer in its training, masking)
CELLS = (
    (1, 0.15, "codes"),
    (1, 0.15, "bases"),
    (1, 0.15, "base_spans"),
    (1, 0.15, "codes+bases"),
    (1, 0.0, "bases"),
    (4, 0.15, "codes"),
    (4, 0.15, "bases"),
    (4, 0.15, "base_spans"),
    (8, 0.15, "codes"),
    (8, 0.15, "bases"),
)


def train(config: str, workdir: pathlib.Path, settings: dict) -> dict:
    """Runs `vqdna_jax.main`, or reads what a finished run found."""
    command = [sys.executable, "-m", "vqdna_jax.main", f"--config=configs/{config}:tiny", f"--workdir={workdir}"]
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    if not (workdir / "result.json").exists():
        print(" ".join(command[1:]), file=sys.stderr, flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((workdir / "result.json").read_text())


def run(bases_per_code: int, hidden_share: float, kind: str, arguments) -> dict:
    corpus = {"data.corpus": arguments.corpus} if arguments.corpus else {}
    tokenizer = arguments.out / f"tokenizer-r{bases_per_code}-h{hidden_share}"
    vocabulary = {"model.bases_per_code": bases_per_code, "hidden_share": hidden_share}
    vocabulary |= {"data.global_batch": 16 * bases_per_code, "train.total_steps": arguments.tokenizer_steps}
    train("hrq.py", tokenizer, vocabulary | corpus)
    settings = {
        "tokenizer": tokenizer / "export",
        "data.window_bp": CODES * bases_per_code,
        "masking.kind": kind,
        "train.total_steps": arguments.steps,
        "eval.every_steps": arguments.steps,
        "eval.windows": arguments.windows,
        "eval.probe": arguments.probe,
        "eval.probe_rows": arguments.probe_rows,
    }
    name = f"mcm-r{bases_per_code}-h{hidden_share}-{kind}-s{arguments.steps}"
    result = train("mcm.py", arguments.out / name, settings | corpus)
    return result | {"bases_per_code": bases_per_code, "hidden_share": hidden_share, "kind": kind}


COLUMNS = {
    "bases per code": lambda row: row["bases_per_code"],
    "hidden from the tokenizer in stage 1": lambda row: f"{row['hidden_share']:.0%}",
    "masking": lambda row: row["kind"],
    "masked codes named %": lambda row: " / ".join(f"{100 * row[f'code_{n}_accuracy']:.1f}" for n in (1, 2)),
    "bits per masked base, as trained": lambda row: f"{row['base_bits_as_trained']:.3f}",
    "bits per hidden base": lambda row: f"{row['masked_base_bits']:.3f}",
    "order 0 / Markov 11 / context 5+5": lambda row: " / ".join(
        f"{row[f'{name}_bits']:.3f}" for name in ("order0", "markov11", "context55")
    ),
    "probe MCC % (untrained)": lambda row: (
        f"{100 * row['probe_mean_mcc']:.1f} ({100 * row['probe_mean_untrained_mcc']:.1f})"
        if "probe_mean_mcc" in row
        else ""
    ),
}


def controls(row: dict) -> str:
    """What the probes score without any network, the same for every cell."""
    kinds = ("4mers", "5mers", "6mers", "one_hot")
    return ", ".join(f"{kind} {100 * row[f'probe_mean_{kind}_mcc']:.1f}" for kind in kinds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="pretraining steps per cell")
    parser.add_argument("--tokenizer-steps", type=int, default=300)
    parser.add_argument("--windows", type=int, default=512, help="held-out windows")
    parser.add_argument("--corpus", default="", help="a directory made by `vqdna corpus`; the bundled genomes else")
    parser.add_argument("--probe", default="", help="a folder of labelled sets")
    parser.add_argument("--probe-rows", type=int, default=2000, help="of a set, for training and for dev")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of cells, from 0")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/masking"))
    arguments = parser.parse_args()
    chosen = CELLS if arguments.only is None else [CELLS[i] for i in arguments.only]
    rows = [run(per_code, hidden_share, kind, arguments) for per_code, hidden_share, kind in chosen]
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for row in rows:
        print("| " + " | ".join(str(of(row)) for of in COLUMNS.values()) + " |")
    if arguments.probe:
        print(f"\nProbe controls, mean MCC %: {controls(rows[-1])}")


if __name__ == "__main__":
    main()

"""Trains grids of small vocabularies and prints their tables: what size, rate and denoising do to the codes.

    python tools/ablate_vocab.py sizes     VQVAE and HRQ over K at one base per code, beside the paper's ablation
    python tools/ablate_vocab.py rates     over bases_per_code and K: rate against distortion, with a plot
    python tools/ablate_vocab.py denoise   a share of the input bases hidden
    python tools/ablate_vocab.py collapse  the EMA decay and the revival of dead codes

Every cell is one run of `vqdna_jax.main`, preset tiny, in its own workdir under --out: a grid that was stopped goes on
where it stopped. The batch grows with bases_per_code, so that every run sees as many codes per step.
"""

import argparse
import json
import pathlib
import subprocess
import sys

TINY_BATCH = 16
# Published reconstruction accuracy (%), paper Table "code size": (VQVAE, HRQ).
PAPER = {128: (98.2, 98.4), 256: (98.8, 99.1), 512: (99.5, 99.6), 1024: (99.6, 99.8)}
QUANTIZERS = ("vqvae", "hrq")
RATES = {128: (1, 2, 4, 8, 16), 512: (2, 4, 8, 16)}  # bases per code; K=512 at one base per code is among the sizes


def cell(quantizer="hrq", code_size=128, bases_per_code=1, hidden_share=0.0, ema_decay=0.9, revive_below=0.03) -> dict:
    return locals()


def grids() -> dict[str, list[dict]]:
    return {
        "sizes": [cell(q, k) for k in PAPER for q in QUANTIZERS],
        "rates": [cell(q, k, r) for k, rates in RATES.items() for r in rates for q in QUANTIZERS],
        "denoise": [
            cell(bases_per_code=r, hidden_share=share)
            for r, share in ((1, 0.0), (1, 0.15), (1, 0.3), (4, 0.0), (4, 0.3))
        ],
        "collapse": [cell(ema_decay=decay, revive_below=below) for decay in (0.99, 0.9) for below in (0.0, 0.03)],
    }


def run(cell: dict, steps: int, out: pathlib.Path) -> dict:
    """Trains one cell, or reads its finished result."""
    name = "{quantizer}-k{code_size}-r{bases_per_code}-h{hidden_share}-d{ema_decay}-b{revive_below}".format(**cell)
    workdir = out / f"{name}-s{steps}"
    settings = {
        "model.code_size": cell["code_size"],
        "model.bases_per_code": cell["bases_per_code"],
        "hidden_share": cell["hidden_share"],
        "codebook.ema_decay": cell["ema_decay"],
        "codebook.revive_below": cell["revive_below"],
        "data.global_batch": TINY_BATCH * cell["bases_per_code"],
        "train.total_steps": steps,
        "eval.every_steps": steps,
    }
    config = f"--config=configs/{cell['quantizer']}.py:tiny"
    command = [sys.executable, "-m", "vqdna_jax.main", config, f"--workdir={workdir}"]
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    if not (workdir / "result.json").exists():
        print(" ".join(command[1:]), file=sys.stderr, flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return cell | json.loads((workdir / "result.json").read_text())


def level_cells(row: dict, pattern: str) -> str:
    """One number per level, joined by a slash."""
    levels = [n for n in (1, 2) if f"codebook_{n}_size" in row]
    return " / ".join(pattern.format(**{key: row[f"codebook_{n}_{key}"] for key in LEVEL_KEYS}) for n in levels)


LEVEL_KEYS = (
    "size",
    "utilisation",
    "perplexity",
    "best_kmer_k",
    "best_kmer_explained_share",
    "strand_consistency",
    "changed_by_substitution",
    "base_purity",
)
COLUMNS = {
    "model": lambda row: row["quantizer"].upper(),
    "K": lambda row: row["code_size"],
    "codes": lambda row: level_cells(row, "{size}"),
    "bases per code": lambda row: row["bases_per_code"],
    "hidden": lambda row: f"{row['hidden_share']:.0%}",
    "EMA decay": lambda row: row["ema_decay"],
    "revival": lambda row: f"under {row['revive_below']:.0%} of the mean count" if row["revive_below"] else "none",
    "reconstruction %": lambda row: f"{100 * row['reconstruction_accuracy']:.2f}",
    "paper %": lambda row: PAPER[row["code_size"]][QUANTIZERS.index(row["quantizer"])],
    "bits per base": lambda row: f"{row['code_bits_per_base']:.2f}",
    "used %": lambda row: level_cells(row, "{utilisation:.1%}").replace("%", ""),
    "perplexity": lambda row: level_cells(row, "{perplexity:.0f}"),
    "k-mer that explains most": lambda row: level_cells(row, "{best_kmer_k}-mer {best_kmer_explained_share:.0%}"),
    "codes a substitution changes": lambda row: level_cells(row, "{changed_by_substitution:.1f}"),
    "strand consistency %": lambda row: level_cells(row, "{strand_consistency:.0%}").replace("%", ""),
    "hidden base %": lambda row: f"{100 * row['hidden_base_accuracy']:.1f}",
    "species probe % (untrained)": lambda row: (
        f"{100 * row['probe_species_accuracy']:.1f} ({100 * row['probe_species_untrained_accuracy']:.1f})"
    ),
}
SHOWN = {
    "sizes": [
        name for name in COLUMNS if name not in ("bases per code", "hidden", "hidden base %", "EMA decay", "revival")
    ],
    "rates": [name for name in COLUMNS if name not in ("hidden", "paper %", "hidden base %", "EMA decay", "revival")],
    "denoise": [name for name in COLUMNS if name not in ("model", "K", "paper %", "EMA decay", "revival")],
    "collapse": ["EMA decay", "revival", "codes", "reconstruction %", "used %", "perplexity"],
}


def table(rows: list[dict], columns: list[str]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(COLUMNS[name](row)) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


def controls(row: dict) -> str:
    """What the probe scores without any network, the same for every cell."""
    named = {
        "4-mer counts": "4mers_accuracy",
        "commonest species": "majority",
    }
    return "; ".join(f"{name} {100 * row[f'probe_species_{key}']:.1f} %" for name, key in named.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", choices=grids())
    parser.add_argument("--steps", type=int, default=400, help="training steps per cell")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/ablation"))
    arguments = parser.parse_args()
    rows = [run(cell, arguments.steps, arguments.out) for cell in grids()[arguments.grid]]
    print(table(rows, SHOWN[arguments.grid]))
    print(f"\nSpecies probe, controls: {controls(rows[-1])}")
    if arguments.grid == "rates":
        from vqdna_jax.evaluation.plots import plot_rate_distortion

        for row in rows:
            row["kind"] = f"{row['quantizer'].upper()}, K={row['code_size']}"
            row["bits_per_base"] = row["code_bits_per_base"]
        plot_rate_distortion(rows, arguments.out / "rate_distortion.png")
        print(f"plot: {arguments.out / 'rate_distortion.png'}")


if __name__ == "__main__":
    main()

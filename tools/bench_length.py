"""Time and memory of one sequence on one device, as it grows: tokenizer, transformer and heads.

    python tools/bench_length.py [--lengths=32768,262144,1048576] [--window=CODES] [--step] [--json=FILE]

Stage 2 with random weights, 16 bases a code, on a window of the bundled genomes: the scores of masked codes, or with
--step the gradient of their loss too, layers made again in the backward pass. Each length is a process of its own,
whose peak memory less what it had before the program ran is told; times are of one run after the first.
"""

import argparse
import json
import multiprocessing
import resource
import time

import jax

from vqdna_jax import partition
from vqdna_jax.genome.build.bundled import bundled_corpus
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.genome.windows import Windows, evaluation_windows
from vqdna_jax.models.attention import best_kernel
from vqdna_jax.models.tokenizer import Encoder, TokenizerConfig
from vqdna_jax.models.transformer import Compute, TransformerConfig
from vqdna_jax.tasks.masked_codes import FrozenTokenizer, MaskedCodes
from vqdna_jax.tasks.masking import Masking

TOKENIZER = TokenizerConfig("hrq", 256, 16, width=64, blocks=4, stem_channels=32, dtype="float32")
MIB = 2**20


def task_of(window: int, codes: int) -> MaskedCodes:
    model = TransformerConfig(2, 64, 2, 128, window=window, dtype="float32")
    compute = Compute("scanned", "full", best_kernel(jax.default_backend(), codes, window, model.dtype))
    return MaskedCodes(TOKENIZER, model, compute, Masking("codes"), 1.0)


def measure(length: int, window: int, step: bool) -> dict[str, float]:
    task, mesh, key = task_of(window, length // TOKENIZER.bases_per_code), partition.local_mesh(), jax.random.key(0)

    def init(batch: Windows):
        vectors = (jax.random.normal(key, (size, TOKENIZER.width)) for size in TOKENIZER.codebook_sizes)
        frozen = FrozenTokenizer(Encoder(TOKENIZER).init(key, batch.bases_BxS[:, :64])["params"], tuple(vectors))
        return frozen, task.init_params(frozen, Windows(batch.bases_BxS[:, :64]), key)

    def scores(params, frozen, batch: Windows):
        return task.scores(params, frozen, task.prepare(batch, key))

    def gradient(params, frozen, batch: Windows):
        return jax.value_and_grad(task.loss, has_aux=True)(params, (), frozen, task.prepare(batch, key), key)

    with jax.set_mesh(mesh):
        rows = evaluation_windows(open_corpus(bundled_corpus()), "train", length, 1)
        batch = partition.batch_to_devices(Windows(rows.bases_BxS[:1]), mesh, 1)
        frozen, params = jax.jit(init)(batch)
        program = jax.jit(gradient if step else scores).lower(params, frozen, batch).compile()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        jax.block_until_ready(program(params, frozen, batch))
        peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        jax.block_until_ready(program(params, frozen, batch))
        seconds = time.perf_counter() - start
    of_program = program.memory_analysis().temp_size_in_bytes / MIB
    return {
        "bases": length,
        "codes": length // TOKENIZER.bases_per_code,
        "seconds": seconds,
        "peak_mib": peak / 1024,
        "more_mib": (peak - before) / 1024,
        "program_mib": of_program,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="32768,262144,1048576")
    parser.add_argument("--window", type=int, default=0, help="codes that a code sees on both sides; 0: all")
    parser.add_argument("--step", action="store_true", help="with the gradient")
    parser.add_argument("--json", default="")
    args, rows = parser.parse_args(), []
    context = multiprocessing.get_context("spawn")
    for length in map(int, args.lengths.split(",")):
        with context.Pool(1) as pool:
            rows.append(pool.apply(measure, (length, args.window, args.step)))
        print("  ".join(f"{name} {value:,.6g}" for name, value in rows[-1].items()), flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()

"""Words of no fixed length: does it help to learn where they begin? A measured prototype, beside two simple rules.

    python tools/learned_boundaries.py --data=GUE --corpus=CORPUS --steps=1500

One network three times, the same windows and steps: an encoder of bases (8 to each side), chunks, one code of K a
chunk, a decoder that is told the chunks and rebuilds all bases, some of which were hidden. A chunk begins
    every    at every fifth base,
    minima   where a fixed hash of the four bases around is the smallest of five places: by content, not learned,
    learned  where neighbouring vectors differ (dynamic chunking of H-Net, arXiv 2507.07955), one base in five by
             its ratio loss; gradients reach the choice through the smoothing between chunks.
Judged on dev and on held-out windows as by compare_words.py; test is not read. f32 throughout.
"""

import argparse
import dataclasses
import functools
import pathlib
import sys
import time

import compare_words as bags
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from scipy import sparse

from vqdna_jax.errors import report_and_exit
from vqdna_jax.evaluation import code_statistics as statistics
from vqdna_jax.evaluation import probes
from vqdna_jax.genome.alphabet import N
from vqdna_jax.genome.build.bundled import bundled_corpus
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.genome.windows import WindowBatches
from vqdna_jax.models import quantize
from vqdna_jax.models.convolutional import shifted

CODES, WIDTH, LENGTH = 2048, 96, 5  # K, D, bases a chunk in the mean
HIDDEN_SHARE, RATIO_WEIGHT, COMMITMENT_WEIGHT = 0.15, 0.03, 0.25
OFFSETS = 16  # bases of a chunk that are told apart
BATCH, ROWS = 16, 64
BEFORE, AROUND = 8, 24  # bases around a word, of which a k-mer may explain it
MOTIF_BP, MOTIFS, COPIES = 12, 64, 32


class Chunks(flax.struct.PyTreeNode):
    """Of every base [B, S]: whether a chunk begins there and how likely that is, its chunk, and its place in it."""

    start_BxS: Array
    chunk_BxS: Array
    offset_BxS: Array
    probability_BxS: Array


class Blocks(nn.Module):
    @nn.compact
    def __call__(self, x_BxSxD: Array) -> Array:
        for _ in range(2):
            x_BxSxD += nn.Dense(WIDTH)(nn.gelu(nn.Dense(2 * WIDTH)(shifted(nn.LayerNorm()(x_BxSxD), 5))))
        return x_BxSxD


def identity(key: Array, shape: tuple[int, int], dtype: jnp.dtype) -> Array:
    return jnp.eye(*shape, dtype=dtype)


class Words(nn.Module):
    """One network; `rule` says where chunks begin."""

    rule: str

    def setup(self) -> None:
        self.stem, self.encoder, self.decoder = nn.Dense(WIDTH), Blocks(), Blocks()
        same = functools.partial(nn.Dense, WIDTH, use_bias=False, kernel_init=identity)
        self.left, self.right = same(), same()
        self.offset_in, self.offset_out = nn.Embed(OFFSETS, WIDTH), nn.Embed(OFFSETS, WIDTH)
        self.into_chunk, self.of_chunk, self.head = nn.Dense(2 * WIDTH), nn.Dense(WIDTH), nn.Dense(4)

    def chunks(self, bases_BxS: Array) -> tuple[Chunks, Array]:
        """The chunks, and the vectors of as many as half the bases [B, S / 2, D]."""
        x_BxSxD = self.encoder(self.stem(shifted(nn.one_hot(bases_BxS, 4), 9)))
        chunks = chunks_of(self.probability(bases_BxS, x_BxSxD))
        x_BxSxD = nn.gelu(self.into_chunk(x_BxSxD + self.offset_in(chunks.offset_BxS)))
        return chunks, self.of_chunk(summed(x_BxSxD, chunks.chunk_BxS))

    def probability(self, bases_BxS: Array, x_BxSxD: Array) -> Array:
        if self.rule == "every":
            return jnp.broadcast_to(jnp.arange(bases_BxS.shape[1]) % LENGTH == 0, bases_BxS.shape).astype(jnp.float32)
        if self.rule == "minima":
            return minima(bases_BxS).astype(jnp.float32)
        left, right = _unit(self.left(x_BxSxD[:, :-1])), _unit(self.right(x_BxSxD[:, 1:]))
        return jnp.pad((1 - jnp.sum(left * right, axis=-1)) / 2, ((0, 0), (1, 0)), constant_values=1.0)

    def rebuild(self, chunks: Chunks, quantized_BxCxD: Array) -> Array:
        """Logits [B, S, 4]."""
        if self.rule == "learned":
            quantized_BxCxD = smoothed(chunks, quantized_BxCxD)
        x_BxSxD = jnp.take_along_axis(quantized_BxCxD, chunks.chunk_BxS[..., None], axis=1)
        p = chunks.probability_BxS
        confidence = jnp.where(chunks.start_BxS, p, 1 - p)
        x_BxSxD *= (confidence + jax.lax.stop_gradient(1 - confidence))[..., None]
        return self.head(self.decoder(x_BxSxD + self.offset_out(chunks.offset_BxS)))

    def __call__(self, bases_BxS: Array, codes_KxD: Array) -> tuple[Array, Chunks, Array, Array]:
        """(logits [B, S, 4], chunks, codes [B, C], vectors before quantization [B, C, D])."""
        chunks, z_BxCxD = self.chunks(bases_BxS)
        z_TxD = jax.lax.stop_gradient(z_BxCxD).reshape(-1, WIDTH)
        codes_BxC = quantize.nearest(z_TxD, codes_KxD).reshape(z_BxCxD.shape[:2])
        straight = z_BxCxD + jax.lax.stop_gradient(codes_KxD[codes_BxC] - z_BxCxD)
        return self.rebuild(chunks, straight), chunks, codes_BxC, z_BxCxD


def _unit(x: Array) -> Array:
    return x / jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


def minima(bases_BxS: Array) -> Array:
    """Where the hash of the four bases around is below those of two places before and not above those of two after."""
    four_BxSx4 = shifted(bases_BxS[..., None].astype(jnp.int32), 5)[..., 1:]
    hashes = jax.random.uniform(jax.random.key(7), (5**4,))
    hash_BxS = hashes[jnp.sum(four_BxSx4 * 5 ** jnp.arange(4), axis=-1)]
    padded = jnp.pad(hash_BxS, ((0, 0), (2, 2)), constant_values=2.0)
    b2, b1, a1, a2 = (padded[:, i : i + hash_BxS.shape[1]] for i in (0, 1, 3, 4))
    return ((hash_BxS < jnp.minimum(b2, b1)) & (hash_BxS <= jnp.minimum(a1, a2))).at[:, 0].set(True)


def chunks_of(probability_BxS: Array) -> Chunks:
    """A chunk begins where a start is likelier than not; more than there is room for are the last one."""
    start_BxS = (probability_BxS >= 0.5).at[:, 0].set(True)
    length = start_BxS.shape[1]
    place_S = jnp.arange(length)
    began_BxS = jax.lax.cummax(jnp.where(start_BxS, place_S, 0), axis=1)
    chunk_BxS = jnp.minimum(jnp.cumsum(start_BxS, axis=1) - 1, length // 2 - 1)
    return Chunks(start_BxS, chunk_BxS, jnp.minimum(place_S - began_BxS, OFFSETS - 1), probability_BxS)


def summed(x_BxSxD: Array, chunk_BxS: Array) -> Array:
    """[B, S / 2, D]: sums over the bases of a chunk."""
    of_row = functools.partial(jax.ops.segment_sum, num_segments=x_BxSxD.shape[1] // 2)
    return jax.vmap(of_row)(x_BxSxD, chunk_BxS)


def smoothed(chunks: Chunks, x_BxCxD: Array) -> Array:
    """y_c = P_c x_c + (1 - P_c) y_(c - 1), P the probability at the chunk's start."""
    starts = jnp.where(chunks.start_BxS, chunks.probability_BxS, 0.0)
    p_BxCx1 = jnp.minimum(summed(starts[..., None], chunks.chunk_BxS), 1.0).at[:, 0].set(1.0)

    def after(one: tuple[Array, Array], two: tuple[Array, Array]) -> tuple[Array, Array]:
        return one[0] * two[0], one[1] * two[0] + two[1]

    return jax.lax.associative_scan(after, (1 - p_BxCx1, p_BxCx1 * x_BxCxD), axis=1)[1]


def loss(params, network: Words, codebook: quantize.Codebook, bases_BxS: Array, key: Array):
    """(loss, (what the batch says to the codebook, metrics)), where some bases are hidden."""
    hide_key, revive_key = jax.random.split(key)
    hidden_BxS = jax.random.bernoulli(hide_key, HIDDEN_SHARE, bases_BxS.shape)
    seen_BxS = jnp.where(hidden_BxS, jnp.uint8(N), bases_BxS)
    codes_KxD = codebook.codes_KxD()
    logits_BxSx4, chunks, codes_BxC, z_BxCxD = network.apply({"params": params}, seen_BxS, codes_KxD)
    there_BxC = jnp.arange(codes_BxC.shape[1]) <= chunks.chunk_BxS[:, -1:]
    apart_BxC = jnp.mean(jnp.square(z_BxCxD - codes_KxD[codes_BxC]), axis=-1)
    nats_BxS, known_BxS = nats(logits_BxSx4, bases_BxS), bases_BxS < N
    total = jnp.mean(nats_BxS, where=known_BxS) + COMMITMENT_WEIGHT * jnp.mean(apart_BxC, where=there_BxC)
    if network.rule == "learned":
        total += RATIO_WEIGHT * ratio(chunks)
    new = assigned(z_BxCxD, jnp.where(there_BxC, codes_BxC, CODES), revive_key)
    facts = scores(logits_BxSx4, bases_BxS, hidden_BxS) | {"length": 1 / jnp.mean(chunks.start_BxS)}
    return total, (new, facts)


def nats(logits_BxSx4: Array, bases_BxS: Array) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits_BxSx4, jnp.minimum(bases_BxS, 3).astype(jnp.int32))


def scores(logits_BxSx4: Array, bases_BxS: Array, hidden_BxS: Array) -> dict[str, Array]:
    known_BxS = bases_BxS < N
    bits_BxS = nats(logits_BxSx4, bases_BxS) / jnp.log(2)
    right_BxS = jnp.argmax(logits_BxSx4, axis=-1) == bases_BxS
    return {
        "bits a hidden base": jnp.mean(bits_BxS, where=hidden_BxS & known_BxS),
        "rebuilt": jnp.mean(right_BxS, where=~hidden_BxS & known_BxS),
    }


def ratio(chunks: Chunks) -> Array:
    """Least where one base in LENGTH is a start (H-Net's ratio loss)."""
    f, g, n = jnp.mean(chunks.start_BxS), jnp.mean(chunks.probability_BxS), LENGTH
    return n / (n - 1) * ((n - 1) * f * g + (1 - f) * (1 - g))


def assigned(z_BxCxD: Array, codes_BxC: Array, key: Array) -> quantize.Assignments:
    """Chunks that are not there have a code beyond the last: they count nowhere and are not drawn."""
    z_TxD, codes_T = jax.lax.stop_gradient(z_BxCxD).reshape(-1, WIDTH), codes_BxC.ravel()
    drawn_K = jax.random.categorical(key, jnp.where(codes_T < CODES, 0.0, -jnp.inf), shape=(CODES,))
    return quantize.Assignments(*quantize.scattered_sums(CODES, z_TxD, codes_T), z_TxD[drawn_K])


@dataclasses.dataclass(frozen=True)
class Trained:
    network: Words
    params: dict
    codes_KxD: Array

    @functools.cached_property
    def _apply(self):
        return jax.jit(lambda bases_BxS: self.network.apply({"params": self.params}, bases_BxS, self.codes_KxD))

    def logits(self, bases_BxS: np.ndarray) -> Array:
        return jnp.concatenate([self._apply(rows)[0] for rows in in_blocks(bases_BxS)])[: len(bases_BxS)]

    def words(self, bases_BxS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(where words begin bool [B, S], the word of every base int [B, S]); none begins at an unknown base."""
        starts, codes = [], []
        for rows_BxS in in_blocks(bases_BxS):
            _, chunks, codes_BxC, _ = self._apply(rows_BxS)
            starts.append(np.asarray(chunks.start_BxS))
            codes.append(np.take_along_axis(np.asarray(codes_BxC), np.asarray(chunks.chunk_BxS), axis=1))
        start_BxS = np.concatenate(starts)[: len(bases_BxS)] & (bases_BxS < N)
        return start_BxS, np.concatenate(codes)[: len(bases_BxS)]


def in_blocks(bases_BxS: np.ndarray) -> list[np.ndarray]:
    padded = np.pad(bases_BxS, ((0, -len(bases_BxS) % ROWS), (0, 0)), constant_values=N)
    return [padded[i : i + ROWS] for i in range(0, len(padded), ROWS)]


def train(rule: str, batches: WindowBatches, steps: int) -> Trained:
    """After so many steps; a line of progress every hundred."""
    network, key = Words(rule), jax.random.key(0)
    codebook = quantize.Codebook(jnp.ones(CODES), 0.5 * jax.random.normal(key, (CODES, WIDTH)))
    params = network.init(key, jnp.asarray(batches[0].bases_BxS), codebook.codes_KxD())["params"]
    rate = optax.warmup_cosine_decay_schedule(0.0, 2e-3, min(50, steps // 2), steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.01))

    @jax.jit
    def step(params, state, codebook, bases_BxS, key):
        grads, (new, facts) = jax.grad(loss, has_aux=True)(params, network, codebook, bases_BxS, key)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, quantize.ema_update(codebook, new, 0.9, 0.03, 0.5), facts

    state, began = optimizer.init(params), time.time()
    for i in range(steps):
        bases_BxS = jnp.asarray(batches[i].bases_BxS)
        params, state, codebook, facts = step(params, state, codebook, bases_BxS, jax.random.fold_in(key, i))
        if i % 100 == 99 or i + 1 == steps:
            told = "  ".join(f"{name} {float(value):.3f}" for name, value in facts.items())
            left = (time.time() - began) / (i + 1) * (steps - i - 1) / 60
            print(f"{rule} {i + 1}/{steps}  {told}  ETA {left:.1f} min", file=sys.stderr, flush=True)
    return Trained(network, params, codebook.codes_KxD())


def bag(start_BxS: np.ndarray, code_BxS: np.ndarray) -> sparse.csr_array:
    """Counts f32 [B, K] of words, as `Trained.words` has them."""
    return statistics.counted(code_BxS[start_BxS], start_BxS.sum(axis=1), CODES)


def facts(model: Trained, bases_BxS: np.ndarray) -> dict[str, str]:
    start_BxS, code_BxS = model.words(bases_BxS)
    begins = [np.flatnonzero(row) for row in start_BxS]
    lengths = np.concatenate([np.diff(row) for row in begins])
    used = statistics.usage(code_BxS[start_BxS], CODES)
    named = (used["entropy_bits"], statistics.usage(lengths, lengths.max() + 1)["entropy_bits"])
    best = explained(bases_BxS, start_BxS, code_BxS)
    hidden_BxS = np.random.default_rng(0).random(bases_BxS.shape) < 1 / 16
    rebuilt = scores(model.logits(np.where(hidden_BxS, N, bases_BxS).astype(np.uint8)), bases_BxS, hidden_BxS)
    before_BxK = bag(start_BxS, code_BxS)
    changed = {name: f"{bags.lost(before_BxK, bag(*model.words(x))):.1f}" for name, x in bags.edited(bases_BxS).items()}
    tokens, alike = motifs(model, bases_BxS)
    return {
        "bases a word": f"{lengths.mean():.2f} ({np.percentile(lengths, 5):.0f} to {np.percentile(lengths, 95):.0f})",
        "used %": f"{100 * used['utilisation']:.0f}",
        "bits a base, with the lengths": f"{named[0] / lengths.mean():.2f}, {sum(named) / lengths.mean():.2f}",
        "rebuilt %": f"{100 * float(rebuilt['rebuilt']):.1f}",
        "bits a hidden base": f"{float(rebuilt['bits a hidden base']):.3f}",
        "explained by": f"{best['k']}-mer {100 * best['explained_share']:.0f} %",
        "words lost by a substitution": changed["substitution"],
        "by an insertion": changed["insertion"],
        "words in a 12-mer": f"{tokens:.1f}",
        "its copies spelt alike %": f"{100 * alike:.0f}",
    }


def explained(bases_BxS: np.ndarray, start_BxS: np.ndarray, code_BxS: np.ndarray) -> dict:
    """`best_kmer`, each word by itself with the bases around its start."""
    row_M, place_M = np.nonzero(start_BxS)
    inside_M = (place_M >= BEFORE) & (place_M + AROUND - BEFORE <= bases_BxS.shape[1])
    row_M, place_M = row_M[inside_M], place_M[inside_M]
    around_MxW = bases_BxS[row_M[:, None], place_M[:, None] + np.arange(-BEFORE, AROUND - BEFORE)]
    return statistics.best_kmer(code_BxS[row_M, place_M][:, None], around_MxW, AROUND, range(1, 7), CODES, reach=0)


def motifs(model: Trained, bases_BxS: np.ndarray) -> tuple[float, float]:
    """Random 12-mers put into many windows, at any place: words that begin in one, and the share of its copies that
    have the spelling (which words begin where in it) that most have."""
    rng, counts, alike = np.random.default_rng(0), [], []
    for motif in rng.integers(0, 4, (MOTIFS, MOTIF_BP)).astype(np.uint8):
        copies_BxS = bases_BxS[rng.permutation(len(bases_BxS))[:COPIES]].copy()
        inside_BxM = rng.integers(16, bases_BxS.shape[1] - 32, COPIES)[:, None] + np.arange(MOTIF_BP)
        np.put_along_axis(copies_BxS, inside_BxM, motif[None], axis=1)
        start_BxM, code_BxM = (np.take_along_axis(x, inside_BxM, axis=1) for x in model.words(copies_BxS))
        counts.append(start_BxM.sum(axis=1).mean())
        _, of_spelling = np.unique(np.where(start_BxM, code_BxM, -1), axis=0, return_counts=True)
        alike.append(of_spelling.max() / COPIES)
    return float(np.mean(counts)), float(np.mean(alike))


def compare(arguments) -> None:
    corpus = open_corpus(arguments.corpus or bundled_corpus())
    batches = WindowBatches(corpus, "train", bags.WINDOW_BP, BATCH, 0)
    windows_BxS = bags.held_out(corpus)
    sets = bags.chosen(arguments.data, arguments.sets.split(","), arguments.rows)
    scored = bags.kmer_scores(sets)
    described = {}
    for rule in arguments.rules.split(","):
        model = train(rule, batches, arguments.steps)
        described[rule] = facts(model, windows_BxS)
        print(bags.word_table({rule: described[rule]}), file=sys.stderr, flush=True)
        scored[rule] = [
            bags.score(found, bag(*model.words(probes.padded(bags.bases_of(found))))) for found in sets.values()
        ]
    print(bags.score_table(list(sets), scored), bags.word_table(described), sep="\n\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="a folder of GUE sets")
    parser.add_argument("--corpus", default=None, help="from `vqdna corpus`; the bundled genomes")
    parser.add_argument("--sets", default=bags.SETS)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--rules", default="every,minima,learned")
    parser.add_argument("--steps", type=int, default=1500, help="of 16 windows of 256 bases")
    arguments = parser.parse_args()
    with report_and_exit():
        compare(arguments)


if __name__ == "__main__":
    main()

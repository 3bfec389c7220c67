"""Poolings: over the codes that are there, window by window as at once, and the same for all that pool."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refusal
from small_finetune import CONTEXT, ROWS, genome_rows, write_set
from tiny_pretrained import save_tiny_pretrained

import vqdna_jax
from vqdna_jax import partition
from vqdna_jax.evaluation import probes
from vqdna_jax.labels.batches import Shape, fill
from vqdna_jax.models.classifier import Classifier
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.pooling import PAIR_GAP, PAIRS, POOLS, View, pool, without_cls
from vqdna_jax.models.transformer import Compute
from vqdna_jax.tasks.finetune import Finetune, FrozenBase

B, L, D, SIZES = 8, 6, 16, (8, 16)
LENGTHS = np.array([6, 0, 6, 0, 2, 4, 1, 6], np.int32)
H = np.random.default_rng(4).standard_normal((B, L, D), np.float32)
CLS = np.random.default_rng(5).standard_normal((B, D), np.float32)
CODES = np.stack([np.random.default_rng(6).integers(0, size, (B, L)) for size in SIZES], axis=-1)

pytestmark = pytest.mark.usefixtures("one_device")


def view(h, cls, codes, lengths) -> View:
    """Sequences of one window each."""
    h, lengths, at_1xL = jnp.asarray(h), jnp.asarray(lengths), jnp.arange(h.shape[1])[None]
    return View(h, jnp.asarray(cls), jnp.asarray(codes), SIZES, at_1xL < lengths[:, None], at_1xL, lengths)


def by_hand(name: str, h_LxD, cls_D, codes_LxN) -> np.ndarray:
    """Of one sequence; in f64."""
    kind, _, count = name.partition(":")
    if kind == "words":
        counts = [np.bincount(codes_LxN[:, n], minlength=size) for n, size in enumerate(SIZES)]
        return np.log1p(np.concatenate(counts))
    if kind == "pairs":
        pairs = codes_LxN[:-PAIR_GAP, -1] * SIZES[-1] + codes_LxN[PAIR_GAP:, -1]
        return np.log1p(np.bincount(pairs % PAIRS, minlength=PAIRS))
    if not len(h_LxD):
        return np.zeros(D * int(count or 1))
    if kind == "segments":
        size = -(-len(h_LxD) // int(count))
        parts = [h_LxD[start : start + size] for start in range(0, int(count) * size, size)]
        return np.concatenate([part.mean(axis=0) if len(part) else np.zeros(D) for part in parts])
    return {"mean": h_LxD.mean(axis=0), "max": h_LxD.max(axis=0), "cls": cls_D}[kind]


@pytest.mark.parametrize("name", POOLS)
def test_is_over_the_codes_that_are_there(name):
    found = np.asarray(jax.jit(lambda *arrays: pool(name, view(*arrays)))(H, CLS, CODES, LENGTHS))
    assert found.shape[1] == POOLS[name].width(D, SIZES)
    for row, length in enumerate(LENGTHS):
        expected = by_hand(name, H[row, :length], CLS[row], CODES[row, :length])
        np.testing.assert_allclose(found[row], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", POOLS)
def test_a_window_without_codes_gives_gradients_of_zero_not_nan(name):
    def total(h):
        return jnp.sum(pool(name, view(h, CLS, CODES, np.zeros(B, np.int32))))

    assert not np.any(jax.jit(jax.grad(total))(jnp.asarray(H)))


@pytest.mark.parametrize("name", POOLS)
def test_windows_joined_one_by_one_or_in_one_call_are_the_sequence_at_once(name):
    """Of one sequence of B L codes in B windows, each of them kept once; CLS is the mean over windows."""
    how = POOLS[name]
    total, at = jnp.full(B, B * L), jnp.arange(B * L).reshape(B, L)

    def windows(h, cls, codes) -> View:
        return View(h, cls, codes, SIZES, jnp.ones((B, L), bool), at, total)

    joined = np.full(how.width(D, SIZES), how.start)
    for window_P in np.asarray(jax.jit(lambda *arrays: how.window(windows(*arrays)))(H, CLS, CODES)):
        joined = getattr(np, how.join)(joined, window_P)
    assert joined.dtype == np.float64
    expected = by_hand(name, H.reshape(B * L, D), CLS.mean(0), CODES.reshape(B * L, -1))
    if name == "pairs":  # those across the end of a window are left out
        each = [by_hand(name, H[row], CLS[row], CODES[row]) for row in range(B)]
        expected = np.log1p(np.sum(np.expm1(each), axis=0))
    np.testing.assert_allclose(how.finish(joined, B * L, B), expected, rtol=1e-5, atol=1e-6)
    at_once = jax.jit(lambda *arrays: pool(name, windows(*arrays), windows=B))(H, CLS, CODES)
    np.testing.assert_allclose(at_once[0], expected, rtol=1e-5, atol=1e-6)


def test_what_needs_cls_is_told():
    assert [name for name, how in POOLS.items() if how.needs_cls] == ["cls"]
    assert (without_cls("mean+cls+max"), without_cls("mean+max"), without_cls("none")) == ("cls", "", "")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "base"
    save_tiny_pretrained(directory, context=CONTEXT)
    return vqdna_jax.load(directory)


@pytest.fixture(scope="module")
def features(base):
    """Bases [S] of many sequences -> fine-tuning's features [B, P] before its first step, in all pools at once."""
    model = base.pretrained
    pools = "+".join(POOLS)
    network = Classifier(model.transformer, Compute(), 2, model.sizes, pools)
    task = Finetune(network, "classification", "lora", LoraConfig(targets=".*"))
    frozen = FrozenBase(model.vectors_KxE(), model.weights["transformer"])

    @jax.jit
    def of_batch(frozen, batch):
        return task.features(task.init_params(frozen, batch, jax.random.key(0)), frozen, batch)

    def of_bases(bases):
        with jax.set_mesh(model.mesh):
            batch = fill(model.tokenizer.encode(bases), Shape(2, model.length), model.length)
            return np.asarray(of_batch(frozen, partition.batch_to_devices(batch, model.mesh, len(bases))))

    return of_bases


def test_fine_tuning_begins_with_what_embed_gives(base, features):
    """By another program: of the sequences alone or among windows that are not there."""
    bases = [row[:length] for row, length in zip(genome_rows(sum(ROWS.values())), (31, 30, 17, 16, 8, 2, 1))]
    expected = np.concatenate([base.embed(bases, name) for name in POOLS], axis=1)
    np.testing.assert_allclose(features(bases), expected, rtol=1e-5, atol=1e-5)


def test_a_probe_reads_what_fine_tuning_reads(base, features, tmp_path):
    seen = []

    def embed(bases):
        seen.append(np.concatenate([base.embed(bases, name) for name in POOLS], axis=1))
        np.testing.assert_allclose(seen[-1], features(bases), rtol=1e-5, atol=1e-5)
        return seen[-1]

    write_set(tmp_path / "gc")
    found = probes.probe(embed, embed, tmp_path / "gc", 40)
    assert found["probe_gc_mcc"] == found["probe_gc_untrained_mcc"] and [len(x) for x in seen] == [80, 80]


@pytest.mark.parametrize("names", ["mean+words", "segments:8+words", "max+cls+mean", "pairs+max+mean"])
def test_several_are_side_by_side(base, names):
    """Of sequences in one window and in several, whose windows are joined by sums and by maxima."""
    bases = [*genome_rows(8, 100), *(row[:20] for row in genome_rows(8))]
    expected = np.concatenate([base.embed(bases, name) for name in names.split("+")], axis=1)
    np.testing.assert_allclose(base.embed(bases, names), expected, rtol=1e-5, atol=1e-6)
    assert base.pretrained.width(names) == expected.shape[1] and np.ptp(expected) > 0.1


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("median", "'median'; expected mean, "),
        ("mean+median", "'mean+median'; expected mean, "),
        ("mean+none", "expected mean, "),
        ("", "''; expected mean, "),
        ("mean+positions:8", "whose weights configs/finetune.py trains; expected mean, "),
        ("attention", "whose weights configs/finetune.py trains; expected mean, "),
        ("auto", "which is chosen by the labels that configs/finetune.py learns; expected mean, "),
    ],
)
def test_what_embed_does_not_give_names_all_that_it_gives(base, names, says):
    message = refusal(base.embed, "ACGT", names)
    assert says in message and f'{", ".join(POOLS)}, some of these joined by "+", or none' in message

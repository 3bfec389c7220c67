"""Every stage's loss and gradients are the same however many devices share a sequence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_mesh import mesh_of

from configs import mcm
from vqdna_jax import partition, stages
from vqdna_jax.errors import InputError
from vqdna_jax.genome.windows import Windows
from vqdna_jax.labels.batches import LabelledCodes
from vqdna_jax.models.classifier import Classifier
from vqdna_jax.models.hyena_encoder import HyenaEncoderConfig
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.tokenizer import Encoder, TokenizerConfig
from vqdna_jax.models.transformer import Compute, TransformerConfig
from vqdna_jax.stages.masked_codes import masked_codes_task
from vqdna_jax.stages.masked_tokens import masked_tokens_task
from vqdna_jax.tasks.finetune import Finetune, FrozenBase
from vqdna_jax.tasks.masked_codes import FrozenTokenizer, MaskedCodes
from vqdna_jax.tasks.masked_tokens import MaskedTokens
from vqdna_jax.tasks.masking import Masking
from vqdna_jax.tasks.vocabulary import Vocabulary
from vqdna_jax.tokenizers.batches import Layout, Tokens
from vqdna_jax.tokenizers.kmers import Kmers

B, S, R, L = 2, 64, 2, 32
TOKENIZER = TokenizerConfig("hrq", 4, R, width=8, blocks=2, stem_channels=4, dtype="float32")
SIZES = TOKENIZER.codebook_sizes
FULL = TransformerConfig(1, 16, 2, 24, dtype="float32")
WINDOW = TransformerConfig(2, 16, 2, 24, "geglu", window=3, cls=False, dtype="float32")
HYENA = HyenaEncoderConfig(1, 16, 24, slots=40, filter_width=8)
CAUSAL = HyenaEncoderConfig(1, 16, 24, slots=40, filter_width=8, causal=True)
POOLS = "mean+max+cls+segments:4+words+positions:4+attention"
COMPUTE = Compute(attention="cpu")


def masked(model, compute=COMPUTE):
    return MaskedCodes(TOKENIZER, model, compute, Masking("codes+base_spans", span=4), 1.0)


TASKS = {
    "stage 1": Vocabulary(TOKENIZER, 0.5, 0.9, 0.1, 0.5, 0.2),
    "stage 1, codes alone": Vocabulary(
        TokenizerConfig("vqvae", 8, 4, width=8, blocks=2, stem_channels=4, reach=8, dtype="float32"),
        0.5,
        0.9,
        0.1,
        0.5,
        0,
    ),
    "stage 2": masked(FULL),
    "stage 2 in windows, scanned": masked(WINDOW, Compute("scanned", "dots", "xla")),
    "stage 2, hyena": masked(HYENA),
    "stage 2, causal": masked(CAUSAL),
    "tokens": MaskedTokens(FULL, COMPUTE, 20, 8, Masking("codes"), Layout(S, L - 1, 1.0, True)),
    "stage 3": Finetune(
        Classifier(FULL, COMPUTE, 3, SIZES, POOLS, 8, places=L, align="middle"), "classification", "full"
    ),
    "stage 3, factors": Finetune(
        Classifier(HYENA, COMPUTE, 3, SIZES), "classification", "lora", LoraConfig(2, targets=".*")
    ),
}
QUICK = {("stage 1", 4), ("stage 2", 8), ("stage 2, hyena", 4), ("stage 3", 2)}


def given(task):
    """(what of the frozen weights is not made in the step, batch), on the host."""
    rng = np.random.default_rng(0)
    vectors = tuple(rng.standard_normal((size, TOKENIZER.width), np.float32) for size in SIZES)
    if isinstance(task, MaskedTokens):
        return (), Tokens(np.array([L - 1, 12], np.int32), rng.integers(0, 20, (B, L - 1)).astype(np.int32))
    if not isinstance(task, Finetune):
        return vectors, Windows(rng.integers(0, 5, (B, S)).astype(np.uint8))
    length = L - task.network.model.cls
    codes = np.stack([rng.integers(0, size, (B, 2, length)) for size in SIZES], axis=-1).astype(np.uint16)
    total = np.array([length + 9, 11], np.int32)  # in two windows that share codes, and in one that is padded
    lengths = np.array([[length, length], [11, 0]], np.int32)
    return vectors, LabelledCodes(codes, np.array([0, 2], np.int32), lengths, total, np.ones(B, np.float32))


def abstract(task, vectors, batch, key):
    """(frozen weights, parameters, codebooks) before the first step."""
    frozen = ()
    if isinstance(task, MaskedCodes):
        frozen = FrozenTokenizer(Encoder(TOKENIZER).init(key, batch.bases_BxS)["params"], vectors)
    elif isinstance(task, Finetune):
        model, length = task.network.model, batch.codes_BxWxLxN.shape[2]
        codes = jnp.zeros((B, length, len(SIZES), TOKENIZER.width)), jnp.zeros((B, length), bool), jnp.zeros(B, bool)
        frozen = FrozenBase(vectors, model.module(COMPUTE).init(key, *codes)["params"], jnp.ones(3))
    params = task.init_params(frozen, batch, key)
    return frozen, params, task.init_codebooks(params, batch, key)


def noise(shapes):
    """On every number: heads that are zeros hide what is below them. None is negative among counts of codes."""
    rng = np.random.default_rng(1)

    def drawn(path, of):
        x = 0.3 * rng.standard_normal(of.shape, np.float32)
        return np.abs(x) if "counts_K" in str(path) else x

    return jax.tree.map_with_path(drawn, shapes)


@functools.cache
def step_on(shards, task):
    """((loss, (new codebooks, metrics)), gradients)"""
    mesh = mesh_of(data=2 if shards == 4 else 1, context=shards)
    key, (vectors, batch) = jax.random.key(0), given(task)
    shapes = partition.abstract_state(functools.partial(abstract, task), mesh, vectors, batch, key)
    placed = jax.tree.map(lambda x, of: jax.device_put(x, of.sharding), noise(shapes), shapes)

    @jax.jit
    def step(frozen, params, codebooks, batch):
        gradient = jax.value_and_grad(task.loss, has_aux=True)
        return gradient(params, codebooks, frozen, task.prepare(batch, key), key)

    with jax.set_mesh(mesh):
        return jax.device_get(step(*placed, partition.batch_to_devices(batch, mesh, B)))


@pytest.mark.parametrize(
    ("name", "shards"),
    [
        pytest.param(name, shards, marks=() if (name, shards) in QUICK else pytest.mark.slow)
        for name in TASKS
        for shards in (2, 4, 8)
    ],
)
def test_one_step_is_the_same_on_any_number_of_shards(name, shards):
    """On four the batch is split too."""
    expected, found = (step_on(n, TASKS[name]) for n in (1, shards))
    assert np.mean([np.abs(x).max() > 0 for x in jax.tree.leaves(expected[1])]) > 0.7  # of stage 3 not all are trained
    for (path, x), y in zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(y, x, atol=1e-5 * max(1, np.abs(x).max()), err_msg=str(path))


@pytest.mark.parametrize("shards", [3, 128])
@pytest.mark.parametrize("tokens", [False, True], ids=["codes", "tokens"])
def test_a_window_that_devices_cannot_share_is_refused(tokens, shards):
    """Or that has fewer codes than they are, before anything is compiled."""
    config = mcm.get_config("tiny")
    config.data.window_bp, config.mesh.context = S, shards
    settings = stages.read_settings(config)
    with pytest.raises(
        InputError, match=f"^config key mesh.context: found {shards}, expected a divisor of the "
    ) as told:
        if tokens:
            masked_tokens_task(settings, Kmers(2), Layout(S, L - 1, 1.0, False), "cpu")
        else:
            masked_codes_task(settings, TOKENIZER, "cpu")
    assert f" {L} " in str(told.value) and "\n" not in str(told.value)

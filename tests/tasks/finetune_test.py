"""The fine-tuning task: what fills a batch changes nothing, losses are the textbook's, each method trains its own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import sklearn.metrics
from sklearn.utils.class_weight import compute_class_weight
from small_mesh import mesh_of
from tiny_pretrained import random_weights, tiny_transformer

from vqdna_jax import partition
from vqdna_jax.labels.batches import LabelledCodes
from vqdna_jax.labels.sets import LabelledSet, Split
from vqdna_jax.models.classifier import METHODS, Classifier
from vqdna_jax.models.lora import LoraConfig
from vqdna_jax.models.pooling import POOLS
from vqdna_jax.models.transformer import Compute
from vqdna_jax.stages import finetune
from vqdna_jax.tasks.finetune import Finetune, FrozenBase
from vqdna_jax.training.step import init_state, train_step

MODEL, LEVELS, E = tiny_transformer(), (8, 16), 8
B, W, L, V = 8, 2, 6, 3
TOTAL = np.array([12, 6, 8, 1, 11, 4, 2, 7], np.int32)  # codes: of one window, or of two that may share some
LENGTHS = np.stack([np.minimum(TOTAL, L), np.where(TOTAL > L, L, 0)], axis=1).astype(np.int32)
PADDED = (7, 15)  # codes that no sequence has
EVERY = (*(name for name in POOLS if name != "pairs"), "positions:4", "attention")  # which would drown the others
NETWORK = Classifier(MODEL, Compute(), V, LEVELS, "+".join(EVERY), 8, dropout=0.25, places=9, align="middle")
TASK = Finetune(NETWORK, "classification", "lora", LoraConfig(3, 6.0, 0.25, "q|down"))
KINDS = {name: dataclasses.replace(TASK, kind=name) for name in ("classification", "multilabel")}


def with_network(task=TASK, **changes) -> Finetune:
    return dataclasses.replace(task, network=dataclasses.replace(task.network, **changes))


KINDS["regression"] = with_network(dataclasses.replace(TASK, kind="regression"), outputs=1)
pytestmark = pytest.mark.usefixtures("one_device")


@functools.cache
def base() -> FrozenBase:
    """On the host."""
    rng = np.random.default_rng(0)
    vectors = tuple(rng.standard_normal((size, E), np.float32) for size in LEVELS)
    weights = random_weights(MODEL, LEVELS, E, 1, seed=0)["transformer"]
    return FrozenBase(vectors, weights, np.array([0.5, 2.0, 1.25], np.float32))


def rows(kind="classification") -> LabelledCodes:
    """A batch on the host; what is beyond the lengths is PADDED."""
    rng = np.random.default_rng(1)
    codes = np.stack([rng.integers(0, size - 1, (B, W, L)) for size in LEVELS], axis=-1).astype(np.uint16)
    codes[beyond()] = PADDED
    labels = {
        "classification": np.arange(B, dtype=np.int32) % V,
        "multilabel": rng.integers(0, 2, (B, V)).astype(np.float32),
        "regression": rng.standard_normal(B).astype(np.float32),
    }[kind]
    return LabelledCodes(codes, labels, LENGTHS, TOTAL, np.ones(B, np.float32))


def beyond():
    return np.arange(L) >= LENGTHS[..., None]


def frozen(on=None) -> FrozenBase:
    return partition.whole_on(on or mesh_of(), base())


def batch(kind="classification", on=None, **changes) -> LabelledCodes:
    return partition.batch_to_devices(rows(kind).replace(**changes), on or mesh_of(), B)


@functools.cache
def trained(task):
    """Parameters of the task on the host, every one away from its first value."""
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda x: x + 0.3 * rng.standard_normal(x.shape, np.float32), jax.device_get(first(task)))


def first(task):
    return jax.jit(task.init_params)(frozen(), batch(task.kind), jax.random.key(2))


def predict(task, params, batch):
    return predict_on(task, params, frozen(), batch)


@functools.partial(jax.jit, static_argnums=0)
def predict_on(task, params, frozen, batch):
    return task.predict(params, (), frozen, batch)


def gradient(task, params, batch, key=None):
    """((loss, metrics), gradients by params), without dropout if there is no key."""
    return gradient_on(task, params, frozen(), batch, key)


@functools.partial(jax.jit, static_argnums=0)
def gradient_on(task, params, frozen, batch, key):
    still = with_network(dataclasses.replace(task, lora=LoraConfig(3, 6.0, 0.0, "q|down")), dropout=0.0)
    calm = task if key is not None else still

    def loss(params):
        value, (_, metrics) = calm.loss(params, (), frozen, batch, jax.random.key(0) if key is None else key)
        return value, metrics

    return jax.value_and_grad(loss, has_aux=True)(params)


def logits_of(found):
    return np.asarray(found["logits"], np.float64)


close = functools.partial(jax.tree.map, functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6))


class TestPadding:
    def test_what_is_beyond_the_lengths_changes_no_logit(self):
        """To the bit, in all pools at once."""
        expected = predict(TASK, trained(TASK), batch())["logits"]
        for seed in range(3):
            codes = rows().codes_BxWxLxN
            rng = np.random.default_rng(seed)
            codes[beyond()] = np.stack([rng.integers(0, size, beyond().sum()) for size in LEVELS], axis=-1)
            np.testing.assert_array_equal(predict(TASK, trained(TASK), batch(codes_BxWxLxN=codes))["logits"], expected)
        assert np.ptp(expected) > 0.1

    def test_no_gradient_reaches_it(self):
        """By the code vectors: those of PADDED are at no other place."""

        def loss(vectors_KxE, frozen, batch):
            changed = frozen.replace(vectors_KxE=vectors_KxE)
            return TASK.loss(trained(TASK), (), changed, batch, jax.random.key(0))

        found, _ = jax.jit(jax.grad(loss, has_aux=True))(base().vectors_KxE, frozen(), batch())
        for gradient_KxE, padded, codes in zip(found, PADDED, np.moveaxis(rows().codes_BxWxLxN, -1, 0)):
            reached = np.flatnonzero(np.abs(gradient_KxE).sum(axis=1))
            np.testing.assert_array_equal(reached, np.setdiff1d(np.unique(codes), padded))

    def test_of_older_exports_features_are_the_mean_of_the_windows_that_are_there(self):
        old = with_network(pool="mean+max+cls", form=1, places=0)
        lengths, one = np.array([[6, 6], [6, 0], [3, 6], [1, 0], [6, 2], [4, 4], [2, 0], [6, 6]], np.int32), rows()
        halves = [{"codes_BxWxLxN": one.codes_BxWxLxN[:, [w]], "lengths_BxW": lengths[:, [w]]} for w in range(W)]
        each = [np.asarray(self.features(old, **half)) for half in halves]
        there = lengths[..., None] > 0
        expected = sum(x * there[:, w] for w, x in enumerate(each)) / there.sum(axis=1)
        np.testing.assert_allclose(self.features(old, lengths_BxW=lengths), expected, rtol=1e-5, atol=1e-5)
        assert not there.all() and np.abs(each[0] - each[1]).max() > 0.1

    @pytest.mark.parametrize("align, shift", [("start", 0), ("end", 5), ("middle", 2)])
    def test_positions_are_each_codes_vector_times_the_map_where_it_lies(self, align, shift):
        """Of a sequence of four codes among nine places; codes beyond the places are left out."""
        task = with_network(pool="positions:4", align=align)
        found = np.asarray(self.features(task)).reshape(B, 9, 4)[TOTAL == 4][0]
        alone = with_network(pool="segments:4", places=0)  # of four codes, each is a segment
        vectors_4xD = np.asarray(self.features(alone))[TOTAL == 4].reshape(4, -1)
        expected = np.zeros((9, 4))
        expected[shift : shift + 4] = vectors_4xD @ trained(TASK)["head"]["positions_map"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert TOTAL.max() > task.network.places

    def test_attention_is_one_softmax_over_the_codes_of_all_windows(self):
        """By hand, of each code's vector in the window that counts it."""
        found = np.asarray(self.features(with_network(pool="attention", places=0)))
        query_D = trained(TASK)["head"]["attention_query"]
        for row, total in enumerate(TOTAL):
            vectors_LxD = self.vectors(row)
            assert len(vectors_LxD) == total
            scores_L = vectors_LxD @ query_D
            np.testing.assert_allclose(found[row], scipy.special.softmax(scores_L) @ vectors_LxD, rtol=1e-4, atol=1e-5)
            assert total == 1 or np.ptp(scores_L) > 0.01

    def vectors(self, row):
        """f32 [total, D]: places 0, 1, ... one by one, read by a map that lets a number through."""
        eye = np.eye(MODEL.width, dtype=np.float32)
        task, parts = with_network(pool="positions:4", places=int(TOTAL.max()), align="start"), []
        for start in range(0, MODEL.width, 4):
            params = trained(TASK) | {"head": trained(TASK)["head"] | {"positions_map": eye[:, start : start + 4]}}
            found = jax.jit(task.features)(params, frozen(), batch())
            parts.append(np.asarray(found)[row].reshape(-1, 4)[: TOTAL[row]])
        return np.concatenate(parts, axis=1)

    def test_attention_begins_as_the_mean_and_its_query_learns(self):
        """The gradient at a query of zeros is that of a small step."""
        task, zeros = with_network(pool="attention", places=0), np.zeros(MODEL.width, np.float32)
        params = trained(task)
        params = params | {"head": params["head"] | {"attention_query": zeros}}
        found, mean = (
            jax.jit(of.features)(params, frozen(), batch()) for of in (task, with_network(pool="mean", places=0))
        )
        np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-6)
        (loss, _), grads = gradient(task, params, batch())
        slope_D = np.asarray(grads["head"]["attention_query"])
        step = 0.02 * slope_D / np.linalg.norm(slope_D)
        moved = params | {"head": params["head"] | {"attention_query": zeros - step}}
        lower = float(loss - gradient(task, moved, batch())[0][0])
        assert lower == pytest.approx(0.02 * np.linalg.norm(slope_D), rel=0.1) and lower > 1e-4

    def features(self, task=TASK, **changes):
        return jax.jit(task.features)(trained(TASK), frozen(), batch(**changes))

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_row_of_weight_0_changes_neither_loss_nor_gradient(self, kind):
        task, params = KINDS[kind], trained(KINDS[kind])
        some = np.array([1, 1, 0, 1, 0, 1, 1, 0], np.float32)
        expected = gradient(task, params, batch(kind, weights_B=some))
        other = rows(kind)
        labels, codes, gone = other.labels, other.codes_BxWxLxN, some == 0
        labels[gone], codes[gone] = labels[0], codes[0]
        changed = batch(kind, labels=labels, codes_BxWxLxN=codes, weights_B=some)
        (loss, metrics), grads = gradient(task, params, changed)
        close((loss, metrics, grads), (expected[0][0], expected[0][1], expected[1]))
        assert abs(loss - gradient(task, params, batch(kind))[0][0]) > 1e-4  # with weight, they count


class TestLoss:
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_first_loss_is_that_of_knowing_nothing(self, kind):
        found = predict(KINDS[kind], first(KINDS[kind]), batch(kind))
        assert not np.any(found["logits"])
        expected = {"classification": np.log(V), "multilabel": np.log(2), "regression": rows(kind).labels ** 2}[kind]
        np.testing.assert_allclose(found["loss"], np.broadcast_to(expected, B), rtol=1e-6)

    @pytest.mark.parametrize("kind", KINDS)
    def test_of_a_row_is_the_textbooks(self, kind):
        found, labels = predict(KINDS[kind], trained(KINDS[kind]), batch(kind)), rows(kind).labels
        logits = logits_of(found)
        if kind == "classification":
            p = scipy.special.softmax(logits, axis=1)
            expected = [sklearn.metrics.log_loss([y], [p_V], labels=range(V)) for y, p_V in zip(labels, p)]
        elif kind == "multilabel":
            p = scipy.special.expit(logits)
            expected = [sklearn.metrics.log_loss(y_V, p_V, labels=[0, 1]) for y_V, p_V in zip(labels, p)]
        else:
            expected = [sklearn.metrics.mean_squared_error([y], z) for y, z in zip(labels, logits)]
        np.testing.assert_allclose(found["loss"], expected, rtol=1e-4, atol=1e-6)
        weights = base().class_weights_V[labels] if kind == "classification" else None
        (loss, _), _ = gradient(KINDS[kind], trained(KINDS[kind]), batch(kind))
        assert loss == pytest.approx(np.average(expected, weights=weights), rel=1e-4)

    def test_class_weights_times_row_weights(self):
        row_weights = np.array([1, 0, 1, 1, 0, 1, 1, 1], np.float32)
        (loss, metrics), _ = gradient(TASK, trained(TASK), batch(weights_B=row_weights))
        found, labels = predict(TASK, trained(TASK), batch()), rows().labels
        weights = row_weights * base().class_weights_V[labels]
        assert loss == pytest.approx(np.average(found["loss"], weights=weights), rel=1e-5)
        hits = logits_of(found).argmax(axis=1) == labels
        assert metrics["accuracy"] == pytest.approx(np.average(hits, weights=row_weights))

    @pytest.mark.parametrize("labels", [[0, 0, 0, 1, 2, 2], [1, 0], [3, 1, 1, 1, 2, 0, 1]])
    def test_balanced_class_weights_are_scikit_learns_with_mean_1(self, labels):
        names = tuple(map(str, range(max(labels) + 1)))
        labelled_set = LabelledSet("classification", names, {"train": Split([], [], np.array(labels))}, "")
        found = finetune.class_weights(labelled_set, "balanced")
        np.testing.assert_allclose(found, compute_class_weight("balanced", classes=np.unique(labels), y=labels))
        assert found.dtype == np.float32 and found[labels].mean() == pytest.approx(1)
        assert finetune.class_weights(labelled_set, "none").tolist() == [1.0] * len(names)


class TestPools:
    def test_several_are_concatenated_in_order(self):
        for names in ("mean", "cls+max"):
            found = TestPadding().features(with_network(pool=names))
            parts = np.split(np.asarray(TestPadding().features()), np.cumsum(NETWORK.widths)[:-1], axis=1)
            expected = np.concatenate([parts[EVERY.index(name)] for name in names.split("+")], axis=1)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


class TestMethods:
    @pytest.mark.parametrize("hidden", [0, 8])
    @pytest.mark.parametrize("method", METHODS)
    def test_trains_and_stores_its_own_parameters_only(self, method, hidden):
        task = with_network(dataclasses.replace(TASK, method=method), hidden=hidden, pool="mean+cls")
        init = functools.partial(init_state, task, optax.adam(1e-3))
        state = jax.eval_shape(init, jax.random.key(0), frozen(), batch())
        width = MODEL.width * 2
        head = (width + 1) * V + 2 * width + (width + 1 + V) * hidden
        count = {part: sum(x.size for x in jax.tree.leaves(p)) for part, p in state.params.items()}
        own = {"lora": {"lora"}, "full": {"transformer"}, "head": set()}[method]
        assert count.pop("head") == head and set(count) == own
        if method == "full":
            assert count["transformer"] == sum(x.size for x in jax.tree.leaves(base().transformer))
            jax.tree.map(np.testing.assert_array_equal, first(task)["transformer"], base().transformer)
        whole = sum(x.size for x in jax.tree.leaves(state))
        assert whole < 5 * (head + sum(count.values())) + 100  # params, two of Adam, the best: no base

    @pytest.mark.parametrize("method", METHODS)
    def test_gradients_reach_all_that_is_trained(self, method):
        """But for the vector of masked codes, none of which is masked, and what standardises features."""
        task = dataclasses.replace(TASK, method=method)
        _, grads = gradient(task, trained(task), batch())
        reached = {jax.tree_util.keystr(path): np.any(x) for path, x in jax.tree_util.tree_leaves_with_path(grads)}
        assert {name for name, is_reached in reached.items() if not is_reached} == {
            "['head']['mean']",
            "['head']['scale']",
            *({"['transformer']['mask']"} if method == "full" else set()),
        }

    def test_what_the_head_says_of_counts_stays(self):
        task = with_network(pool="mean+words", hidden=0)
        grads_PxV = np.asarray(gradient(task, trained(task), batch())[1]["head"]["kernel"])
        assert grads_PxV[: MODEL.width].all() and not grads_PxV[MODEL.width :].any()

    def test_dropout_is_a_function_of_the_key_and_absent_from_predictions(self):
        losses = [float(gradient(TASK, trained(TASK), batch(), jax.random.key(k))[0][0]) for k in (0, 0, 1)]
        assert losses[0] == losses[1] != losses[2]
        calm = with_network(dataclasses.replace(TASK, lora=dataclasses.replace(TASK.lora, dropout=0.0)), dropout=0.0)
        found = [predict(task, trained(TASK), batch())["logits"] for task in (TASK, calm)]
        np.testing.assert_array_equal(*found)

    def test_dropout_of_the_head_keeps_the_mean(self):
        head, x = with_network(hidden=0).network.head, jnp.ones((4096, 4))
        params = {"params": {"mean": jnp.zeros(4), "scale": jnp.ones(4), "kernel": jnp.eye(4), "bias": jnp.zeros(4)}}
        left = np.asarray(head.clone(outputs=4).apply(params, x, jax.random.key(0)))
        np.testing.assert_allclose(np.unique(left), [0, 1 / 0.75], rtol=1e-6)
        assert left.mean() == pytest.approx(1, abs=4 * (1 / 3 / left.size) ** 0.5)

    @pytest.mark.parametrize("method, shape", [("lora", (8, 1, 1)), ("full", (2, 2, 2))])
    def test_meshes_agree(self, method, shape):
        expected, _ = self.steps(method, 1, 1, 1)
        found, state = self.steps(method, *shape)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert len(set(expected)) == len(expected)
        if method == "full":
            assert state.params["transformer"]["qkv"].sharding.spec == jax.P(None, "fsdp", None, "tensor", None)

    def steps(self, method, *shape):
        task, on, tx = dataclasses.replace(TASK, method=method), mesh_of(*shape), optax.sgd(0.1)
        losses = []
        with jax.set_mesh(on):
            data, key = batch(on=on, weights_B=np.array([1, 1, 1, 0, 1, 1, 1, 1], np.float32)), jax.random.key(0)
            state = jax.jit(functools.partial(init_state, task, tx))(key, frozen(on), data)
            step = jax.jit(functools.partial(train_step, task, tx), donate_argnums=0)
            for _ in range(3):
                state, metrics = step(state, frozen(on), data, key)
                losses.append(float(metrics["loss"]))
        return losses, state

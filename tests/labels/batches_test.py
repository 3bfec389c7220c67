"""Batches of labelled codes: each row once per epoch, nothing cut off, a function of (seed, step) and of no process."""

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from refusals import refusal

from vqdna_jax.labels.batches import (
    Encoded,
    FeatureBatches,
    LabelledBatches,
    LabelledCodes,
    LabelledFeatures,
    Shape,
    by_shape,
    check_lengths,
    drawn,
    fill,
    on_other_strand,
    outputs_of,
    shape_index,
    shapes_of,
    warmup_lengths,
    window_starts,
)
from vqdna_jax.labels.sets import Split

LENGTHS = st.lists(st.integers(1, 150), min_size=1, max_size=40)
SIZES = st.sampled_from([1, 7, 15, 31, 60])
few = hypothesis.settings(max_examples=50)


def encoded(lengths) -> Encoded:
    """Labels are the rows' numbers; no two codes are the same: (row + 1, position + 1)."""
    codes = [np.stack([np.full(n, row + 1), np.arange(n) + 1], 1).astype(np.uint16) for row, n in enumerate(lengths)]
    return Encoded(codes, np.arange(len(lengths), dtype=np.int32))


def epoch(batches: LabelledBatches, number: int = 0) -> list[LabelledCodes]:
    return [batches[number * batches.steps_per_epoch + i] for i in range(batches.steps_per_epoch)]


@few
@hypothesis.given(LENGTHS, SIZES, st.booleans(), st.integers(1, 12), st.integers(0, 3))
def test_every_row_counts_once_an_epoch_whole(lengths, size, cls, batch, number):
    data = encoded(lengths)
    batches = LabelledBatches(data, batch, 0, size, cls)
    assert batches.steps_per_epoch == -(-len(lengths) // batch)
    counted = []
    for found in epoch(batches, number):
        assert found.codes_BxWxLxN.shape[:3] in [(batch, *shape) for shape in batches.shapes]
        assert set(found.weights_B) <= {0.0, 1.0} and found.weights_B.dtype == np.float32
        for codes_WxLxN, lengths_W, label in zip(found.codes_BxWxLxN, found.lengths_BxW, found.labels):
            seen = np.concatenate([codes_LxN[:n] for codes_LxN, n in zip(codes_WxLxN, lengths_W)])
            np.testing.assert_array_equal(np.unique(seen, axis=0), data.codes[label])
            beyond = np.arange(codes_WxLxN.shape[1])[None] >= lengths_W[:, None]
            assert not codes_WxLxN[beyond].any()
        counted += found.labels[found.weights_B > 0].tolist()
    assert sorted(counted) == list(range(len(lengths)))


@few
@hypothesis.given(LENGTHS, SIZES, st.booleans())
def test_shapes_are_few_and_each_sequence_takes_the_smallest_that_holds_it(lengths, size, cls):
    lengths = np.array(lengths)
    shapes = shapes_of(lengths, size, cls)
    assert shapes == sorted(set(shapes)) and sum(shape.windows == 1 for shape in shapes) <= 4
    chosen = [shapes[i] for i in shape_index(lengths, shapes, size)]
    assert set(chosen) == set(shapes)
    for length, shape in zip(lengths, chosen):
        needed = len(window_starts(length, size))
        assert needed <= shape.windows < 2 * needed
        if needed > 1:
            assert shape.codes == size
            continue
        smaller = [s.codes for s in shapes if s.windows == 1 and s.codes < shape.codes]
        assert shape.windows == 1 and max(smaller, default=0) < length <= shape.codes <= size
    for shape in shapes:
        if shape.windows == 1:  # some sequence fits it but for the rounding to eights
            assert (shape.codes + cls) % 8 == 0 or shape.codes == size
            assert shape.codes - max(n for n, s in zip(lengths, chosen) if s == shape) < 8


def test_padding_stops_at_quartiles_of_the_lengths():
    """Of lengths spread evenly up to the context, each shape has a quarter, and a fifth of all slots is empty."""
    lengths = np.arange(1, 512)
    shapes = shapes_of(lengths, 511, True)
    chosen = shape_index(lengths, shapes, 511)
    np.testing.assert_allclose(np.bincount(chosen), 512 / 4, atol=8)
    assert 1 - lengths.sum() / sum(shapes[i].codes for i in chosen) == pytest.approx(1 / 5, abs=0.02)
    assert shapes_of(np.full(9, 100), 511, True) == [Shape(1, 103)]
    assert shapes_of(np.full(9, 100), 511, False) == [Shape(1, 104)]


@few
@hypothesis.given(st.integers(1, 10**5), st.integers(1, 2000))
def test_windows_cover_a_sequence_to_its_end(length, size):
    starts = window_starts(length, size)
    assert starts[0] == 0 and len(starts) == -(-length // size)
    assert starts[-1] == max(0, length - size)
    assert np.all((np.diff(starts) > 0) & (np.diff(starts) <= size))


def test_windows_that_a_sequence_lacks_have_length_0():
    found = fill(encoded([5, 2, 3]).codes, Shape(4, 3), 3)
    assert found.lengths_BxW.tolist() == [[3, 3, 0, 0], [2, 0, 0, 0], [3, 0, 0, 0]]
    # The last window ends where the sequence ends.
    assert found.codes_BxWxLxN[0, 1].tolist() == [[1, 3], [1, 4], [1, 5]]


@pytest.fixture
def mixed() -> Encoded:
    return encoded(np.random.default_rng(0).integers(1, 40, 61))


def make(mixed, batch=8, seed=0, **processes) -> LabelledBatches:
    return LabelledBatches(mixed, batch, seed, 15, True, **processes)


def same(one: LabelledCodes, other: LabelledCodes) -> bool:
    alike = jax.tree.structure(one) == jax.tree.structure(other)
    return alike and all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


def test_a_batch_is_a_function_of_seed_and_step(mixed):
    batches, steps = make(mixed), [0, 9, 3, 21, 8, 3, 500]
    in_order = {step: make(mixed)[step] for step in sorted(steps)}
    assert all(same(batches[step], in_order[step]) for step in steps)
    assert len(batches.shapes) > 2  # several shapes in one epoch, in no order
    for other in (make(mixed, seed=1), epoch(batches, 1)):
        assert not all(same(one, batches[step]) for step, one in zip(range(batches.steps_per_epoch), other))
    shapes = [[found.codes_BxWxLxN.shape for found in epoch(batches, i)] for i in range(2)]
    assert shapes[0] != sorted(shapes[0]) and shapes[0] != shapes[1]


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_the_rows_of_all_processes_are_the_global_batch(mixed, processes):
    parts = [make(mixed, process=p, processes=processes) for p in range(processes)]
    whole = make(mixed)
    for step in range(2 * whole.steps_per_epoch):
        rows = [part[step] for part in parts]
        joined = jax.tree.map(lambda *parts: np.concatenate(parts), *rows)
        assert same(joined, whole[step]) and len(rows[0].labels) == 8 // processes


def of_both_strands(lengths) -> Encoded:
    """The other strand has codes of its own, one more in every second row, as byte pairs may have."""
    one, other = (encoded([n + more * (row % 2) for row, n in enumerate(lengths)]) for more in (0, 1))
    return one._replace(other=[codes_LxN + np.uint16(1000) for codes_LxN in other.codes])


def strands_seen(batches, data: Encoded, number: int) -> dict[int, bool]:
    """Of each row of an epoch, which must be there once and whole: was it the other strand?"""
    seen = {}
    for found in epoch(batches, number):
        for codes_WxLxN, lengths_W, label, weight in zip(
            found.codes_BxWxLxN, found.lengths_BxW, found.labels, found.weights_B
        ):
            codes = np.concatenate([codes_LxN[:n] for codes_LxN, n in zip(codes_WxLxN, lengths_W)])
            reverse = bool(codes[0, 0] > 1000)
            np.testing.assert_array_equal(np.unique(codes, axis=0), (data.other if reverse else data.codes)[label])
            assert not weight or label not in seen
            seen |= {int(label): reverse} if weight else {}
    assert sorted(seen) == list(range(len(data.codes)))
    return seen


class TestBothStrands:
    @few
    @hypothesis.given(LENGTHS, SIZES, st.integers(1, 12), st.integers(0, 3))
    def test_every_row_counts_once_an_epoch_on_either(self, lengths, size, batch, number):
        data = of_both_strands(lengths)
        seen = strands_seen(LabelledBatches(data, batch, 0, size, True), data, number)
        reverse_B = on_other_strand(0, number, len(lengths))
        assert [seen[row] for row in range(len(lengths))] == reverse_B.tolist()

    def test_strands_are_drawn_evenly_anew_every_epoch_and_by_seed(self):
        drawn = np.array([[on_other_strand(seed, number, 500) for number in range(8)] for seed in range(2)])
        assert np.abs(drawn.mean(axis=2) - 0.5).max() < 4 * 0.5 / 500**0.5
        flat = drawn.reshape(16, 500)
        alike = [(one == other).mean() for i, one in enumerate(flat) for other in flat[:i]]
        assert np.abs(np.array(alike) - 0.5).max() < 0.12

    def test_they_change_no_order_of_rows(self, mixed):
        """What was trained on one strand is so still."""
        both = mixed._replace(other=[codes_LxN + np.uint16(1000) for codes_LxN in mixed.codes])
        for step in range(20):
            one, other = make(mixed)[step], make(both)[step]
            assert np.array_equal(one.labels, other.labels) and np.array_equal(one.weights_B, other.weights_B)
            assert one.codes_BxWxLxN.max() < 1000 < other.codes_BxWxLxN.max()

    @pytest.mark.parametrize("processes", [1, 2, 4])
    def test_features_are_drawn_as_codes_are(self, processes):
        """The same strands of the same epochs, whoever has the rows."""
        numbers = np.arange(61, dtype=np.int32)
        known = LabelledFeatures(numbers[:, None], numbers, other=LabelledFeatures(1000 + numbers[:, None], numbers))
        parts = [FeatureBatches(known, 8, 5, process=p, processes=processes) for p in range(processes)]
        for number in range(3):
            steps = [part[number * 8 + i] for i in range(8) for part in parts]
            labels, features, weights = (
                np.concatenate([getattr(step, name) for step in steps])
                for name in ("labels", "features_BxP", "weights_B")
            )
            there = weights > 0
            assert sorted(labels[there]) == numbers.tolist()
            expected = labels + 1000 * on_other_strand(5, number, 61)[labels]
            np.testing.assert_array_equal(features[:, 0], expected)

    @pytest.mark.parametrize("processes", [2, 8])
    def test_the_rows_of_all_processes_are_the_global_batch(self, processes):
        data = of_both_strands(np.random.default_rng(0).integers(1, 40, 61))
        parts, whole = [make(data, process=p, processes=processes) for p in range(processes)], make(data)
        for step in (0, 7, 8, 30):
            joined = jax.tree.map(lambda *parts: np.concatenate(parts), *[part[step] for part in parts])
            assert same(joined, whole[step])

    @few
    @hypothesis.given(LENGTHS, SIZES, st.booleans())
    def test_outputs_are_of_both(self, lengths, size, cls):
        def predict(batch):
            rows = [of.codes_BxWxLxN.max(axis=(1, 2))[:, 0] for of in (batch, batch.other)]
            return {"rows": np.stack(rows, axis=1)}

        found, numbers = outputs_of(predict, of_both_strands(lengths), size, cls)["rows"], np.arange(len(lengths)) + 1
        np.testing.assert_array_equal(found, np.stack([numbers, 1000 + numbers], axis=1))


@few
@hypothesis.given(LENGTHS, SIZES, st.booleans())
def test_outputs_come_in_the_order_of_the_sequences(lengths, size, cls):
    """A prediction that tells a row from what is in its batch: its label, and its number from the codes."""
    data = encoded(lengths)

    def predict(batch):
        assert batch.weights_B is None
        return {"label": batch.labels, "row": batch.codes_BxWxLxN.max(axis=(1, 2))}

    found = outputs_of(predict, data, size, cls)
    np.testing.assert_array_equal(found["label"], np.arange(len(lengths)))
    np.testing.assert_array_equal(found["row"], np.stack([np.arange(len(lengths)) + 1, lengths], axis=1))
    shapes = shapes_of(np.array(lengths), size, cls)
    assert sorted(np.concatenate([rows for rows, _ in by_shape(data, shapes, size)])) == list(range(len(lengths)))


class TestLengthWarmup:
    @few
    @hypothesis.given(st.integers(1, 300), st.integers(1, 10**6))
    def test_lengths_double_until_the_longest_sequence_is_whole(self, first, longest):
        lengths = warmup_lengths(first, longest)
        assert lengths[:1] in ((), (first,)) and all(b == 2 * a for a, b in zip(lengths, lengths[1:]))
        assert all(length < longest for length in lengths) and longest <= (2 * lengths[-1] if lengths else first)

    @few
    @hypothesis.given(LENGTHS, SIZES, st.booleans(), st.integers(1, 12), st.booleans())
    def test_every_row_counts_once_an_epoch_as_a_stretch(self, lengths, size, cls, batch, both):
        """In one shape, and then, in the epoch after, whole and in the batches of a run without a warm-up."""
        data, warmup = (of_both_strands if both else encoded)(lengths), (5, 10, 20)
        batches = LabelledBatches(data, batch, 0, size, cls, warmup=warmup)
        for number, length in enumerate(warmup):
            seen, shapes = [], set()
            for found in epoch(batches, number):
                shapes.add(found.codes_BxWxLxN.shape)
                stretches = zip(found.codes_BxWxLxN, found.lengths_BxW, found.total_B, found.labels, found.weights_B)
                for codes_WxLxN, lengths_W, total, row, weight in stretches:
                    codes_LxN = np.concatenate([codes_LxN[:n] for codes_LxN, n in zip(codes_WxLxN, lengths_W)])
                    codes_LxN = np.unique(codes_LxN, axis=0)
                    whole = (data.other if both and codes_LxN[0, 0] > 1000 else data.codes)[row]
                    assert len(codes_LxN) == total == min(length, len(whole))
                    start = codes_LxN[0, 1] - whole[0, 1]
                    np.testing.assert_array_equal(codes_LxN, whole[start : start + total])
                    seen += [int(row)] if weight else []
            assert sorted(seen) == list(range(len(lengths))) and len(shapes) == 1
            assert np.prod(shapes.pop()[1:3]) < 2 * -(-length // size) * (min(length, size) + 8)
        plain = LabelledBatches(data, batch, 0, size, cls)
        assert all(map(same, epoch(batches, 3), epoch(plain, 3)))

    def test_places_are_anywhere_and_others_in_every_epoch_and_of_every_seed(self):
        data, rows = encoded([103] * 400), range(400)
        places = [[codes_LxN[0, 1] - 1 for codes_LxN in drawn(data, rows, *of, 4)] for of in ((0, 0), (0, 1), (1, 0))]
        assert {min(of) for of in places} <= set(range(5)) and {max(of) for of in places} <= set(range(95, 100))
        for i, one in enumerate(places):
            assert np.abs(np.histogram(one, 4, (0, 100))[0] - 100).max() < 4 * (400 * 3 / 16) ** 0.5
            assert all(abs(np.corrcoef(one, other)[0, 1]) < 4 / 400**0.5 for other in places[:i])

    @pytest.mark.parametrize("processes", [2, 8])
    def test_the_rows_of_all_processes_are_the_global_batch(self, mixed, processes):
        parts = [make(mixed, warmup=(3, 6), process=p, processes=processes) for p in range(processes)]
        whole = make(mixed, warmup=(3, 6))
        for step in (0, 7, 8, 15, 16, 30):
            assert same(
                jax.tree.map(lambda *parts: np.concatenate(parts), *[part[step] for part in parts]), whole[step]
            )

    def test_features_are_those_of_the_stretches(self):
        numbers = np.arange(61, dtype=np.int32)
        known = LabelledFeatures(numbers[:, None], numbers, other=LabelledFeatures(1000 + numbers[:, None], numbers))
        batches = FeatureBatches(known, 8, 5, warmup=[2000 + numbers[:, None], 3000 + numbers[:, None]])
        plain = FeatureBatches(known, 8, 5)
        for step in range(32):
            offset = {0: 2000, 1: 3000}.get(step // 8, 0)
            found, expected = batches[step], plain[step]
            np.testing.assert_array_equal(found.labels, expected.labels)
            features_BxP = offset + found.labels[:, None] if offset else expected.features_BxP
            np.testing.assert_array_equal(found.features_BxP, features_BxP)


def test_the_first_sequence_beyond_the_context_is_named():
    split = Split([f"dev.csv:{line}" for line in (2, 3, 4)], [], np.zeros(3))
    message = refusal(check_lengths, split, [31, 1032, 99], 31, "refuse")
    assert message.startswith("dev.csv:3: 1,032 codes, but the model's context has 31; ") and "data.long" in message
    check_lengths(split, [31, 31, 31], 31, "refuse")
    check_lengths(split, [31, 1032, 99], 31, "window")

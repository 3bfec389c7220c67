"""Windows and calls: items keep their order, and the next call begins before the last one's result is asked for."""

import itertools

import numpy as np
import pytest

from vqdna_jax.tokenizers.stitch import CALLS_IN_FLIGHT, batched, in_flight, neighbours, stitch, window_sizes


@pytest.mark.parametrize("count", [0, 1, CALLS_IN_FLIGHT, 7])
def test_calls_come_in_their_order_each_once_later_ones_have_begun(count):
    begun = []

    def calls():
        for call in range(count):
            begun.append(call)
            yield call

    for place, call in enumerate(in_flight(calls())):
        assert call == place and len(begun) == min(place + CALLS_IN_FLIGHT, count)
    assert begun == list(range(count))


@pytest.mark.parametrize("size", [1, 3, 10])
def test_batches_are_full_but_the_last(size):
    found = list(batched(iter(range(10)), size))
    assert list(itertools.chain(*found)) == list(range(10)) and {len(batch) for batch in found[:-1]} <= {size}


def test_groups_of_neighbours_stay_under_the_limit_or_are_one_item():
    costs = [3, 1, 9, 2, 2, 2, 5, 20, 1]
    groups = list(neighbours(costs, lambda cost: cost, 6))
    assert list(itertools.chain(*groups)) == costs
    assert all(sum(group) <= 6 or len(group) == 1 for group in groups)
    assert all(sum(one) + other[0] > 6 for one, other in itertools.pairwise(groups))
    assert list(neighbours([], len, 6)) == []


def test_windows_are_at_least_half_core_and_short_ones_exist():
    for halo in (1, 8, 20, 64, 65, 300):
        sizes = window_sizes(halo)
        assert sizes == tuple(sorted(sizes)) and 4 * halo <= sizes[1] < sizes[-1]
        assert all(size & (size - 1) == 0 for size in sizes)
    assert window_sizes(20) == (128, 256, 512, 2048)


@pytest.mark.parametrize("halo", [0, 1, 20])
def test_results_are_those_of_whole_sequences_wherever_the_cuts_fall(halo):
    rng = np.random.default_rng(halo)
    lengths = [0, 1, 2 * halo + 1, 63, 64, 65, 64 - halo, 128 - halo, 200, 641]
    inputs = [rng.integers(1, 100, (length, 1)) for length in lengths]
    outputs = [np.full((length, 1), -1) for length in lengths]
    done = []

    def sums(x_BxWx1, valid_BxW):
        seen_BxW = np.pad(x_BxWx1[..., 0] * valid_BxW, ((0, 0), (halo, halo)))
        return np.lib.stride_tricks.sliding_window_view(seen_BxW, 2 * halo + 1, axis=1).sum(axis=2)[..., None]

    stitch(sums, inputs, outputs, halo=halo, fill=7, windows=(64, 128), codes_per_call=256, advance=done.append)
    for x_Lx1, y_Lx1 in zip(inputs, outputs):
        whole_L = (
            np.convolve(x_Lx1[:, 0], np.ones(2 * halo + 1, int))[halo:][: len(x_Lx1)] if len(x_Lx1) else x_Lx1[:, 0]
        )
        assert y_Lx1[:, 0].tolist() == whole_L.tolist()
    assert sum(done) == sum(lengths)


def test_a_sequence_that_fits_a_window_is_computed_in_the_smallest_and_pays_for_no_halo():
    shapes = []

    def apply(x_BxWx1, valid_BxW):
        shapes.append(x_BxWx1.shape[:2])
        return x_BxWx1

    for length in (1, 128, 129, 256, 500):
        x = np.arange(length)[:, None]
        stitch(apply, [x], [np.empty_like(x)], halo=20, fill=0, windows=window_sizes(20), codes_per_call=1)
    assert shapes == [(1, 128), (1, 128), (1, 256), (1, 256), (1, 512)]

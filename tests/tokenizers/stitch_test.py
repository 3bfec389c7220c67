"""Windows and calls: items keep their order, and the next call begins before the last one's result is asked for."""

import itertools

import pytest

from vqdna_jax.tokenizers.stitch import CALLS_IN_FLIGHT, batched, in_flight, neighbours, window_sizes


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
        short, long = window_sizes(halo)
        assert 4 * halo <= short < long and short & (short - 1) == 0
    assert window_sizes(20) == (256, 2048)

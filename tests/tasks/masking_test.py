"""Masks: static counts, every kind's promise, the same on every mesh, and nothing that was hidden reaches the input."""

import functools

import jax
import numpy as np
import pytest

from vqdna_jax import partition
from vqdna_jax.tasks.masking import KINDS, Masking, draw

WINDOWS, CODES = 64, 96


def drawn(masking: Masking, bases_per_code: int = 1, seed: int = 0, mesh=(1, 1)):
    mesh = partition.make_mesh(*mesh, devices=jax.devices()[: mesh[0] * mesh[1]])
    with jax.set_mesh(mesh):
        masks = jax.jit(functools.partial(draw, masking, WINDOWS, CODES, bases_per_code))(jax.random.key(seed))
    return jax.tree.map(np.asarray, masks)


@pytest.mark.parametrize("bases_per_code", [1, 4])
@pytest.mark.parametrize("kind", [*KINDS, "codes+base_spans", "+".join(KINDS)])
def test_the_count_is_static_and_positions_name_the_masked_codes(kind, bases_per_code):
    masking = Masking(kind, rate=0.25, span=8)
    masks = drawn(masking, bases_per_code)
    count = masking.count(CODES)
    assert masks.positions_BxM.shape == (WINDOWS, count) and abs(count - 0.25 * CODES) <= 4
    assert (masks.masked_BxL.sum(axis=1) == count).all()
    assert np.take_along_axis(masks.masked_BxL, masks.positions_BxM, axis=1).all()
    assert (np.diff(masks.positions_BxM, axis=1) > 0).all()


def test_each_kind_hides_what_it_says():
    codes, spans = drawn(Masking("codes"), 4), drawn(Masking("code_spans", span=8), 4)
    bases, base_spans = drawn(Masking("bases"), 4), drawn(Masking("base_spans", span=8), 4)
    for masks in (codes, spans):
        assert masks.replaced_B.all() and not masks.hidden_BxLxR.any()
    for masks in (bases, base_spans):
        assert not masks.replaced_B.any()
        np.testing.assert_array_equal(masks.hidden_BxLxR.any(axis=2), masks.masked_BxL)
    assert (bases.hidden_BxLxR.sum(axis=2)[bases.masked_BxL] == 1).all()
    assert (base_spans.hidden_BxLxR.sum(axis=2)[base_spans.masked_BxL] == 4).all()
    assert set(np.nonzero(bases.hidden_BxLxR)[2]) == {0, 1, 2, 3}


@pytest.mark.parametrize("kind", ["code_spans", "base_spans"])
def test_spans_are_whole_runs_at_every_offset(kind):
    masks = drawn(Masking(kind, span=8))
    starts = set()
    for masked_L in masks.masked_BxL:
        edges = np.flatnonzero(np.diff(masked_L.astype(int), prepend=0, append=0)).reshape(-1, 2)
        assert (np.diff(edges, axis=1) % 8 == 0).all()
        starts.update(edges[:, 0] % 8)
    assert starts == set(range(8))


def test_the_edges_of_code_spans_are_not_scored():
    """Within three bases of an edge a code can be read off its visible neighbours."""
    masks = drawn(Masking("code_spans", span=8))
    scored_Bx3x8 = masks.scored_BxM.reshape(WINDOWS, 3, 8)
    assert (scored_Bx3x8 == np.array([0, 0, 0, 1, 1, 0, 0, 0], bool)).all()
    assert drawn(Masking("code_spans", span=8), 4).scored_BxM.mean() == 6 / 8  # one code is four bases
    for kind in ("codes", "bases", "base_spans"):
        assert drawn(Masking(kind, span=8)).scored_BxM.all()


def test_a_mixture_draws_all_its_kinds_evenly():
    masks = drawn(Masking("codes+base_spans", span=8))
    assert 0.25 < masks.replaced_B.mean() < 0.75
    assert not masks.hidden_BxLxR[masks.replaced_B].any()
    assert masks.hidden_BxLxR[~masks.replaced_B].any(axis=(1, 2)).all()


def test_masks_are_the_same_on_every_mesh_and_others_at_another_step():
    masking = Masking("codes+base_spans", span=8)
    alone = drawn(masking)
    for mesh in ((8, 1), (4, 2)):
        jax.tree.map(np.testing.assert_array_equal, alone, drawn(masking, mesh=mesh))
    assert (drawn(masking, seed=1).masked_BxL != alone.masked_BxL).any()


def test_every_code_is_masked_about_as_often():
    masked_L = np.mean([drawn(Masking("bases"), seed=seed).masked_BxL.mean(axis=0) for seed in range(8)], axis=0)
    assert masked_L.min() > 0.15 and masked_L.max() < 0.36  # 512 windows at 25 %: five standard errors

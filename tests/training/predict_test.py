"""Outputs of a task for many rows: the same in any batches, and nothing is computed that nobody asked for."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import small_config, steps_on

from vqdna_jax.genome.windows import Windows
from vqdna_jax.training.predict import make_predict


@pytest.fixture(scope="module", params=[(1,), (4, 2)], ids=["one device", "eight"])
def trained(request):
    """(the task of a small vocabulary, its mesh, a state, windows)."""
    with steps_on(small_config(), *request.param) as on:
        batch = on.stage.data.batches[0]
        yield on.stage, on.init(on.put(batch)), np.concatenate([on.stage.data.batches[t].bases_BxS for t in range(3)])


@pytest.mark.parametrize("rows", [1, 8, 23])
def test_rows_in_batches_are_rows_alone_and_only_leaves_the_others_out(trained, rows):
    stage, state, bases_BxS = trained
    predict = make_predict(stage.task, jax.sharding.get_mesh(), 8, stage.frozen)
    windows = Windows(bases_BxS[:rows])
    whole = predict(state, windows)
    assert {len(x) for x in whole.values()} == {rows}
    for row in (0, rows - 1):
        chex.assert_trees_all_close(
            {name: x[0] for name, x in predict(state, Windows(bases_BxS[row : row + 1])).items()},
            {name: x[row] for name, x in whole.items()},
            rtol=1e-5,
            atol=1e-5,
        )
    some = predict(state, windows, ("codes", "embedding"))
    chex.assert_trees_all_close(some, {name: whole[name] for name in ("codes", "embedding")}, rtol=1e-5, atol=1e-5)


def test_codes_alone_run_no_decoder(trained):
    stage, state, bases_BxS = trained

    def flops(*only: str) -> float:
        def outputs(params, codebooks, batch):
            found = stage.task.predict(params, codebooks, stage.frozen, batch)
            return {name: found[name] for name in only}

        batch = Windows(jnp.asarray(bases_BxS[:8]))
        lowered = jax.jit(outputs).lower(state.params, state.codebooks, batch)
        return lowered.compile().cost_analysis()["flops"]

    assert flops("codes", "embedding") < 0.75 * flops("codes", "embedding", "rebuilt")

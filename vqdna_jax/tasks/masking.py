"""What masked code modelling hides: codes after the frozen tokenizer, or bases before it.

How many codes of a window are masked is static. Neighbouring codes hold a masked base (docs/pretraining.md), so only
bases hidden before the tokenizer ask for knowledge of DNA.
"""

import dataclasses
import math
from typing import Annotated, Generic, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vqdna_jax.errors import InputError
from vqdna_jax.partition import AnyArray, replicated, spec
from vqdna_jax.runtime.typed import Positive, Rule, joined

KINDS = ("codes", "code_spans", "bases", "base_spans")
LEAK_BASES = 3  # a code within this many bases of a masked span's edge is read off the visible codes beside it
_RATE_RULE = Rule(lambda v: 0 < v < 1, "a share of the codes, between 0 and 1 without the ends")


@dataclasses.dataclass(frozen=True)
class Masking:
    """What is hidden of a window, and how much.

    Attributes:
        kind: codes: single codes (the paper); code_spans: runs of them; bases: one base of each masked code, hidden
            from the tokenizer; base_spans: all bases of runs of codes, hidden from it. Of several joined by "+" each
            window draws one with even odds.
        rate: share of the codes that are masked.
        span: codes a span.
    """

    kind: Annotated[str, joined(*KINDS)] = "bases"
    rate: Annotated[float, _RATE_RULE] = 0.25
    span: Positive = 16

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.kind.split("+"))

    @property
    def hides_bases(self) -> bool:
        return any(kind.startswith("base") for kind in self.kinds)

    @property
    def replaces_codes(self) -> bool:
        return any(kind.startswith("code") for kind in self.kinds)

    def count(self, codes: int) -> int:
        """M: masked codes in a window of `codes` codes, the same for all kinds of a mixture."""
        unit = self.span if "span" in self.kind else 1
        return max(1, round(self.rate * codes / unit)) * unit

    def blocks(self, codes: int) -> int:
        """Places a span can be drawn from: one less than fit, so that their common offset is free."""
        return max(1, codes // self.span - 1)


class Masks(flax.struct.PyTreeNode):
    """positions int32 [B, M] of the masked codes; masked bool [B, L] the same; replaced bool [B]: the mask vector takes
    the code's place; scored bool [B, M]; hidden bool [B, L, R]: bases the tokenizer does not see."""

    positions_BxM: AnyArray
    masked_BxL: AnyArray
    replaced_B: AnyArray
    scored_BxM: AnyArray
    hidden_BxLxR: AnyArray


Rows = TypeVar("Rows")


class Masked(flax.struct.PyTreeNode, Generic[Rows]):
    """The rows of a batch, and the masks drawn for them."""

    rows: Rows
    masks: Masks


def draw(masking: Masking, windows: int, codes: int, bases_per_code: int, key: Array) -> Masks:
    """Masks of a global batch, a function of the key alone: the same on every mesh."""
    kind_key, score_key, offset_key, base_key = jax.random.split(key, 4)
    rows, grid = spec("batch"), spec("batch", None)
    kind_B = jax.random.randint(kind_key, (windows,), 0, len(masking.kinds), out_sharding=rows)
    score_BxL = jax.random.uniform(score_key, (windows, codes), out_sharding=grid)
    offset_B = jax.random.uniform(offset_key, (windows,), out_sharding=rows)
    base_BxL = jax.random.randint(base_key, (windows, codes), 0, bases_per_code, out_sharding=grid)

    def local(*drawn: Array) -> Masks:
        return jax.vmap(lambda *row: _window(masking, bases_per_code, *row))(*drawn)

    out = Masks(grid, grid, rows, grid, spec("batch", None, None))
    return jax.shard_map(local, in_specs=(rows, grid, rows, grid), out_specs=out)(kind_B, score_BxL, offset_B, base_BxL)


def draw_on_host(masking: Masking, windows: int, codes: int, bases_per_code: int, seed: int) -> Masks:
    """Masks of any number of windows as numpy arrays, for evaluations: a function of the seed and the devices."""
    even = -(-windows // jax.device_count()) * jax.device_count()

    @jax.jit
    def drawn() -> Masks:
        return replicated(draw(masking, even, codes, bases_per_code, jax.random.key(seed)))

    return jax.tree.map(lambda x: x[:windows], jax.device_get(drawn()))


def _window(masking: Masking, bases_per_code: int, kind: Array, score_L: Array, offset: Array, base_L: Array) -> Masks:
    """Masks of one window: `kind` indexes masking.kinds, `score_L` orders the places, `base_L` chooses hidden bases."""
    is_span, is_code, is_base = (
        jnp.asarray(np.array(flags))[kind]
        for flags in zip(*((k.endswith("spans"), k.startswith("code"), k == "bases") for k in masking.kinds))
    )
    codes, count, span = len(score_L), masking.count(len(score_L)), masking.span
    positions_M, edge = jnp.sort(jnp.argsort(score_L)[:count]), np.zeros(count, bool)
    if "span" in masking.kind:
        blocks = masking.blocks(codes)
        first = jnp.floor(offset * (codes - blocks * span + 1)).astype(jnp.int32)
        block = jnp.sort(jnp.argsort(score_L[:blocks])[: count // span])
        within = np.arange(span)
        spans_M = (first + block[:, None] * span + within[None]).ravel()
        positions_M = jnp.where(is_span, spans_M, positions_M)
        leak = math.ceil(LEAK_BASES / bases_per_code)
        edge = np.tile(np.minimum(within, within[::-1]) < leak, count // span)
    masked_L = jnp.zeros(codes, bool).at[positions_M].set(True)
    chosen_LxR = jnp.where(is_base, base_L[:, None] == np.arange(bases_per_code)[None], True)
    hidden_LxR = masked_L[:, None] & chosen_LxR & ~is_code
    return Masks(positions_M, masked_L, is_code, ~(is_code & is_span & edge), hidden_LxR)


def validate_masking(masking: Masking, codes: int, bases_per_code: int) -> None:
    """Checks the masking against a window of `codes` codes. Raises InputError."""
    if "span" not in masking.kind:
        return
    leak = -(-LEAK_BASES // bases_per_code)
    least = 2 * leak + 1 if "code_spans" in masking.kinds else 1
    room = masking.blocks(codes) * masking.span
    if masking.span < least or not masking.count(codes) <= room <= codes:
        raise InputError(
            f"config keys masking.span={masking.span} and masking.rate={masking.rate}: expected a span of at least"
            f" {least} codes (within {leak} of its edges a code is not scored), and spans that fit into the {codes}"
            " codes of a window"
        )

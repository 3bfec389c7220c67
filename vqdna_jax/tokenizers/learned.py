"""Learned tokenizers (VQVAE, HRQ) in memory and on disk: DNA of any length to codes, and codes back to DNA."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax.sharding import Mesh

from vqdna_jax import partition
from vqdna_jax.genome.alphabet import N
from vqdna_jax.models import quantize
from vqdna_jax.models.context import decoder_of, rebuild
from vqdna_jax.models.layers import Params
from vqdna_jax.models.tokenizer import Encoder, TokenizerConfig, encode
from vqdna_jax.runtime import exports
from vqdna_jax.runtime.exports import CONFIG, PRETRAINED, TENSORS, TOKENIZER
from vqdna_jax.tokenizers import stitch
from vqdna_jax.tokenizers.base import Advance, no_advance
from vqdna_jax.version import versions

# A call computes this many bases whether it has them or not: few on a CPU, where a read would wait for them. Elsewhere
# the paper's model has activations of 200 MB in bf16.
BASES_PER_CALL = {"cpu": 8192, "elsewhere": 65536}


@dataclasses.dataclass(frozen=True, eq=False)
class LearnedTokenizer:
    """A trained tokenizer on the devices of a mesh, whole on each. A `Tokenizer`; R bases per code.

    Attributes:
        config: the network. digest: sha256 of config and tensors.
        window_bp: bases of a training window, if recorded. hidden_share: of the bases hidden in training, likewise.
        params: {"encoder", "decoder"}. codes_KxD, counts_K: f32 arrays, one per level.
        windows: codes of a window, halos included; results do not depend on it.
        codes_per_call: how many a call computes, about; 0: BASES_PER_CALL says it.
    """

    config: TokenizerConfig
    digest: str
    window_bp: int | None
    params: Params = dataclasses.field(repr=False)
    codes_KxD: tuple[Array, ...] = dataclasses.field(repr=False)
    counts_K: tuple[np.ndarray, ...] = dataclasses.field(repr=False)
    mesh: Mesh
    windows: tuple[int, ...] = ()
    hidden_share: float | None = None
    codes_per_call: int = 0

    @classmethod
    def from_tensors(
        cls,
        config: TokenizerConfig,
        tensors: Mapping[str, np.ndarray],
        mesh: Mesh | None = None,
        window_bp: int | None = None,
        hidden_share: float | None = None,
    ) -> Self:
        """The tokenizer of such `tensors`, as the attribute of that name gives them, on the first local device if no
        `mesh` is given."""
        mesh = mesh or partition.local_mesh()
        levels, placed = range(1, len(config.codebook_sizes) + 1), partition.whole_on(mesh, dict(tensors))
        return cls(
            config=config,
            digest=exports.digest(config.described(), tensors),
            window_bp=window_bp,
            hidden_share=hidden_share,
            codes_KxD=tuple(placed.pop(f"codebook_{n}/codes") for n in levels),
            counts_K=tuple(np.asarray(placed.pop(f"codebook_{n}/counts")) for n in levels),
            params=unflatten_dict(placed, sep="/"),
            mesh=mesh,
        )

    @property
    def description(self) -> str:
        sizes = " + ".join(map(str, self.codebook_sizes))
        return f"{self.config.quantizer}, codes {sizes}, {self.bases_per_code} bases per code"

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return self.config.codebook_sizes

    @property
    def bases_per_code(self) -> int:
        return self.config.bases_per_code

    @property
    def phases(self) -> int:
        return self.bases_per_code

    def codes_of(self, bases: int) -> int:
        return -(-bases // self.bases_per_code)

    def spans(self, bases: np.ndarray) -> np.ndarray:
        starts_L = np.arange(0, len(bases), self.bases_per_code)
        return np.stack([starts_L, np.minimum(starts_L + self.bases_per_code, len(bases))], axis=1)

    def encode(self, bases: Sequence[np.ndarray], advance: Advance = no_advance) -> list[np.ndarray]:
        """Codes [L, N] of `code_dtype` of each sequence of uint8 bases [S], as if alone and whole."""
        r, levels = self.bases_per_code, len(self.codebook_sizes)
        whole = [np.pad(s, (0, -s.size % r), constant_values=N) if s.size % r else s for s in bases]
        inputs = [s.reshape(-1, r) for s in whole]
        outputs = [np.empty((len(x), levels), self.code_dtype) for x in inputs]
        self._stitch(_encode, (self.params["encoder"], self.codes_KxD), inputs, outputs, N, advance)
        return outputs

    def decode(self, codes: Sequence[np.ndarray], advance: Advance = no_advance) -> list[np.ndarray]:
        """The likeliest bases, uint8 [L R], of codes [L, N] in range."""
        codes = [codes_LxN.astype(self.code_dtype, copy=False) for codes_LxN in codes]
        outputs = [np.empty((len(codes_LxN), self.bases_per_code), np.uint8) for codes_LxN in codes]
        self._stitch(_decode, (self.params["decoder"], self.codes_KxD), codes, outputs, 0, advance)
        return [bases_LxR.ravel() for bases_LxR in outputs]

    def with_batch(self, codes: int) -> Self:
        return dataclasses.replace(self, codes_per_call=codes)

    @property
    def code_dtype(self) -> np.dtype:
        """uint16, or uint32 for codebooks over 65,536 codes."""
        return _code_dtype(self.config)

    def _stitch(self, function, weights, inputs, outputs, fill: int, advance: Advance) -> None:
        def on_mesh(x_BxWxX: np.ndarray, valid_BxW: np.ndarray) -> Any:
            batch = partition.batch_to_devices({"x": x_BxWxX, "valid": valid_BxW}, self.mesh, len(x_BxWxX))
            return function(self.config, *weights, batch["x"], batch["valid"])

        halo = self.config.receptive_codes
        platform = self.mesh.devices.flat[0].platform
        bases_per_call = BASES_PER_CALL.get(platform, BASES_PER_CALL["elsewhere"])
        with jax.set_mesh(self.mesh):
            stitch.stitch(
                on_mesh,
                inputs,
                outputs,
                halo=halo,
                fill=fill,
                windows=self.windows or stitch.window_sizes(halo),
                codes_per_call=self.codes_per_call or bases_per_call // self.bases_per_code,
                advance=advance,
            )

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """All that was learned, contiguous on the host, by flat names."""
        return tensors_of(self.params, self.codes_KxD, self.counts_K)

    def described(self) -> dict[str, Any]:
        """What config.json says of it, of JSON's types."""
        return {
            "tokenizer_digest": self.digest,
            "model": self.config.described(),
            "codebook_sizes": list(self.codebook_sizes),
            "receptive_codes": self.config.receptive_codes,
            "window_bp": self.window_bp,
            "hidden_share": self.hidden_share,
        }

    def changed(self, change: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]) -> Self:
        """The same network with what `change` makes of its tensors."""
        return self.from_tensors(self.config, change(self.tensors), self.mesh, self.window_bp, self.hidden_share)

    def save(self, directory: str | os.PathLike, facts: Mapping[str, Any] | None = None, card: str = "") -> str:
        """Writes config.json, model.safetensors and README.md, which says `card`; see `Tokenizer.save`.

        Other files in the directory are kept. Call it on one process. `facts`: of its training, for config.json.
        """
        described = {"schema": TOKENIZER} | self.described() | dict(facts or {}) | {"versions": versions()}
        exports.write(directory, [TOKENIZER, PRETRAINED], described, self.tensors, card)
        return self.digest

    @classmethod
    def load(cls, path: pathlib.Path, described: Mapping[str, Any], mesh: Mesh | None = None) -> Self:
        """What `save` wrote in the directory `path`, whose config.json is read. Raises InputError."""
        tensors = exports.read_tensors(path / TENSORS)
        config = exports.typed(path / CONFIG, "model", described["model"], TokenizerConfig, tensors)
        exports.check_tensors(path / TENSORS, tensors, expected(config))
        tokenizer = cls.from_tensors(config, tensors, mesh, described["window_bp"], described.get("hidden_share"))
        exports.check_digest(path / TENSORS, tokenizer.digest, described["tokenizer_digest"])
        return tokenizer


def tensors_of(
    params: Params, codes_KxD: Sequence[Array | np.ndarray], counts_K: Sequence[Array | np.ndarray]
) -> dict[str, np.ndarray]:
    """`LearnedTokenizer.tensors` of its parts."""
    levels = enumerate(zip(codes_KxD, counts_K, strict=True), start=1)
    codebooks = {f"codebook_{n}": {"codes": codes, "counts": counts} for n, (codes, counts) in levels}
    return exports.flat({**params, **codebooks})


@functools.cache
def expected(config: TokenizerConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every tensor of such a tokenizer; kept, as it takes longer than to read them."""

    def init():
        key = jax.random.key(0)
        bases = jnp.zeros((1, config.bases_per_code), jnp.uint8)
        features = jnp.zeros((1, 1, config.width), config.dtype)
        levels = {
            f"codebook_{n}": {"codes": jnp.zeros((size, config.width)), "counts": jnp.zeros(size)}
            for n, size in enumerate(config.codebook_sizes, start=1)
        }
        encoder, decoder = Encoder(config).init(key, bases), decoder_of(config).init(key, features)
        return {"encoder": encoder["params"], "decoder": decoder["params"], **levels}

    return flatten_dict(partition.abstract_state(init, partition.local_mesh()), sep="/")


def _code_dtype(config: TokenizerConfig) -> np.dtype:
    return np.dtype(np.uint16 if max(config.codebook_sizes) <= 1 << 16 else np.uint32)


@functools.partial(jax.jit, static_argnums=0)
def _encode(config: TokenizerConfig, params, codes_KxD, bases_BxWxR: Array, valid_BxW: Array) -> Array:
    """Codes [B, W, N]."""
    bases_BxS = bases_BxWxR.reshape(len(bases_BxWxR), -1)
    codes_BxWxN = encode(config, params, codes_KxD, bases_BxS, valid_BxW).codes_BxLxN
    chex.assert_shape(codes_BxWxN, (*valid_BxW.shape, len(codes_KxD)))
    return codes_BxWxN.astype(_code_dtype(config))


@functools.partial(jax.jit, static_argnums=0)
def _decode(config: TokenizerConfig, params, codes_KxD, codes_BxWxN: Array, valid_BxW: Array) -> Array:
    """Most likely bases, uint8 [B, W, R]."""
    chex.assert_shape(codes_BxWxN, (*valid_BxW.shape, len(codes_KxD)))
    embedding_BxWxD = quantize.embed(codes_BxWxN.astype(jnp.int32), codes_KxD)
    logits_BxSx4 = rebuild(config, params, embedding_BxWxD, valid_BxW)
    return jnp.argmax(logits_BxSx4, axis=-1).astype(jnp.uint8).reshape(*valid_BxW.shape, -1)

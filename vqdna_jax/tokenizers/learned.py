"""A trained tokenizer in memory: DNA of any length to codes, and codes back to DNA.

Legend: S bases, R bases a code, L = ceil(S / R) codes, N levels, K codebook size, D width, B windows a call, W codes a
window.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vqdna_jax import partition
from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import N, to_text
from vqdna_jax.models import quantize
from vqdna_jax.models.tokenizer import Decoder, TokenizerConfig, encode
from vqdna_jax.tokenizers import stitch
from vqdna_jax.tokenizers.base import DNA, Advance, as_bases

# A call computes this many bases whether it has them or not: few on a CPU, where a read would wait for them. Elsewhere
# the paper's model has activations of 200 MB in bf16.
BASES_PER_CALL = {"cpu": 8192, "elsewhere": 65536}


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A tokenizer on one device; `vqdna_jax.load(directory)` makes it.

    Attributes:
        config: the network. digest: sha256 of config and tensors, what code files are checked against.
        window_bp: bases of a training window, if recorded. hidden_share: of the bases hidden in training, likewise.
        params: {"encoder", "decoder"}. codes_KxD, counts_K: f32 arrays, one a level.
        windows: codes a window, halos included; results do not depend on it.
    """

    config: TokenizerConfig
    digest: str
    window_bp: int | None
    params: dict[str, Any]
    codes_KxD: tuple[Array, ...]
    counts_K: tuple[np.ndarray, ...]
    mesh: jax.sharding.Mesh
    windows: tuple[int, ...] = ()
    hidden_share: float | None = None

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return self.config.codebook_sizes

    def encode(self, sequences: DNA | Iterable[DNA]) -> np.ndarray | list[np.ndarray]:
        """Codes int32 [L, N] of a sequence, or a list of them for many; code l stands for bases [l R, (l + 1) R).

        A sequence is letters (either case; IUPAC letters are unknown bases) or uint8 bases [S] (A C G T N = 0 1 2 3 4),
        of any length above 0. It is encoded as if alone and whole, whatever else is in the list.

        Raises:
            InputError: an empty sequence or something that is not DNA, with its index and position.
        """
        numbers = isinstance(sequences, np.ndarray) and sequences.dtype.kind in "iufb"
        single = numbers or isinstance(sequences, str | bytes)
        bases = [as_bases(i, sequence) for i, sequence in enumerate([sequences] if single else sequences)]
        codes = [codes_LxN.astype(np.int32) for codes_LxN in self.encode_bases(bases)]
        return codes[0] if single else codes

    def decode(
        self, codes: np.ndarray | Iterable[np.ndarray], lengths: int | Sequence[int] | None = None
    ) -> str | list[str]:
        """Letters of codes [L, N], or a list of them for many.

        Args:
            lengths: bases of the sequence, or of each in a list; without it, all L R of them.

        Raises:
            InputError: another shape, a code out of range (with index and position), a length that is not of L codes.
        """
        single = isinstance(codes, np.ndarray) and codes.ndim == 2
        checked = [self.check_codes(i, codes_LxN) for i, codes_LxN in enumerate([codes] if single else codes)]
        wanted = [None] * len(checked) if lengths is None else [lengths] if single else list(lengths)
        if len(wanted) != len(checked):
            raise InputError(f"lengths: {len(wanted)} for {len(checked)} sequences; expected one a sequence")
        stops = [self._stop(i, len(codes_LxN), length) for i, (codes_LxN, length) in enumerate(zip(checked, wanted))]
        texts = [to_text(bases[:stop]) for bases, stop in zip(self.decode_codes(checked), stops)]
        return texts[0] if single else texts

    def encode_bases(self, bases: Sequence[np.ndarray], advance: Advance = lambda codes: None) -> list[np.ndarray]:
        """`encode` of uint8 bases [S] that are known to be good, to codes [L, N] of the smallest unsigned type."""
        r, levels = self.config.bases_per_code, len(self.codebook_sizes)
        whole = [np.pad(s, (0, -s.size % r), constant_values=N) if s.size % r else s for s in bases]
        inputs = [s.reshape(-1, r) for s in whole]
        outputs = [np.empty((len(x), levels), self.code_dtype) for x in inputs]
        self._stitch(_encode, (self.params["encoder"], self.codes_KxD), inputs, outputs, N, advance)
        return outputs

    def decode_codes(self, codes: Sequence[np.ndarray], advance: Advance = lambda codes: None) -> list[np.ndarray]:
        """`decode` of codes [L, N] that are known to be good, to uint8 bases [L R]."""
        outputs = [np.empty((len(codes_LxN), self.config.bases_per_code), np.uint8) for codes_LxN in codes]
        self._stitch(_decode, (self.params["decoder"], self.codes_KxD), codes, outputs, 0, advance)
        return [bases_LxR.ravel() for bases_LxR in outputs]

    def check_codes(self, name: int | str, codes: np.ndarray) -> np.ndarray:
        """The same codes [L, N] as `code_dtype`. Raises InputError with `name` (and position) if they are not codes."""
        codes, levels = np.asarray(codes), len(self.codebook_sizes)
        if codes.ndim != 2 or codes.shape[1] != levels or not len(codes) or codes.dtype.kind not in "iu":
            found = f"{codes.dtype}{list(codes.shape)}"
            raise InputError(f"codes {name}: expected integers [L, {levels}] as encode gives them, found {found}")
        bad = (codes < 0) | (codes >= np.asarray(self.codebook_sizes, np.int64)[None])
        if bad.any():
            at, level = (int(i) for i in np.argwhere(bad)[0])
            found, last = codes[at, level], self.codebook_sizes[level] - 1
            raise InputError(f"codes {name}, position {at}, level {level + 1}: {found} is not in 0 to {last}")
        return codes.astype(self.code_dtype, copy=False)

    @property
    def code_dtype(self) -> np.dtype:
        """uint16, or uint32 for codebooks over 65,536 codes."""
        return _code_dtype(self.config)

    def _stitch(self, function, weights, inputs, outputs, fill: int, advance: Advance) -> None:
        def apply(x_BxWxX: np.ndarray, valid_BxW: np.ndarray) -> Array:
            batch = partition.batch_to_devices({"x": x_BxWxX, "valid": valid_BxW}, self.mesh, len(x_BxWxX))
            return function(self.config, *weights, batch["x"], batch["valid"])

        halo = self.config.receptive_codes
        platform = self.mesh.devices.flat[0].platform
        bases_per_call = BASES_PER_CALL.get(platform, BASES_PER_CALL["elsewhere"])
        with jax.set_mesh(self.mesh):
            stitch.stitch(
                apply, inputs, outputs, halo=halo, fill=fill, windows=self.windows or stitch.window_sizes(halo),
                codes_per_call=bases_per_call // self.config.bases_per_code, advance=advance,
            )  # fmt: skip

    def _stop(self, index: int, codes: int, length: int | None) -> int:
        r = self.config.bases_per_code
        if length is not None and -(-length // r) != codes:
            low, high = (codes - 1) * r + 1, codes * r
            raise InputError(f"lengths, sequence {index}: {length}, but {codes} codes stand for {low} to {high} bases")
        return codes * r if length is None else length


def _code_dtype(config: TokenizerConfig) -> np.dtype:
    return np.dtype(np.uint16 if max(config.codebook_sizes) <= 1 << 16 else np.uint32)


@functools.partial(jax.jit, static_argnums=0)
def _encode(config: TokenizerConfig, params, codes_KxD, bases_BxWxR: Array, valid_BxW: Array) -> Array:
    """Codes [B, W, N]."""
    bases_BxS = bases_BxWxR.reshape(len(bases_BxWxR), -1)
    codes_BxWxN = encode(config, params, codes_KxD, bases_BxS, valid_BxW).codes_BxLxN
    return codes_BxWxN.astype(_code_dtype(config))


@functools.partial(jax.jit, static_argnums=0)
def _decode(config: TokenizerConfig, params, codes_KxD, codes_BxWxN: Array, valid_BxW: Array) -> Array:
    """Most likely bases, uint8 [B, W, R]."""
    embedding_BxWxD = quantize.embed(codes_BxWxN.astype(jnp.int32), codes_KxD)
    logits_BxSx4 = Decoder(config).apply({"params": params}, embedding_BxWxD, valid_BxW)
    return jnp.argmax(logits_BxSx4, axis=-1).astype(jnp.uint8).reshape(*valid_BxW.shape, -1)

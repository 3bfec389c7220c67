"""A trained model in use, whatever was trained: letters or bases in, codes, letters, vectors or labels out."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, Self

import numpy as np

from vqdna_jax.errors import InputError, plainly
from vqdna_jax.genome.alphabet import to_text
from vqdna_jax.inference import effects
from vqdna_jax.inference.changes import change_of
from vqdna_jax.inference.effects import Scores
from vqdna_jax.inference.finetuned import FineTuned, Predictions
from vqdna_jax.inference.pretrained import Pretrained
from vqdna_jax.models.pooling import UNPOOLED
from vqdna_jax.tokenizers.base import DNA, Tokenizer, as_bases, check_codes

_MOST_AT_ONCE = 1 << 40  # codes, more than any memory has


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """`vqdna_jax.load(directory)` makes it. Every model encodes and decodes; a pretrained one also embeds and scores, a
    fine-tuned one predicts, too. What a model cannot do raises an InputError that says what could.

    A sequence is letters (either case; IUPAC letters are unknown bases) or uint8 bases [S] (A C G T N = 0 1 2 3 4), of
    any length above 0. Each is treated as if alone and whole, whatever else is in the list.

    Attributes:
        name: where it was read from, for errors.
        pretrained: of a fine-tuned model the base.
    """

    name: str
    tokenizer: Tokenizer
    pretrained: Pretrained | None = None
    finetuned: FineTuned | None = None

    def __repr__(self) -> str:
        return f"<{self.name}: {self.kind}, digest {self.digest:.12}>"

    @property
    def kind(self) -> str:
        """What it is, in words."""
        if self.finetuned:
            return "a fine-tuned model"
        return "a pretrained model" if self.pretrained else "a tokenizer"

    @property
    def digest(self) -> str:
        """sha256 of what was trained last, which covers what it was trained on top of."""
        return (self.finetuned or self.pretrained or self.tokenizer).digest

    @property
    def tokenizer_digest(self) -> str:
        """What code files are checked against."""
        return self.tokenizer.digest

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes of each of the N levels."""
        return self.tokenizer.codebook_sizes

    @property
    def bases_per_code(self) -> int | None:
        """R; None where not every code stands for as many bases."""
        return self.tokenizer.bases_per_code

    @property
    def context(self) -> int:
        """Codes of the window that the transformer was trained on, CLS included. Raises InputError: there is none."""
        return self.embedder("context").context

    @property
    def label_names(self) -> tuple[str, ...]:
        """Of the columns of `predict`'s values. Raises InputError: it is not fine-tuned."""
        return self.predictor("label_names").label_names

    @plainly
    def with_batch(self, codes: int) -> Self:
        """The same model, which computes about so many codes at once, of whatever sequences: fewer need less memory.

        Codes do not depend on it; vectors and probabilities agree to rounding. Raises InputError: none, or more than
        can be counted.
        """
        if not 1 <= codes <= _MOST_AT_ONCE:
            raise InputError(
                f"batch: {codes}; expected 1 or more, codes that are computed at once, at most {_MOST_AT_ONCE:,}"
            )
        pretrained = self.pretrained and self.pretrained.with_batch(codes)
        finetuned = self.finetuned and dataclasses.replace(self.finetuned, base=self.finetuned.base.with_batch(codes))
        return dataclasses.replace(
            self, tokenizer=self.tokenizer.with_batch(codes), pretrained=pretrained, finetuned=finetuned
        )

    @plainly
    def encode(self, sequences: DNA | Iterable[DNA]) -> np.ndarray | list[np.ndarray]:
        """Codes int32 [L, N] of a sequence, or a list of them for many.

        Code l of a learned tokenizer stands for bases [l R, (l + 1) R); see `tokenizer.spans` for others.

        Raises InputError: an empty sequence or something that is not DNA, with its index and position.
        """
        single, bases = one_or_many(sequences)
        codes = [codes_LxN.astype(np.int32) for codes_LxN in self.tokenizer.encode(list(bases))]
        return codes[0] if single else codes

    @plainly
    def decode(
        self, codes: np.ndarray | Iterable[np.ndarray], lengths: int | Sequence[int] | None = None
    ) -> str | list[str]:
        """Letters of codes [L, N], or a list of them for many.

        Args:
            lengths: bases of the sequence, or of each in a list; without it, all that the codes stand for.

        Raises InputError: another shape, a code out of range (with index and position) or without bases, a length that
            is not of L codes.
        """
        if isinstance(codes, np.ndarray) and codes.ndim == 2:
            return self._decode([codes], [lengths])[0]
        codes = list(codes)
        if lengths is None:
            return self._decode(codes, [None] * len(codes))
        return self._decode(codes, list(lengths) if isinstance(lengths, Iterable) else [lengths])

    def _decode(self, codes: Sequence[np.ndarray], lengths: Sequence[Any]) -> list[str]:
        checked = [check_codes(i, codes_LxN, self.codebook_sizes) for i, codes_LxN in enumerate(codes)]
        if len(lengths) != len(checked):
            raise InputError(f"lengths: {len(lengths)} for {len(checked)} sequences; expected one for each")
        for i, (codes_LxN, length) in enumerate(zip(checked, lengths)):
            self._check_length(i, len(codes_LxN), length)
        return [to_text(bases[:stop]) for bases, stop in zip(self.tokenizer.decode(checked), lengths)]

    @plainly
    def embed(
        self, sequences: DNA | Iterable[DNA], pool: str = "mean", layer: int = -1
    ) -> np.ndarray | list[np.ndarray]:
        """Context vectors of a sequence, float32 [P], or [n, P] for many.

        They are of the pretrained transformer; of a fine-tuned model, of the transformer as it was tuned, its adapter
        merged (`model.pretrained.embed` is that of its base).

        Args:
            pool: some of models.pooling.POOLS over the sequence's codes, joined by "+": "mean", "max"; "cls": CLS, of a
                sequence longer than the training window the mean of its windows' CLS; "segments:N": [N D], the means of
                N parts of it, one after the other; "words": [K], log(1 + count) of each code of every level, which no
                layer changes; "pairs": [8191], the same of pairs of codes. "none": no pooling, [L, D] for a sequence
                and a list of them for many; vector l is of code l, np.repeat(vectors, R, axis=0)[:bases] is one per
                base.
            layer: -1: after the last norm. 0 to layers: what the residual stream holds after so many layers, 0: the
                network's input. -2, -3, ...: after layers - 1, layers - 2, ... layers.

        Raises InputError: as `encode`; there is no transformer; an unknown pool, "cls" of a network without CLS, a
            layer that there is not.
        """
        embedder = self.embedder()
        single, bases = one_or_many(sequences)
        vectors = embedder.embed(bases, pool, layer)
        if single or pool == UNPOOLED:
            return vectors[0] if single else vectors
        return np.stack(vectors) if vectors else np.zeros((0, embedder.width(pool)), np.float32)

    @plainly
    def predict(self, sequences: DNA | Iterable[DNA], errors: Literal["raise", "coerce"] = "raise") -> Predictions:
        """Labels and probabilities of a sequence (n = 1) or of many; of a model that was trained on both strands
        (data.strands=both), those of a sequence's reverse complement are the same to rounding.

        Args:
            errors: "raise" one for the first sequence that cannot be predicted, or "coerce" its values to nan and
                predict the others; `Predictions.errors` has the words.

        Raises InputError: as `encode`; it is not fine-tuned; a sequence longer than the context, if the model was
            trained to refuse these.
        """
        if errors not in ("raise", "coerce"):
            raise InputError(f"errors: {errors!r}; expected 'raise' or 'coerce'")
        predictor, strict = self.predictor(), errors == "raise"
        bases, problems = _tried(sequences, strict)
        encoded, good = predictor.encode(bases), [i for i, problem in enumerate(problems) if not problem]
        for i, length in zip(good, encoded.lengths):
            if problem := predictor.problem(length):
                problems[i] = f"sequence {i}: {problem}"
                if strict:
                    raise InputError(problems[i])
        kept = encoded.take([row for row, i in enumerate(good) if not problems[i]])
        return predictor.predictions(predictor.logits(kept)).among(problems)

    @plainly
    def score(self, reference: DNA | Iterable[DNA], alternative: DNA | Iterable[DNA]) -> Scores:
        """What the pretrained model makes of the change from each reference to its alternative; n = 1 of single ones.

        Both have the same bases around the change, and as many of them as there are: a window on both sides is the most
        that counts. Of a fine-tuned model it is its base that scores.

        Raises InputError: as `encode`; there is no pretrained model, or one without the head of its language model; not
            as many references as alternatives; both the same, a change of N or to N, a stretch over half a window.
        """
        model = self.scorer()
        references, alternatives = (list(one_or_many(sequences)[1]) for sequences in (reference, alternative))
        if len(references) != len(alternatives):
            raise InputError(f"score: {len(references)} references, {len(alternatives)} alternatives; expected as many")
        changes = map(change_of, references, alternatives)
        return effects.score_all(model, [effects.check(model, i, change) for i, change in enumerate(changes)])

    def scorer(self) -> Pretrained:
        """The pretrained model, with a head that scores, see `score`. Raises InputError where there is none."""
        model = self.base("score")
        effects.check_model(model, self.name)
        return model

    def base(self, what: str) -> Pretrained:
        """The pretrained model as it was pretrained. Raises InputError where there is none, naming `what` needs it."""
        return self.pretrained or self.embedder(what)

    def embedder(self, what: str = "embed") -> Pretrained:
        """The transformer that embeds, see `embed`. Raises InputError where there is none, naming `what` needs it."""
        if self.pretrained is None:
            raise InputError(
                f"{self.name}: is {self.kind}, {what} needs a pretrained model; name the export of a run with"
                " configs/mcm.py"
            )
        return self.finetuned.tuned if self.finetuned else self.pretrained

    def predictor(self, what: str = "predict") -> FineTuned:
        """What predicts. Raises InputError where it is not fine-tuned, naming `what` needs it."""
        if self.finetuned is None:
            raise InputError(
                f"{self.name}: is {self.kind} and not fine-tuned, {what} needs a fine-tuned model; name the export of a"
                " run with configs/finetune.py"
            )
        return self.finetuned

    def _check_length(self, index: int, codes: int, length: Any) -> None:
        """Raises InputError where so many codes are not of `length` bases."""
        if length is None:
            return
        if not isinstance(length, int | np.integer):
            raise InputError(f"lengths, sequence {index}: {length!r}; expected a number of bases")
        if self.tokenizer.codes_of(int(length)) in (None, codes):
            return
        r = self.bases_per_code
        bases = f"{(codes - 1) * r + 1} to {codes * r} bases" if r else "another number of bases"
        raise InputError(f"lengths, sequence {index}: {length}, but {codes} codes stand for {bases}")


def one_or_many(sequences: DNA | Iterable[DNA]) -> tuple[bool, Iterator[np.ndarray]]:
    """(whether it is one sequence, the bases of each). Raises InputError: as `as_bases`, sequence by sequence."""
    single, each = _each(sequences)
    return single, (as_bases(i, sequence) for i, sequence in enumerate(each))


def _each(sequences: DNA | Iterable[DNA]) -> tuple[bool, Iterable[DNA]]:
    """(whether it is one sequence, each)"""
    if isinstance(sequences, str | bytes) or (isinstance(sequences, np.ndarray) and sequences.dtype.kind in "iufb"):
        return True, [sequences]
    return False, sequences


def _tried(sequences: DNA | Iterable[DNA], strict: bool) -> tuple[list[np.ndarray], list[str]]:
    """The bases of all that are DNA, and what is wrong with each, "" of those. Raises as `as_bases` if `strict`."""
    bases, problems = list[np.ndarray](), list[str]()
    for i, sequence in enumerate(_each(sequences)[1]):
        try:
            bases.append(as_bases(i, sequence))
            problems.append("")
        except InputError as error:
            if strict:
                raise
            problems.append(str(error))
    return bases, problems

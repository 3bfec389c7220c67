"""Tokens by a published vocabulary: their ids are its lines, they cover a sequence once, and decoding gives it back."""

import json
import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusal

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import to_bases, to_text
from vqdna_jax.tokenizers import load
from vqdna_jax.tokenizers.vocabulary import VocabularyBytePairs, VocabularyKmers, VocabularyOverlapping

GOLDEN = pathlib.Path(__file__).parents[1] / "rivals/golden"
OVERLAPPING = VocabularyOverlapping.read(3, (GOLDEN / "dnabert/vocab.txt").read_text().split())
KMERS = VocabularyKmers.read(3, (GOLDEN / "nt/vocab.txt").read_text().split())
BASES = VocabularyKmers.read(1, ["[UNK]", *"TGCAN"])
PAIRS = VocabularyBytePairs.read(0, json.loads((GOLDEN / "dnabert2/tokenizer.json").read_text()))
ALL = {"overlapping": OVERLAPPING, "kmers": KMERS, "bases": BASES, "pairs": PAIRS}
sequences = st.text("ACGTN", min_size=1, max_size=60)


@given(sequences)
def test_words_at_every_base_are_those_of_the_vocabulary(text):
    (tokens_L,) = OVERLAPPING.tokens([to_bases(text)])
    ids = {word: id for id, word in enumerate(OVERLAPPING.words)}
    words = [text[i : i + 3] for i in range(len(text) - 2)] or [""]
    assert tokens_L.tolist() == [ids.get(word, OVERLAPPING.unknown) for word in words]


@given(sequences)
def test_words_side_by_side_begin_anew_after_every_n(text):
    """The published rule, a piece between Ns at a time."""
    (tokens_L,), words = KMERS.tokens([to_bases(text)]), []
    for i, piece in enumerate(text.split("N")):
        cut = len(piece) - len(piece) % 3
        words += ["N"] * (i > 0) + [piece[at : at + 3] for at in range(0, cut, 3)] + list(piece[cut:])
    assert [KMERS.words[token] for token in tokens_L] == words


@pytest.mark.parametrize("name", ALL)
@given(text=sequences)
def test_tokens_cover_a_sequence_and_give_it_back(name, text):
    tokenizer, bases = ALL[name], to_bases(text)
    (codes_Lx1,) = tokenizer.encode([bases])
    spans_Lx2 = tokenizer.spans(bases)
    assert len(spans_Lx2) == len(codes_Lx1) and tokenizer.codes_of(len(text)) in (None, len(codes_Lx1))
    assert (spans_Lx2[0, 0], spans_Lx2[-1, 1]) == (0, len(text))
    if name != "overlapping":
        np.testing.assert_array_equal(spans_Lx2[1:, 0], spans_Lx2[:-1, 1])
    if tokenizer.without_bases(codes_Lx1[:, 0]).any():
        with pytest.raises(InputError, match="are not known"):
            tokenizer.decode([codes_Lx1])
    else:
        assert to_text(tokenizer.decode([codes_Lx1])[0]) == text


@pytest.mark.parametrize("name", ALL)
def test_what_is_saved_is_loaded_and_special_tokens_have_no_bases(name, tmp_path):
    tokenizer = ALL[name]
    assert tokenizer.save(tmp_path / "saved") == tokenizer.digest == load.load(tmp_path / "saved").digest
    assert load.from_described(json.loads(json.dumps(tokenizer.described())), "here") == tokenizer
    special = [id for id, word in enumerate(tokenizer.words) if not set(word) <= set("ACGTN")]
    assert tokenizer.without_bases(np.array([*special, -1, tokenizer.vocabulary])).all()


@pytest.mark.parametrize(
    ("kind", "k", "listed", "said"),
    [
        (VocabularyOverlapping, 3, ["[UNK]"], "has no word AAA, one of 64 that"),
        (VocabularyKmers, 1, ["[UNK]", *"ACGT"], "has no word N"),
        (VocabularyKmers, 1, list("ACGTN"), "has none of [UNK]"),
        (VocabularyKmers, 1, ["[UNK]", *"ACGTNA"], "has the word 'A' twice"),
        (VocabularyKmers, 1, ["[UNK]", 5], "expected a list of words"),
        (VocabularyKmers, 1, [], "0 words"),
        (VocabularyOverlapping, 9, ["[UNK]"], "expected 1 to 8"),
        (VocabularyBytePairs, 0, {"model": 5}, "the tokenizers library cannot read it"),
        (VocabularyBytePairs, 2, {}, "expected 0"),
    ],
)
def test_a_vocabulary_that_is_none_is_refused(kind, k, listed, said):
    assert said in refusal(kind.read, k, listed)

"""Fixed tokenizers against slow ones, by hand, and back; byte pairs learnt and stored; damaged files are refused."""

import collections
import json
import shutil
import sys

import numpy as np
import pytest
import tokenizers

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import to_bases, to_text
from vqdna_jax.genome.build.bundled import bundled_corpus
from vqdna_jax.genome.corpus import open_corpus
from vqdna_jax.genome.windows import evaluation_windows
from vqdna_jax.tokenizers import byte_pairs, train_bpe
from vqdna_jax.tokenizers import load as tokenizers_load
from vqdna_jax.tokenizers.base import most_codes
from vqdna_jax.tokenizers.byte_pairs import BytePairs
from vqdna_jax.tokenizers.kmers import Kmers, OneHot, OverlappingKmers
from vqdna_jax.tokenizers.load import from_described

WORDS = [OneHot(), OverlappingKmers(3), OverlappingKmers(5), Kmers(6), Kmers(1), Kmers(8)]
SIZE = 120


@pytest.fixture(scope="module")
def corpus():
    return open_corpus(bundled_corpus())


@pytest.fixture(scope="module")
def bpe(corpus):
    return train_bpe.train_bpe(corpus, SIZE, bases=200_000)


@pytest.fixture(params=[*WORDS, "bpe"], ids=lambda words: getattr(words, "description", words))
def tokenizer(request, bpe):
    return bpe if request.param == "bpe" else request.param


@pytest.fixture(scope="module")
def sequences(corpus):
    """Real DNA of every length up to 40 and some longer, and random DNA with Ns in runs."""
    windows, rng = evaluation_windows(corpus, "validation", 300, 8).bases_BxS, np.random.default_rng(0)
    mixed = [np.where(rng.random(200) < share, 4, rng.integers(0, 4, 200)).astype(np.uint8) for share in (0.02, 0.7)]
    return [windows[0, :size] for size in range(41)] + list(windows) + mixed + [np.full(9, 4, np.uint8)]


def without_n(sequences):
    return [bases for bases in sequences if (bases < 4).all()]


def slow(tokenizer, text: str) -> list[str]:
    """Tokens as text, by other means; "?" for the unknown one."""
    k = tokenizer.k
    if tokenizer.kind == "bpe":
        ranks = {pair: rank for rank, pair in reversed(list(enumerate(tokenizer.merges)))}
        words = ["".join(run) for run in "".join(c if c != "N" else " " for c in text).split(" ")]
        tokens = []
        for i, word in enumerate(words):
            if i and (word or i == len(words) - 1):  # so many empty words stand between Ns in a row
                tokens.append("?")
            tokens += merged(list(word), ranks)
        return tokens
    if tokenizer.kind == "kmer":
        whole = len(text) // k * k
        words = [text[i : i + k] for i in range(0, whole, k)] + list(text[whole:])
    else:
        words = [text[i : i + k] for i in range(len(text) - k + 1)] or ["?"] * bool(text)
    return ["?" if "N" in word else word for word in words]


def merged(parts: list[str], ranks) -> list[str]:
    """The pair that was learnt first is joined first, from the left, one at a time."""
    while pairs := [(ranks[pair], i) for i, pair in enumerate(zip(parts, parts[1:])) if pair in ranks]:
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def texts(tokenizer, tokens_Lx1) -> list[str]:
    return ["?" if t == tokenizer.unknown else to_text(tokenizer.decode([t[None]])[0]) for t in tokens_Lx1]


def test_tokens_are_those_of_a_slow_tokenizer(tokenizer, sequences):
    for bases, tokens in zip(sequences, tokenizer.encode(sequences)):
        assert tokens.dtype == np.int32 and tokens.shape == (len(tokens), 1)
        found = texts(tokenizer, tokens)
        if tokenizer.kind == "one_hot":
            found = [text.replace("N", "?") for text in found]
        assert found == slow(tokenizer, to_text(bases)), to_text(bases)


def test_bases_come_back_from_their_tokens(tokenizer, sequences):
    for bases in without_n(sequences):
        if tokenizer.kind != "overlapping" or len(bases) >= tokenizer.k:
            np.testing.assert_array_equal(tokenizer.decode(tokenizer.encode([bases]))[0], bases)


def test_single_bases_bring_their_ns_back(sequences):
    tokenizer = OneHot()
    for bases, back in zip(sequences, tokenizer.decode(tokenizer.encode(sequences)), strict=True):
        np.testing.assert_array_equal(back, bases)


def test_how_many_tokens_is_known_before_encoding_or_said_to_be_unknown(tokenizer, sequences):
    for bases, tokens in zip(sequences, tokenizer.encode(sequences)):
        assert tokenizer.codes_of(len(bases)) == (None if tokenizer.kind == "bpe" else len(tokens))
        assert len(tokens) <= most_codes(tokenizer, len(bases))
        if tokenizer.step is not None and len(bases) > tokenizer.k:
            assert set(np.diff(tokenizer.spans(bases)[:, 0])) == {tokenizer.step}
        if r := tokenizer.bases_per_code:
            np.testing.assert_array_equal(tokenizer.spans(bases)[:, 0], r * np.arange(len(tokens)))


def test_a_token_is_unknown_if_its_span_holds_an_n_and_spells_its_span_if_not(tokenizer, sequences):
    for bases, tokens in zip(sequences, tokenizer.encode(sequences)):
        spans = tokenizer.spans(bases)
        assert spans.shape == (len(tokens), 2)
        if not len(bases):
            continue
        assert spans[0, 0] == 0 and spans[-1, 1] == len(bases)
        step = np.ones(len(spans) - 1, int) if tokenizer.kind == "overlapping" else np.diff(spans)[:-1, 0]
        np.testing.assert_array_equal(np.diff(spans[:, 0]), step)
        for (start, stop), token in zip(spans, tokens):
            if tokenizer.kind == "overlapping" and stop - start < tokenizer.k or (bases[start:stop] == 4).any():
                assert token == tokenizer.unknown
            else:
                np.testing.assert_array_equal(tokenizer.decode([token[None]])[0], bases[start:stop])


def test_windows_and_sequences_are_encoded_alike(tokenizer, corpus):
    windows = evaluation_windows(corpus, "validation", 100, 7).bases_BxS.copy()
    windows[2, 5:50] = 4
    for row, alone in zip(tokenizer.tokens(windows), tokenizer.encode(list(windows)), strict=True):
        np.testing.assert_array_equal(row[:, None], alone)


def test_tokens_fill_the_vocabulary_and_stay_in_it(tokenizer, corpus):
    windows = evaluation_windows(corpus, "train", 512, 512).bases_BxS
    tokens = np.concatenate(list(tokenizer.tokens(windows)))
    assert tokens.min() >= 0 and tokens.max() < tokenizer.unknown
    if tokenizer.vocabulary < 2000:
        singles = 4 if tokenizer.kind == "kmer" and 512 % tokenizer.k == 0 else 0
        assert len(np.unique(tokens)) == tokenizer.vocabulary - 1 - singles


def test_dnabert_and_nucleotide_transformer_by_hand():
    dnabert, nt = OverlappingKmers(), Kmers()
    assert (dnabert.vocabulary, nt.vocabulary) == (65, 4101)
    tokens = dnabert.encode([to_bases("ATTGACNG")])[0]
    assert texts(dnabert, tokens) == ["ATT", "TTG", "TGA", "GAC", "?", "?"]
    assert tokens[:2, 0].tolist() == [0 * 16 + 3 * 4 + 3, 3 * 16 + 3 * 4 + 2]
    tokens = nt.encode([to_bases("ATTGACGTACGTNTGCAATCN")])[0]
    assert texts(nt, tokens) == ["ATTGAC", "GTACGT", "?", "T", "C", "?"]
    assert tokens[3:, 0].tolist() == [4096 + 3, 4096 + 1, 4100]


def test_progress_counts_every_token(bpe, sequences):
    counts = []
    tokens = bpe.encode(sequences, counts.append)
    assert counts == [len(tokens_Lx1) for tokens_Lx1 in tokens]


@pytest.mark.parametrize("token", [-1, "unknown", "beyond"])
def test_a_token_without_bases_is_refused(tokenizer, token):
    token = {"unknown": tokenizer.unknown + (tokenizer.kind == "one_hot"), "beyond": 1 << 20}.get(token, token)
    with pytest.raises(InputError, match="token 1: "):
        tokenizer.decode([np.array([[0], [token]])])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("words", 1, []), "kind: 'words'"),
        (("vqdna-tokenizer/1", 1, []), "kind: 'vqdna-tokenizer/1'"),
        (("kmer", 0, []), "k: 0; expected 1 to 8"),
        (("overlapping", 9, []), "k: 9; expected 1 to 8"),
        (("one_hot", 3, []), "k: 3; expected 1 to 1"),
        (("bpe", 0, []), "only bpe has merges"),
        (("bpe", 0, 5), "merges a list"),
        (("bpe", 0, [["A", "CC"]]), "merge 0 is"),
        (("kmer", 6, [["A", "C"]]), "only bpe has merges"),
        (("kmer", 6, 5), "merges a list"),
    ],
)
def test_what_a_kind_does_not_have_is_refused(arguments, says):
    with pytest.raises(InputError, match=says.replace("(", r"\(")) as error:
        from_described(dict(zip(("kind", "k", "merges"), arguments)), "here")
    assert "\n" not in str(error.value) and str(error.value).startswith("here: ")


def test_byte_pairs_are_learnt_by_frequency_the_same_every_time(corpus, bpe):
    assert bpe.vocabulary == SIZE
    assert train_bpe.train_bpe(corpus, SIZE, bases=200_000) == bpe
    assert train_bpe.train_bpe(corpus, SIZE, bases=200_000, seed=1) != bpe
    words = ["".join(np.random.default_rng(0).choice(list("ACGT"), 400, p=[0.4, 0.3, 0.2, 0.1])), "ACGTACGTTG" * 9]
    parts, merges = [list(word) for word in words], byte_pairs.learn(words, 12)
    for pair in merges:
        counts = collections.Counter(p for word in parts for p in zip(word, word[1:]))
        assert counts[pair] == max(counts.values())
        parts = [merged(word, {pair: 0}) for word in parts]
    assert len(byte_pairs.ids_of(merges)) == 12


def test_text_with_too_few_pairs_is_refused():
    with pytest.raises(InputError, match="gave 5 tokens, expected 50; train on more"):
        byte_pairs.learn(["AC"], 50)


def test_without_the_library_the_error_says_how_to_get_it(monkeypatch, bpe):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"pip install vqdna_jax\[bpe\]"):
        BytePairs(bpe.merges).encode([to_bases("ACGT")])


def test_what_is_loaded_is_what_was_saved(tokenizer, tmp_path):
    digest = tokenizer.save(tmp_path / "saved")
    loaded = tokenizers_load.load(tmp_path / "saved")
    assert loaded == tokenizer and loaded.digest == digest
    assert Kmers(6).digest != Kmers(5).digest
    OneHot().save(tmp_path / "saved")  # a saved tokenizer may be replaced
    assert tokenizers_load.load(tmp_path / "saved") == OneHot()
    assert from_described(json.loads(json.dumps(tokenizer.described())), "here") == tokenizer


def test_the_library_itself_reads_the_file(bpe, tmp_path):
    bpe.save(tmp_path / "saved")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "saved/tokenizer.json"))
    text = "ACGTTGCAACGATTACCCCCAAGT" * 5
    assert theirs.encode(text).ids == bpe.encode([to_bases(text)])[0][:, 0].tolist()


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(InputError, match="is not a saved tokenizer"):
            OneHot().save(place)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("config.json", lambda c: c.update(digest="0" * 64), "digest"),
        ("config.json", lambda c: c.update(k=6), "k: 6; expected 0"),
        ("config.json", lambda c: c.update(k="0"), "expected text and an integer"),
        ("config.json", lambda c: c.update(kind="one_hot", k=1), "digest"),
        ("config.json", lambda c: c.update(schema="vqdna-tokenizer/1"), "no key 'model'"),
        ("config.json", lambda c: c.update(schema="vqdna-pretrained/1"), "schema is"),
        ("config.json", lambda c: c.update(schema="vqdna-fixed-tokenizer/2"), "newer than the vqdna-fixed-tokenizer/1"),
        ("config.json", lambda c: c.pop("kind"), "no key 'kind'"),
        ("tokenizer.json", lambda c: c["model"]["merges"].pop(), "vocabulary is not the one of its merges"),
        ("tokenizer.json", lambda c: c["model"]["vocab"].update(ACGTACGT=7), "vocabulary is not the one"),
        ("tokenizer.json", lambda c: c["model"]["merges"].insert(0, ["AC", "GT"]), "merge 0 is"),
        ("tokenizer.json", lambda c: c["model"].update(type="WordPiece"), "expected a byte-pair model"),
        ("tokenizer.json", lambda c: c["model"].update(merges=7), "merge 0 is '7'"),
    ],
)
def test_a_changed_file_is_refused(bpe, tmp_path, name, change, says):
    bpe.save(tmp_path / "saved")
    path = tmp_path / "saved" / name
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=says) as error:
        tokenizers_load.load(tmp_path / "saved")
    assert "\n" not in str(error.value) and str(path.parent) in str(error.value)


def test_merges_in_another_order_are_refused_though_they_agree_with_their_vocabulary(bpe, tmp_path):
    bpe.save(tmp_path / "saved")
    swapped = [*bpe.merges]
    swapped[:2] = swapped[1::-1]
    path = tmp_path / "saved/tokenizer.json"
    path.write_text(byte_pairs.to_json(tuple(swapped)))
    with pytest.raises(InputError, match="digest"):
        tokenizers_load.load(tmp_path / "saved")


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("{")])
def test_a_missing_or_cut_file_is_refused(bpe, tmp_path, damage):
    bpe.save(tmp_path / "saved")
    for name in ("tokenizer.json", "config.json"):
        copy = shutil.copytree(tmp_path / "saved", tmp_path / name)
        damage(copy / name)
        with pytest.raises(InputError, match=name):
            tokenizers_load.load(copy)

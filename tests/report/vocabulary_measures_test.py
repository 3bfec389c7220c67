"""What an audit measures, on vocabularies and labels of which the right numbers are known."""

import numpy as np
import pytest

from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import reverse_complement, to_bases
from vqdna_jax.genome.annotation.features import Annotation, Feature
from vqdna_jax.inference.jobs.tracks import Span
from vqdna_jax.report.vocabulary import edits, enrichment, labels, one_hot_vq, rates, sample, vocabularies, words
from vqdna_jax.report.vocabulary.one_hot_vq import OneHotVQ
from vqdna_jax.report.vocabulary.sample import Sample, Stretch
from vqdna_jax.report.vocabulary.vocabularies import Vocabulary, coded, in_windows
from vqdna_jax.tokenizers.kmers import Kmers, OneHot, OverlappingKmers

RNG = np.random.default_rng(0)
BASES = RNG.integers(0, 4, 24_000).astype(np.uint8)
WINDOWS = BASES.reshape(-1, 240)
FIXED = {"bases": OneHot(), "4-mers": OverlappingKmers(4), "6-mers": Kmers(6)}


def sample_of(bases: np.ndarray, contig: str = "c") -> Sample:
    stretch = Stretch("genome", contig, 0, bases, np.zeros(len(bases), bool))
    return Sample({contig: len(bases)}, [stretch], len(bases), [])


def annotation_of(*features: Feature) -> Annotation:
    return Annotation("x.gff", "GFF", list(features), "")


def coding(start: int, stop: int, strand: str = "+", kind: str = "CDS", contig: str = "c") -> Feature:
    return Feature(contig, kind, strand, ((start, stop),), True, "x.gff:1")


@pytest.mark.parametrize("most", [1, 1000, 250_000, 999_999, 1_000_009])
def test_stretches_are_within_spans_apart_and_about_as_many_bases_as_asked(most):
    spans = [Span("a", 700_000, 0, 700_000), Span("b", 10, 0, 10), Span("c", 900_000, 100_000, 400_000)]
    found = sample.thinned(spans, most)
    assert all(any(of.contig == s.contig and of.start <= s.start < s.stop <= of.stop for of in spans) for s in found)
    assert all(s.contig != t.contig or s.stop <= t.start for s, t in zip(found, found[1:]))
    assert most / 2 <= sum(s.stop - s.start for s in found) <= most + sample.STRETCH and len(found) >= min(most, 10)
    assert sample.thinned(spans, 0) == sample.thinned(spans, 1_000_010) == spans


def test_labels_are_where_the_annotation_says():
    bases = np.zeros(200, np.uint8)
    spliced = Feature("c", "mRNA", "+", ((60, 70), (90, 100)), True, "")
    features = [coding(60, 100, kind="gene"), spliced, coding(150, 162), coding(190, 199, "-")]
    found = {name: np.flatnonzero(mask).tolist() for name, mask in labels.masks(sample_of(bases), features).items()}
    assert found["introns"] == list(range(70, 90))
    assert found["coding"] == [*range(150, 162), *range(190, 199)]
    assert found["genes, read backwards"] == list(range(190, 199))
    assert found["codon base 2, forwards"] == [151, 154, 157, 160]
    before = set(range(10, 60)) | set(range(100, 150)) | {199}
    assert found["50 bases before genes"] == sorted(before)
    assert "RNA genes" not in found and "soft-masked" not in found and "rich in G and C" not in found


def genes(shift: int = 0) -> tuple[Annotation, Sample]:
    """Forty of them on both strands, whose annotation lies `shift` bases further on."""
    bases, found = BASES.copy(), []
    for number, start in enumerate(range(600, 20_000, 480)):
        backwards = bool(number % 2)
        bases[start : start + 300] = (
            reverse_complement(to_bases("ATG" + "C" * 297)) if backwards else to_bases("ATG" + "C" * 297)
        )
        found.append(coding(start + shift, start + 300 + shift, "-" if backwards else "+"))
    return annotation_of(*found), sample_of(bases)


def test_genes_that_begin_with_no_start_codon_are_of_another_assembly():
    annotation, of = genes()
    starts = labels.check_starts(annotation, annotation.features, of)
    assert starts.right == starts.total == len(annotation.features) and starts.shifted == 0
    annotation, of = genes(shift=7)
    with pytest.raises(InputError, match=r"x.gff: \d+ of 41 coding sequences begin with ATG, .* another assembly"):
        labels.check_starts(annotation, annotation.features, of)


@pytest.mark.parametrize(
    ("features", "lengths", "said"),
    [
        ([coding(0, 9, contig="d")], {"c": 100}, "x.gff: is of 'd', and the FASTA has 'c'"),
        ([coding(0, 109)], {"c": 100}, "x.gff:1: ends at 109, and c has 100 bases"),
        ([coding(0, 9)._replace(contig=None)], {"c": 100, "d": 100}, "names no sequence, and the FASTA has 2"),
    ],
)
def test_annotation_of_other_contigs_is_refused(features, lengths, said):
    with pytest.raises(InputError) as refused:
        labels.placed(annotation_of(*features), Sample(lengths, [], 0, []))
    assert said in str(refused.value)


def test_contigs_may_be_called_otherwise():
    found, notes = labels.placed(annotation_of(coding(0, 9, contig="chr1")), Sample({"1": 100}, [], 0, []))
    assert found[0].contig == "1" and notes == ["names of contigs: chr1 is read as 1"]


def label_and_codes(chance: np.ndarray, size: int = 20) -> np.ndarray:
    """Codes, of which code 0 comes in place of others with this chance at each place."""
    codes_L = np.random.default_rng(1).integers(1, size, len(chance))
    codes_L[np.random.default_rng(2).random(len(chance)) < chance] = 0
    return codes_L


LABEL = np.repeat(np.random.default_rng(3).random(400) < 0.4, 100)  # runs of 100
FLAT = np.zeros(len(LABEL), np.uint8)


@pytest.mark.parametrize("how", ["moved", "dealt"])
def test_a_word_that_is_commoner_where_a_label_holds_is_found_and_in_shuffles_none(how, monkeypatch):
    monkeypatch.setattr(enrichment, "BLOCK", 100)
    found = enrichment.enrichment(label_and_codes(np.where(LABEL, 0.2, 0.05)), 20, LABEL, FLAT, how)
    assert found["words"][0]["code"] == 0 and found["words"][0]["found"] and found["found_by_gc"] >= 1
    assert found["words"][0]["times"] == pytest.approx(0.2 / (0.2 * LABEL.mean() + 0.05 * (1 - LABEL.mean())), rel=0.1)
    assert found["in_shuffles"] < 0.5 and found["bits"] > 0.01


def test_words_that_have_nothing_to_do_with_a_label_are_not_found():
    found = enrichment.enrichment(label_and_codes(np.full(len(LABEL), 0.1)), 20, LABEL, FLAT, "moved")
    assert found["found"] == found["found_by_gc"] == 0 and abs(found["bits"]) < 1e-3 and found["tested"] == 20


def test_what_g_and_c_explain_is_found_without_them_only():
    strata = np.repeat(np.random.default_rng(4).integers(0, 10, 400), 100).astype(np.uint8)
    label = np.random.default_rng(5).random(len(strata)) < strata / 10
    found = enrichment.enrichment(label_and_codes(strata / 30), 20, label, strata, "moved")
    assert found["found"] > 0 and found["found_by_gc"] == 0


def test_a_word_that_is_the_label_tells_all_of_it():
    found = enrichment.enrichment(LABEL.astype(np.int64), 2, LABEL, FLAT, "moved")
    assert found["bits"] == pytest.approx(found["label_bits"], rel=0.05)


@pytest.mark.parametrize(("name", "changed", "silent"), [("bases", 1, 0), ("4-mers", 4, 0), ("6-mers", 1, 0)])
def test_a_substitution_changes_the_words_that_hold_the_base(name, changed, silent):
    row, _ = edits.edits(Vocabulary(name, FIXED[name]), in_windows(Vocabulary(name, FIXED[name]), WINDOWS))
    assert row["changed"] == [changed] == [row["holding"]] and row["silent"] == silent and row["farthest"] == 0


@pytest.mark.parametrize("name", FIXED)
def test_an_insertion_changes_no_word_before_it_and_side_by_side_nearly_all_behind_it(name):
    _, row = edits.edits(Vocabulary(name, FIXED[name]), in_windows(Vocabulary(name, FIXED[name]), WINDOWS))
    before, behind = (np.mean([share for far, share in row["profile"] if far * side > 5]) for side in (-1, 1))
    assert before == 0 and (behind > 0.9 if name == "6-mers" else behind == 0)
    assert row["silent"] == (name == "bases")


@pytest.mark.parametrize("name", FIXED)
def test_what_keeps_every_base_gives_all_back_at_two_bits_each(name):
    vocabulary = Vocabulary(name, FIXED[name])
    told = coded(vocabulary, sample_of(BASES), False)
    found = rates.rate(vocabulary, told, in_windows(vocabulary, WINDOWS))
    assert found["right"] == 1 and found["bits_a_base"] == pytest.approx(8 if name == "4-mers" else 2, rel=0.05)
    assert rates.usage(vocabulary, told)[0]["used"] <= vocabulary.coder.codebook_sizes[0]


@pytest.mark.parametrize("name", ["bases", "4-mers"])
def test_words_whose_reverse_complement_is_one_have_partners(name):
    vocabulary = Vocabulary(name, FIXED[name])
    (row,) = rates.strands(vocabulary, in_windows(vocabulary, WINDOWS))
    assert row["consistency"] == row["cut"] == 1 and row["chance"] < 0.3


def test_words_that_hold_n_are_left_out_and_the_others_lie_where_they_did():
    bases = BASES[:120].copy()
    bases[[3, 60]] = 4
    told = coded(Vocabulary("x", Kmers(6)), sample_of(bases), False)
    assert told.start_L.tolist() == [start for start in range(0, 120, 6) if start not in (0, 60)]
    assert (told.codes_LxN[:, 0] < 4096).all()


@pytest.mark.parametrize("r", [1, 4, 8])
def test_one_hot_vq_codes_a_place_by_its_window_alone_and_keeps_all_where_it_has_codes_enough(r, monkeypatch):
    monkeypatch.setattr(one_hot_vq, "LONGEST", 5)  # the table of all windows is small then
    few = np.tile(to_bases("ACGTTGCA"), 30)[None].repeat(2, axis=0)
    exact = OneHotVQ.fit(few, r, (64, 4))
    (codes,) = exact.encode([few[0]])
    inside = slice(16, -16)
    assert (exact.decode([codes])[0][inside] == few[0][inside]).all()
    coarse = OneHotVQ.fit(WINDOWS, r, (16, 8))
    (whole,), parts = coarse.encode([BASES[:480]]), coarse.encode([BASES[:240], BASES[:480]])
    assert (parts[1] == whole).all() and (parts[0][: 240 // r - 9] == whole[: 240 // r - 9]).all()
    assert len(coarse.spans(BASES[:475])) == len(coarse.encode([BASES[:475]])[0])


def test_a_word_has_the_letters_that_it_stands_for_and_its_contexts_beside_their_share_anywhere():
    vocabulary = Vocabulary("x", OverlappingKmers(3))
    told = coded(vocabulary, sample_of(BASES), False)
    letters = words.Letters(vocabulary, told, sample_of(BASES))
    found = letters.described(words.Word(1, 0b000110))  # ACG
    own = np.array(found["letters"])[words.AROUND : words.AROUND + 3]
    assert (
        own.argmax(axis=1).tolist() == [0, 1, 2]
        and (own.max(axis=1) == 1).all()
        and found["gc"] == pytest.approx(2 / 3)
    )
    assert all(context["letters"][2:5] == "ACG" for context in found["contexts"])
    assert np.mean([context["times"] for context in found["contexts"]]) > 20  # of 64 where all are as common
    outside = np.array(found["bits"])[: words.AROUND]
    assert (outside < 0.1).all() and np.array(found["bits"])[words.AROUND] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("text", ["", "1", "1:", ":1", "a:1", "1:-1", "1:1:1"])
def test_what_is_no_word_is_refused(text):
    with pytest.raises(InputError, match="expected LEVEL:CODE"):
        words.word_of(text)


@pytest.mark.parametrize(
    ("word", "said"), [("2:0", "no level 2; its levels are 1 to 1"), ("1:65", "level 1 are 0 to 64")]
)
def test_a_word_that_the_model_has_not_is_refused(word, said):
    with pytest.raises(InputError, match=said):
        words.check_words([words.word_of(word)], Vocabulary("x", OverlappingKmers(3)))


def test_a_word_that_does_not_occur_is_refused():
    vocabulary, of = Vocabulary("x", OverlappingKmers(3)), sample_of(np.zeros(500, np.uint8))
    letters = words.Letters(vocabulary, coded(vocabulary, of, False), of)
    with pytest.raises(InputError, match="--word=1:1: does not occur"):
        letters.described(words.Word(1, 1))


def test_motifs_ship_and_are_spelt_alike_where_words_are_bases():
    listed = edits.read_motifs(None)
    assert len(listed) > 10 and len({motif.name for motif in listed}) == len(listed)
    for row in edits.motifs(Vocabulary("x", OneHot()), listed, WINDOWS):
        assert row["same"] == row["same_shuffled"] == 1
    sixes = edits.motifs(Vocabulary("x", Kmers(6)), listed, WINDOWS)
    assert all(row["same"] < 0.6 and 1 <= row["words"] <= 5 for row in sixes)


@pytest.mark.parametrize("line", ["name", "name\tACGX", "\tACG", "name\tA", f"name\t{'A' * 99}", "# nothing"])
def test_a_line_that_is_no_motif_is_refused_by_file_and_line(line, tmp_path):
    (tmp_path / "m.tsv").write_text(f"{line}\n")
    with pytest.raises(InputError, match=f"{tmp_path}/m.tsv:(1:)? .*expected"):
        edits.read_motifs(tmp_path / "m.tsv")


def test_two_vocabularies_of_a_name_are_refused():
    with pytest.raises(InputError, match="two vocabularies are named '6-mers'"):
        vocabularies.set_against(Vocabulary("x", OneHot()), ["6-mers", "6-mers"], WINDOWS, sample_of(BASES))

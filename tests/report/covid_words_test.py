import numpy as np
import pytest
import small_covid
from tiny_tokenizer import save_tiny

from vqdna_jax.report.covid import information, nearest, readers
from vqdna_jax.report.covid.genotypes import Genomes, genome, read_genomes
from vqdna_jax.report.covid.spelling import Reader, spell
from vqdna_jax.tokenizers import load

COUNTED = ["hrq 1", "hrq 4", "kmers", "bases"]


@pytest.fixture(scope="module")
def genomes(tmp_path_factory) -> Genomes:
    return read_genomes(*small_covid.write(tmp_path_factory.mktemp("covid")), seed=3)


@pytest.fixture(scope="module")
def readers_by_name(tmp_path_factory) -> dict[str, Reader]:
    found = {"kmers": readers.kmers(), "bases": readers.bases(), "contexts": readers.contexts(readers.kmers())}
    for bases_per_code in (1, 4):
        save_tiny(directory := tmp_path_factory.mktemp("tokenizer"), "hrq", bases_per_code)
        found[f"hrq {bases_per_code}"] = readers.learned(load.load(directory))
    return found


@pytest.mark.parametrize("name", [*COUNTED, "contexts"])
def test_words_are_those_of_whole_genomes(readers_by_name, name, genomes):
    """Although only what substitutions may change is encoded."""
    reader = readers_by_name[name]
    spelling = spell(reader, genomes)
    whole = np.stack(reader.encode([genome(genomes.reference, g) for g in genomes.genotypes], lambda words: None))
    assert all((spelling.at(place) == whole[:, place]).all() for place in range(0, whole.shape[1], 3))
    assert (whole != spelling.reference_LxN).any()


@pytest.mark.parametrize("name", COUNTED)
def test_changes_are_differences_of_counts(readers_by_name, name, genomes):
    spelling = spell(readers_by_name[name], genomes)
    first, last = 7, len(spelling.reference_LxN) - 11
    size = 1 + max(int(words.max()) for words in [spelling.reference_LxN, *spelling.words])
    words_GxL = np.stack([spelling.at(place)[:, -1] for place in range(first, last)], axis=1)
    counts_GxK = np.stack([np.bincount(words_L, minlength=size) for words_L in words_GxL])
    counts_GxK = counts_GxK - np.bincount(spelling.reference_LxN[first:last, -1], minlength=size)
    assert (spelling.changes(first, last, spelling.levels - 1, size).toarray() == counts_GxK).all()


@pytest.mark.parametrize("name", [*COUNTED, "contexts"])
def test_words_inside_a_window_do_not_depend_on_what_is_outside(readers_by_name, name, genomes):
    start, stop = 160, 480
    spelling = spell(readers_by_name[name], genomes)
    first, last = spelling.inside(start, stop, len(genomes.reference))
    other = small_covid.reference(seed=8)
    other[start:stop] = genomes.reference[start:stop]
    (words_LxN,) = readers_by_name[name].encode([other], lambda words: None)
    assert last > first and (words_LxN[first:last] == spelling.reference_LxN[first:last]).all()
    assert spelling.inside(0, len(other), len(other)) == (0, len(words_LxN))


@pytest.mark.parametrize("name", [*COUNTED, "contexts"])
def test_every_base_has_a_word_that_knows_it(readers_by_name, name, genomes):
    spelling = spell(readers_by_name[name], genomes)
    bases, halo = len(genomes.reference), max(1, readers_by_name[name].halo) * readers_by_name[name].bases_per_code
    places = [spelling.of(base) for base in range(bases)]
    assert places == sorted(places) and {*places} == {*range(len(spelling.reference_LxN))}
    assert all(abs(word * spelling.reader.bases_per_code - base) <= halo for base, word in enumerate(places))


def test_information_of_what_is_known():
    labels = np.repeat(np.arange(4), 50)
    assert information.information(labels * 7 + 1, labels) == pytest.approx(2)
    assert information.information(labels // 2, labels) == pytest.approx(1)
    assert information.information(np.tile(np.arange(50), 4), labels) == pytest.approx(0, abs=1e-12)


def test_bases_tell_a_substitution_whole_and_contexts_tell_no_less(genomes):
    mutations = information.common_mutations(genomes)
    (bases,) = information.told_at_sites(spell(readers.bases(), genomes), genomes, mutations)
    (around,) = information.told_at_sites(spell(readers.contexts(readers.kmers()), genomes), genomes, mutations)
    own = [i for i, mutation in enumerate(mutations) if mutation.has_G.sum() == 20]
    assert {mutations[i].place for i in own} == {30 + 20 * v + 120 * i for v in range(3) for i in range(5)}
    assert bases.mutation_shares[own] == pytest.approx(1)
    assert (around.variant_bits >= bases.variant_bits - 1e-9).all()
    assert bases.variant_bits.max() == pytest.approx(np.log2(3) - 2 / 3)  # one variant of three is told from the rest
    assert 0 <= bases.variant_shuffled < bases.variant_bits.mean()


def test_what_is_told_anywhere_is_more_than_of_shuffled_genomes(genomes):
    told = information.told_anywhere(spell(readers.kmers(), genomes), 0, genomes)
    assert 0 < told["shuffled"] < told["bits"]


def test_an_interval_holds_its_mean():
    mean, low, high = information.interval(np.random.default_rng(0).normal(1, 1, 400))
    assert low < mean < high and high - low == pytest.approx(4 / np.sqrt(400), rel=0.2)


def test_windows_cover_what_there_is():
    assert nearest.side_by_side(10, 4) == [(0, 4), (4, 8)]
    assert nearest.side_by_side(10, 0) == nearest.side_by_side(10, 10) == nearest.at_random(10, 11) == [(0, 10)]
    assert all(start >= 0 and stop == start + 4 <= 10 for start, stop in nearest.at_random(10, 4))


@pytest.mark.parametrize("width", [0, 160])
def test_variants_with_substitutions_of_their_own_are_named(genomes, width):
    found = nearest.substitutions(genomes)
    windows = nearest.side_by_side(len(genomes.reference), width)
    told = [nearest.naive_bayes(found, windows, genomes, placed) for placed in (False, True)]
    assert min(*told, *nearest.nearest(found.embed, windows, genomes)) >= 0.95


def test_labels_that_mean_nothing_are_guessed(genomes):
    """And not known from the genomes that are held out."""
    shuffled = genomes._replace(labels_G=np.random.default_rng(4).permutation(genomes.labels_G))
    found, windows = nearest.substitutions(shuffled), [(0, len(genomes.reference))]
    told = [*nearest.nearest(found.embed, windows, shuffled), nearest.naive_bayes(found, windows, shuffled, True)]
    assert max(told) < 0.8


def test_squared_distances_are_numbers_of_substitutions_that_differ(genomes):
    x_GxM = nearest.substitutions(genomes).embed(0, len(genomes.reference)).toarray()
    one, other = (genome(genomes.reference, genomes.genotypes[i]) for i in (0, 45))
    where, reference = one != other, genomes.reference
    both = (one[where] != reference[where]) & (other[where] != reference[where])  # two substitutions at one place
    assert np.square(x_GxM[0] - x_GxM[45]).sum() == where.sum() + both.sum()

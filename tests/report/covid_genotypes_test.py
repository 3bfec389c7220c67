import numpy as np
import pytest
import small_covid
from refusals import refusal
from small_covid import BASES, VARIANTS, substitution

from vqdna_jax.genome.alphabet import reverse_complement, to_text
from vqdna_jax.report.covid.genotypes import FEWEST, genome, read_genomes


def test_a_genome_is_the_reference_with_its_substitutions(tmp_path):
    rows, made = small_covid.genotypes(), set()
    read = read_genomes(*small_covid.write(tmp_path, rows))
    for name, of in rows:
        letters = list(to_text(small_covid.reference()))
        for item in of:
            letters[int(item[:-1]) - 1] = item[-1]
        made.add((name, "".join(letters)))
    assert {(g.variant, to_text(genome(read.reference, g))) for g in read.genotypes} == made
    assert read.variants == list(VARIANTS)


def test_genomes_that_are_the_same_are_one_whatever_their_rows_say(tmp_path):
    """In another order, with a substitution that changes nothing, under another variant: none is on both sides."""
    rows = small_covid.genotypes()
    nothing = f"{BASES}{to_text(small_covid.reference())[-1]}"
    rows[5:5] = [("Alpha", rows[0][1][::-1]), ("Alpha", [*rows[0][1], nothing]), ("Gamma", rows[0][1])]
    read = read_genomes(*small_covid.write(tmp_path, rows))
    assert read.repeated == 3 and len(read.genotypes) == len(rows) - 3
    assert len({genome(read.reference, g).tobytes() for g in read.genotypes}) == len(read.genotypes)


@pytest.mark.parametrize("seed", [0, 1])
def test_as_many_of_each_variant_are_drawn_and_held_out(tmp_path, seed):
    read, again = (read_genomes(*small_covid.write(tmp_path), most=10, seed=seed) for _ in range(2))
    assert np.bincount(read.labels_G).tolist() == [10] * 3
    assert np.bincount(read.labels_G, read.held_out_G).tolist() == [2] * 3
    assert [g.places_M.tolist() for g in read.genotypes] == [g.places_M.tolist() for g in again.genotypes]


@pytest.mark.parametrize(
    "items, said",
    [
        (["30"], "'30' is no substitution"),
        (["0A"], "'0A' is no substitution"),
        (["17N"], "'17N' is no substitution"),
        (["a17"], "'a17' is no substitution"),
        (["17A;18C"], "'17A;18C' is no substitution"),
        (["del17"], "'del17' is no substitution"),
        (["", "17A"], "'' is no substitution"),
        ([substitution(30), substitution(30, 3)], "the place 31 is substituted twice"),
    ],
)
def test_what_is_no_substitution_is_refused_with_its_line(tmp_path, items, said):
    rows = small_covid.genotypes()
    rows[6] = ("Alpha", [substitution(12), *items])
    table, fasta = small_covid.write(tmp_path, rows)
    told = refusal(read_genomes, table, fasta)
    assert told.startswith(f"{table}:8:") and said in told and "913T,3037T" in told


def test_a_row_without_a_variant_or_a_field_is_refused_with_its_line(tmp_path):
    table, fasta = small_covid.write(tmp_path, [("", [substitution(3)])])
    assert refusal(read_genomes, table, fasta).startswith(f"{table}:2:1: no variant")
    table.write_text(f"{small_covid.HEADER}\nAlpha\tA\t{substitution(3)}\n")
    assert refusal(read_genomes, table, fasta).startswith(f"{table}:2:")
    table.write_text("who\tlineage\tchanges\nAlpha\tA\t3A\n")
    assert "'substitutions'" in refusal(read_genomes, table, fasta)
    table.write_text(f"{small_covid.HEADER}\n")
    assert "no rows" in refusal(read_genomes, table, fasta)


OTHERS = {
    "another sequence": small_covid.reference(seed=5),
    "the other strand": reverse_complement(small_covid.reference()),
    "one base later": np.append(np.uint8(0), small_covid.reference()),
    "all N": np.full(BASES, 4, np.uint8),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_sequence_that_the_substitutions_are_not_of_is_refused(tmp_path, name):
    table, fasta = small_covid.write(tmp_path, sequence=OTHERS[name])
    told = refusal(read_genomes, table, fasta)
    assert told.startswith(f"{fasta}: is no reference of these genomes") and "MN908947.3" in told


def test_a_sequence_that_is_too_short_is_refused_with_the_row_that_says_so(tmp_path):
    rows = small_covid.genotypes()
    rows[3][1].append(substitution(BASES - 1))
    table, fasta = small_covid.write(tmp_path, rows, small_covid.reference()[: BASES - 1])
    told = refusal(read_genomes, table, fasta)
    assert told.startswith(f"{fasta}: 1 records, none long enough: place {BASES} is substituted in {table}:5;")


def test_the_record_that_fits_is_found_among_others(tmp_path):
    table, fasta = small_covid.write(tmp_path)
    other = to_text(small_covid.reference(seed=9, bases=3 * BASES))
    fasta.write_text(f">other\n{other}\n>short\nACGT\n{fasta.read_text()}")
    read = read_genomes(table, fasta)
    assert read.record == "ref" and (read.reference == small_covid.reference()).all()


def test_too_few_genomes_or_variants_are_refused(tmp_path):
    rows = small_covid.genotypes()
    few = [*rows[: FEWEST - 1], *rows[20:]]
    assert f"{FEWEST - 1} distinct genomes of Alpha" in refusal(read_genomes, *small_covid.write(tmp_path, few))
    assert "one variant, 'Alpha'" in refusal(read_genomes, *small_covid.write(tmp_path, rows[:20]))
    assert "--genomes: 9" in refusal(read_genomes, *small_covid.write(tmp_path, rows), most=9)

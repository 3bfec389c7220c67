"""Bases: strands, letters and packing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vqdna_jax.errors import InputError
from vqdna_jax.genome import alphabet

bases_S = hnp.arrays(np.uint8, st.integers(0, 300), elements=st.integers(0, 4))


@given(bases_S)
def test_reverse_complement_is_an_involution_that_keeps_n(bases):
    other = alphabet.reverse_complement(bases)
    np.testing.assert_array_equal(alphabet.reverse_complement(other), bases)
    np.testing.assert_array_equal(other == 4, (bases == 4)[::-1])


def test_reverse_complement_reads_the_last_axis():
    bases = np.stack([alphabet.to_bases("AACGN"), alphabet.to_bases("TTTTT")])
    assert [alphabet.to_text(row) for row in alphabet.reverse_complement(bases)] == ["NCGTT", "AAAAA"]
    assert alphabet.reverse_complement(bases).dtype == np.uint8


@given(hnp.arrays(np.uint8, st.integers(0, 300), elements=st.integers(0, 3)))
def test_packing_keeps_every_base_in_a_quarter_of_the_bytes(bases):
    packed = alphabet.pack_bases(bases)
    assert packed.dtype == np.uint8 and packed.size == -(-bases.size // 4)
    np.testing.assert_array_equal(alphabet.unpack_bases(packed, bases.size), bases)


def test_the_first_base_is_in_the_lowest_bits_and_n_is_stored_as_a():
    assert alphabet.pack_bases(alphabet.to_bases("CAAT")).tolist() == [0b11_00_00_01]
    np.testing.assert_array_equal(
        alphabet.pack_bases(alphabet.to_bases("NCGTN")), alphabet.pack_bases(alphabet.to_bases("ACGTA"))
    )


@given(st.text("ACGTN"))
def test_letters_round_trip(text):
    assert alphabet.to_text(alphabet.to_bases(text)) == text
    np.testing.assert_array_equal(alphabet.to_bases(text.lower()), alphabet.to_bases(text.encode()))


def test_iupac_letters_become_n():
    assert set(alphabet.to_bases("RYSWKMBDHVNryswkmbdhvn").tolist()) == {4}


@pytest.mark.parametrize("letter", list("U-.*EFILPQXZJO 1\n\0>") + ["é"])
def test_anything_else_is_refused_with_its_position(letter):
    with pytest.raises(InputError, match="position 3"):
        alphabet.to_bases("ACG" + letter + "T")

import itertools
import json
import pathlib
import re

import numpy as np
import pytest
from small_sequences import random_texts

from vqdna_jax.benchmark.sets import find, species
from vqdna_jax.benchmark.sets.cards import CARDS
from vqdna_jax.benchmark.sets.species_split import GAP, Contig, chromosome, regions
from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import reverse_complement, to_bases, to_text
from vqdna_jax.genome.fasta import load_fasta
from vqdna_jax.labels.sets import read_set

SPLITS = ("train", "dev", "test")
LENGTH, ITEMS = 150, {"train": 30, "dev": 10, "test": 12}


def rows_of(path: pathlib.Path) -> dict[str, list[tuple[str, str]]]:
    texts = {split: (path / f"{split}.csv").read_text().splitlines() for split in SPLITS}
    return {split: [tuple(line.split(",")) for line in lines[1:]] for split, lines in texts.items()}


def contigs(*lengths: int, names: str = "c{}") -> list[Contig]:
    return [Contig("g.fa", i, names.format(i), "", length) for i, length in enumerate(lengths, start=1)]


def write_fasta(path: pathlib.Path, records: dict[str, str]) -> pathlib.Path:
    path.write_text("".join(f">{header}\n{sequence}\n" for header, sequence in records.items()))
    return path


class TestSpeciesSplit:
    @pytest.mark.parametrize(
        ("id", "description", "number"),
        [
            ("chr7", "", "7"),
            ("7", "", "7"),
            ("chr07", "", "7"),
            ("Chromosome_12", "", "12"),
            ("chrX", "", "X"),
            ("NC_060931.1", "Homo sapiens isolate CHM13 chromosome 7, alternate assembly", None),
            ("NC_060931.1", "Homo sapiens isolate CHM13 chromosome 7", "7"),
            ("NC_1", "Sus chromosome: 13", "13"),
            ("NT_1", "Mus musculus chromosome 4 unlocalized genomic contig", None),
            ("chr2R", "", None),
            ("chrM", "", None),
            ("NC_1", "Vibrio chromosome II, complete", None),
            ("chr0", "", None),
            ("20:30-31", "slice", None),
            ("NC_000007", "", None),
        ],
    )
    def test_chromosome_numbers(self, id, description, number):
        assert chromosome(Contig("g.fa", 1, id, description, 10)) == number

    def test_numbered_chromosomes_go_as_in_hyenadna(self):
        rule, found = regions("human", contigs(*[100] * 22, names="chr{}"), 10, "auto", 0)
        ids = {split: [part.contig.id[3:] for part in parts] for split, parts in found.items()}
        assert rule == "chromosome" and ids["dev"] == ["1", "3", "12", "13"]
        assert ids["test"] == ["5", "7", "9", "10", "11"]
        assert ids["train"] == ["2", "4", "6", "8", *map(str, range(14, 23))]

    def test_contigs_are_whole_and_every_split_has_its_share(self):
        lengths = [int(x) for x in np.random.default_rng(0).integers(50, 400, 60)]
        rule, found = regions("s", contigs(*lengths), 10, "auto", 3)
        assert rule == "contig"
        assert sorted(p.contig.line for parts in found.values() for p in parts) == list(range(1, 61))
        assert all(part.start == 0 and part.stop == part.contig.length for parts in found.values() for part in parts)
        assert min(sum(p.length for p in parts) for parts in found.values()) >= 0.08 * sum(lengths)

    @pytest.mark.parametrize("lengths", [(5000,), (50_000, 900), (4000, 4000)])
    def test_blocks_of_a_contig_are_apart_by_a_window(self, lengths):
        rule, found = regions("s", contigs(*lengths), 100, "auto", 0)
        assert rule == "block"
        for contig in contigs(*lengths):
            parts = sorted(
                (part.start, part.stop) for of in found.values() for part in of if part.contig.line == contig.line
            )
            assert len(parts) == (3 if contig.length >= 1300 else 0)
            for (_, stop), (start, _) in itertools.pairwise(parts):
                assert start - stop >= 100
            assert not parts or contig.length - parts[-1][1] >= 100

    @pytest.mark.parametrize("lengths", [(4_400_000,), (5_000_000, 4_030_003, 900_000)])
    def test_a_window_may_be_a_quarter_of_a_contig(self, lengths):
        rule, found = regions("s", contigs(*lengths), 1_000_000, "auto", 0)
        assert rule == "quarter" and [len(parts) for parts in found.values()] == [sum(x > 4e6 for x in lengths)] * 3
        for train, dev, test in zip(*found.values()):
            assert train.start == 0 and train.contig == dev.contig == test.contig
            assert train.length // 2 == dev.length == test.length >= 1_000_000
            for stop, start in ((train.stop, dev.start), (dev.stop, test.start), (test.stop, test.contig.length)):
                assert start - stop >= GAP

    def test_contigs_shorter_than_a_window_are_left_out_where_there_are_longer_ones(self):
        _, found = regions("s", contigs(*[500] * 40, *[20] * 40), 100, "contig", 0)
        assert all(part.length == 500 for parts in found.values() for part in parts)
        _, short = regions("s", contigs(*[50] * 40), 100, "contig", 0)
        assert sum(map(len, short.values())) == 40

    @pytest.mark.parametrize("rule", ["auto", "chromosome", "contig", "block", "quarter"])
    def test_genome_that_does_not_fit_is_refused(self, rule):
        with pytest.raises(InputError, match="g.fa: s: 1 contigs of up to 1,000 bases cannot be split by rule"):
            regions("s", contigs(1000), 100, rule, 0)
        with pytest.raises(InputError, match="split rule 'x': expected auto"):
            regions("s", contigs(1000), 100, "x", 0)


@pytest.fixture(scope="module")
def genomes(tmp_path_factory) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("genomes")
    one, many, numbered = (random_texts(count, 3000, seed) for seed, count in enumerate((1, 40, 22)))
    many[3] = many[3].lower()
    numbered[0] = "N" * 2000 + numbered[0][2000:]
    return {
        "one": write_fasta(folder / "one.fa", {"chrom": one[0]}),
        "many": write_fasta(folder / "many.fa", {f"c{i}": sequence for i, sequence in enumerate(many)}),
        "numbered": write_fasta(folder / "n.fa", {f"chr{i + 1} x": sequence for i, sequence in enumerate(numbered)}),
    }


@pytest.fixture(scope="module")
def prepared(genomes, tmp_path_factory) -> tuple[species.Prepared, pathlib.Path]:
    out = tmp_path_factory.mktemp("species") / "hyenadna"
    return species.prepare(genomes, out, LENGTH, ITEMS, seed=5), out


class TestSpecies:
    def test_rows_are_windows_of_the_right_genome_and_side(self, genomes, prepared):
        report, out = prepared
        assert report.rules == {"one": "block", "many": "contig", "numbered": "chromosome"}
        texts = {name: {r.id: to_text(r.bases) for r in load_fasta(path)} for name, path in genomes.items()}
        sides = {}
        for split, rows in rows_of(out).items():
            assert [int(label) for _, label in rows] == [0, 1, 2] * ITEMS[split]
            for sequence, label in rows:
                assert len(sequence) == LENGTH
                places = [id for id, text in texts[list(genomes)[int(label)]].items() if sequence in text]
                assert len(places) == 1
                sides.setdefault((label, places[0]), set()).add(split)
        assert all(len(of) == 1 for (label, _), of in sides.items() if label != "0")
        assert {id for (label, id), of in sides.items() if label == "2" and of == {"dev"}} <= {
            "chr1",
            "chr3",
            "chr12",
            "chr13",
        }

    def test_no_window_overlaps_one_of_another_split(self, genomes, prepared):
        text = to_text(next(load_fasta(genomes["one"])).bases)
        starts = [
            (text.index(sequence), split)
            for split, rows in rows_of(prepared[1]).items()
            for sequence, label in rows
            if label == "0"
        ]
        for (a, first), (b, second) in itertools.pairwise(sorted(starts)):
            assert first == second or b - a >= 2 * LENGTH

    def test_windows_avoid_long_runs_of_n(self, prepared):
        assert prepared[0].mostly_n == {"one": 0, "many": 0, "numbered": 0}
        rows = [sequence for of in rows_of(prepared[1]).values() for sequence, _ in of]
        assert max(sequence.count("N") for sequence in rows) <= LENGTH / 2

    def test_an_item_depends_on_its_species_split_and_number_alone(self, genomes, prepared, tmp_path):
        fewer = {"many": genomes["many"], "numbered": genomes["numbered"]}
        species.prepare(fewer, tmp_path / "fewer", LENGTH, {"train": 5, "dev": 20, "test": 3}, seed=5)
        species.prepare(genomes, tmp_path / "other", LENGTH, ITEMS, seed=6)
        all_rows, some, other = (rows_of(path) for path in (prepared[1], tmp_path / "fewer", tmp_path / "other"))
        for split in SPLITS:
            for label, old in (("0", "1"), ("1", "2")):
                found = [sequence for sequence, number in some[split] if number == label]
                wanted = [sequence for sequence, number in all_rows[split] if number == old]
                shared = min(len(found), len(wanted))
                assert found[:shared] == wanted[:shared] and shared
            assert all_rows[split] != other[split]

    def test_a_row_of_either_strand_is_the_same_window(self, genomes, prepared, tmp_path):
        species.prepare(genomes, tmp_path / "drawn", LENGTH, ITEMS, seed=5, either_strand=True)
        for split, rows in rows_of(tmp_path / "drawn").items():
            pairs = [(new, old) for (new, _), (old, _) in zip(rows, rows_of(prepared[1])[split], strict=True)]
            turned = [new == to_text(reverse_complement(to_bases(old))) for new, old in pairs]
            assert all(new == old or other for (new, old), other in zip(pairs, turned))
            assert 0.2 < np.mean(turned) < 0.8

    def test_sets_of_several_lengths_are_drawn_from_the_same_stretches(self, genomes, prepared, tmp_path):
        short = species.prepare(genomes, tmp_path / "short", 40, ITEMS, seed=5, longest=LENGTH)
        assert (short.rules, short.bases) == (prepared[0].rules, prepared[0].bases)
        stretches = {}
        for split in SPLITS:
            files = species.write_stretches(genomes, tmp_path / split, split, LENGTH, seed=5)
            stretches[split] = [[to_text(record.bases) for record in load_fasta(path)] for path in files]
            for name, texts in zip(genomes, stretches[split], strict=True):
                assert sum(map(len, texts)) == short.bases[name][split]
            for folder in ("short", prepared[1]):
                for row, label in rows_of(tmp_path / folder)[split]:
                    assert any(row in text for text in stretches[split][int(label)])

    def test_names_of_labels_and_how_it_was_made_lie_beside_and_nothing_else(self, prepared):
        report, out = prepared
        assert {path.name for path in out.iterdir()} == {f"{s}.csv" for s in SPLITS} | {"labels.txt", "prepared.json"}
        assert (out / "labels.txt").read_text().splitlines() == ["one", "many", "numbered"]
        summary = json.loads((out / "prepared.json").read_text())
        assert summary["seed"] == 5 and summary["rules"] == report.rules and summary["bases"] == report.bases
        assert find.read(CARDS["species/hyenadna"], out).label_names == ("one", "many", "numbered")
        assert str(report).count("\n") == 2

    def test_short_contigs_are_padded_on_the_left(self, genomes, tmp_path):
        short = write_fasta(tmp_path / "s.fa", {f"s{i}": text for i, text in enumerate(random_texts(30, 90))})
        report = species.prepare({"s": short, "one": genomes["one"]}, tmp_path / "out", 100, 5)
        assert report.padded == {"s": 15, "one": 0}
        for sequence, label in rows_of(tmp_path / "out")["train"]:
            assert re.fullmatch("N{10}[ACGT]{90}" if label == "0" else "[ACGT]{100}", sequence)

    def test_long_windows_of_genomes_in_several_files(self, tmp_path):
        """450,000 bases a row, the longest of the paper."""
        paths = []
        for seed in range(3):
            (text,) = random_texts(1, 500_000, seed)
            paths.append(write_fasta(tmp_path / f"{seed}.fa", {f"chr{(1, 5, 2)[seed]}": text}))
        species.prepare({"a": paths, "b": paths}, tmp_path / "out", 450_000, 1)
        found = read_set(tmp_path / "out").splits
        assert [len(bases) for split in found.values() for bases in split.bases] == [450_000] * 6

    def test_wrong_arguments(self, genomes, tmp_path):
        for kwargs, message in [
            ({"fastas": {"one": genomes["one"]}}, "1 species were given; expected two or more"),
            ({"length": 0}, "length=0"),
            ({"items_per_class": 0}, "items=0"),
            ({"items_per_class": {"train": 1}}, "expected a number from 1 to 10,000,000 for train, dev and test"),
            ({"items_per_class": 10**20}, "expected a number from 1 to 10,000,000"),
            ({"fastas": {"a\nb": genomes["one"], "c": genomes["one"]}}, "expected a name of one line"),
            ({"length": 1000}, "cannot be split by rule auto"),
        ]:
            arguments = {"fastas": genomes, "length": 100, "items_per_class": 1} | kwargs
            with pytest.raises(InputError, match=re.escape(message)):
                species.prepare(out_dir=tmp_path / "out", **arguments)
            assert not list(tmp_path.iterdir())

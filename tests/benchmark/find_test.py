import itertools
import json
import pathlib
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds
from small_labelled import write_splits
from small_sequences import random_texts

from vqdna_jax.benchmark.sets import editing, find
from vqdna_jax.benchmark.sets.builders import VqdnaBenchmark, build
from vqdna_jax.benchmark.sets.cards import CARDS
from vqdna_jax.errors import InputError
from vqdna_jax.genome.alphabet import reverse_complement, to_bases, to_text
from vqdna_jax.labels import layout
from vqdna_jax.labels.sets import read_set

SHARED = pathlib.Path(__file__).parents[3] / "shared/data"  # by others, the repository may not hold it
SPLITS = ("train", "dev", "test")


def write_small(path: pathlib.Path, classes: int = 2) -> pathlib.Path:
    def rows(seed: int) -> list[tuple[str, int]]:
        return [(sequence, i % classes) for i, sequence in enumerate(random_texts(4 * classes, 12, seed))]

    return write_splits(path, **{split: rows(seed) for seed, split in enumerate(SPLITS)})


class TestFind:
    @pytest.mark.parametrize("spelling", [0, 1, -1])
    @pytest.mark.parametrize("prefix", ["", "GUE"])
    def test_all_sets_in_every_spelling(self, tmp_path, spelling, prefix):
        for card in CARDS.values():
            write_small(tmp_path / prefix / card.spellings[spelling])
        found = find.find(tmp_path)
        assert list(found) == list(CARDS)
        for card in CARDS.values():
            assert found[card.name] == tmp_path / prefix / card.spellings[spelling]

    def test_other_folders_are_passed_over_and_depth_is_bounded(self, tmp_path):
        write_small(tmp_path / "EPI_K562")
        write_small(tmp_path / "a" / "b" / "c" / "tf0")
        write_small(tmp_path / "0")
        refused = "no set of the benchmark was found; expected folders such as tf/0.*; .*/0 has a name that no set has"
        with pytest.raises(InputError, match=refused):
            find.find(tmp_path)
        assert find.unknown(tmp_path) == [tmp_path / "0", tmp_path / "EPI_K562"]
        assert find.find(tmp_path / "a").keys() == {"tf/0"}

    def test_set_itself_by_its_folder(self, tmp_path):
        path = write_small(tmp_path / "tf" / "3")
        assert find.find(path) == {"tf/3": path}

    def test_links_are_followed_once(self, tmp_path):
        write_small(tmp_path / "elsewhere" / "x")
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "covid").symlink_to(tmp_path / "elsewhere" / "x")
        (tmp_path / "in" / "virus_covid").symlink_to(tmp_path / "elsewhere" / "x")  # the same set, not another
        (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
        assert find.find(tmp_path / "in") == {"virus/covid": tmp_path / "in" / "covid"}

    def test_a_set_that_is_there_twice_is_refused(self, tmp_path):
        write_small(tmp_path / "tf" / "0")
        write_small(tmp_path / "human_tf_0")
        with pytest.raises(InputError, match="is also the set tf/0; expected one folder per set"):
            find.find(tmp_path)

    def test_names_choose_in_any_spelling_and_must_be_there(self, tmp_path):
        for name in ("tf0", "tf1", "H3"):
            write_small(tmp_path / name)
        assert list(find.find(tmp_path, ["tf1", "emp_H3"])) == ["EMP/H3", "tf/1"]
        with pytest.raises(InputError, match="mouse/1 not found; it has EMP/H3, tf/0, tf/1"):
            find.find(tmp_path, ["mouse/1"])
        with pytest.raises(InputError, match="unknown; did you mean"):
            find.find(tmp_path, ["tf/7"])
        with pytest.raises(InputError, match="no such directory"):
            find.find(tmp_path / "nowhere")

    def test_editing_tables_are_found_by_name_unless_prepared(self, tmp_path):
        table = tmp_path / "tables" / "xu2015TrainHl60.context.tab"
        write_table(table, 30)
        (tmp_path / "tables" / "chari2015TrainK562.tab").write_text("guide\tscore\n")  # no efficiency
        assert find.find(tmp_path) == {"editing/hl60": table}
        write_small(tmp_path / "editing" / "hl60")
        assert find.find(tmp_path) == {"editing/hl60": tmp_path / "editing" / "hl60"}


def write_table(path: pathlib.Path, genes: int, sites: int = 3, extra: str = "") -> pathlib.Path:
    """Sites of a gene 40 bases apart, genes a megabase."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sequences = iter(random_texts(genes * sites, 100))
    rows = [
        f"G{gene}-{site}\thg19\tchr1:{start}-{start + 100}:{'+-'[site % 2]}\t{gene / 7 - site}\t{next(sequences)}\n"
        for gene in range(genes)
        for site in range(sites)
        for start in [gene * 1_000_000 + site * 40]
    ]
    path.write_text("guide\tdb\tpos\tmodFreq\tlongSeq\n" + "".join(rows) + extra)
    return path


def rows_of(path: pathlib.Path) -> dict[str, list[tuple[str, str]]]:
    texts = {split: (path / f"{split}.csv").read_text().splitlines() for split in SPLITS}
    return {split: [tuple(line.split(",")) for line in lines[1:]] for split, lines in texts.items()}


class TestEditing:
    def test_every_row_is_in_one_split_with_its_value(self, tmp_path):
        table = write_table(tmp_path / "t.tab", 60)
        prepared = editing.prepare(table, tmp_path / "out")
        wanted = {line.split("\t")[4]: float(line.split("\t")[3]) for line in table.read_text().splitlines()[1:]}
        found = rows_of(tmp_path / "out")
        rows = [row for split in SPLITS for row in found[split]]
        assert {sequence: float(value) for sequence, value in rows} == wanted and len(rows) == len(wanted) == 180
        assert prepared.rows == {split: len(found[split]) for split in SPLITS} and not prepared.left_out
        assert 0.08 < prepared.rows["dev"] / 180 < 0.12 and 0.08 < prepared.rows["test"] / 180 < 0.12
        assert read_set(tmp_path / "out", "regression").splits["test"].labels.tolist() == [
            float(value) for _, value in found["test"]
        ]

    def test_seed_and_nothing_else_decides(self, tmp_path):
        table = write_table(tmp_path / "t.tab", 30)
        lines = table.read_text().splitlines(keepends=True)
        turned = tmp_path / "turned.tab"
        turned.write_text("".join([lines[0], *reversed(lines[1:])]))
        for name, source, seed in [("a", table, 0), ("b", table, 0), ("c", turned, 0), ("d", table, 1)]:
            editing.prepare(source, tmp_path / name, seed)
        a, b, c, d = (rows_of(tmp_path / name) for name in "abcd")
        assert a == b and {k: set(v) for k, v in a.items()} == {k: set(v) for k, v in c.items()} and a != d

    def test_overlap_gene_and_either_strand_make_a_group(self):
        sequences = random_texts(8, 100)
        site = editing.Site
        sites = [
            site(sequences[0], 0.0, ("hg19 chr1", 500_000, 500_100), None),
            site(sequences[1], 0.0, ("hg19 chr1", 500_090, 500_190), None),  # overlaps
            site(sequences[2], 0.0, ("hg19 chr2", 500_000, 500_100), None),  # another chromosome
            site(sequences[3], 0.0, ("hg19 chr1", 900_000, 900_100), "MED12"),
            site(sequences[4], 0.0, ("hg19 chr1", 5_000_000, 5_000_100), "MED12"),  # a gene
            site(to_text(reverse_complement(to_bases(sequences[2]))), 0.0, None, None),  # the other strand
            site(sequences[6], 0.0, ("mm9 chr1", 500_000, 500_100), None),  # another assembly
        ]
        a, b, c, d, e, f, g = editing.group(sites)
        assert a == b and d == e and c == f and len({a, c, d, g}) == 4
        assert editing.group(sites[::-1]) == [g, f, e, d, c, b, a]

    def test_rows_without_a_value_or_context_are_counted(self, tmp_path):
        extra = "X-1\thg19\t\tNaN\t" + "A" * 100 + "\nX-2\thg19\t\t\tACGT\nX-3\thg19\t\t0.5\t\nX-4\thg19\t\tNA\tACGT\n"
        prepared = editing.prepare(write_table(tmp_path / "t.tab", 20, extra=extra), tmp_path / "out")
        assert prepared.left_out == {"without an efficiency": 3, "without a context": 1}
        assert str(prepared).endswith("left out: 3 without an efficiency; 1 without a context")
        assert "\n" not in str(prepared) and sum(prepared.rows.values()) == 60
        assert json.loads((tmp_path / "out" / "prepared.json").read_text())["left_out"] == prepared.left_out

    @pytest.mark.parametrize(
        ("extra", "message"),
        [
            ("X-1\thg19\t\thigh\tACGT\n", r":62: the modFreq 'high'; expected a number or NaN"),
            ("X-1\thg19\t\t1\tACXT\n", r":62: sequence position 2: 'X' is not a DNA letter"),
            ("X-1\thg19\tchr1-5\t1\tACGT\n", r":62: the pos 'chr1-5'; expected one such as chr1:1000-1100"),
            ("X-1\thg19\t1\tACGT\n", r":62: another number of fields"),
        ],
    )
    def test_bad_row_is_named(self, tmp_path, extra, message):
        table = write_table(tmp_path / "t.tab", 20, extra=extra)
        with pytest.raises(InputError, match=message):
            editing.prepare(table, tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["t.tab"]

    def test_other_files_and_taken_places_are_refused(self, tmp_path):
        with pytest.raises(InputError, match="none.tab: cannot be read"):
            editing.prepare(tmp_path / "none.tab", tmp_path / "out")
        (tmp_path / "b.tab").write_text("guide\tscore\nA\t1\n")
        with pytest.raises(InputError, match="b.tab:1: the columns 'guide,score'; expected longSeq"):
            editing.prepare(tmp_path / "b.tab", tmp_path / "out")
        with pytest.raises(InputError, match="2 groups; expected enough for three splits"):
            editing.prepare(write_table(tmp_path / "c.tab", 2), tmp_path / "out")
        (tmp_path / "taken").mkdir()
        (tmp_path / "taken" / "file").touch()
        with pytest.raises(InputError, match="taken: exists and is not an empty directory"):
            editing.prepare(write_table(tmp_path / "d.tab", 20), tmp_path / "taken")

    def test_real_tables_keep_all_rows_and_no_place_or_gene_is_on_two_sides(self, tmp_path):
        if not (SHARED / "editing").is_dir():
            pytest.skip(f"{SHARED / 'editing'} is absent: the tables are not part of the repository")
        expected = {"editing/hl60": 2076, "editing/k562": 1239, "editing/hela": 4256}
        found = find.find(SHARED / "editing")
        assert list(found) == list(expected)
        for name, table in found.items():
            out = tmp_path / name
            prepared = editing.prepare(table, out)
            assert sum(prepared.rows.values()) == expected[name] and not prepared.left_out
            assert all(0.09 < prepared.rows[split] / expected[name] < 0.13 for split in ("dev", "test"))
            side = {row[0]: split for split, rows in rows_of(out).items() for row in rows}
            of_gene, spans = {}, []
            for line in table.read_text().splitlines()[1:]:
                sequence = re.search(r"\b[ACGT]{100}\b", line)[0]
                chrom, start, stop = re.search(r"(chr\w+):(\d+)-(\d+):", line).groups()
                spans.append((chrom, int(start), int(stop), side[sequence]))
                if name == "editing/hl60":
                    of_gene.setdefault(line.split("-")[0], set()).add(side[sequence])
            assert all(len(sides) == 1 for sides in of_gene.values())
            for a, b in itertools.pairwise(sorted(spans)):
                assert a[0] != b[0] or a[2] <= b[1] or a[3] == b[3]


class TestDeal:
    def test_shares_are_close_and_large_groups_go_to_train(self):
        sizes = {f"g{i}": 1 + i % 7 for i in range(500)} | {"large": 600}
        splits = layout.deal(sizes, 0)
        total = sum(sizes.values())
        filled = {split: sum(sizes[group] for group in sizes if splits[group] == split) for split in SPLITS}
        assert splits["large"] == "train" and splits.keys() == sizes.keys()
        assert all(abs(filled[split] / total - layout.SHARES[split]) < 0.02 for split in SPLITS)
        assert splits == layout.deal(dict(reversed(sizes.items())), 0) != layout.deal(sizes, 1)


class TestBuilders:
    def test_there_is_a_config_a_card(self):
        assert [config.name for config in VqdnaBenchmark.BUILDER_CONFIGS] == [card.key for card in CARDS.values()]

    def test_rows_come_back_by_index(self, tmp_path):
        write_small(tmp_path / "GUE" / "splice" / "reconstructed", 3)
        builder = build("splice_reconstructed", tmp_path, tmp_path / "data")
        rows = rows_of(tmp_path / "GUE" / "splice" / "reconstructed")
        for split, name in (("train", "train"), ("dev", "validation"), ("test", "test")):
            source = builder.as_data_source(name)
            assert len(source) == len(rows[split])
            found = [(source[i]["sequence"].decode(), str(source[i]["label"])) for i in range(len(source))]
            assert found == rows[split]
        assert builder.info.features["label"].num_classes == 3
        again = tfds.builder_from_directory(builder.data_path)
        assert again.as_data_source("test")[2]["sequence"].decode() == rows["test"][2][0]

    def test_prepared_once_and_never_from_other_files_unseen(self, tmp_path):
        path = write_small(tmp_path / "in" / "tf0")
        first = build("tf/0", tmp_path / "in", tmp_path / "data")
        stamp = first.data_path.joinpath("dataset_info.json").stat().mtime
        assert build("tf/0", tmp_path / "in", tmp_path / "data").data_path == first.data_path
        assert first.data_path.joinpath("dataset_info.json").stat().mtime == stamp
        (path / "dev.csv").write_text("sequence,label\nACGT,0\n")
        with pytest.raises(InputError, match="holds tf/0 of other files; remove it or name another data_dir"):
            build("tf/0", tmp_path / "in", tmp_path / "data")

    def test_editing_table_becomes_float_labels(self, tmp_path):
        write_table(tmp_path / "hart2016-HelaLib1Avg.context.tab", 20)
        builder = build("editing/hela", tmp_path, tmp_path / "data")
        values = [row["label"] for name in builder.info.splits for row in builder.as_data_source(name)]
        assert all(isinstance(value, float) for value in values)
        wanted = [gene / 7 - site for gene in range(20) for site in range(3)]
        np.testing.assert_allclose(sorted(values), sorted(wanted), rtol=1e-6)

    def test_labels_have_names_where_they_are_known(self, tmp_path):
        write_small(tmp_path / "prom_core_all")
        (write_small(tmp_path / "species_hyenadna", 3) / "labels.txt").write_text("one\nmany\nnumbered\n")
        label = build("prom/prom_core_all", tmp_path, tmp_path / "data").info.features["label"]
        assert label.names == ["no", "promoter"]
        builder = build("species/hyenadna", tmp_path, tmp_path / "data")
        assert builder.info.features["label"].names == ["one", "many", "numbered"]
        assert [row["label"] for row in builder.as_data_source("train")] == [0, 1, 2] * 4

    def test_in_the_way_of_tfds_with_a_manual_directory(self, tmp_path):
        write_small(tmp_path / "in" / "mouse" / "2")
        builder = VqdnaBenchmark(config="mouse_2", data_dir=str(tmp_path / "data"))
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(tmp_path / "in")))
        assert len(builder.as_data_source("train")) == 8
        write_small(tmp_path / "in" / "mouse" / "3", classes=3)
        wrong = VqdnaBenchmark(config="mouse_3", data_dir=str(tmp_path / "data"))
        with pytest.raises(InputError, match="mouse/3: 3 classes; expected 2"):
            wrong.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(tmp_path / "in")))

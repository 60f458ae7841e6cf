"""A division that a file lists."""

from __future__ import annotations

import json

import pytest

from affectvlm.datasets import Index, Record, read_split
from affectvlm.emotions import EKMAN


@pytest.fixture
def index(tmp_path):
    records = [
        Record(f"{person}{n}.ply", person, EKMAN[n], (f"{person}{n}.ply",)) for person in "abcd" for n in range(2)
    ]
    return Index(tmp_path, EKMAN, tuple(records))


def written(tmp_path, **parts):
    file = tmp_path / "split.json"
    file.write_text(json.dumps(parts))
    return file


def test_the_parts_are_the_listed_records(index, tmp_path):
    listed = {"train": ["b1.ply", "a0.ply"], "validation": ["c0.ply"], "test": ["d1.ply", "d0.ply"]}
    parts = read_split(index, written(tmp_path, **listed))
    assert {name: sorted(record.id for record in part.records) for name, part in parts.items()} == {
        name: sorted(ids) for name, ids in listed.items()
    }


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            {"train": ["a0.ply"], "validation": ["a1.ply"], "test": ["b0.ply"]},
            "in train and in validation",
        ),
        ({"train": ["a0.ply"], "validation": ["x.ply"], "test": ["b0.ply"]}, "names 'x.ply'"),
        ({"train": ["a0.ply"], "validation": [], "test": ["b0.ply"]}, "no list of ids for validation"),
        ({"train": ["a0.ply"], "test": ["b0.ply"]}, "holds train, test"),
    ],
)
def test_leaks_and_unknown_ids_are_refused(index, tmp_path, parts, words):
    with pytest.raises(ValueError, match=words):
        read_split(index, written(tmp_path, **parts))


def test_a_file_that_is_no_split_is_said(index, tmp_path):
    (tmp_path / "split.json").write_text("[1, 2")
    with pytest.raises(ValueError, match="cannot be read"):
        read_split(index, tmp_path / "split.json")

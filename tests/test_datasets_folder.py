"""A researcher's own folder: found by layout or table, split by person, rendered once, read like generated faces."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from PIL import Image

from affectvlm import data
from affectvlm.augmentation.views import NORMALS, plain
from affectvlm.data import RenderedFaces
from affectvlm.datasets import Index, Record, check_disjoint, index_folder, render_index, rendered, split_subjects
from affectvlm.datasets.content import Fingerprints, shared_files
from affectvlm.datasets.rendered import SIZE, picture_views, scan_views
from affectvlm.datasets.words import _known, class_of, metadata_of
from affectvlm.emotions import EKMAN
from affectvlm.rendering import DEFAULT_YAWS, VIEW_NAMES, render_views, rotation_y
from affectvlm.scan import ScanError
from tests import scan_files

CLASSES = EKMAN + ("neutral",)
SMALL = 40
_numbers = itertools.count(1)


def put(path, content: bytes | None = None):
    """A file of its own content: a tiny scan (too small to be rendered) where nothing else is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    vertices, quads, _ = scan_files.mask(1 + next(_numbers) / 1000)
    path.write_bytes(scan_files.off(vertices, quads) if content is None else content)
    return path


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    value = next(_numbers)
    Image.fromarray(np.full((20, 20, 3), [value % 256, value // 256, 9], np.uint8)).save(path)
    return path


def triple(folder, names=("front.png", "left.png", "right.png")):
    return [picture(folder / name) for name in names]


def table(folder, text: str, encoding="utf-8", name="labels.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode(encoding))
    return folder


def made(subjects: dict[str, str], root="data") -> Index:
    """An index of names alone: subject → one letter of a class a face, h a d f s u n."""
    letters = dict(zip("hadfsun", CLASSES, strict=True))
    records = [
        Record(f"{subject}-{number}.ply", subject, letters[letter], (f"{subject}-{number}.ply",))
        for subject, faces in subjects.items()
        for number, letter in enumerate(faces)
    ]
    return Index(root, CLASSES, records)


# --- records and index ---


def test_a_record_survives_json_and_pickle():
    record = Record(
        "happy/a/f.png", "a", "happy", ("happy/a/f.png", "happy/a/l.png", "happy/a/r.png"), 0.5,
        {"ethnicity": "white", "sex": "female"}, None, "my-set",
    )  # fmt: skip
    again = Record.from_dict(json.loads(json.dumps(record.to_dict())))
    assert again == record == pickle.loads(pickle.dumps(record)) and hash(again) == hash(record)
    with pytest.raises(TypeError):
        record.metadata["sex"] = "male"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subject": " "}, "subject of a record"),
        ({"source": "../x"}, "source is"),
        ({"files": ("a.ply", "b.ply")}, "one scan, or front, left and right"),
        ({"files": ("a.png", "b.png", "a.png")}, "one file stands for two views"),
        ({"files": ("/etc/a.ply",)}, "absolute"),
        ({"files": ("C:/a.ply",)}, "absolute"),
        ({"files": ("a/../../b.ply",)}, "leads out of"),
        ({"files": ("a\\b.ply",)}, "backslash"),
        ({"files": ("a\udcff.ply",)}, "UTF-8"),
        ({"landmarks": "../a.lm3"}, "leads out of"),
        ({"intensity": 1.5}, "0 to 1"),
        ({"intensity": float("nan")}, "0 to 1"),
        ({"intensity": True}, "0 to 1"),
        ({"metadata": {"age": "older"}}, "sex, age_group, ethnicity are known"),
        ({"metadata": {"sex": ""}}, "names are needed"),
    ],
)
def test_a_record_refuses_what_is_no_record(change, message):
    good = {"id": "a.ply", "subject": "a", "label": "happy", "files": ("a.ply",)}
    with pytest.raises(ValueError, match=message):
        Record(**{**good, **change})
    for wrong in ({**good, "colour": 1}, {"id": "a.ply"}):
        with pytest.raises(ValueError, match="needs .* does not know"):
            Record.from_dict(wrong)


def test_an_index_counts_and_says_what_is_missing():
    index = made({"anna": "hha", "bob": "h"})
    assert index.counts == {**dict.fromkeys(CLASSES, 0), "happy": 3, "angry": 1}
    assert index.subjects == ("anna", "bob")
    text = index.summary()
    for words in (
        "4 faces of 2 subjects",
        "happy 3, angry 1",
        "no face is labelled fear",
        "bob (angry)",
        "0 of 4 faces",
    ):
        assert words in text
    assert len(index.select(["anna"])) == 3
    less = index.without({"anna-0.ply": "a mask is worn"})
    assert len(less) == 3 and "anna-0.ply: a mask is worn" in less.notes
    for call in (lambda: index.select(["carl"]), lambda: index.without({"x": "y"})):
        with pytest.raises(ValueError, match="in the index"):
            call()
    with pytest.raises(ValueError, match="ids are unique"):
        Index("data", CLASSES, index.records * 2)
    with pytest.raises(ValueError, match="is no class"):
        Index("data", ("happy",), index.records)


# --- words ---


@pytest.mark.parametrize(
    ("text", "name"),
    [("happy", "happy"), ("Happiness", "happy"), ("HA", "happy"), ("4_Anger", "angry"), ("su", "surprise"),
     (" Surprised ", "surprise"), ("Sadness (2)", "sad"), ("NE", "neutral"), ("afraid", "fear")],
)  # fmt: skip
def test_usual_words_name_classes(text, name):
    assert class_of(text, CLASSES) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [("s", "more than one class"), ("shock", "fear or surprise"), ("3", "number their classes differently"),
     ("contempt", "is no class"), ("hapy", "did you mean happy"), ("happily surprised", "is no class"),
     ("", "no class")],
)  # fmt: skip
def test_other_words_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        class_of(text, CLASSES)


def test_a_class_set_may_have_names_of_its_own():
    assert class_of("HA", ("happiness", "pain")) == "happiness"
    assert class_of("Pain", ("happiness", "pain")) == "pain"
    with pytest.raises(ValueError, match="joy or happiness"):
        class_of("HA", ("joy", "happiness"))


@pytest.mark.parametrize(
    ("key", "text", "name"),
    [("sex", "F", "female"), ("sex", "Man", "male"), ("sex", "n/a", None), ("age", "12", "child"),
     ("age", "13", "young"), ("age", "35", "middle-aged"), ("age", "60,5", "older"),
     ("age", "elderly", "older"), ("age", "?", None),
     ("age_group", "Middle Aged", "middle-aged"), ("ethnicity", "Caucasian", "white"), ("ethnicity", "East_Asian",
     "east asian")],
)  # fmt: skip
def test_metadata_become_names_of_the_prompts(key, text, name):
    assert metadata_of(key, text) == name


@pytest.mark.parametrize(("key", "text"), [("sex", "1"), ("age", "1987"), ("age", "x3"), ("ethnicity", "human")])
def test_metadata_that_are_not_known_are_refused(key, text):
    with pytest.raises(ValueError, match=f"the {key} "):
        metadata_of(key, text)


def test_the_prompts_know_every_name_we_give():
    assert set(_known("sex")) == {"female", "male"}
    assert set(_known("age_group")) == {"child", "young", "middle-aged", "older"}
    assert {"white", "black", "latino", "middle eastern"} <= set(_known("ethnicity"))


# --- folders ---


def test_class_and_subject_folders_are_found(tmp_path):
    put(tmp_path / "Happiness" / "anna" / "one.off")
    put(tmp_path / "Happiness" / "anna" / "second day" / "two.off")
    put(tmp_path / "AN" / "bob" / "one.off")
    put(tmp_path / "AN" / "bob" / "one.png", b"its texture")
    put(tmp_path / "AN" / "bob" / ".DS_Store", b"")
    put(tmp_path / "AN" / "bob" / "notes.txt", b"")
    triple(tmp_path / "sad" / "carl")
    index = index_folder(tmp_path)
    assert [(r.id, r.subject, r.label) for r in index.records] == [
        ("AN/bob/one.off", "bob", "angry"),
        ("Happiness/anna/one.off", "anna", "happy"),
        ("Happiness/anna/second day/two.off", "anna", "happy"),
        ("sad/carl/front.png", "carl", "sad"),
    ]
    assert index.records[3].files == ("sad/carl/front.png", "sad/carl/left.png", "sad/carl/right.png")
    assert not index.excluded
    for words in ("1 .txt files", "1 files of the system", "1 textures and notes"):
        assert words in " ".join(index.remarks)


@pytest.mark.parametrize(
    "names",
    [("front.png", "left.jpg", "right.bmp"), ("F.png", "L.png", "R.png"), ("a_f.png", "a_l.png", "a_r.png"),
     ("Front-02.png", "Left-02.png", "Right-02.png"), ("s 1.frontal.png", "s 1.left.png", "s 1.right.png"),
     ("F_front.png", "f_left.png", "f_R.png"), ("x_left_2.png", "x_front_2.png", "x_right_2.png")],
)  # fmt: skip
def test_triples_are_told_by_their_names(tmp_path, names):
    triple(tmp_path / "sad" / "carl", names)
    record = index_folder(tmp_path).records[0]
    words = [file.lower().removeprefix("sad/carl/") for file in record.files]
    assert ["f" in words[0], "l" in words[1], "r" in words[2]] == [True] * 3
    assert sorted(words) == sorted(name.lower() for name in names)


def test_several_triples_lie_in_one_folder(tmp_path):
    for base in ("a", "b"):
        triple(tmp_path / "sad" / "carl", [f"{base}_{role}.png" for role in VIEW_NAMES])
    triple(tmp_path / "sad" / "carl", ["c_front.png", "c_left.png", "d_front.png", "d_front.jpg", "d_left.png",
                                       "d_right.png", "e_0.png", "left_front.png"])  # fmt: skip
    index = index_folder(tmp_path)
    assert [record.id for record in index.records] == ["sad/carl/a_front.png", "sad/carl/b_front.png"]
    why = index.excluded
    assert "no right picture" in why["sad/carl/c_front.png"] and "no right picture" in why["sad/carl/c_left.png"]
    assert "2 front pictures" in why["sad/carl/d_right.png"]
    assert "numbers are not taken" in why["sad/carl/e_0.png"]
    assert "left and front" in why["sad/carl/left_front.png"]
    assert len(why) == 8


def test_what_cannot_be_used_is_named_with_its_reason(tmp_path):
    put(tmp_path / "happy" / "anna" / "one.off")
    put(tmp_path / "happy" / "anna" / "one.ply")
    put(tmp_path / "happy" / "stray.off")
    put(tmp_path / "stray.off")
    put(tmp_path / "smile" / "anna" / "one.off")
    put(tmp_path / "contempt" / "anna" / "one.off")
    put(tmp_path / "other.csv", b"")
    (tmp_path / "happy" / "linked").symlink_to(tmp_path / "contempt")
    (tmp_path / "happy" / "anna" / "gone.off").symlink_to(tmp_path / "nothing")
    index = index_folder(tmp_path)
    # two formats of one face: the first of the reader's order stays
    assert [record.id for record in index.records] == ["happy/anna/one.ply"]
    why = index.excluded
    assert "same face in another format" in why["happy/anna/one.off"]
    assert "no subject" in why["happy/stray.off"]
    assert "outside of the folders of classes" in why["stray.off"]
    assert "could mean happy or" in why["smile/"]
    assert "is no class" in why["contempt/"]
    assert "not followed" in why["happy/linked/"]
    assert "link to nothing" in why["happy/anna/gone.off"]
    assert len(why) == 7
    assert "other.csv was not read" in " ".join(index.remarks)


def test_spellings_of_one_subject_are_one_person(tmp_path):
    put(tmp_path / "happy" / "Anna" / "one.off")
    put(tmp_path / "sad" / "anna" / "two.off")
    put(tmp_path / "Sadness" / "ANNA " / "three.off")
    index = index_folder(tmp_path)
    assert len(index.subjects) == 1 and len(index) == 3
    remarks = " ".join(index.remarks)
    assert "taken for one person" in remarks and "Sadness and sad are both sad" in remarks


@pytest.mark.parametrize(
    ("first", "second"),
    [("Jos\u00e9", "Jose\u0301"), ("Anna", "\uff21nna"), ("Bob", "bob\u200b"), ("STRASSE 1", "Stra\u00dfe\u00a01")],
)
def test_one_name_in_two_codings_is_one_person(tmp_path, first, second):
    put(tmp_path / "happy" / first / "one.off")
    put(tmp_path / "sad" / second / "two.off")
    put(tmp_path / "sad" / "another" / "three.off")
    index = index_folder(tmp_path)
    assert len(index.subjects) == 2 and "taken for one person" in " ".join(index.remarks)
    if first != "STRASSE 1":  # they look alike: the remark has to show how they differ
        assert "\\" in " ".join(index.remarks)


def test_a_picture_in_the_triples_of_two_people_leaves_both_out(tmp_path):
    anna = triple(tmp_path / "happy" / "anna")
    triple(tmp_path / "sad" / "anna")[0].write_bytes(anna[0].read_bytes())  # two of one person may share one
    bob = triple(tmp_path / "happy" / "bob")
    triple(tmp_path / "happy" / "carl")
    for copy in (bob[1], *triple(tmp_path / "fear" / "bob")[:1], *triple(tmp_path / "fear" / "anna")[1:2]):
        copy.write_bytes(anna[2].read_bytes())
    index = index_folder(tmp_path)
    assert set(index.excluded) == {f"{label}/{who}/front.png" for label in ("happy", "fear")
                                                 for who in ("anna", "bob")}  # fmt: skip
    assert [record.id for record in index.records] == ["happy/carl/front.png", "sad/anna/front.png"]
    assert index.excluded["happy/bob/front.png"].startswith("happy/bob/left.png is a copy of ")
    assert index.excluded["happy/bob/front.png"].endswith(", of subject anna")
    assert "happy/anna/right.png is a copy of " in index.excluded["happy/anna/front.png"]


def test_empty_files_are_damaged_and_no_copies_of_each_other(tmp_path):
    put(tmp_path / "happy" / "anna" / "a.off", b"")
    put(tmp_path / "sad" / "bob" / "b.off", b"")
    put(tmp_path / "sad" / "carl" / "c.off")
    index = index_folder(tmp_path)
    assert len(index) == 3 and not index.excluded


def test_files_that_people_share_are_found_by_content(tmp_path):
    def record(subject, *files):
        return Record(f"{subject}/x", subject, "sad", tuple(f"{subject}/{file}" for file in files), frames=(1, 2, 3))

    for subject in "abc":
        for file in ("1", "2", "3"):
            put(tmp_path / subject / file, f"frame {subject} {file}".encode())
    records = [record(subject, "1", "2", "3") for subject in "abc"]
    assert shared_files(tmp_path, records) == ([], 0)  # all of one size
    put(tmp_path / "c" / "3", b"frame a 2")
    put(tmp_path / "b" / "1", b"frame a 2")
    (places,), passed = shared_files(tmp_path, records)
    assert [file for _, file in places] == ["a/2", "b/1", "c/3"] and passed == 0
    # equal in the middle is not equal
    large = bytes(20_000)
    put(tmp_path / "a" / "1", b"a" + large), put(tmp_path / "b" / "2", b"b" + large)
    assert shared_files(tmp_path, records)[0] == [places]
    (tmp_path / "b" / "1").unlink()
    assert [file for _, file in shared_files(tmp_path, records)[0][0]] == ["a/2", "c/3"]
    # what is too much is passed over and counted
    assert shared_files(tmp_path, records, most=1)[1] > 0


def test_copies_count_once_and_contradicting_ones_not_at_all(tmp_path):
    same = put(tmp_path / "happy" / "anna" / "a.off").read_bytes()
    put(tmp_path / "happy" / "anna" / "b.off", same)
    other = put(tmp_path / "sad" / "bob" / "c.off").read_bytes()
    put(tmp_path / "fear" / "bob" / "d.off", other)
    third = put(tmp_path / "sad" / "carl" / "e.off").read_bytes()
    put(tmp_path / "sad" / "dora" / "f.off", third)
    index = index_folder(tmp_path)
    assert [record.id for record in index.records] == ["happy/anna/a.off"]
    assert index.excluded["happy/anna/b.off"] == "a copy of happy/anna/a.off"
    assert index.excluded["fear/bob/d.off"].endswith("which is labelled sad, subject bob")
    assert index.excluded["sad/carl/e.off"].endswith("subject dora")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "nothing is in there"),
        (["happy/face.off"], "no subject"),
        (["readme.txt"], "1 .txt files"),
        (["contempt/anna/face.off"], "is no class"),
        (["anna/happy/face.off"], "class is the outer folder"),
        (["happy/anna/front.png"], "no left picture and no right picture"),
    ],
)
def test_an_empty_result_says_what_was_found_and_wanted(tmp_path, files, message):
    for file in files:
        put(tmp_path / file)
    with pytest.raises(ValueError, match=message) as caught:
        index_folder(tmp_path)
    assert "wanted is class/subject/files" in str(caught.value) and str(tmp_path.parent) not in str(caught.value)


def test_a_place_without_a_data_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no folder and no table 'nowhere'"):
        index_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is one file"):
        index_folder(put(tmp_path / "face.off"))


# --- tables ---


def test_a_table_is_read_in_any_spelling(tmp_path):
    put(tmp_path / "scans" / "a.off")
    put(tmp_path / "scans" / "b.off")
    triple(tmp_path / "photos")
    text = (
        "File;FRONT;left; Right ;Emotion;Subject_ID;Intensity;Gender;AGE;age group;Ethnicity;Camera\n"
        "scans\\a.off;;;;Happiness;anna;0,5;F;71;;White;x\n"
        "\n"
        "scans/b.off;;;;sad;bob;;?;40;young;;x\n"
        ";photos/front.png;photos/left.png;photos/right.png;AN;bob;1;m;;;;x\n"
    )
    index = index_folder(table(tmp_path, text, name="Labels.CSV"))
    third, first, second = index.records  # by id: photos before scans
    assert (first.id, first.label, first.subject, first.intensity) == ("scans/a.off", "happy", "anna", 0.5)
    assert first.metadata == {"sex": "female", "age_group": "older", "ethnicity": "white"}
    assert (second.intensity, dict(second.metadata)) == (None, {"age_group": "young"})
    assert third.is_pictures and third.files[2] == "photos/right.png" and third.intensity == 1.0
    assert not index.excluded and any("'Camera'" in remark for remark in index.remarks)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_encodings_and_delimiters(tmp_path, encoding, sign):
    put(tmp_path / "a.off")
    text = "file,label,subject\r\n" + '"a.off",happy,"Zoë"\r\n'
    index = index_folder(table(tmp_path, text.replace(",", sign), encoding, "mine.csv") / "mine.csv")
    assert index.subjects == ("Zoë",)
    assert any("Latin-1" in remark for remark in index.remarks) == (encoding == "latin-1")


def test_bad_rows_are_reported_by_number(tmp_path):
    for name in "abcdefg":
        put(tmp_path / "in" / f"{name}.off")
    triple(tmp_path / "in")
    put(tmp_path / "outside.off")
    (tmp_path / "in" / "folder.off").mkdir()
    rows = [
        ("a.off,,,,happy,anna,,", None),
        ("b.off,,,,contempt,anna,,", "is no class"),
        ("c.off,,,,3,anna,,", "number their classes differently"),
        ("c.off,,,,happy,,,", "no subject"),
        ("c.off,,,,,anna,,", "no label"),
        ("../outside.off,,,,happy,anna,,", "leads out of"),
        (f"{tmp_path}/outside.off,,,,happy,anna,,", "absolute"),
        ("C:\\a.off,,,,happy,anna,,", "absolute"),
        ("missing.off,,,,happy,anna,,", "there is no file 'missing.off'"),
        ("folder.off,,,,happy,anna,,", "there is no file"),
        ("front.png,,,,happy,anna,,", "is a picture"),
        ("notes.doc,,,,happy,anna,,", "is no scan; accepted are"),
        (",front.png,left.png,,happy,anna,,", "no right picture"),
        (",,,,happy,anna,,", "no file is named"),
        ("a.off,front.png,left.png,right.png,happy,anna,,", "both a scan and pictures"),
        ("d.off,,,,happy,anna,,", "row 18 names 'd.off' too, with another label"),
        ("d.off,,,,sad,anna,,", "row 17 names 'd.off' too"),
        ("e.off,,,,sad,bob,,", None),
        ("./e.off,,,,sad,bob,,", "row 19 names 'e.off' too, in the same way"),
        ("f.off,,,,happy,anna,,,,oops", "10 cells where the header has 8"),
        ("f.off,,,,happy,anna,nonsense,xyz", None),
        ("g.off,,,,happy,carl,,xyz", None),
    ]
    text = "file,front,left,right,label,subject,intensity,sex\n" + "\n".join(row for row, _ in rows)
    index = index_folder(table(tmp_path / "in", text))
    assert [record.id for record in index.records] == ["a.off", "e.off", "f.off", "g.off"]
    wanted = {f"row {number}": why for number, (_, why) in enumerate(rows, 2) if why}
    assert set(index.excluded) == set(wanted)
    for row, why in wanted.items():
        assert why in index.excluded[row], row
    remarks = " ".join(index.remarks)
    assert "row 22: the intensity 'nonsense' is no number" in remarks and "row 22, 23: the sex 'xyz'" in remarks


def test_levels_are_not_taken_for_fractions(tmp_path):
    for name in "ab":
        put(tmp_path / f"{name}.off")
    index = index_folder(table(tmp_path, "file,label,subject,intensity\na.off,happy,x,1\nb.off,happy,x,4\n"))
    assert [record.intensity for record in index.records] == [None, None]
    assert any("row 3 has '4'" in remark for remark in index.remarks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a.off,happy,anna\n", "no column file .* and no column label and no column subject"),
        (b"file,label,id\n", "no column subject; its columns are 'file', 'label', 'id'"),
        (b"file,label,emotion,subject\n", "'label' and 'emotion' both mean label"),
        (b'file,label,subject\n"a.off,happy,anna\n', "cannot be read as a table: row 2"),
        (b"PK\x03\x04 anything", "save it as CSV"),
        (b"file,label\0,subject\n", "is no text"),
        (b"\xff\xfea", "is no|cannot|no column|empty"),
        (b"file,label,subject\nx.off,happy,anna\n", "row 2: there is no file 'x.off'"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(tmp_path, content, message):
    put(tmp_path / "labels.csv", content)
    with pytest.raises(ValueError, match=message):
        index_folder(tmp_path)


# --- splits ---

PEOPLE = {f"p{number:02d}": "hadfsu" for number in range(20)}


def test_a_split_is_by_person_and_holds_its_shares():
    parts = split_subjects(made(PEOPLE), seed=3)
    assert list(parts) == ["train", "validation", "test"]
    assert [len(part.subjects) for part in parts.values()] == [14, 3, 3]
    check_disjoint(parts)
    assert sorted(r.id for part in parts.values() for r in part.records) == [r.id for r in made(PEOPLE).records]


def test_a_split_depends_on_the_seed_and_not_on_the_order():
    def names(index, seed):
        return {name: part.subjects for name, part in split_subjects(index, seed=seed).items()}

    backwards = made(dict(reversed(PEOPLE.items())))
    assert names(made(PEOPLE), 0) == names(backwards, 0)
    assert len({str(names(made(PEOPLE), seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize("seed", range(4))
def test_classes_are_spread_even_where_people_differ(seed):
    rng = np.random.default_rng(seed)
    people = {f"p{n}": "".join(rng.choice(list("hadfsun"), rng.integers(1, 30))) for n in range(30)}
    index = made(people)
    parts = split_subjects(index, seed=seed)
    for name, share in zip(parts, (0.7, 0.15, 0.15), strict=True):
        for label, total in index.counts.items():
            assert abs(parts[name].counts[label] / total - share) < 0.1


@pytest.mark.parametrize(
    "people",
    [
        {"a": "hadfsun", "b": "h", "c": "h"},
        {"a": "hhhhhhhhhhh", "b": "hhhhhhhhhhh", "c": "s", "d": "h"},
        {"a": "hf", "b": "hs", "c": "hu", "d": "hhhhhhhh", "e": "hhhhhhhh"},
        {"a": "ha", "b": "ad", "c": "dh", "d": "hhhhh"},
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_training_has_every_class_where_that_is_possible(people, seed):
    parts = split_subjects(made(people), seed=seed)
    assert all(len(part) for part in parts.values())
    assert {r.label for r in parts["train"].records} == {r.label for r in made(people).records}


def test_three_people_make_three_splits_and_two_do_not():
    parts = split_subjects(made({"a": "ha", "b": "sd", "c": "f"}))
    assert [len(part.subjects) for part in parts.values()] == [1, 1, 1]
    with pytest.raises(ValueError, match=r"2 subjects \(a, b\); at least 3"):
        split_subjects(made({"a": "h", "b": "h"}))


@pytest.mark.parametrize("shares", [(0.8, 0.2), (70, 15, 15), (1.0, 0.0, 0.0), (0.5, 0.5, float("nan"))])
def test_other_shares_are_refused(shares):
    with pytest.raises(ValueError, match="shares are"):
        split_subjects(made(PEOPLE), shares)


def test_a_shared_person_or_file_is_found():
    index = made({"a": "ha", "b": "h"})
    with pytest.raises(ValueError, match="1 subjects are in x and in y, such as 'a'"):
        check_disjoint({"x": index.select("a"), "y": index})
    same = Index("data", CLASSES, [Record("z.ply", "c", "happy", ("b-0.ply",))])
    with pytest.raises(ValueError, match="1 files are in x and in y"):
        check_disjoint({"x": same, "y": index})


# --- rendering ---


@pytest.fixture(scope="module")
def people():
    """The face sides of two made-up people in the canonical frame; the first smiles."""
    from affectvlm.synthesis.procedural import ProceduralFace

    model = ProceduralFace()
    scans = [
        model.generate(model.sample_identity(np.random.default_rng(seed)), units)
        for seed, units in enumerate(({"AU12": 0.8}, {}))
    ]
    return [scan.keep_vertices(scan.vertices[:, 2] > -90) for scan in scans]


@pytest.fixture(scope="module")
def heads(people, tmp_path_factory):
    """The two as coloured PLY files, one of them turned; and a broken file."""
    root = tmp_path_factory.mktemp("heads")
    for scan, place, yaw in zip(people, ("happy/anna/one.ply", "sad/bob/one.ply"), (0, 20), strict=True):
        vertices = scan.vertices @ rotation_y(yaw).T
        put(root / place, scan_files.ply(vertices, scan.faces, "binary_little_endian", scan.colors))
    put(root / "sad" / "carl" / "broken.ply", b"ply\nformat ascii 1.0\nelement vertex 5\n")
    return root


@pytest.fixture(scope="module")
def drawn(heads, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return index_folder(heads), cache, render_index(index_folder(heads), cache, workers=1)


def test_numbers_and_shards_are_those_of_the_data_module():
    assert rendered.REJECTION == data.REJECTION and rendered.SHARD == data.SHARD
    defaults = data.FaceSet("procedural", "train", 1)
    assert defaults.size == SIZE


def test_rendered_faces_are_read_like_generated_ones(drawn):
    faces = RenderedFaces([drawn[2].folder])
    assert [record["id"] for record in faces.records] == ["happy/anna/one.ply", "sad/bob/one.ply"]
    assert list(faces.labels) == [data.LABELS.index("happy"), data.LABELS.index("sad")]
    assert faces.subjects == ["folder-anna", "folder-bob"] and not faces.photo.any()
    assert np.isnan(faces.units).all() and all(record["intensity"] is None for record in faces.records)
    assert faces.views([0, 1]).shape == (2, 3, 128, 128, 7)
    assert all(record["certainty"] > 0.65 for record in faces.records) and not drawn[2].doubtful


def test_a_broken_file_is_named_and_the_rest_survives(drawn):
    assert list(drawn[2].failures) == ["sad/carl/broken.ply"] and drawn[2].count == 2
    assert "broken.ply" in drawn[2].summary()
    assert str(drawn[0].root) not in str(drawn[2].failures)


def test_views_are_those_of_the_predictors_path(drawn, heads):
    """`Predictor` reads, turns and draws in this way; the stored window is wider by the margin and 8 bits deep."""
    from affectvlm.pose import frontalize
    from affectvlm.scan_io import read_scan

    frontal = frontalize(read_scan(heads / "sad" / "bob" / "one.ply"))
    assert abs(frontal.pose.yaw) > 15  # it had to be turned
    wanted = render_views(frontal.scan, "normals", 112, DEFAULT_YAWS)
    stored = plain(RenderedFaces([drawn[2].folder]).views([1]), NORMALS, 112)[0].transpose(0, 2, 3, 1)
    assert np.abs(stored.astype(int) - wanted).max() <= 2


def test_landmarks_of_another_file_reach_the_pose(heads, tmp_path, monkeypatch):
    seen = {}

    def frontalize(scan):
        seen.update(scan.landmarks)
        raise ScanError("enough")

    monkeypatch.setattr("affectvlm.pose.frontalize", frontalize)
    put(tmp_path / "a.lm3", scan_files.lm3({"Nose tip": (1, 2, 3)}))
    with pytest.raises(ScanError, match="enough"):
        scan_views(heads / "sad" / "bob" / "one.ply", tmp_path / "a.lm3")
    np.testing.assert_array_equal(seen["Nose tip"], [1, 2, 3])
    with pytest.raises(ScanError, match="lm3 or .bnd"):
        scan_views(heads / "sad" / "bob" / "one.ply", heads / "sad" / "bob" / "one.ply")


def test_nothing_is_rendered_twice(drawn, monkeypatch):
    index, cache, first = drawn
    calls = []

    def failing(file, *rest):
        calls.append(file.name)
        raise ScanError("no")

    monkeypatch.setattr(rendered, "scan_views", failing)
    again = render_index(index, cache, workers=1)
    assert calls == ["broken.ply"] and again.fresh == 0 and again.folder == first.folder
    # another label or split takes the faces that are there, under another name
    other = Index(index.root, CLASSES, [Record(**{**r.to_dict(), "label": "fear"}) for r in index.records[:1]])
    relabelled = render_index(other, cache, workers=1)
    assert relabelled.folder != first.folder and relabelled.fresh == 0
    np.testing.assert_array_equal(
        RenderedFaces([relabelled.folder]).views([0]), RenderedFaces([first.folder]).views([0])
    )


@pytest.fixture()
def fake(monkeypatch):
    """Rendering made quick: views filled with the length of the file; the list of files it was asked for."""
    calls = []

    def views(file, landmarks=None, size=SMALL):
        calls.append(file.name)
        value = len(file.read_bytes()) % 251
        return np.full((3, size, size, 7), value, np.uint8), {"certainty": 0.9, "doubt": ""}

    monkeypatch.setattr(rendered, "scan_views", views)
    return calls


def many(root, count):
    for number in range(count):
        put(root / "happy" / f"p{number % 4}" / f"{number:02d}.off", b"x" * (number + 1))
    return index_folder(root)


def test_shards_are_filled_and_the_last_is_shorter(tmp_path, fake, monkeypatch):
    monkeypatch.setattr(rendered, "SHARD", 4)
    index = many(tmp_path / "in", 10)
    result = render_index(index, tmp_path / "cache", 1, size=SMALL)
    faces = RenderedFaces([result.folder])
    assert [len(json.loads(f.read_text())) for f in sorted(result.folder.glob("*.json"))] == [4, 4, 2]
    values = faces.views(range(10))[:, 0, 0, 0, 0]
    assert [int(v) for v in values] == [int(r["id"][-6:-4]) + 1 for r in faces.records]
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_a_stopped_run_goes_on(tmp_path, fake, monkeypatch):
    monkeypatch.setattr(rendered, "SHARD", 4)
    index = many(tmp_path / "in", 6)
    good = rendered.scan_views

    def stopping(file, *rest):
        if len(fake) == 3:
            raise KeyboardInterrupt
        return good(file, *rest)

    monkeypatch.setattr(rendered, "scan_views", stopping)
    with pytest.raises(KeyboardInterrupt):
        render_index(index, tmp_path / "cache", 1, size=SMALL)
    monkeypatch.setattr(rendered, "scan_views", good)
    result = render_index(index, tmp_path / "cache", 1, size=SMALL)
    assert result.fresh == 3 and len(fake) == len(set(fake)) == 6
    views = RenderedFaces([result.folder]).views(range(6))
    (result.folder / "shard_0001.json").unlink()  # as if killed before it was written
    render_index(index, tmp_path / "cache", 1, size=SMALL)
    np.testing.assert_array_equal(RenderedFaces([result.folder]).views(range(6)), views)
    assert len(fake) == 6


def test_folds_share_the_stored_views(tmp_path, fake):
    index = many(tmp_path / "in", 6)
    folders = [render_index(index.select(people), tmp_path / "cache", 1, size=SMALL).folder
               for people in (index.subjects, index.subjects[:2], index.subjects[1:])]  # fmt: skip
    stored = list((tmp_path / "cache" / "faces").rglob("*.npz"))
    assert len(stored) == 6 and len(set(folders)) == 3
    for folder in folders:
        assert [file.name for file in folder.iterdir()] == ["shard_0000.json"]


def test_files_are_hashed_again_only_where_they_changed(tmp_path, monkeypatch):
    index = many(tmp_path / "in", 3)
    memory = tmp_path / "cache" / "fingerprints.json"
    for record in index.records:
        os.utime(tmp_path / "in" / record.files[0], ns=(10**18, 10**18))

    def prints():
        read = []
        real = hashlib.file_digest
        monkeypatch.setattr(hashlib, "file_digest", lambda file, how: read.append(file.name) or real(file, how))
        prints = Fingerprints(index.root, memory)
        found = [prints.of_views(record) for record in index.records]
        prints.keep()
        monkeypatch.setattr(hashlib, "file_digest", real)
        return found, len(read)

    first, again = prints(), prints()
    assert first[1] == 3 and again == (first[0], 0)
    assert str(tmp_path) not in memory.read_text()
    changed = tmp_path / "in" / index.records[0].files[0]
    changed.write_bytes(b"another")
    assert prints()[0][0] != first[0][0] and prints()[1] == 1  # just written: not trusted yet


def test_a_changed_file_a_new_setting_and_a_damaged_cache_are_rendered_anew(tmp_path, fake):
    index = many(tmp_path / "in", 3)
    first = render_index(index, tmp_path / "cache", 1, size=SMALL)
    (tmp_path / "in" / index.records[0].files[0]).write_bytes(b"another")
    second = render_index(index, tmp_path / "cache", 1, size=SMALL)
    assert second.fresh == 1 and second.folder != first.folder
    assert render_index(index, tmp_path / "cache", 1, size=32).fresh == 3
    for number, stored in enumerate(sorted((tmp_path / "cache" / "faces").rglob("*.npz"))):
        stored.write_bytes(stored.read_bytes()[:100] if number else b"")
    assert render_index(index, tmp_path / "cache", 1, size=SMALL).fresh == 3


def test_other_classes_and_empty_indexes_are_refused(tmp_path, fake):
    index = many(tmp_path / "in", 2)
    folder = render_index(index, tmp_path / "cache", 1).folder
    with pytest.raises(ValueError, match="labelled 'happy'; the classes are"):
        RenderedFaces([folder], classes=("sad",))
    with pytest.raises(ValueError, match="no records"):
        render_index(Index(tmp_path, CLASSES, ()), tmp_path / "cache", 1)
    (tmp_path / "in" / index.records[0].files[0]).unlink()
    result = render_index(index, tmp_path / "cache", 1, size=SMALL)
    assert result.count == 1 and "no file 00.off" in result.failures[index.records[0].id]


def test_all_failing_is_an_error_that_says_why(tmp_path):
    put(tmp_path / "in" / "happy" / "anna" / "small.off")
    with pytest.raises(ValueError, match="not one of 1 faces could be rendered .*small.off: .*63 usable points"):
        render_index(index_folder(tmp_path / "in"), tmp_path / "cache", 1)


def test_intensity_of_no_emotion_is_zero_and_an_unknown_one_is_none(tmp_path, fake):
    for name in "abc":
        put(tmp_path / f"{name}.off")
    text = "file,label,subject,intensity,sex\na.off,happy,x,0.25,f\nb.off,sad,x,,\nc.off,neutral,x,,\n"
    result = render_index(index_folder(table(tmp_path, text)), tmp_path / "cache", 1, size=SMALL)
    faces = RenderedFaces([result.folder])
    assert [record["intensity"] for record in faces.records] == [0.25, None, 0.0]
    assert faces.records[0]["metadata"] == {"sex": "female"}


def test_pictures_are_cut_to_the_face_and_face_the_viewer(tmp_path, people):
    images = render_views(people[0], "textured", 200)
    files = [
        put(tmp_path / "in" / "happy" / "anna" / f"{role}.png", scan_files.image_bytes(image))
        for role, image in zip(VIEW_NAMES, images, strict=True)
    ]
    views, facts = picture_views(files)
    assert views.shape == (3, 128, 128, 7) and (views[..., 6] == 255).all() and facts["certainty"] > 0.3
    assert (views[..., :3] == (128, 128, 255)).all()
    from affectvlm.photos import prepare_photos

    # the middle of the stored window is what the predictor shows the model
    shown = prepare_photos(*files, size=112).views.astype(int)
    assert np.abs(views[:, 8:120, 8:120, 3:6].astype(int) - shown).mean() < 4
    result = render_index(index_folder(tmp_path / "in"), tmp_path / "cache", 1)
    faces = RenderedFaces([result.folder])
    assert faces.photo.all() and faces.records[0]["picture"] is True
    np.testing.assert_array_equal(faces.views([0])[0], views)


def test_pictures_without_a_face_are_doubtful_and_unreadable_ones_fail(tmp_path):
    triple(tmp_path / "in" / "happy" / "anna")
    triple(tmp_path / "in" / "happy" / "bob")
    (tmp_path / "in" / "happy" / "bob" / "left.png").write_bytes(b"no picture")
    result = render_index(index_folder(tmp_path / "in"), tmp_path / "cache", 1, size=SMALL)
    assert "no face was found" in result.doubtful["happy/anna/front.png"]
    assert "left picture: not a picture we can read" in result.failures["happy/bob/front.png"]


# --- what views depend on ---


def fingerprint(root):
    return Fingerprints(root).of_views(Record("a.obj", "a", "happy", ("a.obj",)))


def test_textures_and_landmarks_belong_to_the_content_of_a_scan(tmp_path):
    vertices, quads, uv = scan_files.mask()
    put(tmp_path / "a.obj", scan_files.obj(vertices, quads, uv, "mtllib My Skin.mtl\n"))
    states = [fingerprint(tmp_path)]
    for name, content in (
        ("my skin.mtl", b"newmtl skin\nmap_Kd -s 1 1 textures/skin.png\n"),
        ("textures/skin.png", b"red"),
        ("textures/skin.png", b"blue"),
        ("a.lm3", b"landmarks"),
        ("a.jpg", b"a texture of its own name"),
    ):
        put(tmp_path / name, content)
        states.append(fingerprint(tmp_path))
    assert len(set(states)) == 6
    for name in ("b.jpg", "b.obj", "notes.txt"):
        put(tmp_path / name)
    assert fingerprint(tmp_path) == states[-1]


def test_names_of_other_formats_are_followed_inside_the_folder_only(tmp_path):
    put(tmp_path / "in" / "a.wrl", b'#VRML V2.0 utf8\nShape { appearance Appearance { texture ImageTexture '
        b'{ url [ "skin.bmp" ] } } }')  # fmt: skip
    put(
        tmp_path / "in" / "b.ply", b"ply\nformat binary_little_endian 1.0\ncomment TextureFile skin.bmp\nend_header\n\0"
    )
    put(tmp_path / "in" / "c.gltf", b'{"images": [{"uri": "../secret.bmp"}]}')
    put(tmp_path / "secret.bmp", b"secret")

    def all_of_them():
        prints = Fingerprints(tmp_path / "in")
        return [prints.of_views(Record(name, "a", "happy", (name,))) for name in ("a.wrl", "b.ply", "c.gltf")]

    before = all_of_them()
    put(tmp_path / "secret.bmp", b"changed")
    assert all_of_them() == before
    put(tmp_path / "in" / "skin.bmp", b"skin")
    assert [new == old for new, old in zip(all_of_them(), before, strict=True)] == [False, False, True]


# --- processes ---


def _dies_of_some(task):
    """Stands in for rendering in a process: one file kills it, one is broken, the others are kept."""
    if task.files[0].name == "03.off":
        os._exit(1)
    if task.files[0].name == "05.off":
        return "broken"
    task.stored.parent.mkdir(parents=True, exist_ok=True)
    views = np.zeros((3, task.size, task.size, 7), np.uint8)
    facts = np.frombuffer(b'{"certainty": 1, "doubt": ""}', np.uint8)
    np.savez_compressed(task.stored, views=views, facts=facts)
    return ""


def test_a_file_that_kills_its_process_is_named_and_the_rest_survives(tmp_path, monkeypatch):
    index = many(tmp_path / "in", 8)
    fork = multiprocessing.get_context("fork")  # quick, and nothing of torch is used in it
    monkeypatch.setattr(rendered, "_pool", lambda count: ProcessPoolExecutor(count, mp_context=fork))
    monkeypatch.setattr(rendered, "_render_one", _dies_of_some)
    result = render_index(index, tmp_path / "cache", 2, size=SMALL)
    assert result.failures == {
        "happy/p1/05.off": "broken",
        "happy/p3/03.off": "its process ended while it was rendered (memory?)",
    }
    assert result.count == 6


@pytest.mark.slow
def test_processes_give_the_same_views(drawn, tmp_path):
    index, _, first = drawn
    again = render_index(index, tmp_path, workers=2)
    assert again.folder.name == first.folder.name and again.failures == first.failures
    np.testing.assert_array_equal(
        RenderedFaces([again.folder]).views([0, 1]), RenderedFaces([first.folder]).views([0, 1])
    )

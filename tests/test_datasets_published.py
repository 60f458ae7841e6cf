"""Indexers of published data sets on trees of names alone, made here and not by our fixtures."""

from __future__ import annotations

import itertools
import sys
import types

import numpy as np
import pytest

from affectvlm import emotions
from affectvlm.datasets import INDEXERS, index_dataset
from affectvlm.datasets.bosphorus import complete_subjects, repeat_of
from affectvlm.datasets.bp4d import label_of, read_occurrence, task_of
from affectvlm.datasets.draft import Draft
from affectvlm.datasets.fourdme import emotions_of, read_clips, units_of
from affectvlm.datasets.layout import runs
from affectvlm.emotions import BP4D, EKMAN, FOURDME, MEGC
from affectvlm.prompts import PromptSet

_numbers = itertools.count(1)
BU_CODES = {"AN": "angry", "DI": "disgust", "FE": "fear", "HA": "happy", "SA": "sad", "SU": "surprise"}


def put(path, content: bytes | None = None):
    """A file of its own content; what is in a scan is not looked at here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"file {next(_numbers)}".encode() if content is None else content)
    return path


def by_id(index):
    return {record.id: record for record in index.records}


def said(index) -> str:
    return "\n".join(index.notes)


# ---- all of them


def test_every_data_set_has_an_indexer_and_unknown_names_are_refused(tmp_path):
    wanted = ["folder", "bu3dfe", "bu4dfe", "bosphorus", "bp4d", "bp4dplus", "4dme", "facescape", "coma"]
    assert list(INDEXERS) == wanted
    with pytest.raises(ValueError, match="'bu5dfe' is unknown; one of folder, bu3dfe"):
        index_dataset("bu5dfe", tmp_path)
    with pytest.raises(ValueError, match="bu3dfe has no option 'landmarks'; it has classes, exclude, source"):
        index_dataset("bu3dfe", tmp_path, landmarks="x")


@pytest.mark.parametrize("name", [name for name in INDEXERS if name != "folder"])
def test_what_is_no_folder_or_an_empty_one_is_refused_in_words(name, tmp_path):
    for path in (tmp_path / "none", put(tmp_path / "file.txt"), tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="needed|wanted|name the label sheet"):
            index_dataset(name, path)


def test_classes_are_those_of_the_prompt_sets_in_the_same_order():
    assert tuple(PromptSet.load("bp4d").classes) == BP4D
    assert tuple(PromptSet.load("4dme").classes) == FOURDME
    assert set(EKMAN) < set(BP4D) and set(MEGC) < set(FOURDME)
    assert not set(emotions.COLORS) - set(EKMAN)


def test_runs_of_numbers():
    assert runs([2, 17, 18, 19, 30]) == "2, 17-19, 30"
    assert runs(range(0, 20, 2)) == "0, 2, 4, 6, 8 and 5 more"
    assert runs([]) == ""


def test_a_number_far_off_is_a_gap_and_no_burden(tmp_path):
    for name in ("000", "001", "20190304112233445566"):
        put(tmp_path / "F001" / "Happy" / f"{name}.wrl")
    put(tmp_path / "F002" / "Happy" / "000.wrl")
    remarks = said(index_dataset("bu4dfe", tmp_path))
    assert "F001/Happy: 20190304112233445564 frames are missing: 2-20190304112233445565" in remarks


# ---- BU-3DFE


def bu3dfe_subject(root, subject="F0001", group="WH", without=()):
    for code, level in [(code, level) for code in BU_CODES for level in (1, 2, 3, 4)] + [("NE", 0)]:
        stem = f"{subject}_{code}{level:02d}{group}"
        for ending in ("F3D.wrl", "F3D.bnd", "F3D.bmp", "F2D.bmp", "RAW.wrl", "RAW.pse"):
            if f"{code}{level:02d}_{ending}" not in without:
                put(root / subject / f"{stem}_{ending}")
    return root


def test_bu3dfe_reads_everything_from_the_names(tmp_path):
    bu3dfe_subject(tmp_path, "F0001", "AE")
    bu3dfe_subject(tmp_path, "M0044", "IN")
    index = index_dataset("bu3dfe", tmp_path)
    assert index.classes == (*EKMAN, "neutral")
    assert index.counts == {**dict.fromkeys(EKMAN, 8), "neutral": 2} and index.subjects == ("F0001", "M0044")
    assert not index.excluded
    for code, label in BU_CODES.items():
        for level in (1, 2, 3, 4):
            record = by_id(index)[f"M0044_{code}{level:02d}IN_F3D"]
            assert (record.label, record.intensity, record.subject) == (label, level / 4, "M0044")
            assert record.files == (f"M0044/M0044_{code}{level:02d}IN_F3D.wrl",)
    neutral = by_id(index)["F0001_NE00AE_F3D"]
    assert neutral.label == "neutral" and neutral.intensity == 0
    assert neutral.metadata == {"sex": "female", "ethnicity": "east asian"} and neutral.source == "bu3dfe"
    assert neutral.landmarks is None  # it lies beside the scan, where readers find it
    assert "50 portraits (F2D), 50 whole heads (RAW), 50 points of RAW (.pse)" not in said(index)
    assert "50 whole heads (RAW)" in said(index)


@pytest.mark.parametrize(
    ("letters", "name"),
    [("WH", "white"), ("BL", "black"), ("LA", "latino"), ("AM", "middle eastern"), ("IN", "indian"), ("XX", None)],
)
def test_bu3dfe_ethnic_letters_become_names_of_the_prompts(tmp_path, letters, name):
    put(tmp_path / f"F0001_HA02{letters}_F3D.wrl")
    index = index_dataset("bu3dfe", tmp_path)
    assert index.records[0].metadata.get("ethnicity") == name
    assert name is None or name in PromptSet.load().ethnicity
    assert ("the letters XX are no ethnic group: 1 subjects, F0001" in said(index)) == (name is None)


def test_bu3dfe_takes_flat_folders_and_any_case(tmp_path):
    put(tmp_path / "sub" / "f0007_an03wh_f3d.WRL")
    put(tmp_path / "sub" / "f0007_an03wh_f3d.bnd")
    index = index_dataset("bu3dfe", tmp_path)
    assert [(r.subject, r.label, r.intensity) for r in index.records] == [("F0007", "angry", 0.75)]


def test_bu3dfe_says_what_is_missing_or_odd(tmp_path):
    bu3dfe_subject(tmp_path, without={"AN01_F3D.wrl", "HA02_F3D.bnd", "SU03_F3D.bmp", "SA04_F3D.wrl", "SA04_RAW.wrl"})
    put(tmp_path / "F0001" / "M0002_AN01WH_F3D.wrl")
    put(tmp_path / "F0001" / "F0001_AN05WH_F3D.wrl")
    put(tmp_path / "F0001" / "F0001_NE02WH_F3D.wrl")
    put(tmp_path / "F0001" / "F0001_DI01BL_F3D.wrl")
    put(tmp_path / "F0001" / "readme.txt")
    put(tmp_path / "F0001" / "F0001_AN01WH.wrl")
    put(tmp_path / "F0002.rar")
    index = index_dataset("bu3dfe", tmp_path)
    assert len(index) == 23
    assert "only the RAW model is there" in index.excluded["F0001/F0001_AN01WH_RAW.wrl"]
    assert "there is no F3D.wrl for it" in "\n".join(
        f"{k}: {v}" for k, v in index.excluded.items() if k.startswith("F0001/F0001_SA04WH_F3D")
    )
    assert "its name says M0002, its folder F0001" in index.excluded["F0001/M0002_AN01WH_F3D.wrl"]
    assert "no intensity 05 of angry" in index.excluded["F0001/F0001_AN05WH_F3D.wrl"]
    assert "no intensity 02 of neutral" in index.excluded["F0001/F0001_NE02WH_F3D.wrl"]
    assert "a second scan" in index.excluded["F0001/F0001_DI01WH_F3D.wrl"]
    assert "none of BU-3DFE" in index.excluded["F0001/F0001_AN01WH.wrl"]
    assert "unpack it" in index.excluded["F0002.rar"]
    text = said(index)
    assert "F0001_HA02WH_F3D: no landmarks (.bnd)" in text and "F0001_SU03WH_F3D: no texture (.bmp)" in text
    assert "F0001: 2 of 25 scans are missing: AN01, SA04" in text
    assert "the letters BL and WH of the ethnic group contradict each other" in text and "1 .txt files" in text
    assert "ethnicity" not in index.records[0].metadata


def test_bu3dfe_landmarks_in_another_folder_are_named(tmp_path):
    put(tmp_path / "scans" / "F0001_HA04WH_F3D.wrl")
    put(tmp_path / "points" / "F0001_HA04WH_F3D.bnd")
    assert index_dataset("bu3dfe", tmp_path).records[0].landmarks == "points/F0001_HA04WH_F3D.bnd"


def test_one_scan_under_two_labels_is_left_out(tmp_path):
    bu3dfe_subject(tmp_path)
    for code in ("HA", "SA"):
        put(tmp_path / "F0001" / f"F0001_{code}02WH_F3D.wrl", b"the same face")
    index = index_dataset("bu3dfe", tmp_path)
    assert len(index) == 23 and "which is labelled sad" in index.excluded["F0001_HA02WH_F3D"]


def test_known_faults_are_left_out_by_id_name_or_subject(tmp_path):
    bu3dfe_subject(tmp_path / "data", "F0001")
    bu3dfe_subject(tmp_path / "data", "F0002")
    faults = put(
        tmp_path / "faults.txt",
        b"# found by hand\n\nF0001_AN01WH_F3D  # spikes\nf0001_an02wh_f3d\nF0002\nF0003_AN01WH_F3D\n",
    )
    index = index_dataset("bu3dfe", tmp_path / "data", exclude=faults)
    assert len(index) == 23 and index.subjects == ("F0001",)
    assert index.excluded["F0001_AN01WH_F3D"] == "spikes"
    assert index.excluded["F0002_NE00WH_F3D"] == "listed in faults.txt"
    assert "line 6 of faults.txt, 'F0003_AN01WH_F3D', matches nothing" in said(index)
    assert "27 samples were left out because faults.txt lists them" in said(index)
    put(tmp_path / "all.txt", b"F0001\nF0002\n")
    with pytest.raises(ValueError, match="lists all 50 samples"):
        index_dataset("bu3dfe", tmp_path / "data", exclude=tmp_path / "all.txt")
    with pytest.raises(ValueError, match="nowhere.txt cannot be read"):
        index_dataset("bu3dfe", tmp_path / "data", exclude=tmp_path / "nowhere.txt")


def test_classes_that_are_not_asked_for_are_counted(tmp_path):
    index = index_dataset("bu3dfe", bu3dfe_subject(tmp_path), classes=EKMAN)
    assert len(index) == 24 and "1 samples are labelled neutral, which is no class here" in said(index)


# ---- BU-4DFE

CLASS_FOLDERS = {"Angry": "angry", "Disgust": "disgust", "Fear": "fear", "Happy": "happy", "Sad": "sad"}
CLASS_FOLDERS["Surprise"] = "surprise"


def frames(folder, numbers, digits=3, scan="wrl", image="jpg"):
    for number in numbers:
        put(folder / f"{number:0{digits}d}.{scan}")
        if image:
            put(folder / f"{number:0{digits}d}.{image}")


def test_bu4dfe_sequences_are_sorted_by_number_and_gaps_are_told(tmp_path):
    for name in CLASS_FOLDERS:
        frames(tmp_path / "F001" / name, range(3))
    frames(tmp_path / "M043" / "Angry", [0, 1, 3, 10, 100, 101])
    frames(tmp_path / "M043" / "happy", [5])
    (tmp_path / "M043" / "Sad").mkdir()
    put(tmp_path / "BU_WrlViewer_V2" / "viewer.exe")
    (tmp_path / "M043" / "Angry" / "003.jpg").unlink()
    put(tmp_path / "M043" / "Angry" / "0010.wrl")
    put(tmp_path / "M043" / "Angry" / "mean.wrl")
    frames(tmp_path / "M043" / "Contempt", range(2))
    index = index_dataset("bu4dfe", tmp_path)
    records = by_id(index)
    assert {i: r.label for i, r in records.items() if r.subject == "F001"} == {
        f"F001/{name}": label for name, label in CLASS_FOLDERS.items()
    }
    angry = records["M043/Angry"]
    assert angry.frames == (0, 1, 3, 10, 100, 101) and angry.metadata == {"sex": "male"}
    assert angry.files[-1] == "M043/Angry/101.wrl" and angry.frame_landmarks == ()
    assert records["M043/happy"].frames == (5,) and len(index) == 8
    assert index.excluded["M043/Sad/"] == "the folder holds no scan"
    assert index.excluded["BU_WrlViewer_V2/"] == "no folder of a subject"
    assert "is no class" in index.excluded["M043/Contempt/"]
    assert "second scan of frame 10" in index.excluded["M043/Angry/010.wrl"] or (
        "second scan of frame 10" in index.excluded["M043/Angry/0010.wrl"]
    )
    assert "number of a frame" in index.excluded["M043/Angry/mean.wrl"]
    text = said(index)
    assert "M043/Angry: 96 frames are missing: 2, 4-9, 11-99" in text
    assert "M043/Angry: no picture for 3" in text and "1 of 8 sequences have gaps" in text
    assert "M043 (disgust, fear, sad, surprise)" in text
    assert "the first frame has the number 0 in 7, 5 in 1 of 8 sequences" in text


def test_bu4dfe_finds_the_landmark_package_inside_and_beside(tmp_path):
    data = tmp_path / "BU_4DFE"
    frames(data / "F001" / "Happy", range(3))
    frames(data / "F001" / "Angry", range(3))
    package = tmp_path / "BU4DFE_BND_V1.1" / "F001"
    for number in range(3):
        put(package / "Happy" / f"{number:03d}.bnd")
    put(package / "Angry" / "001.landmark")
    for place in (data, tmp_path):
        records = by_id(index_dataset("bu4dfe", place))
        assert list(records) == ["F001/Angry", "F001/Happy"]  # ids do not depend on the folder named
        happy, angry = records["F001/Happy"], records["F001/Angry"]
        assert happy.frame_landmarks == tuple(f"BU4DFE_BND_V1.1/F001/Happy/{number:03d}.bnd" for number in range(3))
        assert happy.files[0] == "BU_4DFE/F001/Happy/000.wrl"
        assert angry.frame_landmarks == (None, "BU4DFE_BND_V1.1/F001/Angry/001.landmark", None)
    index = index_dataset("bu4dfe", data)
    assert all((index.root / file).is_file() for record in index.records for file in record.files)
    assert "landmarks were found in BU4DFE_BND_V1.1: 4 files" in said(index)
    assert "F001/Angry: no landmarks of 2 of 3 frames" in said(index)
    elsewhere = tmp_path / "points"
    put(elsewhere / "F001" / "Happy" / "2.bnd")
    happy = by_id(index_dataset("bu4dfe", data, landmarks=elsewhere))["F001/Happy"]
    assert happy.frame_landmarks == (None, None, "points/F001/Happy/2.bnd")


def test_bu4dfe_landmarks_beside_the_scans(tmp_path):
    frames(tmp_path / "F001" / "Happy", range(3))
    put(tmp_path / "F001" / "Happy" / "000.bnd")  # the reader finds it
    put(tmp_path / "F001" / "Happy" / "001.landmark")
    assert index_dataset("bu4dfe", tmp_path).records[0].frame_landmarks == (None, "F001/Happy/001.landmark", None)


def test_one_subject_in_two_folders_is_refused_and_two_parts_are_joined(tmp_path):
    frames(tmp_path / "part1" / "F001" / "Happy", range(2))
    frames(tmp_path / "part2" / "F002" / "Happy", range(2))
    assert index_dataset("bu4dfe", tmp_path).subjects == ("F001", "F002")
    frames(tmp_path / "part2" / "F001" / "Happy", range(2))
    with pytest.raises(ValueError, match="F001 lies in both part1/F001 and part2/F001"):
        index_dataset("bu4dfe", tmp_path)


def test_links_to_folders_are_followed(tmp_path):
    frames(tmp_path / "disk" / "F001" / "Happy", range(2))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "F001").symlink_to(tmp_path / "disk" / "F001")
    assert index_dataset("bu4dfe", tmp_path / "set").records[0].files == ("F001/Happy/000.wrl", "F001/Happy/001.wrl")


def test_copies_of_sequences_are_found_without_reading_the_others(tmp_path, monkeypatch):
    for name in ("Happy", "Sad"):
        for number in range(4):
            put(tmp_path / "F001" / name / f"{number:03d}.wrl", f"frame {number}".encode())
    frames(tmp_path / "F001" / "Fear", range(4, 8))
    index = index_dataset("bu4dfe", tmp_path)
    assert [record.label for record in index.records] == ["fear"]
    assert "a copy of F001/Sad, which is labelled sad" in index.excluded["F001/Happy"]


# ---- Bosphorus


def bosphorus(root, subject, *names, endings=("bnt", "png", "lm2", "lm3")):
    for name, ending in itertools.product(names, endings):
        put(root / f"bs{subject:03d}" / f"bs{subject:03d}_{name}.{ending}")
    return root


SIX = ("E_ANGER_0", "E_DISGUST_0", "E_FEAR_0", "E_HAPPY_0", "E_SADNESS_0", "E_SURPRISE_0")


def test_bosphorus_takes_emotions_and_neutral_faces_and_counts_the_rest(tmp_path):
    others = ("LFAU_12LW_0", "UFAU_4_0", "CAU_A26A12lw_0", "YR_R90_0", "PR_SD_0", "CR_RU_0", "O_EYE_0", "IGN_X_0")
    bosphorus(tmp_path, 0, *SIX, "N_N_0", "N_N_1", "E_HAPPY_1", *others)
    bosphorus(tmp_path, 1, "e_happy_0", "N_N_3", "E_BORED_0", "Q_X_0")
    index = index_dataset("bosphorus", tmp_path)
    assert index.counts == dict(zip((*EKMAN, "neutral"), (3, 1, 1, 1, 1, 1, 3), strict=True))
    assert by_id(index)["bs000_E_SADNESS_0"].label == "sad" and repeat_of(by_id(index)["bs000_E_HAPPY_1"]) == 1
    assert by_id(index)["bs001_e_happy_0"].label == "happy"
    assert "emotion BORED is not known" in index.excluded["bs001/bs001_E_BORED_0.bnt"]
    assert "group Q is not known" in index.excluded["bs001/bs001_Q_X_0.bnt"]
    assert complete_subjects(index) == ("bs000",)
    text = said(index)
    for words in ("1 action units of the lower face (LFAU)", "1 covered faces (O)", "1 scans to be ignored (IGN)"):
        assert words in text
    assert "1 of 2 subjects have all six emotions" in text and "1 scans of emotions are repeats" in text


def test_six_files_are_not_six_emotions(tmp_path):
    bosphorus(tmp_path, 7, *SIX[1:], "E_HAPPY_1")  # six files of E, but no anger
    bosphorus(tmp_path, 8, *SIX, "E_HAPPY_1")  # seven, and all
    assert complete_subjects(index_dataset("bosphorus", tmp_path)) == ("bs008",)


def test_bosphorus_companions(tmp_path):
    bosphorus(tmp_path, 0, "E_HAPPY_0", endings=("bnt",))
    bosphorus(tmp_path, 0, "E_FEAR_0", endings=("png", "lm2", "lm3"))
    bosphorus(tmp_path, 0, "E_ANGER_0", "N_N_0")
    put(tmp_path / "bs001" / "bs000_E_SADNESS_0.bnt")
    index = index_dataset("bosphorus", tmp_path)
    assert len(index) == 3 and "there is no .bnt" in index.excluded["bs000/bs000_E_FEAR_0.lm2"]
    assert "its name says bs000, its folder bs001" in index.excluded["bs001/bs000_E_SADNESS_0.bnt"]
    for words in ("picture (.png)", "landmarks (.lm3)", "picture landmarks (.lm2)"):
        assert f"bs000_E_HAPPY_0: no {words}" in said(index)


# ---- BP4D and BP4D+

TASKS_BP4D = "happy sad surprise embarrassment fear pain angry disgust".split()
TASKS_PLUS = "happy surprise sad startle skepticism embarrassment fear pain angry disgust".split()


def test_task_eight_is_disgust_in_one_set_and_pain_in_the_other():
    assert [label_of("bp4d", task) for task in range(1, 9)] == TASKS_BP4D == list(BP4D)
    assert [label_of("bp4dplus", task) for task in range(1, 11)] == TASKS_PLUS
    assert (task_of("bp4d", "disgust"), task_of("bp4dplus", "disgust")) == (8, 10)
    assert label_of("bp4d", 8, "disgust") == "disgust"
    with pytest.raises(ValueError, match="task 8 of bp4dplus elicits pain; disgust is its task 10"):
        label_of("bp4dplus", 8, "disgust")
    with pytest.raises(ValueError, match="bp4d has no task 9"):
        label_of("bp4d", 9)
    with pytest.raises(ValueError, match="no task of bp4d elicits 'startle'"):
        task_of("bp4d", "startle")
    with pytest.raises(ValueError, match="no table of tasks"):
        label_of("bu4dfe", 1)


def test_bp4d_digits_and_first_frames_differ_by_sequence(tmp_path):
    base = tmp_path / "BP4D" / "Sequences(2D+3D)"
    for task in range(1, 9):
        frames(base / "F001" / f"T{task}", range(task % 2, 4), digits=3 + task % 2, scan="obj")
    put(base / "F001" / "T1" / "0001.mtl")
    put(base / "F001" / "T3" / "0002.obj").rename(base / "F001" / "T3" / "12000.obj")
    put(base / "F001" / "notes.txt")
    frames(base / "F001" / "Thermal", [1], scan="txt", image="")
    index = index_dataset("bp4d", tmp_path)
    assert [by_id(index)[f"F001/T{task}"].label for task in range(1, 9)] == TASKS_BP4D
    assert by_id(index)["F001/T2"].files[0] == "BP4D/Sequences(2D+3D)/F001/T2/000.obj"
    assert by_id(index)["F001/T3"].frames == (1, 3, 12000)
    assert "F001/T3: 11997 frames are missing: 2, 4-11999" in said(index)
    assert "the subjects were found in BP4D/Sequences(2D+3D)" in said(index)
    assert "no folder of a task" in index.excluded["F001/Thermal/"]


@pytest.mark.parametrize("odd", ["F001/T9", "F024/T1", "M019/T1"])
def test_bp4d_plus_under_the_name_of_bp4d_is_refused(tmp_path, odd):
    frames(tmp_path / "F001" / "T1", range(2), scan="obj")
    frames(tmp_path / odd, range(2), scan="obj")
    with pytest.raises(ValueError, match="looks like BP4D\\+.*use bp4dplus"):
        index_dataset("bp4d", tmp_path)
    index = index_dataset("bp4dplus", tmp_path)
    assert len(index) == 2
    assert ("these labels are wrong" in said(index)) == (odd != "F001/T9")


def test_bp4d_plus_has_its_own_tasks_and_leaves_archives(tmp_path):
    for task in range(1, 11):
        frames(tmp_path / "2D+3D" / "M058" / f"T{task}", range(2), 4, "obj")
    put(tmp_path / "2D+3D" / "M058.zip")
    put(tmp_path / "2D+3D" / "M057.zip")
    put(tmp_path / "Physiology" / "M058" / "T1" / "BP.txt")
    put(tmp_path / "3DFeatures" / "FacialLandmarks" / "M058_T1_0001.bndplus", b"1,2,3\n" * 83)
    index = index_dataset("bp4dplus", tmp_path)
    assert "3DFeatures, FacialLandmarks: landmarks that are not read" in said(index)
    assert {r.id.partition("/T")[2]: r.label for r in index.records} == {
        str(task): label for task, label in enumerate(TASKS_PLUS, 1) if label in BP4D
    }
    assert "1 samples are labelled startle, which is no class here" in said(index)
    assert "unpack it" in index.excluded["2D+3D/M057.zip"] and "2D+3D/M058.zip" not in index.excluded
    assert len(index_dataset("bp4dplus", tmp_path, classes=(*BP4D, "startle", "skepticism"))) == 10


def test_action_units_are_joined_by_the_number_of_the_frame(tmp_path):
    frames(tmp_path / "Sequences" / "F001" / "T1", range(1230, 1240), 4, "obj")
    frames(tmp_path / "Sequences" / "F001" / "T2", range(3), 3, "obj")
    table = put(
        tmp_path / "AUCoding" / "AU_OCC" / "F001_T1.csv",
        b"0,1,2,12\n1234,0,1,9\n1235,9,9,9\r\n1236,1,0,9\n1241,1,1,9\n\n",
    )
    codes = read_occurrence(table)
    assert codes.units == (1, 2, 12) and codes.frames.tolist() == [1234, 1235, 1236, 1241]
    assert codes.codes.tolist() == [[0, 1, 9], [9, 9, 9], [1, 0, 9], [1, 1, 9]] and codes.codes.dtype == np.int8
    assert codes.coded.tolist() == [True, False, True, True]
    index = index_dataset("bp4d", tmp_path)
    assert [len(record.files) for record in index.records] == [10, 3]
    assert "F001/T1: 1 of 3 coded frames have no scan" in said(index)
    coded = index_dataset("bp4d", tmp_path, coded_only=True)
    assert [record.frames for record in coded.records] == [(1234, 1236)]
    assert coded.excluded["F001/T2/"] == "no frame of it is coded"


@pytest.mark.parametrize("text", [b"", b"0,1\nx,1\n", b"0,1,2\n1,1\n", b"0,1\n1,7\n", b"\0\0"])
def test_damaged_tables_of_action_units(tmp_path, text):
    with pytest.raises(ValueError, match="F001_T1.csv (cannot be read|holds other codes)"):
        read_occurrence(put(tmp_path / "F001_T1.csv", text))


def test_coded_only_needs_tables(tmp_path):
    frames(tmp_path / "F001" / "T1", range(2), scan="obj")
    with pytest.raises(ValueError, match="coded_only needs it"):
        index_dataset("bp4d", tmp_path, coded_only=True)


# ---- 4DME

SHEET = """sub_ID,fold_name,Emotion,Onset,Apex,Offset,AUs
1,clip_a,Negative,100,102,103,AU4+AU7
1,clip_b,"Repression, negative",200,200,200,"AU12 (k), AU14"
2,clip_a,Surprise+Positive,10,11,12,1;2
2,clip_b,other,,,,
"""


def fourdme(root, sheet=SHEET, name="4DME_Labelling_Micro_release v1.csv"):
    put(root / name, sheet.encode("utf-8-sig"))
    for place, numbers in {
        "1/clip_a": range(100, 104),
        "1/clip_b": [200],
        "2/clip_a": range(9, 14),
        "2/clip_b": [1],
    }.items():
        for number in numbers:
            put(root / "mesh" / place / f"mesh_{number:05d}.obj")
            put(root / "mesh" / place / f"mesh_{number:05d}.jpg")
    return root


def test_4dme_labels_come_from_the_sheet(tmp_path):
    index = index_dataset("4dme", fourdme(tmp_path))
    assert index.classes == FOURDME
    assert {r.id: (r.label, *r.also) for r in index.records} == {
        "1/clip_a": ("negative",),
        "1/clip_b": ("repression", "negative"),
        "2/clip_a": ("surprise", "positive"),
        "2/clip_b": ("others",),
    }
    records = by_id(index)
    assert records["1/clip_a"].frames == (100, 101, 102, 103) and records["1/clip_b"].frames == (200,)
    assert records["1/clip_a"].subject == "1" and records["1/clip_a"].files[0] == "mesh/1/clip_a/mesh_00100.obj"
    text = said(index)
    assert "2 of 4 clips bear several labels (1 repression + negative, 1 surprise + positive)" in text
    assert "2/clip_a: 5 frames, 3 by the sheet" in text and "1 clips have action units marked (k)" in text
    trimmed = index_dataset("4dme", tmp_path, trim=True)
    assert by_id(trimmed)["2/clip_a"].frames == (10, 11, 12)
    assert "no onset or offset to trim to" in trimmed.excluded["row 5 (2/clip_b)"]


def test_4dme_rows_and_cells():
    assert emotions_of(" Surprise / Positive,surprise ") == ("surprise", "positive")
    assert emotions_of("Negative and Repression") == ("negative", "repression")
    assert units_of("AU4+R14, 12 (k);AU1(k)") == (("4", "R14"), ("12", "1"))
    with pytest.raises(ValueError, match="'joy' is not known; negative, positive"):
        emotions_of("Joy")
    with pytest.raises(ValueError, match="no emotion is named"):
        emotions_of(" , ")
    with pytest.raises(ValueError, match="'smile' is no action unit"):
        units_of("AU12+smile")


def test_4dme_clips_know_their_length_and_units(tmp_path):
    fourdme(tmp_path)
    clips = read_clips(tmp_path / "4DME_Labelling_Micro_release v1.csv")
    assert [clip.length for clip in clips] == [4, 1, 3, None]
    assert (clips[1].units, clips[1].marked) == (("14",), ("12",))
    assert (clips[0].onset, clips[0].apex, clips[0].offset, clips[0].row) == (100, 102, 103, 2)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("3,clip_a,Joy,1,2,3,", "'joy' is not known"),
        ("3,../x,Negative,1,2,3,", "name of a folder"),
        ("3,clip_a,Negative,9,2,3,", "offset 3 lies before the onset 9"),
        ("3,clip_a,Negative,first,2,3,", "number of a frame"),
        ("1,CLIP_A,Negative,1,2,3,", "the clip of row 2 again"),
        (",clip_a,Negative,1,2,3,", "the subject is ''"),
    ],
)
def test_4dme_rows_that_are_not_understood_are_left_out(tmp_path, row, why):
    index = index_dataset("4dme", fourdme(tmp_path, SHEET + row + "\n"))
    assert len(index) == 4 and why in index.excluded["row 6"]
    with pytest.raises(ValueError, match="row 6"):
        read_clips(tmp_path / "4DME_Labelling_Micro_release v1.csv")


def test_4dme_patterns(tmp_path):
    fourdme(tmp_path)
    for number in range(100, 104):  # the same clip in another modality
        put(tmp_path / "crop" / "sub01" / "Clip_A" / f"{number}.ply")
    assert len(index_dataset("4dme", tmp_path, pattern="mesh/{subject}/{clip}/*.obj")) == 4
    index = index_dataset("4dme", tmp_path, pattern="CROP/sub{subject:0>2}/{clip}/*")
    assert index.records[0].files[0] == "crop/sub01/Clip_A/100.ply" and len(index) == 1
    assert "no mesh matches CROP/sub02/clip_b/*" in index.excluded["row 5 (2/clip_b)"]
    assert "no row of the sheet" in index.excluded["mesh/1/clip_a/"]
    for number in range(100, 104):
        put(tmp_path / "second" / "1" / "clip_a" / f"{number}.obj")
    twice = index_dataset("4dme", tmp_path)
    assert "mesh/1/clip_a and second/1/clip_a matches" in twice.excluded["row 2 (1/clip_a)"]


@pytest.mark.parametrize(
    "pattern",
    [
        "{clip}/*.obj",
        "/x/{subject}/{clip}/*",
        "../{subject}/{clip}/*",
        "{subject}{clip}{0}/*",
        "{subject}{clip}",
        "{subject.__class__}/{clip}/*",
        "{subject/{clip}/*",
    ],
)
def test_4dme_patterns_that_cannot_be(tmp_path, pattern):
    with pytest.raises(ValueError, match="the pattern"):
        index_dataset("4dme", fourdme(tmp_path), pattern=pattern)


def test_4dme_sheets(tmp_path, monkeypatch):
    fourdme(tmp_path)
    renamed = SHEET.replace("sub_ID", "Subject").replace(",", ";")
    other = put(tmp_path / "x.csv", renamed.replace('"Repression; negative"', "Repression+negative").encode("latin-1"))
    index = index_dataset("4dme", tmp_path, sheet=other, names={"subject": "subject"})
    assert len(index) == 4
    with pytest.raises(ValueError, match="x.csv has no column 'sub_ID'"):
        index_dataset("4dme", tmp_path, sheet=other)
    with pytest.raises(ValueError, match="no field 'person'"):
        index_dataset("4dme", tmp_path, names={"person": "x"})
    put(tmp_path / "labels2.csv")
    with pytest.raises(ValueError, match="name the label sheet"):
        index_dataset("4dme", tmp_path)
    book = put(tmp_path / "labels.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ValueError, match="openpyxl is not installed: export the sheet as CSV"):
        index_dataset("4dme", tmp_path, sheet=book)


def test_4dme_workbooks_are_read_where_openpyxl_is_there(tmp_path, monkeypatch):
    rows = [tuple(line.split(",")) for line in SHEET.replace('"', "").splitlines()[:2]]
    rows = [rows[0], (1.0, "clip_a", "Negative", 100.0, 102, 103.0, None)]
    sheet = types.SimpleNamespace(iter_rows=lambda values_only: iter(rows))
    book = types.SimpleNamespace(worksheets=[sheet], close=lambda: None)
    module = types.ModuleType("openpyxl")
    module.load_workbook = lambda file, read_only, data_only: book
    monkeypatch.setitem(sys.modules, "openpyxl", module)
    fourdme(tmp_path)
    index = index_dataset("4dme", tmp_path, sheet=put(tmp_path / "labels.xlsx"))
    assert [(record.id, len(record.files)) for record in index.records] == [("1/clip_a", 4)]


def test_4dme_composite_classes(tmp_path):
    index = index_dataset("4dme", fourdme(tmp_path), classes=MEGC)
    assert {r.id: (r.label, *r.also) for r in index.records} == {
        "1/clip_a": ("negative",), "1/clip_b": ("negative",), "2/clip_a": ("surprise", "positive"),
    }  # fmt: skip
    assert "1 samples are labelled repression, which is no class here" in said(index)


# ---- FaceScape and CoMA


def test_facescape_takes_the_four_expressions_that_are_emotions(tmp_path):
    from affectvlm.datasets.facescape import EXPRESSIONS

    assert len(EXPRESSIONS) == 20 and EXPRESSIONS[15] == "grin"
    for subject in ("1", "359"):
        for number, name in enumerate(EXPRESSIONS, 1):
            if (subject, name) != ("359", "grin"):
                put(tmp_path / subject / "models_reg" / f"{number}_{name}.obj")
                put(tmp_path / subject / "models_reg" / f"{number}_{name}.obj.mtl")
                put(tmp_path / subject / "models_reg" / f"{number}_{name}.jpg")
    (tmp_path / "1" / "models_reg" / "4_anger.jpg").unlink()
    put(tmp_path / "1" / "models_reg" / "3_smile.obj")
    put(tmp_path / "1" / "dpmap" / "1_neutral.png")
    put(tmp_path / "info_list_v1.txt", b"1 f 99 1 0000\n")
    put(tmp_path / "info_list_v2.txt", b"1 m 24 1 0000\n359 f - 0 0100\nbroken\n")
    index = index_dataset("facescape", tmp_path)
    assert {r.id: r.label for r in index.records if r.subject == "1"} == {
        "1/1_neutral": "neutral", "1/2_smile": "happy", "1/4_anger": "angry", "1/14_sadness": "sad",
    }  # fmt: skip
    assert by_id(index)["1/2_smile"].metadata == {"sex": "male", "age_group": "young"}
    assert by_id(index)["359/2_smile"].metadata == {"sex": "female"}
    text = said(index)
    assert "31 models of movements that are no emotion" in text and "359: 19 of 20 expressions" in text
    assert (
        "1/4_anger: no texture" in text and "no expression of FaceScape" in index.excluded["1/models_reg/3_smile.obj"]
    )
    assert "marks 1 subjects as not complete or not valid: 359" in text and "row 3: info_list_v2.txt" in text


def test_coma_takes_the_smile(tmp_path):
    person = tmp_path / "FaceTalk_170725_00137_TA"
    for name in ("high_smile", "bareteeth", "mouth_open"):
        for number in (30, 4, 100):
            put(person / name / f"{name}.{number:06d}.ply")
    put(person / "wink" / "wink.000001.ply")
    put(person / "high_smile" / "notes.ply")
    index = index_dataset("coma", tmp_path)
    assert [(r.id, r.label, r.frames) for r in index.records] == [
        ("FaceTalk_170725_00137_TA/high_smile", "happy", (4, 30, 100))
    ]
    assert "2 sequences of movements that are no emotion" in said(index)
    assert "no expression of CoMA" in index.excluded["FaceTalk_170725_00137_TA/wink/"]
    assert "number of a frame" in index.excluded["FaceTalk_170725_00137_TA/high_smile/notes.ply"]


# ---- at the borders


def test_a_draft_names_the_layout_it_wants(tmp_path):
    with pytest.raises(ValueError, match="wanted is BU-3DFE: F0001/F0001_AN01WH_F3D.wrl"):
        index_dataset("bu3dfe", put(tmp_path / "x" / "readme.txt").parent)
    with pytest.raises(ValueError, match="class/subject/files"):
        Draft(tmp_path, EKMAN).finish()

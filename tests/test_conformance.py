"""The first look at a copy of a data set: whole fixtures pass, every fault that would make results wrong is named."""

from __future__ import annotations

import json
import shutil
import struct

import numpy as np
import pytest
from PIL import Image

from affectvlm.cli import main
from affectvlm.datasets import conformance, index_dataset
from affectvlm.datasets.conformance import ConformanceReport, check, contact_sheet
from affectvlm.datasets.findings import FINE, NOMINAL, REMARK, SURPRISE
from affectvlm.datasets.fixtures import make_fixture
from affectvlm.datasets.measures import VIEW_PIXELS, measure

DETAIL = 10.0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Name → a fixture of one subject, made once; copy it before you change it."""
    found = {}

    def get(name, subjects=1, quirks=True):
        key = (name, subjects, quirks)
        if key not in found:
            place = tmp_path_factory.mktemp("sets") / name
            found[key] = make_fixture(name, place, subjects, frames=3, quirks=quirks, detail_mm=DETAIL)
        return found[key]

    return get


@pytest.fixture
def copy(made, tmp_path):
    """As `made`, but a copy of one's own."""
    return lambda name, *args: shutil.copytree(made(name, *args), tmp_path / name)


def words(report: ConformanceReport, kind: str) -> str:
    return "\n".join(f"{one.what} -> {one.advice}" for one in report.findings if one.kind == kind)


def test_a_good_copy_of_bosphorus_is_fine(made):
    report = check("bosphorus", made("bosphorus"), sample=3, seed=1)
    assert report.surprises == () and "no surprises" in report.text()
    assert report.samples == 9 and report.counts["happy"] == 2 and report.subjects == 1
    for one in report.measures:
        assert one.error == "" and one.unit == "mm" and 0.2 < one.invalid < 0.6
        assert 120 < one.box[0] < 250 and 120 < one.box[1] < 250 and one.certainty > 0.65
    assert "1 of 105 subjects: a part" in words(report, REMARK)
    assert "with v from the top" in words(report, FINE) and "a face was found in 3 of 3" in words(report, FINE)
    assert "landmarks called left lie on the subject's left" in words(report, FINE)
    assert json.loads(json.dumps(report.to_dict()))["measures"][0]["id"] == report.measures[0].id


def test_a_report_of_sequences_has_a_histogram_and_gaps(made):
    report = check("bp4d", made("bp4d"), sample=2, pose=False)
    assert report.histogram == {"3": 8} and report.gaps == 0 and report.surprises == ()
    assert "300 to 4000 are usual" in words(report, REMARK) and "no sample is missing" in words(report, FINE)
    assert "frames a sequence: 3: 8" in report.text()
    many = ConformanceReport("x", "x", 1, 3, {}, (99, 100, 118, 250), 0, (), {}, (), ())
    assert many.histogram == {"80-99": 1, "100-119": 2, "240-259": 1}
    assert ConformanceReport("x", "x", 1, 3, {}, (), 0, (), {}, (), ()).histogram == {}


def test_the_base_of_landmark_numbers_is_found_out(made):
    index = index_dataset("bu4dfe", made("bu4dfe"))
    for record in index.records[1:4]:
        one = measure(index, record, pose=False)
        assert one.index_error[1] < 1e-3 < 1 < one.index_error[0] and one.surface_error < 1e-3
        assert one.centre[2] < -80 and one.texture == (128, 128) and one.left == "+x"
    report = check("bu4dfe", made("bu4dfe"), sample=2, pose=False)
    assert "they count from 1" in words(report, FINE) and report.measures[0].view is None
    with pytest.raises(ValueError, match="a contact sheet needs"):
        contact_sheet(report, "nowhere.png")


@pytest.mark.slow
def test_bu3dfe_raw_models_in_place_of_the_cut_ones_are_noticed(copy):
    folder = copy("bu3dfe")
    report = check("bu3dfe", folder, sample=4, pose=False)
    assert report.surprises == () and "they count from 0" in words(report, FINE)
    assert "256 x 128 (4)" in words(report, FINE)
    for raw in folder.rglob("*_RAW.wrl"):
        raw.replace(raw.with_name(raw.name.replace("_RAW", "_F3D")))
    found = words(check("bu3dfe", folder, sample=4, pose=False), SURPRISE)
    assert "RAW instead of F3D" in found
    for picture in folder.rglob("*_F3D.bmp"):
        with Image.open(picture) as image:
            left = image.crop((0, 0, 128, 128))
        left.save(picture)
    assert "not two views side by side" in words(check("bu3dfe", folder, sample=4, pose=False), SURPRISE)


def flipped(data: bytes) -> bytes:
    """A `.bnt` whose v runs from the bottom."""
    rows, cols, _, length = struct.unpack_from("<HHdH", data)
    planes = np.frombuffer(data, "<f8", offset=18 + length).reshape(5, rows, cols).copy()
    planes[4] = 1 - planes[4]
    return data[: 18 + length] + planes.tobytes()


def test_textures_upside_down_are_noticed(copy):
    folder = copy("bosphorus")
    for scan in folder.rglob("*.bnt"):
        scan.write_bytes(flipped(scan.read_bytes()))
    assert "textures would be upside down" in words(check("bosphorus", folder, sample=3, pose=False), SURPRISE)


def test_landmarks_of_another_scan_and_damaged_ones_are_noticed(copy):
    folder = copy("bosphorus", 1, False) / "bs000"
    for points in folder.glob("*.lm3"):
        text = points.read_bytes().decode()
        lines = text.split("\r\n")
        moved = [" ".join(str(float(n) + 30) for n in line.split()) if line.count(".") == 3 else line for line in lines]
        points.write_bytes("\r\n".join(moved).encode())
    found = words(check("bosphorus", folder.parent, sample=7, pose=False), SURPRISE)
    assert "they belong to other scans" in found and "they belong to other pictures" in found
    (folder / "bs000_E_HAPPY_0.lm3").write_bytes(b"2 Landmarks:\r\nNose tip\r\n1 2 x\r\n")
    report = check("bosphorus", folder.parent, sample=7, pose=False)
    assert "1 files of landmarks cannot be used: bs000_E_HAPPY_0" in words(report, SURPRISE)
    assert not [one for one in report.measures if one.error]


def test_broken_and_empty_files_are_noticed(copy):
    folder = copy("bosphorus")
    (folder / "bs000" / "bs000_E_FEAR_0.bnt").write_bytes(b"")
    whole = (folder / "bs000" / "bs000_E_ANGER_0.bnt").read_bytes()
    (folder / "bs000" / "bs000_E_ANGER_0.bnt").write_bytes(whole[:-100])
    report = check("bosphorus", folder, sample=20, pose=False)
    found = words(report, SURPRISE)
    assert "1 files are empty or cannot be opened: bs000/bs000_E_FEAR_0.bnt" in found
    assert "2 of 9 scans cannot be read" in found and "cut off" in found
    assert report.empty == ("bs000/bs000_E_FEAR_0.bnt",)
    faults = folder.parent / "faults.txt"
    faults.write_text("bs000_E_FEAR_0\nbs000_E_ANGER_0\n")
    assert check("bosphorus", folder, sample=20, pose=False, exclude=faults).surprises == ()


def test_several_empty_files_are_all_named(copy):
    folder = copy("bosphorus")
    for code in ("FEAR", "ANGER"):
        (folder / "bs000" / f"bs000_E_{code}_0.bnt").write_bytes(b"")
    report = check("bosphorus", folder, sample=1, pose=False)
    assert report.empty == ("bs000/bs000_E_ANGER_0.bnt", "bs000/bs000_E_FEAR_0.bnt") and len(report.surprises) >= 1


def test_a_frame_of_one_person_among_those_of_another_is_noticed(made, tmp_path):
    folder = shutil.copytree(made("bu4dfe", 2, False), tmp_path / "bu4dfe")
    assert check("bu4dfe", folder, sample=1, pose=False).shared == ()
    first, second = (folder / "BU_4DFE" / name / "Happy" for name in ("F001", "M001"))
    shutil.copy(first / "001.wrl", second / "002.wrl")
    report = check("bu4dfe", folder, sample=1, pose=False)
    assert report.shared == ("BU_4DFE/F001/Happy/001.wrl (F001) and BU_4DFE/M001/Happy/002.wrl (M001)",)
    assert "1 frames are those of several people" in words(report, SURPRISE)
    assert report.to_dict()["shared"] == list(report.shared) and report.uncompared == 0


def test_another_unit_is_noticed(copy):
    folder = copy("4dme", 1, False)
    for scan in folder.rglob("*.obj"):
        rows = scan.read_text().split("\n")
        rows = [
            f"v {' '.join(str(20 * float(n)) for n in row.split()[1:])}" if row[:2] == "v " else row for row in rows
        ]
        scan.write_text("\n".join(rows))
    found = words(check("4dme", folder, sample=2, pose=False), SURPRISE)
    assert "120 to 250 in x and y are expected" in found and "in millimetres?" in found


def test_other_axes_are_noticed(copy):
    folder = copy("coma")
    for scan in folder.rglob("high_smile*.ply"):
        data = scan.read_bytes()
        head = data.index(b"end_header\n") + len(b"end_header\n")
        count = int(data[: data.index(b"\nproperty")].split()[-1])
        points = np.frombuffer(data, "<f4", 3 * count, head).reshape(-1, 3)
        turned = np.ascontiguousarray(points[:, [0, 2, 1]] * np.array([1, -1, 1], np.float32))  # z up
        scan.write_bytes(data[:head] + turned.astype("<f4").tobytes() + data[head + 12 * count :])
    assert "the axes are not x right" in words(check("coma", folder, sample=1), SURPRISE)


def test_textures_that_went_missing_are_noticed(copy):
    folder = copy("4dme", 1, False)
    for picture in folder.rglob("*.jpg"):
        picture.unlink()
    report = check("4dme", folder, sample=2, pose=False)
    assert "pictures have to lie beside the scans" in words(report, SURPRISE)
    assert "6 of 6 sequences lack pictures" in "\n".join(report.remarks)


def test_bp4d_under_the_name_of_bp4d_plus_is_noticed(made):
    found = words(check("bp4dplus", made("bp4d"), sample=1, pose=False), SURPRISE)
    assert "no subject has a task 9 or 10" in found and "check it as bp4d" in found


def test_many_exclusions_and_too_many_people_are_noticed(copy, monkeypatch):
    folder = copy("bosphorus")
    for number in range(5):
        shutil.copy(folder / "bs000" / "bs000_E_HAPPY_0.bnt", folder / "bs000" / f"bs000_E_BORED_{number}.bnt")
    assert "5 files or folders were left out" in words(check("bosphorus", folder, 1, False), SURPRISE)
    monkeypatch.setitem(NOMINAL, "bosphorus", conformance.Nominal(subjects=0, samples=3))
    found = words(check("bosphorus", folder, 1, False), SURPRISE)
    assert "1 subjects, the data set has 0" in found and "9 samples, the data set has 3" in found


def test_a_folder_of_ones_own_can_be_checked_too(made, tmp_path):
    source = made("bosphorus", 1, False) / "bs000"
    for code, name in (("HAPPY", "happy"), ("FEAR", "fear")):
        (tmp_path / name / "anna").mkdir(parents=True)
        shutil.copy(source / f"bs000_E_{code}_0.bnt", tmp_path / name / "anna" / "scan.bnt")
    report = check("folder", tmp_path, sample=2, pose=False)
    assert report.samples == 2 and "no sample of angry" in words(report, REMARK)
    with pytest.raises(ValueError, match="sample is 0"):
        check("folder", tmp_path, sample=0)


def test_the_command_writes_report_and_sheet_and_tells_by_its_status(copy, tmp_path, capsys):
    folder = copy("coma")
    arguments = ["check", "coma", str(folder), "--sample", "4"]
    files = ["--json", str(tmp_path / "r.json"), "--sheet", str(tmp_path / "s.png")]
    assert main(arguments + files) == 0
    assert "no surprises" in capsys.readouterr().out
    said = json.loads((tmp_path / "r.json").read_text())
    assert said["samples"] == 1 and said["surprises"] == 0 and said["findings"][0]["kind"] == REMARK
    with Image.open(tmp_path / "s.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape[1] == VIEW_PIXELS and pixels.shape[0] > VIEW_PIXELS
    assert len(np.unique(pixels[:VIEW_PIXELS].reshape(-1, 3), axis=0)) > 50  # a shaded face
    for scan in folder.rglob("high_smile*.ply"):
        scan.write_bytes(b"ply\n")
    assert main(arguments) == 1 and "1 surprises: settle them" in capsys.readouterr().out
    assert main(["check", "coma", str(tmp_path / "none")]) == 1
    assert main(["check", "coma", str(folder), "--set", "trim=true"]) == 1
    assert "coma has no option 'trim'" in capsys.readouterr().err

"""A check before training: what can only fail is stopped with advice, the rest is told, and leaks are looked for."""

import json

import numpy as np
import pytest

from affectvlm import preflight
from affectvlm.planning import Plan
from affectvlm.preflight import FINE, STOP, WARNING, check_data

BROKEN = b"ply\nformat ascii 1.0\nelement vertex 9\nproperty float x\nend_header\n1\n"


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    monkeypatch.setattr(preflight, "SAMPLED", 3)


@pytest.fixture
def scans(tmp_path, happy_scan):
    """Fills a folder: class → people; every file is another face."""
    import trimesh

    def fill(**people):
        for label, names in people.items():
            for name in names:
                folder = tmp_path / "my scans" / label / name
                folder.mkdir(parents=True)
                scale = 1 + 0.001 * len(list(tmp_path.rglob("*.ply")))
                mesh = trimesh.Trimesh(happy_scan.vertices * np.float32(scale), happy_scan.faces, process=False)
                mesh.export(folder / "face.ply")
        return tmp_path / "my scans"

    return fill


def look(path, start="", **choices):
    plan = Plan("n", data="folder", path=str(path), start=start, **choices)
    return check_data(plan.config())


def said(check, level):
    return " ".join(finding.text for finding in check.findings if finding.level == level)


def test_faces_of_three_people_can_be_trained_on(scans):
    told = []
    path = scans(happy=["a", "b", "c"], sad=["a", "b", "c"])
    plan = Plan("n", data="folder", path=str(path))
    check = check_data(plan.config(), progress=lambda share, text: told.append((share, text)))
    assert check.ok
    assert check.subjects == {"train": 1, "validation": 1, "test": 1}
    assert sum(sum(counts.values()) for counts in check.splits.values()) == 6
    assert "6 faces of 3 people" in said(check, FINE) and "3 sampled files were read" in said(check, FINE)
    assert "no face shows angry, disgust, fear and surprise" in said(check, WARNING)
    assert "few faces to learn from: happy (1), sad (1)" in said(check, WARNING)
    assert "6 faces of 3 subjects" in check.summary
    assert [share for share, _ in told] == sorted(share for share, _ in told) and len(told) == 4
    levels = [finding.level for finding in check.findings]
    assert levels == sorted(levels, key=(STOP, WARNING, FINE).index)
    assert all(finding.advice for finding in check.findings if finding.level != FINE)


def test_copies_and_missing_views_and_broken_files_are_told(scans):
    path = scans(happy=["a", "b", "c", "d"], sad=["a", "b"])
    (path / "sad" / "c").mkdir()
    (path / "sad" / "c" / "copy.ply").write_bytes((path / "happy" / "c" / "face.ply").read_bytes())
    (path / "angry" / "a").mkdir(parents=True)
    (path / "angry" / "a" / "broken.ply").write_bytes(BROKEN)
    (path / "fear" / "a").mkdir(parents=True)
    (path / "fear" / "a" / "front.jpg").write_bytes(b"x")
    (path / "nonsense").mkdir()
    check = look(path)
    warned = said(check, WARNING)
    assert "copies and could leak into the test: 2 (" in warned
    assert "another view of their face is missing: 1 (fear/a/front.jpg" in warned
    assert "left out for other reasons: 1 (nonsense/" in warned
    assert "1 of 3 sampled files cannot be used (angry/a/broken.ply" in warned
    assert "copy" not in str(check.splits) and sum(sum(counts.values()) for counts in check.splits.values()) == 6


@pytest.mark.parametrize(
    ("people", "stopped"),
    [
        ({"happy": ["a", "b"], "sad": ["a", "b"]}, "at least 3 are needed"),
        ({"happy": ["a", "b", "c"]}, "the only emotion is happy"),
        ({"neutral": ["a", "b", "c"]}, "the only emotion is none"),
        ({}, "nothing is in there"),
    ],
)
def test_what_cannot_teach_stops(scans, tmp_path, people, stopped):
    (tmp_path / "my scans").mkdir()
    check = look(scans(**people) if people else tmp_path / "my scans")
    assert not check.ok and stopped in said(check, STOP)


def test_a_folder_of_broken_files_stops(tmp_path):
    for label in ("happy", "sad"):
        for number, person in enumerate("abc"):
            (tmp_path / "f" / label / person).mkdir(parents=True)
            (tmp_path / "f" / label / person / "x.ply").write_bytes(BROKEN + f"{label}{number}".encode())
    assert "none of 3 sampled files can be used" in said(look(tmp_path / "f"), STOP)


@pytest.mark.parametrize("path", ["nowhere", "a\0b", "happy_pictures/face.ply", "labels.csv"])
def test_a_path_that_leads_to_nothing_stops(tmp_path, path):
    (tmp_path / "happy_pictures").mkdir()
    (tmp_path / "happy_pictures" / "face.ply").write_bytes(BROKEN)
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00nonsense")
    check = look(tmp_path / path)
    assert not check.ok and len(check.findings[0].text) > 20


def test_people_listed_for_two_parts_stop(scans, tmp_path):
    path = scans(happy=["a", "b", "c"], sad=["a", "b", "c"])
    ids = [f"{label}/{name}/face.ply" for label in ("happy", "sad") for name in "abc"]
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ids[:3], "validation": ids[3:5], "test": ids[5:]}))
    plan = Plan("n", data="folder", path=str(path), extra=f"data.split={split}")
    check = check_data(plan.config())
    assert not check.ok and "'a'" in said(check, STOP)


def test_a_start_without_a_model_stops_and_one_with_it_does_not(tmp_path, checkpoint_folder):
    plan = Plan("n", start=str(checkpoint_folder), extra=f"data.cache={tmp_path}")
    assert check_data(plan.config()).ok
    check = check_data(Plan("n", start=str(tmp_path), extra=f"data.cache={tmp_path}").config())
    assert not check.ok and "card.json and model.safetensors missing" in said(check, STOP)


def test_little_can_be_learned_from_random_weights(tmp_path):
    assert "learn next to nothing" in said(check_data(Plan("n").config()), WARNING)
    assert "random weights have none" in said(check_data(Plan("n", "multiviewvlm", "long").config()), WARNING)
    assert "random" not in said(check_data(Plan("n", preset="long").config()), WARNING)


def test_a_full_disk_stops(tmp_path, monkeypatch):
    free = preflight.shutil._ntuple_diskusage(10**12, 10**12, 500_000_000)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: free)
    check = check_data(Plan("n", preset="long", extra=f"data.cache={tmp_path}/new").config())
    assert not check.ok and "0.5 GB are free" in said(check, STOP)
    wanted = (8192 + 512 + 512) * 3 * 128 * 128 * 7 / 1e9
    assert f"{wanted + 0.63:.1f} GB" in said(check, STOP) or f"{wanted + 0.2:.1f} GB" in said(check, STOP)


@pytest.mark.parametrize("path", ["nowhere", ".", "affectvlm/config.py"])
@pytest.mark.parametrize("data", ["ict", "makehuman"])
def test_another_thing_than_a_model_of_the_face_stops_with_where_to_get_it(data, path):
    check = check_data(Plan("n", data=data, path=path).config(), preflight.Path(preflight.__file__).parents[1])
    assert not check.ok and "git clone" in check.findings[0].advice

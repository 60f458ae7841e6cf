"""The shell's way in: in this process, and once as users call it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from affectvlm import cli
from affectvlm.emotions import EKMAN
from affectvlm.runs import CONFIG, Run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, happy_ply) -> Path:
    """Two good scans, a broken one between them, one deeper down, and a file that is no scan."""
    root = tmp_path_factory.mktemp("scans")
    (root / "deeper").mkdir()
    for name in ("a.ply", "c.ply", "deeper/d.PLY"):
        (root / name).write_bytes(happy_ply)
    (root / "b.ply").write_bytes(happy_ply[: len(happy_ply) // 2])
    (root / "notes.md").write_text("not a scan")
    return root


@pytest.fixture
def shell(checkpoint_folder, capsys):
    """Run a command; gives exit status, lines of stdout, stderr."""

    def run(*arguments: object) -> tuple[int, list[str], str]:
        words = [str(argument) for argument in arguments]
        if words[0] == "predict":
            words += ["--checkpoint", str(checkpoint_folder)]
        status = cli.main(words)
        captured = capsys.readouterr()
        return status, captured.out.splitlines(), captured.err

    return run


def test_a_folder_is_answered_past_a_bad_file_which_is_named_at_the_end(shell, folder):
    status, lines, said = shell("predict", folder, "--json")
    rows = [json.loads(line) for line in lines]
    assert status == 1
    assert [Path(row["file"]).name for row in rows] == ["a.ply", "b.ply", "c.ply", "d.PLY"]
    assert [row["ok"] for row in rows] == [True, False, True, True]
    assert "1 of 4 could not be answered" in said and "b.ply" in said.split("could not be answered")[1]
    for row in rows:
        assert tuple(row) == (
            "file",
            "ok",
            "error",
            "emotion",
            "confidence",
            "probabilities",
            "pose",
            "warnings",
            "timings_ms",
        )
    bad, good = rows[1], rows[0]
    assert bad["error"] and bad["emotion"] is bad["confidence"] is bad["probabilities"] is bad["pose"] is None
    assert good["error"] is None and tuple(good["probabilities"]) == EKMAN
    assert sum(good["probabilities"].values()) == pytest.approx(1)
    assert good["confidence"] == good["probabilities"][good["emotion"]]
    assert set(good["pose"]) == {"yaw", "pitch", "roll", "certainty"}
    assert "total" in good["timings_ms"] and isinstance(good["warnings"], list)


def test_the_shell_says_what_python_says(shell, folder, predictor):
    _, (line,), _ = shell("predict", folder / "a.ply", "--json", "--yaw", 5, "--pitch=-3")
    row = json.loads(line)
    answer = predictor.predict(folder / "a.ply", correction=(5, -3, 0)).to_dict()
    assert {key: row[key] for key in ("emotion", "confidence", "probabilities", "pose", "warnings")} == {
        key: answer[key] for key in ("emotion", "confidence", "probabilities", "pose", "warnings")
    }


def test_three_photos(shell, happy_photos, predictor, tmp_path):
    files = []
    for name, content in happy_photos.items():
        files.append(tmp_path / f"{name}.png")
        files[-1].write_bytes(content)
    status, (line,), _ = shell("predict", "--json", "--views", *files)
    row, answer = json.loads(line), predictor.predict_photos(**happy_photos)
    assert status == 0 and row["ok"] and row["pose"] is None
    assert row["probabilities"] == answer.probabilities
    status, (line,), _ = shell("predict", "--json", "--views", files[0], "-", "-")
    assert status == 0 and json.loads(line)["probabilities"] == predictor.predict_photos(front=files[0]).probabilities
    status, (line,), said = shell("predict", "--json", "--views", files[0], "gone.png", "-")
    assert status == 1 and not json.loads(line)["ok"] and "gone.png" in said


def test_a_table_for_people_and_files_for_programs(shell, folder, tmp_path):
    status, lines, said = shell("predict", folder, "--csv", tmp_path / "out.csv", "--output", tmp_path / "out.json")
    assert status == 1
    assert len(lines) == 5 and "emotion" in lines[0] and "%" in lines[1] and "failed" in lines[2]
    assert "1/4" in said
    with (tmp_path / "out.csv").open(encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    details = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert [row["file"] for row in table] == [row["file"] for row in details]
    assert float(table[0]["happy"]) == details[0]["probabilities"]["happy"]
    assert table[1]["ok"] == "False" and table[1]["error"] and table[1]["happy"] == ""
    assert set(details[0]["rejection"]) == {"neutral", "no face"} and details[0]["certainty"]


def test_odd_file_names_end_no_run(shell, happy_ply, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    names = ["new\nline.ply", "\x1b[2Jred.ply", "ü 😀.ply", os.fsdecode(b"bytes\xff.ply")]
    for name in names:
        (scans / name).write_bytes(happy_ply)
    (scans / "._ü 😀.ply").write_bytes(b"what a file manager left")
    (scans / "\x1b[2Jbad.ply").write_bytes(b"ply")
    table, details = tmp_path / "a.csv", tmp_path / "a.json"
    status, lines, said = shell("predict", scans, "--json", "--csv", table, "--output", details)
    rows = [json.loads(line) for line in lines]
    assert status == 1 and {Path(row["file"]).name for row in rows} == {*names, "\x1b[2Jbad.ply"}
    assert [row["ok"] for row in rows] == ["bad" not in row["file"] for row in rows]
    assert [row["file"] for row in json.loads(details.read_text("utf-8"))] == [row["file"] for row in rows]
    with table.open(encoding="utf-8", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 5
    _, lines, also_said = shell("predict", scans)
    assert len(lines) == 1 + len(rows) and "\x1b" not in "".join([*lines, said, also_said])


@pytest.mark.parametrize(("encoding", "name"), [("ascii", "ü 😀.ply"), ("cp1252", "😀.ply"), ("utf-8", b"b\xff.ply")])
def test_a_terminal_that_lacks_a_letter_ends_no_run(shell, happy_ply, tmp_path, monkeypatch, encoding, name):
    file = tmp_path / os.fsdecode(name)
    file.write_bytes(happy_ply)
    for option in ([], ["--json"]):
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding, errors="strict"))
        assert shell("predict", file, *option)[0] == 0
        text = written.getvalue().decode(encoding)
    assert json.loads(text)["file"] == str(file)


def test_a_name_no_file_can_have_is_one_failure_among_answers(shell, folder):
    status, lines, _ = shell("predict", "x" * 5000 + ".ply", folder / "a.ply", "nul\0.ply", "--json")
    assert status == 1 and [json.loads(line)["ok"] for line in lines] == [False, True, False]


@pytest.mark.parametrize("option", ["--csv", "--output"])
def test_a_table_that_cannot_be_written_is_said_before_the_work(shell, folder, tmp_path, option):
    status, lines, said = shell("predict", folder, "--json", option, tmp_path / "gone" / "out")
    assert status == 1 and not lines and "gone" in said and "1/4" not in said


def test_nothing_to_do_is_said(shell, tmp_path):
    assert shell("predict")[0] == 2
    status, lines, said = shell("predict", tmp_path)
    assert status == 1 and not lines and "no scan in" in said
    status, lines, said = shell("predict", tmp_path / "gone.ply")
    assert status == 1 and "gone.ply" in said


def test_a_wrong_checkpoint_is_said(tmp_path, folder, capsys):
    assert cli.main(["predict", str(folder / "a.ply"), "--checkpoint", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "card.json" in captured.err


def test_an_interrupt_ends_cleanly_with_what_was_answered(shell, folder, tmp_path, monkeypatch):
    from affectvlm.predictor import Predictor

    predict, count = Predictor.predict, []

    def interrupted(self, *arguments):
        count.append(1)
        if len(count) == 2:
            raise KeyboardInterrupt
        return predict(self, *arguments)

    monkeypatch.setattr(Predictor, "predict", interrupted)
    status, lines, said = shell("predict", folder, "--json", "--output", tmp_path / "out.json")
    assert status == 130 and len(lines) == 1 and "interrupted" in said and "Traceback" not in said
    assert len(json.loads((tmp_path / "out.json").read_text("utf-8"))) == 1


def test_one_file_that_breaks_us_does_not_end_the_run(shell, folder, monkeypatch):
    from affectvlm.predictor import Predictor

    def broken(self, *arguments):
        raise IndexError("out of range")

    monkeypatch.setattr(Predictor, "predict", broken)
    status, lines, said = shell("predict", folder, "--json")
    assert status == 1 and len(lines) == 4 and "IndexError" in said


def test_a_sample_can_be_read_again_and_rendered(shell, tmp_path):
    from PIL import Image

    from affectvlm.scan_io import read_scan

    status, lines, _ = shell("sample", tmp_path / "face.ply", "--emotion", "sad", "--seed", 4)
    scan = read_scan(tmp_path / "face.ply")
    assert status == 0 and lines == [str(tmp_path / "face.ply")]
    assert scan.colors is not None and len(scan.faces) > 10_000
    status, lines, _ = shell("render", tmp_path / "face.ply", "--output", tmp_path / "views", "--size", 96)
    assert status == 0 and [Path(line).name for line in lines] == ["face_front.png", "face_left.png", "face_right.png"]
    assert {Image.open(line).size for line in lines} == {(96, 96)}


def test_a_sample_is_the_same_every_time_and_differs_by_seed(shell, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        shell("sample", tmp_path / f"{name}.ply", "--seed", seed)
    a, b, c = ((tmp_path / f"{name}.ply").read_bytes() for name in "abc")
    assert a == b != c


def test_samples_have_sane_settings(shell, tmp_path):
    assert shell("sample", tmp_path / "face.obj")[0] == 2
    assert shell("sample", tmp_path / "face.ply", "--intensity", 3)[0] == 2
    assert not list(tmp_path.iterdir())


def test_runs_are_listed_with_how_they_stand_and_asked_to_stop(tmp_path, capsys):
    run = Run.open(tmp_path / "mine")
    run.write(CONFIG, lambda path: path.write_text(""))
    run.event("progress", step=40, steps=100, eta_s=300.0, best=0.625)
    assert cli.main(["runs", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == "mine running step 40/100 5 min left validation UAR 62.5 %".split()
    assert cli.main(["runs", "--folder", str(tmp_path), "--stop", "mine"]) == 0 and run.stop_requested
    run.event("end", state="failed", message="no room for last.ckpt")
    run.close()
    assert cli.main(["runs", "--folder", str(tmp_path), "--stop", "mine"]) == 1
    assert cli.main(["runs", "--folder", str(tmp_path), "--stop", "other"]) == 1
    capsys.readouterr()
    cli.main(["runs", "--folder", str(tmp_path)])
    assert "failed" in (line := capsys.readouterr().out) and "no room for last.ckpt" in line


def test_an_ablation_row_nobody_knows_is_said(tmp_path, capsys):
    assert cli.main(["ablation", "--rows", "no luck", "--output", str(tmp_path)]) == 1
    assert "unknown rows ['no luck']" in capsys.readouterr().err


def test_help_is_quick_and_the_module_runs():
    start = time.process_time(), time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "affectvlm", "predict", "--help"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.returncode == 0 and "--views" in run.stdout and start
    imported = {line.rsplit("|")[-1].strip() for line in run.stderr.splitlines()}
    assert not imported & {"numpy", "torch", "numba", "cv2", "PIL"}


def test_as_users_call_it(folder, checkpoint_folder):
    command = [
        sys.executable,
        "-m",
        "affectvlm",
        "predict",
        "a.ply",
        "b.ply",
        "--json",
        "--checkpoint",
        checkpoint_folder,
    ]
    environment_path = {"PYTHONPATH": str(ROOT)}
    import os

    run = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment_path}, capture_output=True, text=True, timeout=120
    )
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 1 and [row["file"] for row in rows] == ["a.ply", "b.ply"]
    assert "Traceback" not in run.stderr and "b.ply" in run.stderr

"""What runs left behind is read as it was written; what is missing or broken says nothing."""

import io
import json
import os
import subprocess
import sys
import time
import zipfile

import pytest
import yaml

from affectvlm import histories, runs
from affectvlm.histories import confusion, curves, data_in_words, differences, in_words, latest, packed, row
from affectvlm.runs import CONFIG, METRICS, STARTED, Run, Status, models


@pytest.fixture
def run(tmp_path):
    run = Run.open(tmp_path / "a")
    settings = {"method": "smilevlm", "data": {"sources": ["folder", "procedural"], "folder": "/x/my scans"}}
    run.write(CONFIG, lambda path: path.write_text(yaml.safe_dump(settings | {"optim": {"steps": 9, "lr": 0.1}})))
    yield run
    run.close()


def finish(run, table=((3, 1), (0, 4))):
    model = run.folder / "model"
    model.mkdir()
    (model / "card.json").write_text("{}")
    (model / "model.safetensors").write_bytes(bytes(1000))
    emotions = {"n": 8, "accuracy": 0.875, "uar": 0.7, "ece": 0.1}
    main = {"emotions": emotions, "confusion": table, "by_class": {"happy": 0.75, "sad": 1.0}}
    run.write_json(METRICS, {"three views, normals": main, "front view alone": {"emotions": {"accuracy": 0.1}}})


def test_curves_follow_the_steps_and_forget_what_a_restart_undid(run):
    run.event("start", step=0, steps=9)
    for step in (1, 2, 3):
        run.event("progress", step=step, steps=9, views_per_s=10.0, **{"train/loss": 5 - step, "train/triplet": 0.5})
    run.event("validation", step=3, uar={"current": 0.4, "averaged": 0.3}, best=0.4)
    run.event("start", step=2, steps=9)  # it was killed after a save at step 2
    run.event("progress", step=3, steps=9, **{"train/loss": 1.5, "train/triplet": float("nan")})
    assert curves(run.folder) == {
        "loss": [(1, 4.0), (2, 3.0), (3, 1.5)],
        "triplet": [(1, 0.5), (2, 0.5)],
        "views/s": [(1, 10.0), (2, 10.0)],
    }
    assert latest(run.folder)["train/loss"] == 1.5


def test_a_row_tells_what_the_files_say(run):
    run.event("start", step=0, steps=9)
    run.event("validation", step=4, uar={}, best=0.5)
    finish(run)
    found = row(run.folder)
    assert (found.name, found.method, found.data) == ("a", "smilevlm", "folder my scans + procedural")
    assert (found.state, found.steps, found.planned, found.best) == ("running", 4, 9, 0.5)
    assert (found.accuracy, found.uar, found.usable) == (0.875, 0.7, True)
    assert abs(found.started - time.time()) < 60


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"x": 3}', '{"x": {"emotions": 4, "confusion": [[1]]}}'])
def test_broken_files_say_nothing(run, content):
    for name in (METRICS, CONFIG, STARTED, "environment.json"):
        (run.folder / name).write_text(content)
    (run.folder / "events.jsonl").write_text('{"step": 3}\n[]\n"kind"\n{"kind": "progress", "step": "x"}\n{"ki')
    found = row(run.folder)
    assert (found.best, found.accuracy, found.usable) == (None, None, False)
    assert confusion(run.folder) is None and curves(run.folder) == {} and histories.device(run.folder) == ""


def test_settings_that_differ_are_shown_side_by_side(run, tmp_path):
    for name, lr in (("b", 0.2), ("c", 0.1)):
        (tmp_path / name).mkdir()
        settings = {
            "optim": {"steps": 9, "lr": lr},
            "run": {"name": name, "folder": "/elsewhere"},
            "data": {"few": [1, 2]},
        }
        (tmp_path / name / STARTED).write_text(json.dumps({"settings": settings}))
    folders = [tmp_path / name for name in "bc"]
    assert differences(folders) == {"optim.lr": ["0.2", "0.1"]}
    assert differences([run.folder, folders[0]])["data.few"] == ["–", "1, 2"]
    assert differences(folders[:1]) == {}


def test_the_download_holds_the_model_and_its_story(run):
    with pytest.raises(ValueError, match="a has no model yet"):
        packed(run.folder)
    finish(run)
    with zipfile.ZipFile(io.BytesIO(packed(run.folder))) as archive:
        names = set(archive.namelist())
        assert names == {
            f"a/{n}" for n in ("model/card.json", "model/model.safetensors", CONFIG, METRICS, "events.jsonl")
        }
        assert archive.read("a/model/model.safetensors") == bytes(1000)


def test_a_model_too_large_for_memory_is_not_packed(run, monkeypatch):
    finish(run)
    monkeypatch.setattr(histories, "LARGEST_PACK", 999)
    with pytest.raises(ValueError, match="too large for one download"):
        packed(run.folder)


def test_models_of_runs_are_found_by_name_the_newest_first(run, tmp_path):
    assert models(tmp_path) == {}
    finish(run)
    newer = tmp_path / "b" / "model"
    newer.mkdir(parents=True)
    (newer / "card.json").write_text("{}")
    os.utime(newer, (time.time() + 9, time.time() + 9))
    assert list(models(tmp_path).items()) == [("b", newer), ("a", run.folder / "model")]


def test_confusion_names_the_classes_of_its_rows(run):
    finish(run)
    assert confusion(run.folder) == (["happy", "sad"], [[3, 1], [0, 4]])


def test_memory_counts_the_processes_of_a_training(tmp_path):
    code = (
        "import subprocess, sys, time; from affectvlm.runs import Run; run = Run.open(sys.argv[1]);"
        "held = bytearray(60 << 20); held[::4096] = b'x' * len(held[::4096]);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; held = bytes(range(256)) * (160 << 10);"
        "print(1, flush=True); time.sleep(60)'], stdout=subprocess.PIPE);"
        "child.stdout.readline(); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "r")], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout.readline() == b"ready\n"
        assert runs.holder(tmp_path / "r") == process.pid
        assert histories.memory(tmp_path / "r") > 100 << 20  # 60 MB here, 40 MB there
    finally:
        os.killpg(process.pid, 9)
        process.communicate()
    assert histories.memory(tmp_path / "r") is None


def test_every_state_has_words():
    def said(**known):
        return in_words(Status(**({"step": 0, "steps": 9, "eta_s": None, "best": None, "message": ""} | known)))

    states = [said(state=state) for state in ("finished", "stopped", "failed", "died")]
    phases = [said(state="running", phase=phase) for phase in ("preparing", "training", "finishing")]
    stopping = said(state="running", phase="training", stopping=True)
    assert len({*states, *phases, stopping}) == 8


def test_words_for_data():
    assert data_in_words({"data": {"sources": ["ict", "procedural"]}}) == "ict + procedural"
    assert data_in_words({}) == ""

"""The ablation: rows that differ in what they say, a table that adds up, and nothing done twice."""

import json
import subprocess

import pytest
import yaml

from affectvlm.config import TrainConfig, load
from affectvlm.evaluation import FULL, ROWS, ablation, compare, markdown
from affectvlm.runs import Run


def scores(uar, accuracy=None):
    return {"emotions": {"uar": uar, "accuracy": uar if accuracy is None else accuracy}}


def test_every_row_is_a_setting_that_training_takes():
    base = load(TrainConfig)
    for row, changes in ROWS.items():
        assert (load(TrainConfig, None, changes) == base) == (row == FULL)


def test_changes_are_taken_seed_by_seed():
    found = {FULL: {0: scores(0.8), 1: scores(0.6)}, "no triplet term": {0: scores(0.7), 1: scores(0.5)}}
    full, triplet = compare(found)
    assert full["uar"] == pytest.approx(0.7) and full["uar_sd"] == pytest.approx(0.1414, abs=1e-3)
    # both seeds lost the same, though seeds differ by more
    assert triplet["change"] == pytest.approx(-0.1) and triplet["change_sd"] == pytest.approx(0, abs=1e-9)
    text = markdown({"settings": [], "seeds": [0, 1], "rows": [full, triplet]})
    assert "| no triplet term | 60.0 ± 14.1 | 60.0 ± 14.1 | -10.0 ± 0.0 |" in text


def test_one_seed_has_no_spread():
    (row,) = compare({"no triplet term": {3: scores(0.5)}})
    assert row["uar_sd"] is None and row["change"] is None
    assert "| no triplet term | 50.0 | 50.0 |  |" in markdown({"settings": [], "seeds": [3], "rows": [row]})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": [0], "rows": ["no such"]}, "unknown rows"),
        ({"seeds": []}, "one or more"),
        ({"seeds": [1, 1]}, "none twice"),
        ({"seeds": [0], "settings": ["run.name=x"]}, "names its runs"),
    ],
)
def test_contradictions_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        ablation(tmp_path, **arguments)
    assert not list(tmp_path.glob("*/config.yaml"))


def test_finished_trainings_are_not_repeated_and_stopped_ones_go_on(tmp_path, monkeypatch):
    calls = []

    class Done:
        returncode = 0

    def trained(words, **_):
        settings = dict(word.split("=", 1) for word in words if "=" in word)
        calls.append((settings["run.name"], "--resume" in words))
        run = Run.open(tmp_path / settings["run.name"], resume="--resume" in words)
        run.write("config.yaml", lambda path: path.write_text(yaml.safe_dump(settings)))
        run.write_json("metrics.json", {"three views, normals": scores(0.5), "other": scores(0.1)})
        run.event("end", state="finished")
        run.close()
        return Done

    monkeypatch.setattr(subprocess, "run", trained)
    stopped = Run.open(tmp_path / "no-triplet-term-seed1")
    stopped.write("config.yaml", lambda path: path.write_text(""))
    stopped.event("end", state="stopped")
    stopped.close()
    report = ablation(tmp_path, [0, 1], rows=[FULL, "no triplet term"])
    assert len(calls) == 4 and ("no-triplet-term-seed1", True) in calls and ("everything-on-seed0", False) in calls
    ablation(tmp_path, [0, 1], rows=[FULL, "no triplet term"])
    assert len(calls) == 4
    assert json.loads((tmp_path / "ablation.json").read_text()) == report
    assert (tmp_path / "ablation.png").stat().st_size > 5000
    assert "no triplet term" in (tmp_path / "ablation.md").read_text()


def test_a_training_that_fails_is_named(tmp_path, monkeypatch):
    class Failed:
        returncode = 1

    def fails(words, stdout, **_):
        stdout.write("starting\ntrain.py: data.ict_path is empty\n")
        return Failed

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(RuntimeError, match=r"everything on, seed 0, did not finish: train.py: data.ict_path is empty"):
        ablation(tmp_path, [0], rows=[FULL])

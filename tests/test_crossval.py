"""Cross-validation: plans that are kept to, folds that are not done twice, reports of what was written, and once for
real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext as nothing
from pathlib import Path

import numpy as np
import pytest

from affectvlm.cli import main
from affectvlm.datasets import index_dataset
from affectvlm.emotions import EKMAN
from affectvlm.evaluation import Request, crossval, evaluate
from affectvlm.evaluation.crossval import check_split
from affectvlm.evaluation.fleet import Training, train_all
from affectvlm.protocols import folds
from affectvlm.runs import Run, RunError, status

ROOT = Path(__file__).resolve().parents[1]
CODES = dict(zip(EKMAN, ("HA", "AN", "DI", "FE", "SA", "SU"), strict=True))


@pytest.fixture(scope="module")
def bu3dfe(tmp_path_factory) -> Path:
    """Names of BU-3DFE, seven people; nobody looks into the files here."""
    root = tmp_path_factory.mktemp("data") / "BU_3DFE"
    for number in range(7):
        who = f"{'FM'[number % 2]}{number + 1:04d}"
        (root / who).mkdir(parents=True)
        for code in CODES.values():
            for level in (1, 2, 3, 4):
                name = f"{who}_{code}{level:02d}WH_F3D.wrl"
                (root / who / name).write_text(f"#VRML V2.0 utf8\n# {name}\n")
    return root


def request(bu3dfe, output, **changes) -> Request:
    return Request(**{"protocol": "bu3dfe-subset1", "folder": bu3dfe, "output": output, "repeats": 2, "partial": True,
                      **changes})  # fmt: skip


def finish(output: Path, fold, records, accuracy=0.7, seed=0, state="finished") -> None:
    """Leave behind what a training leaves."""
    rng = np.random.default_rng([seed, fold.run, fold.number])
    label_of = {record.id: record.label for record in records}
    faces = []
    for name in fold.test.ids:
        said = label_of[name] if rng.random() < accuracy else EKMAN[rng.integers(6)]
        shares = [0.75 if emotion == said else 0.05 for emotion in EKMAN]
        faces.append({"id": name, "label": label_of[name], "probabilities": shares})
    run = Run.open(output / fold.name)
    run.write("config.yaml", lambda path: path.write_text("run: {}\n"))
    run.write_json("predictions.json", {"classes": list(EKMAN), "faces": faces})
    (run.folder / "model").mkdir()
    (run.folder / "model" / "model.safetensors").write_bytes(b"weights")
    (run.folder / "last.ckpt").write_bytes(b"weights")
    run.event("end", state=state)
    run.close()


@pytest.fixture
def finished(bu3dfe, tmp_path):
    """An output folder in which all trainings are done."""
    records = index_dataset("bu3dfe", bu3dfe).records
    made = folds("bu3dfe-subset1", records, 0, repeats=2, partial=True)
    for fold in made:
        finish(tmp_path / "out", fold, records)
    return tmp_path / "out", made


def test_finished_folds_are_reported_and_nothing_is_trained(bu3dfe, finished, monkeypatch):
    output, made = finished

    def refused(*_, **__):
        raise AssertionError("a training was started")

    monkeypatch.setattr(subprocess, "Popen", refused)
    report = evaluate(request(bu3dfe, output))
    (result,) = report.results.values()
    assert len(made) == 14 and report.sizes["answers"] == 2 * 7 * 12
    assert result["scores"]["accuracy"] == pytest.approx(0.7 + 0.3 / 6, abs=0.08)
    assert json.loads((output / "report.json").read_text()) == report.to_dict()
    text = (output / "report.md").read_text()
    assert "**7 people were found; 100 are expected**" in text and "![confusion](confusion.png)" in text
    assert "92.63" not in text  # published figures are of the whole data set
    for name in ("confusion.png", "calibration.png", "classes.png"):
        assert (output / name).stat().st_size > 5000
    for fold in made:
        assert json.loads((output / fold.name / "split.json").read_text()) == fold.split()
        # a thousand folds would fill a disk with weights
        assert not (output / fold.name / "model").exists() and not (output / fold.name / "last.ckpt").exists()
        assert status(output / fold.name).state == "finished"
    assert evaluate(request(bu3dfe, output, collect=True)).to_dict() == report.to_dict()


def test_models_are_kept_on_demand(bu3dfe, finished):
    output, made = finished
    evaluate(request(bu3dfe, output, keep_models=True))
    assert all((output / fold.name / "model" / "model.safetensors").is_file() for fold in made)


def test_one_fold_alone_writes_no_report(bu3dfe, finished):
    output, made = finished
    assert evaluate(request(bu3dfe, output, fold=3)) is None
    assert not (output / "report.json").exists() and (output / made[3].name / "split.json").is_file()
    with pytest.raises(ValueError, match="there is no fold 14; there are 0 to 13"):
        evaluate(request(bu3dfe, output, fold=14))


def test_what_is_missing_is_said(bu3dfe, finished):
    output, made = finished
    (output / made[5].name / "config.yaml").unlink()
    evaluate(request(bu3dfe, output, fold=0))  # the plan
    report = evaluate(request(bu3dfe, output, collect=True))
    assert report.sizes["folds done"] == 13 and "1 folds are not finished" in report.markdown()
    (output / made[6].name / "predictions.json").write_text("{")
    with pytest.raises(RunError, match="run000-fold06/predictions.json cannot be read"):
        evaluate(request(bu3dfe, output, collect=True))
    (output / "plan.json").write_text("{")
    with pytest.raises(RunError, match="plan.json cannot be read"):
        evaluate(request(bu3dfe, output, collect=True))


def test_missing_folds_stop_a_report_unless_it_may_be_partial(bu3dfe, tmp_path):
    everyone = request(bu3dfe, tmp_path, protocol="kfold:7", dataset="bu3dfe", partial=False, repeats=1)
    records = index_dataset("bu3dfe", bu3dfe).records
    made = folds("kfold:7", records, 0, repeats=1)
    for fold in made[:-1]:
        finish(tmp_path, fold, records)
    evaluate(Request(**{**vars(everyone), "fold": 0}))
    collect = {**vars(everyone), "collect": True}
    with pytest.raises(RunError, match="1 of 7 folds are not finished, such as run000-fold06"):
        evaluate(Request(**collect))
    report = evaluate(Request(**{**collect, "partial": True}))
    assert report.sizes["folds done"] == 6 and report.sizes["samples"] == 6 * 24


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"seed": 1}, "seed was 0, now 1"), ({"settings": ("optim.steps=9",)}, "settings was"),
     ({"reading": "A"}, "reading was 'B'"), ({"protocol": "bu3dfe-subset2"}, "protocol was")],
)  # fmt: skip
def test_another_evaluation_does_not_enter_the_folder(bu3dfe, finished, changes, told):
    output, _ = finished
    evaluate(request(bu3dfe, output, fold=0))
    with pytest.raises(RunError, match=told):
        evaluate(request(bu3dfe, output, **changes))
    assert evaluate(request(bu3dfe, output, repeats=1)).sizes["runs"] == 1


def test_data_that_changed_are_noticed(bu3dfe, finished, tmp_path):
    output, _ = finished
    evaluate(request(bu3dfe, output, fold=0))
    listed = tmp_path / "faults.txt"
    listed.write_text("F0001_AN04WH_F3D # a hole\n")
    with pytest.raises(RunError, match="records was"):
        evaluate(request(bu3dfe, output, exclude=listed))


def test_a_split_that_was_changed_stops_everything(bu3dfe, finished):
    output, made = finished
    evaluate(request(bu3dfe, output, fold=0))
    place = output / made[0].name / "split.json"
    split = json.loads(place.read_text())
    split["train"].append(split["test"][0])
    place.write_text(json.dumps(split))
    with pytest.raises(RunError, match="is not the split of this fold"):
        evaluate(request(bu3dfe, output))


def test_a_person_in_two_parts_is_found_in_the_records(bu3dfe):
    records = index_dataset("bu3dfe", bu3dfe).records
    split = folds("bu3dfe-subset1", records, 0, repeats=1, partial=True)[0].split()
    check_split("fold", split, records)
    # another scan of somebody who is tested, so that no id is twice
    who = split["test"][0][:5]
    split["train"].append(f"{who}_HA01WH_F3D")
    with pytest.raises(ValueError, match=f"fold leaks: {who} is in train and in test"):
        check_split("fold", split, records)


def test_a_leak_stops_before_training(bu3dfe, tmp_path, monkeypatch):
    def leaking(*_, **__):
        raise AssertionError("a training was started")

    monkeypatch.setattr(crossval, "train_all", leaking)
    monkeypatch.setattr(crossval.Fold, "split", lambda self: {"train": list(self.test.ids), "validation": list(
        self.validation.ids), "test": list(self.test.ids)})  # fmt: skip
    with pytest.raises(ValueError, match="leaks"):
        evaluate(request(bu3dfe, tmp_path))


def test_a_whole_data_set_is_asked_for(bu3dfe, tmp_path):
    with pytest.raises(ValueError, match="84 samples of 1200 expected: 7 people were found; 100 are expected"):
        evaluate(request(bu3dfe, tmp_path, partial=False))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": ("run.name=x",)}, "names runs, data and splits"),
        ({"settings": ("data.split=x",)}, "names runs, data and splits"),
        ({"settings": ("--resume",)}, "is not section.key=value"),
        ({"jobs": 0}, "1 or more"),
        ({"protocol": "bu4dfe-to-bp4d"}, "needs the folder that it is tested on"),
        ({"target": "x"}, "needs no other folder"),
        ({"checkpoint": "x", "settings": ("optim.steps=3",)}, "answers without training"),
        ({"protocol": "nothing"}, "is unknown"),
    ],
)
def test_requests_that_contradict_themselves_are_refused(bu3dfe, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        request(bu3dfe, tmp_path, **changes)


def test_settings_may_stand_on_both_sides_of_options(bu3dfe, finished, capsys):
    output, _ = finished
    words = ["evaluate", "bu3dfe-subset1", str(bu3dfe), "optim.steps=3", "--partial", "--repeats", "2"]
    assert main([*words, "--output", str(output), "optim.batch=8"]) == 0
    assert "settings: optim.steps=3 optim.batch=8" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*words, "--output", str(output), "--nonsense"])
    assert main(["evaluate", "bu3dfe-subset1", str(bu3dfe), "--output", str(output)]) == 1
    assert "100 are expected" in capsys.readouterr().err


# The trainings themselves


def test_a_training_that_somebody_else_runs_is_waited_for(tmp_path):
    run = Run.open(tmp_path / "fold")
    run.write("config.yaml", lambda path: path.write_text(""))
    training = Training(tmp_path / "fold", ())
    assert training.state == "running"

    def end():
        run.event("end", state="finished")
        run.close()

    timer, counted = threading.Timer(1.5, end), []
    timer.start()
    begin = time.monotonic()
    train_all([training], 1, counted.append)
    assert counted == [training] and time.monotonic() - begin >= 1.4


def test_commands_resume_what_was_begun(tmp_path):
    training = Training(tmp_path / "out" / "run000-fold00", ("optim.steps=4",))
    command = training.command()
    assert command[1] == str(ROOT / "train.py") and "--resume" not in command
    assert f"run.folder={tmp_path / 'out'}" in command and "run.name=run000-fold00" in command
    run = Run.open(training.folder)
    run.write("config.yaml", lambda path: path.write_text(""))
    run.event("step", step=3, steps=4)
    run.event("end", state="stopped")
    run.close()
    assert training.command()[-1] == "--resume" and 0.7 < training.share < 0.75


@pytest.mark.slow
def test_what_is_wrong_with_all_trainings_is_tried_once(tmp_path):
    trainings = [Training(tmp_path / f"fold{number}", ("optim.steps=none",)) for number in range(3)]
    with pytest.raises(RunError, match=r"1 of 3 trainings did not finish \(fold0: .*optim.steps is 'none'"):
        train_all(trainings)
    assert not (tmp_path / "fold1").exists()


@pytest.fixture(scope="module")
def three_people(tmp_path_factory) -> Path:
    """Scans of three people, two expressions each: class/subject/face.ply."""
    from affectvlm.cli import _ply
    from affectvlm.synthesis.expressions import prototype
    from affectvlm.synthesis.procedural import ProceduralFace

    root, model = tmp_path_factory.mktemp("people"), ProceduralFace()
    for number in range(3):
        person = model.sample_identity(np.random.default_rng(number))
        for emotion in ("happy", "surprise"):
            scan = model.generate(person, prototype(emotion))
            file = root / emotion / f"person{number}" / "face.ply"
            file.parent.mkdir(parents=True)
            file.write_bytes(_ply(scan.keep_vertices(np.linalg.norm(scan.vertices, axis=1) < 100)))
    return root


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_with_the_same_command(three_people, checkpoint_folder, tmp_path):
    output = tmp_path / "out"
    words = [sys.executable, "-m", "affectvlm", "evaluate", "kfold:3", str(three_people), "--output", str(output)]
    words += [
        f"data.cache={tmp_path / 'cache'}", "data.workers=1", f"model.start={checkpoint_folder}", "optim.steps=3",
        "optim.batch=4", "optim.warmup=1", "run.every=1", "run.validate=1", "model.interpolate=[]",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(*more):
        return subprocess.run([*words, *more], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)

    alone = run("--fold", "0")  # as a job of an array would
    assert alone.returncode == 0, alone.stderr
    events = (output / "run000-fold00" / "events.jsonl").read_bytes()

    killed = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 300
    while not (output / "run000-fold01" / "config.yaml").is_file() and time.monotonic() < until:
        assert killed.poll() is None
        time.sleep(0.1)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (output / "report.json").exists()

    again = run()
    assert again.returncode == 0, again.stderr
    assert "1 of 3 trainings are there already" in again.stderr or "2 of 3 trainings" in again.stderr
    assert (output / "run000-fold00" / "events.jsonl").read_bytes() == events
    report = json.loads((output / "report.json").read_text())
    assert report["sizes"] == {"people": 3, "samples": 6, "answers": 6, "runs": 1, "folds": 3, "folds done": 3}
    assert report["protocol"]["classes"] == list(EKMAN)
    for fold in report["folds"]:
        split = json.loads((output / fold["name"] / "split.json").read_text())
        answered = json.loads((output / fold["name"] / "predictions.json").read_text())
        assert sorted(face["id"] for face in answered["faces"]) == sorted(split["test"])
        assert len({*fold["train"], *fold["validation"], *fold["test"]}) == 3
    # without training, the model that all began from answers the same samples
    asked = tmp_path / "asked"
    by_model = subprocess.run(
        [*words[:6], "--output", str(asked), "--checkpoint", str(checkpoint_folder), words[8], words[9]],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert by_model.returncode == 0, by_model.stderr
    assert "not trained here" in by_model.stdout and "6 answers about 6 samples of 3 people" in by_model.stdout


# Data sets in their own formats


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory):
    """Small trees of data sets that are taken over time or have repeats, with their quirks."""
    from affectvlm.datasets.fixtures import make_fixture

    root = tmp_path_factory.mktemp("fixtures")
    names = ("bosphorus", "bu4dfe", "bp4d", "4dme")
    return {name: make_fixture(name, root / name, subjects=4, frames=2) for name in names}


@pytest.mark.slow
def test_every_data_set_goes_through_its_protocols(fixtures):
    from affectvlm.protocols import PROTOCOLS, select

    records = {name: index_dataset(name, folder).records for name, folder in fixtures.items()}
    for name, protocol in PROTOCOLS.items():
        if protocol.dataset not in records:
            continue
        given = records[protocol.dataset]
        made = folds(name, given, 0, repeats=1, partial=True, target=records["bp4d"])
        chosen, _ = select(protocol.target or protocol, records["bp4d"] if protocol.target else given, partial=True)
        tested = [one for fold in made for one in fold.test.ids]
        assert sorted(tested) == sorted(record.id for record in chosen), name
        for fold in made:
            check_split(fold.name, fold.split(), given)
        with pytest.raises(ValueError, match="are expected|samples are missing") if protocol.people else nothing():
            folds(name, given, 0, repeats=1, target=records["bp4d"])


@pytest.mark.slow
def test_sequences_are_answered_frame_by_frame_and_once(fixtures, checkpoint_folder, tmp_path):
    from affectvlm.evaluation.answers import answer_frames

    index = index_dataset("bu4dfe", fixtures["bu4dfe"])
    known, asked = (record.id for record in index.records[:2])
    partial = tmp_path / "answers.jsonl"
    row = {"id": known, "label": "kept", "probabilities": [1, 0, 0, 0, 0, 0]}
    partial.write_text(json.dumps(row) + "\n" + '{"id": "cut off by a k')
    found = answer_frames(checkpoint_folder, index, [known, asked], partial, workers=1)
    assert [face["id"] for face in found["faces"]] == sorted([known, asked])
    assert row in found["faces"]  # what was there was not asked again
    (fresh,) = (face for face in found["faces"] if face["id"] == asked)
    assert sum(fresh["probabilities"]) == pytest.approx(1, abs=1e-4) and found["classes"] == list(EKMAN)
    kept = partial.read_text()
    assert answer_frames(checkpoint_folder, index, [known, asked], partial, workers=1) == found
    assert partial.read_text() == kept and len(kept.splitlines()) == 2  # nothing was asked again

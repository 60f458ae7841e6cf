"""The whole training, shrunk: settings in, a checkpoint that answers out."""

import json

import numpy as np
import pytest
import torch

import train
from affectvlm import data
from affectvlm.config import TrainConfig, load
from affectvlm.model import load_checkpoint

TINY = [
    "data.train_faces=[24]", "data.validation_faces=16", "data.test_faces=16", "data.workers=1", "optim.steps=4",
    "optim.warmup=1", "optim.batch=8", "optim.precision=fp32", "optim.prompts_per_step=1", "run.every=1",
    "run.validate=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def small_shards():
    patch = pytest.MonkeyPatch()
    patch.setattr(data, "SHARD", 8)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_shards):
    root = tmp_path_factory.mktemp("training")
    config = load(TrainConfig, None, [*TINY, f"data.cache={root}/cache", f"run.folder={root}/runs"])
    return root, config, train.train(config)


@pytest.mark.slow
def test_a_run_ends_in_a_checkpoint_with_its_story(finished):
    root, config, folder = finished
    model, card = load_checkpoint(folder)
    assert card.classes == ("happy", "angry", "disgust", "fear", "sad", "surprise")
    assert card.image_kind == "normals"
    assert card.training_data["settings"]["optim"]["steps"] == 4
    assert set(card.metrics) == set(json.loads((folder.parent / "metrics.json").read_text()))
    events = [json.loads(line) for line in (folder.parent / "events.jsonl").read_text().splitlines()]
    assert [e["step"] for e in events if "train/loss" in e] == [1, 2, 3, 4]
    assert [e["step"] for e in events if "validation" in e] == [2, 4]
    views = torch.zeros(1, 3, 3, model.image_size, model.image_size, dtype=torch.uint8)
    assert torch.isfinite(model(views)).all()


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(finished, small_shards):
    root, config, whole = finished
    again = load(TrainConfig, None, [*TINY, f"data.cache={root}/cache", f"run.folder={root}/runs", "run.name=resumed"])
    stopped = root / "runs" / "resumed"

    class Killed(Exception):
        pass

    patch = pytest.MonkeyPatch()
    original = train.Progress.on_train_batch_end

    def dies_after_three(self, trainer, *rest):
        original(self, trainer, *rest)
        if trainer.global_step == 3:
            raise Killed

    patch.setattr(train.Progress, "on_train_batch_end", dies_after_three)
    with pytest.raises(Killed):
        train.train(again)
    patch.undo()
    assert (stopped / "last.ckpt").is_file()
    folder = train.train(again, resume=True)
    assert [file.name for file in stopped.glob("*.ckpt")] == ["last.ckpt"]
    assert torch.load(stopped / "last.ckpt", weights_only=True)["global_step"] == 4
    weights = [load_checkpoint(f)[0].state_dict() for f in (whole, folder)]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], msg=name, rtol=0, atol=0)


def test_a_subject_in_two_splits_stops_the_run():
    class Faces:
        def __init__(self, *subjects):
            self.subjects = list(subjects)

    train.check_subjects({"train": Faces("a", "b"), "test": Faces("c")})
    with pytest.raises(ValueError, match="1 subjects are in train and in test"):
        train.check_subjects({"train": Faces("a", "b"), "validation": Faces("d"), "test": Faces("b")})


def test_scores_count_rejection_rows_apart():
    from affectvlm.methods.scoring import report

    class Faces:
        labels = np.array([0, 1, 6, 7])
        intensity = np.array([0.3, 0.9, 0, 0], np.float32)

    logits = np.full((4, 8), -5.0, np.float32)
    logits[0, 0] = logits[1, 0] = logits[2, 6] = logits[3, 2] = 5.0
    scores = report(logits, Faces)
    assert scores["emotions"]["accuracy"] == 0.5
    assert scores["by_intensity"] == {
        "slight (under 0.5)": 1.0, "medium (0.5 to 0.75)": None, "strong (0.75 and over)": 0.0, "medium or higher": 0.0,
    }  # fmt: skip
    assert scores["neutral"]["recognised"] == 1.0
    assert scores["no face"] == {"n": 1, "recognised": 0.0, "confident emotion (0.75 and over)": 1.0}

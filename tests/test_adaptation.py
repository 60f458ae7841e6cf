"""Adaptation measured: scores known by hand, the share of the gap, the table; a folder without labels, end to end."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from affectvlm import adaptation
from affectvlm.adaptation import (
    adapt,
    adaptation_settings,
    compare,
    curve,
    markdown,
    measure,
    observer,
    recovered,
    summarise,
)
from affectvlm.config import METHODS, TrainConfig, load
from affectvlm.data import RenderedFaces
from affectvlm.evaluation import FULL, TABLES, ablation
from affectvlm.methods.clustering import PseudoLabels
from affectvlm.methods.unlabelled import Unlabelled
from affectvlm.model import Card, load_checkpoint, save_checkpoint
from affectvlm.runs import Run, RunError
from tests.unlabelled_faces import PROMPTS, tiny_model, write_faces


class Faces:
    """What scoring reads of n faces, whose pixels do not matter."""

    classes, rejection, rows = PROMPTS.classes, PROMPTS.rejection, PROMPTS.rows

    def __init__(self, labels, first="s"):
        self.labels = np.array(labels)
        self.emotional = self.labels < len(self.classes)
        self.picture = np.zeros(len(labels), bool)
        self.subjects = [f"{first}{i}" for i in range(len(labels))]

    def views(self, indices):
        return np.broadcast_to(np.array(indices, np.uint8)[:, None, None, None, None], (len(indices), 3, 36, 36, 7))


class Told(torch.nn.Module):
    """A model whose features are known vectors, in the order in which faces are shown to it."""

    def __init__(self, features):
        super().__init__()
        self.features = torch.as_tensor(features).float()
        self.clip = torch.nn.Module()
        self.clip.logit_scale = torch.nn.Parameter(torch.zeros(()))
        self.embed_dim, self.image_size, self.seen = self.features.shape[1], 32, 0

    def forward(self, images):
        first = self.seen
        self.seen += len(images)
        return F.normalize(self.features[first : first + len(images)], dim=-1)

    def text_bank(self, prompts):
        return torch.eye(len(prompts.rows), self.embed_dim)

    def logits(self, z, bank):
        return 20.0 * z @ bank.T


def test_scores_are_those_one_counts_by_hand():
    """Eight faces: two are named wrongly by prompts, yet lie in clusters of their own; one shows nothing."""
    labels = [0, 0, 1, 1, 2, 2, 6, 0]
    said = [0, 0, 1, 1, 3, 3, 0]  # of the seven that show an emotion
    found = measure(Told(np.eye(8)[said]), PROMPTS, Faces(labels))
    assert found["n"] == 7
    assert found["prompt"]["accuracy"] == pytest.approx(5 / 7, abs=1e-4)
    assert found["prompt"]["uar"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["clustering"]["accuracy"] == 1.0
    assert "probe" not in found
    both = np.eye(8)[[*said, *said]]
    found = measure(Told(both), PROMPTS, Faces(labels), Faces(labels, "t"))
    assert found["probe"] == {"accuracy": 1.0, "uar": 1.0}  # what prompts call fear a line calls disgust
    with pytest.raises(ValueError, match="subject 's0' is in both sets"):
        measure(Told(both), PROMPTS, Faces(labels), Faces(labels))
    with pytest.raises(ValueError, match="no face shows an emotion"):
        measure(Told(both), PROMPTS, Faces([6, 7]))


def test_an_observer_says_how_right_the_kept_ones_are(tmp_path):
    labels = [i % 3 for i in range(20)]
    folder = write_faces(tmp_path, labels)
    shown, known = Unlabelled.open([folder]), RenderedFaces([folder])
    truth = np.array([next(labels[i] for i in range(20) if (known.views([i])[0] == shown.views([j])[0]).all())
                      for j in range(20)])  # fmt: skip
    rows, kept = truth.copy(), np.arange(20) < 10
    rows[:2] = (rows[:2] + 1) % 3  # two of the ten that are kept
    rows[15] = 5
    found = PseudoLabels(rows, kept, np.ones(20), {}, {}, 0.9, ())
    assert observer(shown, known)(found) == {"accuracy": 0.85, "accuracy_kept": 0.8}


def test_the_share_of_the_gap():
    assert recovered(0.5, 0.7, 0.9) == pytest.approx(0.5)
    assert recovered(0.5, 0.4, 0.9) == pytest.approx(-0.25)
    assert recovered(0.9, 0.8, 0.9) is None


def scores(prompt, clustering=0.5, probe=0.6):
    return {"n": 100, "prompt": {"accuracy": prompt, "uar": prompt}, "clustering": {"accuracy": clustering},
            "probe": {"accuracy": probe, "uar": probe}}  # fmt: skip


def test_means_over_seeds_and_the_table():
    before = scores(0.5)
    found = {
        "affectvlm": {"0": {"before": before, "after": scores(0.9)}, "1": {"before": before, "after": scores(0.7)}},
        "multiviewvlm": {"0": {"before": before, "after": scores(0.6)}, "1": {"before": before, "after": scores(0.7)}},
    }
    report = summarise(found)
    row = report["methods"]["multiviewvlm"]
    assert row["mean"]["prompt"] == pytest.approx(0.65) and row["recovered"]["prompt"] == pytest.approx(0.5)
    assert row["recovered"]["clustering"] is None  # the supervised one gained nothing there
    assert summarise({"smilevlm": found["multiviewvlm"]})["methods"]["smilevlm"]["recovered"]["prompt"] is None
    text = markdown(report | {"start": "x", "seeds": [0, 1], "settings": []})
    assert "| before | 50.0 | 50.0 | 60.0 | |" in text
    assert "| multiviewvlm | 65.0 ± 7.1 | 50.0 ± 0.0 | 60.0 ± 0.0 | 50 % |" in text
    assert "| affectvlm | 80.0 ± 14.1 | 50.0 ± 0.0 | 60.0 ± 0.0 |  |" in text


def test_compare_trains_each_method_with_each_seed_and_reads_what_they_wrote(tmp_path, monkeypatch):
    asked = []

    def trained(trainings, jobs):
        for training in trainings:
            asked.append(training.settings)
            run = Run.open(training.folder)
            run.write_json(adaptation.ADAPTATION, {"before": scores(0.5), "after": scores(0.7)})
            run.event("round", step=0, share=0.5, accuracy=0.6, accuracy_kept=0.8, sizes={})
            run.event("validation", step=2, uar={"current": 0.5, "averaged": 0.6}, scores={})
            run.close()

    monkeypatch.setattr(adaptation, "train_all", trained)
    report = compare(tmp_path, "start", ["data.folder=x"], [0, 3], ["affectvlm", "mifar"])
    assert len(asked) == 4 and all("run.measure=true" in words and "model.start=start" in words for words in asked)
    assert {word for words in asked for word in words if word.startswith(("method", "run.seed"))} == {
        "method=affectvlm", "method=mifar", "run.seed=0", "run.seed=3",
    }  # fmt: skip
    assert report["curves"]["mifar"]["3"] == {
        "rounds": [{"step": 0, "share": 0.5, "accuracy": 0.6, "accuracy_kept": 0.8}],
        "validations": [{"step": 2, "uar": {"current": 0.5, "averaged": 0.6}}],
    }
    assert json.loads((tmp_path / "adaptation.json").read_text()) == report
    for arguments, message in ((([0], ["magic"]), "unknown methods"), (([], ["mifar"]), "one or more"),
                               (([1, 1], ["mifar"]), "none twice")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            compare(tmp_path, "start", [], *arguments)


def test_every_row_of_every_ablation_is_a_setting_that_training_takes():
    for method, rows in TABLES.items():
        base = load(TrainConfig, None, [f"method={method}"])
        assert FULL in rows and method in METHODS
        for row, changes in rows.items():
            assert (load(TrainConfig, None, [f"method={method}", *changes]) == base) == (row == FULL), row
    with pytest.raises(ValueError, match="there is an ablation of affectvlm, multiviewvlm, smilevlm"):
        ablation("nowhere", [0], method="mifar")


def test_the_papers_rows_add_one_part_after_the_other():
    parts = []
    for row in ("baseline", "+ pseudo-labels", "+ positive and negative pairs", FULL):
        config = load(TrainConfig, None, ["method=multiviewvlm", *TABLES["multiviewvlm"][row]])
        on = {"pseudo-labels": config.pseudo.clusters and config.pseudo.epochs > 0 and config.prompts.augmented,
              "pairs": config.multiview.positive > 0 and config.multiview.negative > 0,
              "multiview": config.multiview.multiview > 0}  # fmt: skip
        parts.append([name for name, there in on.items() if there])
        assert config.multiview.contrastive > 0
    assert parts == [[], ["pseudo-labels"], ["pseudo-labels", "pairs"], ["pseudo-labels", "pairs", "multiview"]]


def test_what_cannot_be_adapted_is_said_before_anything_is_rendered(tmp_path, checkpoint_folder):
    with pytest.raises(ValueError, match="one that reads no label"):
        adapt(tmp_path, checkpoint_folder, method="affectvlm")
    with pytest.raises(ValueError, match="no checkpoint"):
        adapt(tmp_path, tmp_path / "none")
    with pytest.raises(ValueError, match="no usable face"):
        adapt(tmp_path, checkpoint_folder)
    model = tiny_model()
    save_checkpoint(tmp_path / "odd", model, Card.of(model, PROMPTS, "odd", yaws=(0.0, -90.0, 90.0)))
    with pytest.raises(ValueError, match="odd looks at faces from"):
        adapt(tmp_path, tmp_path / "odd")


def test_steps_follow_the_size_of_the_target():
    for faces, batch, steps in ((4, 8, 100), (100, 48, 100), (480, 48, 300), (10_000, 48, 600)):
        config = load(TrainConfig, None, adaptation_settings("d", "c", "smilevlm", faces))
        assert (config.optim.batch, config.optim.steps, config.method) == (batch, steps, "smilevlm")


@pytest.mark.slow
def test_a_folder_without_labels_becomes_a_checkpoint_that_answers(tmp_path, happy_ply):
    """As a user does it: scans in folders, one command; words and views of the start are kept."""
    from affectvlm.predictor import Predictor
    from affectvlm.prompts import PromptSet
    from affectvlm.synthesis.procedural import ProceduralFace

    scans = tmp_path / "scans"
    (scans / "anna").mkdir(parents=True)
    (scans / "anna" / "a.ply").write_bytes(happy_ply)
    from affectvlm.datasets.fixtures.writers import ply

    face = ProceduralFace()
    person = face.sample_identity(np.random.default_rng(1))
    for number, units in enumerate(({"AU1": 1.0, "AU5": 1.0, "AU27": 0.8}, {"AU4": 1.0})):
        scan = face.generate(person, units)
        (scans / "anna" / f"b{number}.ply").write_bytes(ply(scan.vertices, scan.faces))
    model = tiny_model()
    words = PromptSet.from_dict(PROMPTS.to_dict() | {"name": "mine", "bank_size": 3})
    card = Card.of(model, words, "start", image_kind="shaded", temperature=1.7, rejection_margin=0.4)
    save_checkpoint(tmp_path / "start", model, card)
    settings = [
        f"run.folder={tmp_path}/runs", "run.name=mine", f"data.cache={tmp_path}/cache", "optim.steps=2",
        "optim.warmup=1", "optim.batch=4", "views.size=32", "data.workers=1", "optim.precision=fp32",
    ]  # fmt: skip
    command = [sys.executable, "-m", "affectvlm", "adapt", str(scans), "--from", str(tmp_path / "start"), *settings]
    done = subprocess.run([*command, "--people"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    place = tmp_path / "runs" / "mine" / "model"
    assert done.stdout.strip().splitlines()[-1] == str(place)
    assert "people: folders" in (tmp_path / "runs" / "mine" / "config.yaml").read_text()
    adapted, card = load_checkpoint(place)
    assert (card.prompts.name, card.image_kind, card.temperature, card.rejection_margin) == ("mine", "shaded", 1.7, 0.4)
    assert card.metrics == {} and card.training_data["faces"] == {"train": {"faces": 3, "labels": "none"}}
    changed = [n for n, value in adapted.state_dict().items() if not torch.equal(value, model.state_dict()[n])]
    assert any("visual" in name for name in changed)
    answer = Predictor(adapted, card).predict(scans / "anna" / "a.ply")
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert [len(found) for found in curve(place.parent).values()] == [1, 0]
    assert adapt(scans, tmp_path / "start", settings) == place  # there already
    with pytest.raises(RunError, match="the training has said why"):
        adapt(scans, tmp_path / "start", [*settings, "run.name=other", "optim.lr=-1"])

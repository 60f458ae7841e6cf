"""Methods without labels on tiny models: no label is read, rounds go on where they were, ranks train what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import train
from affectvlm.data import MixedBatches, RenderedFaces
from affectvlm.datasets.unlabelled import UNKNOWN, index_unlabelled, without_labels
from affectvlm.losses import MifarLoss, MultiviewVLMLoss, SmileVLMLoss
from affectvlm.methods.base import Method
from affectvlm.methods.building import build_batches, build_method, tuning_of
from affectvlm.methods.gathering import gather, synchronise_batch_norm
from affectvlm.methods.multiviewvlm import draw_words
from affectvlm.methods.rounds import Rounds
from affectvlm.methods.smilevlm import projector
from affectvlm.methods.unlabelled import Unlabelled, UnlabelledBatches
from affectvlm.model import build_model
from affectvlm.model.tuning import prepare
from affectvlm.runs import BEST, LAST, Run, events
from tests.two_ranks import assert_equal_to_one, run
from tests.two_ranks import train as train_rows
from tests.unlabelled_faces import PROMPTS, config_of, fit, tiny_model, write_faces

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("multiviewvlm", "smilevlm", "mifar")
TRUE = [i % 3 for i in range(20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_faces(tmp_path_factory.mktemp("faces"), TRUE)


@pytest.fixture(scope="module")
def faces(folder):
    return Unlabelled.open([folder])


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=0, msg=name)


# --- no label -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_labels_shuffled_or_removed_train_the_same_bit_for_bit(method, tmp_path):
    """The listings bear the true labels, others (with intensities and action units), or none at all."""
    others = np.random.default_rng(1).integers(0, 8, 20).tolist()
    ends = []
    for number, labels in enumerate((TRUE, others, None)):
        shown = Unlabelled.open([write_faces(tmp_path / f"faces{number}", labels)])
        trained, rounds = fit(shown, config_of(method, "optim.steps=4"), tmp_path / f"run{number}")
        ends.append(trained.state_dict() | ({"targets": rounds.targets} if rounds else {}))
    assert any(not torch.equal(value, tiny_model().state_dict()[name.removeprefix("model.")])
               for name, value in ends[0].items() if name.startswith("model."))  # fmt: skip
    assert_same(ends[0], ends[1])
    assert_same(ends[0], ends[2])


def test_the_order_of_files_tells_nothing(tmp_path):
    """Folders list their faces class by class; here they are listed the other way round."""
    one = write_faces(tmp_path / "one", TRUE)
    views, records = np.load(one / "shard_0000.npy"), json.loads((one / "shard_0000.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    np.save(other / "shard_0000.npy", views[::-1])
    (other / "shard_0000.json").write_text(json.dumps(records[::-1]))
    a, b = (Unlabelled.open([f]) for f in (one, other))
    assert (a.views(range(20)) == b.views(range(20))).all() and (a.photo == b.photo).all()


def test_people_are_numbers_that_tell_neither_names_nor_labels_nor_the_order_of_files(tmp_path):
    """Six people; the listings name them, in one with the class in the name, and are turned about in another."""
    folder = write_faces(tmp_path / "one", TRUE)
    views, records = np.load(folder / "shard_0000.npy"), json.loads((folder / "shard_0000.json").read_text())
    found = []
    for number, (name, order) in enumerate((("anna", 1), ("sad-anna", 1), ("anna", -1))):
        other = tmp_path / f"other{number}"
        other.mkdir()
        for i, record in enumerate(records):
            record["subject"] = f"{name}{i % 6}"
        np.save(other / "shard_0000.npy", views[::order])
        (other / "shard_0000.json").write_text(json.dumps(records[::order]))
        found.append(Unlabelled.open([other], people=True).person)
        assert (Unlabelled.open([other]).person == -1).all()
    first = found[0]
    assert sorted(np.bincount(first)) == [3, 3, 3, 3, 4, 4] and first[0] == 0 and first.dtype == np.int64
    for other in found[1:]:
        np.testing.assert_array_equal(first, other)


def test_people_are_known_where_the_source_names_them(monkeypatch):
    asked = {}
    monkeypatch.setattr(train, "folders_of", lambda *_: ([], []))
    monkeypatch.setattr(train.Unlabelled, "open", lambda *_, people: asked.setdefault("people", people))
    for settings, known in (
        (("data.sources=[folder]", "data.folder=x"), True),
        (("data.sources=[folder]", "data.folder=x", "pseudo.people=none"), False),
        (("data.sources=[unlabelled]", "data.folder=x"), False),
        (("data.sources=[unlabelled]", "data.folder=x", "pseudo.people=folders"), True),
    ):
        asked.clear()
        train.unlabelled_faces(config_of("multiviewvlm", *settings, "data.train_faces=[0]"), {}, False)
        assert asked["people"] is known, settings
    with pytest.raises(ValueError, match=r"pseudo\.people is 'names'; subjects, folders or none is needed"):
        config_of("multiviewvlm", "pseudo.people=names")


def test_faces_without_labels_have_nothing_that_could_tell_one(faces):
    public = {name for name in dir(faces) if not name.startswith("_")}
    assert public == {"batches", "open", "person", "photo", "picture", "views"}
    with pytest.raises(AttributeError):
        faces.labels = np.zeros(20)
    assert len(faces) == 20 and faces.views([3, 1]).shape == (2, 3, 36, 36, 7)
    assert sum(len(part) for part in faces.batches(8)) == 20


def test_batches_hold_pixels_and_numbers_and_refuse_faces_with_labels(folder, faces):
    config = config_of("multiviewvlm")
    batch = build_batches(config, faces, PROMPTS, 0).make(0)
    assert set(batch) == {"views", "index"} and batch["views"].shape == (8, 3, 3, 32, 32)
    twice = build_batches(config_of("mifar"), faces, PROMPTS, 0).make(0)["views"]
    assert twice.shape == (8, 6, 3, 32, 32) and (twice[:, :3] != twice[:, 3:]).any()
    assert (twice[:, :3] == batch["views"]).all()  # the first distortion is that of the other methods
    for method in METHODS:
        with pytest.raises(TypeError, match="RenderedFaces; Unlabelled is needed"):
            build_batches(config_of(method), RenderedFaces([folder]), PROMPTS, 0)


def test_every_face_is_shown_once_in_each_pass_and_ranks_share_a_batch(faces):
    whole = UnlabelledBatches(faces, config_of("mifar").views, 8, 10, seed=3)
    seen = np.concatenate([whole.make(step)["index"] for step in range(10)])
    assert all(sorted(seen[20 * i : 20 * (i + 1)]) == list(range(20)) for i in range(4))
    parts = [UnlabelledBatches(faces, whole.views, 8, 10, 3, distortions=2, rank=r, ranks=2).make(1) for r in (0, 1)]
    together = UnlabelledBatches(faces, whole.views, 8, 10, 3, distortions=2).make(1)
    for key in ("views", "index"):
        assert torch.equal(torch.cat([part[key] for part in parts]), together[key])
    with pytest.raises(ValueError, match="a multiple of 8"):
        UnlabelledBatches(faces, whole.views, 4, 10, 3, ranks=2)
    assert not isinstance(whole, MixedBatches)


def test_a_device_makes_the_pixels_a_loader_would_have_made(faces):
    config = config_of("mifar", "views.noise=0", "views.blur=0")
    method = build_method(config, tiny_model(), PROMPTS, tuning_of(config))
    made = [build_batches(config, faces, PROMPTS, 0, on_device=on).make(2) for on in (False, True)]
    assert set(made[1]) == {"index", "packed"}
    views = Method.on_after_batch_transfer(method, made[1], 0)["views"]
    difference = (views.int() - made[0]["views"].int()).abs()
    assert views.shape == made[0]["views"].shape and difference.float().mean() < 1


def test_a_folder_is_divided_without_a_look_at_its_labels(tmp_path, monkeypatch):
    """train.py's own division of subjects, with true and with shuffled labels in the table."""
    rows = [(f"{s}-{e}.ply", e, s) for s in "abcdefgh" for e in ("happy", "sad", "fear")]
    for name, _, _ in rows:
        (tmp_path / name).write_bytes(b"ply " + name.encode())
    parts = []
    for shift in (0, 1):
        labels = [rows[(i * 7 + shift * 5) % len(rows)][1] if shift else row[1] for i, row in enumerate(rows)]
        table = ["file,label,subject", *(f"{row[0]},{label},{row[2]}" for row, label in zip(rows, labels, strict=True))]
        (tmp_path / "labels.csv").write_text("\n".join(table))
        source = ("data.sources=[folder]", "data.train_faces=[0]", f"data.folder={tmp_path}")
        own = train.own_faces(config_of("multiviewvlm", *source), PROMPTS, say=False)
        parts.append({name: [record.id for record in index.records] for name, index in own.items()})
    assert parts[0] == parts[1] and all(parts[0].values())


def test_any_folder_is_indexed_without_labels(tmp_path):
    for name in (
        "b/x.ply",
        "a/deep/y.obj",
        "a/tex.png",
        "z.stl",
        "p/front.jpg",
        "p/left.jpg",
        "p/right.jpg",
        "p/odd.jpg",
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    index = index_unlabelled(tmp_path)
    assert {record.id: record.subject for record in index.records} == {
        "b/x.ply": "b", "a/deep/y.obj": "a/deep", "z.stl": ".", "p/front.jpg": "p",
    }  # fmt: skip
    assert {record.label for record in index.records} == {UNKNOWN}
    assert "p/odd.jpg" in index.excluded and "a/tex.png" in index.excluded
    assert without_labels(index).records == index.records
    with pytest.raises(ValueError, match="there is no folder 'no'"):
        index_unlabelled(tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no usable face.*wanted are scans, or pictures in threes"):
        index_unlabelled(tmp_path / "empty")


def test_settings_that_would_need_labels_are_refused(tmp_path):
    for settings, message in (
        (("method=multiviewvlm", "optim.patience=3"), "validation labels"),
        (("method=affectvlm", "data.sources=[unlabelled]", "data.folder=x"), "methods without labels"),
        (("method=smilevlm", "optim.batch=1", "optim.warmup=0"), "2 or more"),
        (("method=magic",), "one of affectvlm, multiviewvlm"),
        (("pseudo.keep=[0, 1]",), "pseudo.keep"),
    ):
        with pytest.raises(ValueError, match=message):
            config_of("multiviewvlm", *settings)
    with pytest.raises(ValueError, match="pseudo.classes names 'bored'"):
        pseudo = replace(config_of("multiviewvlm").pseudo, classes=("bored",))
        Rounds(Unlabelled.open([write_faces(tmp_path / "f", TRUE)]), PROMPTS, pseudo, 4, 8, 0)


# --- rounds -------------------------------------------------------------------------------------------------------


def test_rounds_come_every_few_passes_and_are_told(faces, tmp_path):
    told = []

    def observe(found):
        with pytest.raises(ValueError, match="read-only"):
            found.rows[0] = 1
        told.append(found.share)
        return {"accuracy": 0.5}

    # 20 faces in batches of 8: a pass and a half is 3.75, so 4 steps; keep goes from a half to all
    config = config_of("multiviewvlm", "optim.steps=10", "pseudo.epochs=1.5", "pseudo.keep=[0.5, 1.0]")
    method, rounds = fit(faces, config, tmp_path / "run", observe=observe)
    found = [event for event in events(tmp_path / "run") if event["kind"] == "round"]
    assert [event["step"] for event in found] == [0, 4, 8] and rounds.count == 3
    assert [event["number"] for event in found] == [0, 1, 2] and found[0]["accuracy"] == 0.5
    assert [event["share"] for event in found] == [round(share, 4) for share in told]
    assert told[0] < 0.7 and told[2] == 1.0
    assert set(found[0]["sizes"]) == {"happy", "angry", "sad"} and sum(found[0]["sizes"].values()) == 20
    assert torch.equal(method.targets, rounds.targets)


def test_scores_on_validation_are_told_and_choose_nothing(faces, tmp_path):
    """The first validation is the best by far; the weights are the averaged ones of the end all the same."""
    best_first = iter([0.9, 0.8, 0.3, 0.2, 0.1, 0.1])
    config = config_of("multiviewvlm", "optim.steps=3", "run.validate=1")
    scored, _ = fit(faces, config, tmp_path / "a", score=lambda _: {"emotions": {"uar": next(best_first)}})
    alone, _ = fit(faces, config, tmp_path / "b")
    assert_same(scored.state_dict(), alone.state_dict())
    told = [event for event in events(tmp_path / "a") if event["kind"] == "validation"]
    assert [event["uar"]["current"] for event in told] == [0.9, 0.3, 0.1] and "best" not in told[0]
    assert not (tmp_path / "a" / BEST).exists()


def test_labels_may_be_made_once_and_by_zero_shot_alone(faces, tmp_path):
    config = config_of("multiviewvlm", "pseudo.epochs=0", "pseudo.clusters=false", "pseudo.balance=false")
    fit(faces, config, tmp_path / "run")
    found = [event for event in events(tmp_path / "run") if event["kind"] == "round"]
    assert [event["step"] for event in found] == [0] and found[0]["cohesion"] is None


@pytest.mark.slow
def test_the_teacher_is_the_running_average(faces, tmp_path, monkeypatch):
    """Asked in the second round, the features are those of the averaged weights, and training goes on with its own."""
    import affectvlm.methods.rounds as module

    asked = []
    original = module.aggregated
    monkeypatch.setattr(
        module, "aggregated",
        lambda model, *rest: asked.append({k: v.clone() for k, v in model.state_dict().items()})
        or original(model, *rest),
    )  # fmt: skip
    for teacher in ("true", "false"):
        asked.clear()
        config = config_of("multiviewvlm", "optim.steps=4", "pseudo.epochs=1.2", f"pseudo.teacher={teacher}")
        fit(faces, config, tmp_path / teacher)
        assert len(asked) == 2
        kept = torch.load(tmp_path / teacher / LAST, weights_only=True)
        assert kept["global_step"] == 4
        # three steps before the second round: the average was asked, or the weights of the third step
        config = config_of("multiviewvlm", "optim.steps=4", "pseudo.epochs=1.2", f"pseudo.teacher={teacher}")
        stopped(faces, config, tmp_path / f"{teacher}-stopped", at=3, monkeypatch=monkeypatch)
        third = torch.load(tmp_path / f"{teacher}-stopped" / LAST, weights_only=True)
        state = third["state_dict" if teacher == "true" else "current_model_state"]
        assert_same(asked[1], {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})


class Killed(Exception):
    pass


def stopped(faces, config, folder, at, monkeypatch):
    """Train until step `at` is about to be made."""
    original = Method.on_after_batch_transfer

    def dies(self, batch, loader):
        if self.global_step == at:
            raise Killed
        return original(self, batch, loader)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Method, "on_after_batch_transfer", dies)
        fit(faces, config, folder)


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 3, 4], ids=["inside the first round", "between rounds", "inside the second"])
@pytest.mark.parametrize("method", ["multiviewvlm", "smilevlm"])
def test_resumed_inside_and_between_rounds_it_ends_as_one_that_went_through(method, at, faces, tmp_path, monkeypatch):
    config = config_of(method, "pseudo.epochs=1.2")  # rounds of three steps, six steps
    whole, rounds = fit(faces, config, tmp_path / "whole")
    stopped(faces, config, tmp_path / "resumed", at, monkeypatch)
    assert torch.load(tmp_path / "resumed" / LAST, weights_only=True)["global_step"] == at
    again, resumed = fit(faces, config, tmp_path / "resumed", resume=True)
    assert_same(whole.state_dict(), again.state_dict())
    assert torch.equal(rounds.targets, resumed.targets)
    made = [event["step"] for event in events(tmp_path / "resumed") if event["kind"] == "round"]
    assert made == [0, 3]  # none twice


@pytest.mark.slow
def test_mifar_resumes_bit_for_bit(faces, tmp_path, monkeypatch):
    config = config_of("mifar", "optim.steps=4")
    whole, _ = fit(faces, config, tmp_path / "whole")
    stopped(faces, config, tmp_path / "resumed", 2, monkeypatch)
    again, _ = fit(faces, config, tmp_path / "resumed", resume=True)
    assert_same(whole.state_dict(), again.state_dict())
    start = tiny_model().state_dict()
    text = [name for name in start if not name.startswith("clip.visual.")]
    assert all(torch.equal(again.model.state_dict()[name], start[name]) for name in text)  # text is never touched


def test_a_run_goes_on_with_its_own_faces_only(faces, tmp_path):
    rounds = Rounds(faces, PROMPTS, config_of("multiviewvlm").pseudo, 6, 8, 0)
    with pytest.raises(ValueError, match="pseudo-labels of 4 faces, but there are 20"):
        rounds.load_state_dict({"number": 0, "targets": torch.zeros(4, dtype=torch.int64)})


@pytest.mark.parametrize("method", ["multiviewvlm", "smilevlm"])
def test_no_confident_face_and_tiny_targets_train_without_text(method, tmp_path):
    few = Unlabelled.open([write_faces(tmp_path / "few", TRUE[:2], count=2)])
    config = config_of(method, "optim.steps=2", "pseudo.confidence=0.9999999", "optim.batch=4")
    trained, rounds = fit(few, config, tmp_path / "run")
    assert (rounds.targets == -1).all()
    assert all(value.isfinite().all() for value in trained.state_dict().values())
    (found,) = [event for event in events(tmp_path / "run") if event["kind"] == "round" and event["step"] == 0]
    assert any("2 different faces for 3 clusters" in remark for remark in found["remarks"])
    assert any("no face is labelled" in remark for remark in found["remarks"])


def test_words_do_not_depend_on_who_else_is_in_the_batch():
    rows, index = [0, 4, -1, 2], [7, 3, 9, 1]
    words = draw_words(PROMPTS, rows, index, seed=1, step=5)
    assert words[1:2] == draw_words(PROMPTS, [4], [3], seed=1, step=5)
    assert words[0] in PROMPTS.prompts("happy") and words[1] in PROMPTS.prompts("sad")
    assert len({draw_words(PROMPTS, [0], [7], 1, step)[0] for step in range(20)}) > 5


def test_a_text_tower_at_rest_gives_a_prompt_the_same_bits_whoever_is_new_with_it():
    """A training that is gone on with meets its prompts in another order."""
    rng = np.random.default_rng(0)
    texts = list(dict.fromkeys(PROMPTS.draw(row, None, rng) for _ in range(4) for row in PROMPTS.rows))[:21]
    torch.manual_seed(0)
    model, config = build_model(), config_of("affectvlm", "optim.text_lr=0")
    tuning = tuning_of(config)
    prepare(model, tuning)
    one, other = (build_method(config, model, PROMPTS, tuning) for _ in range(2))
    features = one.encode_words(texts)
    order = rng.permutation(len(texts))
    for part in np.split(order, [1, 3, 12]):
        again = other.encode_words([texts[i] for i in part] * 2)
        assert torch.equal(again, features[torch.from_numpy(part)].repeat(2, 1))
    torch.testing.assert_close(features, model.encode_prompts(texts), rtol=0, atol=1e-6)


# --- ranks --------------------------------------------------------------------------------------------------------


class Tower(nn.Module):
    """A small image tower with batch normalisation, a text tower, projections, and one of the losses."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.image = nn.Sequential(nn.Linear(7, 9, bias=False), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 6))
        if kind != "mifar":
            self.text = nn.Linear(3, 6)
            self.scale = nn.Parameter(torch.tensor(5.0))
        if kind != "multiviewvlm":
            self.project = projector(6, 4)
        if kind == "smilevlm":
            self.project_text = projector(6, 4)
        self.loss = {"multiviewvlm": MultiviewVLMLoss, "smilevlm": SmileVLMLoss, "mifar": MifarLoss}[kind]()

    def forward(self, views, words, rows):
        z = F.normalize(self.image(views.flatten(0, 1)), dim=-1).unflatten(0, views.shape[:2])
        if self.kind == "mifar":
            return self.loss(gather(self.project(z.flatten(0, 1)).unflatten(0, (len(z), 2, -1))))["loss"]
        text = F.normalize(self.text(words), dim=-1)
        if self.kind == "multiviewvlm":
            return self.loss(gather(z), gather(text), gather(rows), self.scale)["loss"]
        projected = self.project(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        parts = map(gather, (z, projected, text, self.project_text(text), rows))
        return self.loss(*parts, self.scale)["loss"]


def built(kind):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    views = torch.randn(8, 4 if kind == "mifar" else 3, 7, generator=generator).double()
    words = torch.randn(8, 3, generator=generator).double()
    batch = {"views": views, "words": words, "rows": torch.tensor([0, 1, -1, 0, 2, 1, -1, 2])}
    return synchronise_batch_norm(Tower(kind).double()), batch


def multiviewvlm():
    return built("multiviewvlm")


def smilevlm():
    return built("smilevlm")


def mifar():
    return built("mifar")


def smilevlm_with_plain_batch_norm():
    torch.manual_seed(0)
    return Tower("smilevlm").double(), smilevlm()[1]


def multiviewvlm_without_labels():
    module, batch = multiviewvlm()
    return module, batch | {"rows": torch.full((8,), -1)}


BUILDS = (multiviewvlm, smilevlm, mifar, smilevlm_with_plain_batch_norm, multiviewvlm_without_labels)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of these returned on both ranks; one start of two processes serves all tests."""
    results = run([(train_rows, build) for build in BUILDS], tmp_path_factory.mktemp("ranks"))
    return dict(zip(BUILDS, results, strict=True))


@pytest.mark.parametrize("build", BUILDS[:3])
def test_two_ranks_train_as_one(ranks, build):
    assert_equal_to_one(ranks[build], build, tolerance=1e-9)


def test_the_comparison_notices_statistics_of_one_rank_alone(ranks):
    with pytest.raises(AssertionError, match="rank 0 0: loss"):
        assert_equal_to_one(ranks[smilevlm_with_plain_batch_norm], smilevlm_with_plain_batch_norm, tolerance=1e-9)


def test_ranks_without_any_label_still_have_a_gradient_of_everything(ranks):
    """DDP waits for each trained parameter; those of text get zeros."""
    one = train_rows(multiviewvlm_without_labels)
    for rank in ranks[multiviewvlm_without_labels]:
        assert rank["steps"].keys() == one["steps"].keys()
        for name, value in one["steps"].items():
            torch.testing.assert_close(rank["steps"][name], value, rtol=0, atol=1e-9)
        assert (rank["steps"]["1: gradient of text.weight"] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["multiviewvlm", "smilevlm"])
def test_two_processes_train_and_cluster_as_one(method, faces, folder, tmp_path):
    """The whole of it: Lightning's DDP, shared clustering rounds, the same losses and pseudo-labels."""
    settings = ("optim.steps=5", "pseudo.epochs=1.2", "optim.lr=1e-4")
    fit(faces, config_of(method, *settings), tmp_path / "one")
    code = (
        "import sys\n"
        "import torch\n"
        "torch.set_num_threads(1)\n"
        "import train\n"
        "from affectvlm.launching import place, watch_parent\n"
        "from affectvlm.methods.unlabelled import Unlabelled\n"
        "import tests.unlabelled_faces as shared\n"
        "from pathlib import Path\n"
        "watch_parent()\n"
        "shared.on_ranks(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])\n"
    )
    script = tmp_path / "ranks.py"
    script.write_text(code)
    words = [sys.executable, str(script), str(folder), str(tmp_path / "two"), method, *settings]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = ([e for e in events(tmp_path / name)] for name in ("one", "two"))
    progress = [[e["train/loss"] for e in found if e["kind"] == "progress"] for found in (one, two)]
    assert len(progress[1]) == 5
    np.testing.assert_allclose(progress[1], progress[0], rtol=2e-3, atol=2e-4)
    rounds = [[(e["step"], e["sizes"], e["share"]) for e in found if e["kind"] == "round"] for found in (one, two)]
    assert rounds[0][0] == rounds[1][0] and [r[0] for r in rounds[0]] == [r[0] for r in rounds[1]] == [0, 3]


def test_what_is_trained_takes_part_in_each_step():
    for method, resting in (("multiviewvlm", {"text"}), ("mifar", {"text", "logit_scale"}), ("affectvlm", {"text"})):
        assert set(tuning_of(config_of(method)).freeze) == resting
    assert tuning_of(config_of("mifar", "tuning.mode=lora")).lora_towers == ("image",)
    assert tuning_of(config_of("smilevlm", "optim.text_lr=0.1")).freeze == ()


def test_low_rank_updates_are_folded_into_what_is_taken(faces, tmp_path):
    config = config_of("multiviewvlm", "optim.steps=2", "tuning.mode=lora")
    method, _ = fit(faces, config, tmp_path / "run")
    assert method.model.state_dict().keys() == tiny_model().state_dict().keys()
    again = tiny_model()
    prepare(again, tuning_of(config))
    method.model, run_of = again, Run.follow(tmp_path / "run")
    train.take_average(method, run_of)
    assert method.model.state_dict().keys() == tiny_model().state_dict().keys()

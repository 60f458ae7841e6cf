"""Generated faces and their cache: repeatable, resumable, split by person."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from affectvlm.augmentation.on_device import unpack
from affectvlm.augmentation.views import MixedViews
from affectvlm.config import DataConfig
from affectvlm.data import (
    LABELS,
    FaceSet,
    MixedBatches,
    RenderedFaces,
    build,
    generated,
    make_face,
    open_source,
    sample_weight,
    shuffled,
)
from affectvlm.emotions import EKMAN
from affectvlm.methods.building import face_sets
from affectvlm.prompts import PromptSet


@pytest.fixture(scope="module")
def model():
    return open_source("procedural")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Sixteen small faces in shards of eight."""
    patch = pytest.MonkeyPatch()
    patch.setattr(generated, "SHARD", 8)
    root = tmp_path_factory.mktemp("cache")
    folder = build(FaceSet("procedural", "train", 16, size=48), root, workers=1)
    yield root, folder
    patch.undo()


def test_a_face_depends_on_its_settings_and_number_alone(model):
    faces = FaceSet("procedural", "train", 100, size=48)
    first, again, other = make_face(model, faces, 3), make_face(model, faces, 3), make_face(model, faces, 4)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    assert not np.array_equal(first[0], other[0])


def test_people_of_different_splits_never_meet(model):
    records = {
        split: [make_face(model, FaceSet("procedural", split, 20, size=16), i)[1] for i in range(12)]
        for split in ("train", "test")
    }
    subjects = {split: {r["subject"] for r in part} for split, part in records.items()}
    assert not subjects["train"] & subjects["test"]


def test_records_hold_label_intensity_and_source(cache):
    faces = RenderedFaces([cache[1]])
    assert len(faces) == 16
    for record, label in zip(faces.records, faces.labels, strict=True):
        assert 0 <= label < len(LABELS)
        assert (record["intensity"] > 0) == (label < len(EKMAN))
        assert record["source"] == "procedural"


def test_a_killed_build_goes_on_and_renders_nothing_twice(cache):
    root, folder = cache
    stamps = {file.name: file.stat().st_mtime_ns for file in folder.glob("shard_*")}
    views = np.load(folder / "shard_0001.npy")
    (folder / "shard_0001.json").unlink()  # as if killed between the two files
    build(FaceSet("procedural", "train", 16, size=48), root, workers=1)
    np.testing.assert_array_equal(np.load(folder / "shard_0001.npy"), views)
    assert (folder / "shard_0000.npy").stat().st_mtime_ns == stamps["shard_0000.npy"]


def test_no_more_faces_are_rendered_than_are_wanted_and_a_shard_grows(cache, tmp_path):
    def built(count):
        folder = build(FaceSet("procedural", "train", count, size=48), tmp_path, workers=1)
        return {file.name: np.load(file) for file in sorted(folder.glob("*.npy"))}, RenderedFaces([folder])

    small, faces = built(3)
    open_before = faces.views(range(3))
    assert len(faces) == len(small["shard_0000.npy"]) == 3
    first = tmp_path / FaceSet("procedural", "train", 3, size=48).key() / "shard_0000.npy"
    np.save(first, open_before | 1)  # a mark: what is there is taken over as it is
    grown, faces = built(11)
    assert [len(views) for views in grown.values()] == [8, 3] and len(faces) == 11
    np.testing.assert_array_equal(grown["shard_0000.npy"][:3], open_before | 1)
    whole = RenderedFaces([cache[1]])
    np.testing.assert_array_equal(faces.views(range(3, 11)), whole.views(range(3, 11)))
    assert faces.records == whole.records[:11]
    stamp = first.stat().st_mtime_ns
    assert len(built(5)[1]) == 11 and first.stat().st_mtime_ns == stamp  # so many are there already


RENDER = (
    "import sys; from affectvlm.data import FaceSet, build; import affectvlm.data.generated as g; g.log.info = print\n"
    "build(FaceSet('procedural', 'train', 512, size=224), sys.argv[1], workers=2)"
)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_rendering_ends_with_the_process_that_asked_for_it_and_frees_the_cache(tmp_path, how):
    # both said, as a shell has what it runs in the background ignore SIGINT
    heed = "import signal\nfor one in (signal.SIGINT, signal.SIGTERM): signal.signal(one, signal.default_int_handler)\n"
    command = [sys.executable, "-u", "-c", heed + RENDER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                               stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    try:
        assert "rendering" in process.stdout.readline()
        end = time.monotonic() + 60
        while len(_members(process.pid)) < 3 and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(process.pid, how)  # this process alone, none of its own
        assert process.wait(30) != 0
        while _members(process.pid) and time.monotonic() < end:
            time.sleep(0.05)
        assert not _members(process.pid)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        process.stdout.close()
    with next(tmp_path.glob("*/lock")).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not list(tmp_path.glob("*/*.tmp"))


def test_a_signal_that_comes_while_processes_start_is_not_lost():
    before, reached = signal.signal(signal.SIGINT, signal.default_int_handler), False
    try:
        with pytest.raises(KeyboardInterrupt), generated._signals_held():
            signal.raise_signal(signal.SIGINT)
            reached = True
        assert reached and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def _members(group: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, member, *_ = entry.read_text().rpartition(")")[2].split()
            found += [int(entry.parent.name)] * (int(member) == group and state != "Z")
    return found


def test_a_face_model_that_cannot_be_opened_says_so_itself(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        build(FaceSet("ict", "train", 8, size=48, model_path="/nowhere"), tmp_path, workers=1)


def test_a_renderer_that_is_killed_is_said_and_leaves_no_half_files(tmp_path, monkeypatch):
    monkeypatch.setattr(generated, "make_face", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(OSError, match="a process that rendered faces was ended from outside"):
        build(FaceSet("procedural", "train", 8, size=48), tmp_path, workers=1)

    def nothing_left(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(generated, "make_face", lambda *_: (0, {}))
    monkeypatch.setattr(generated.np, "save", nothing_left)
    with pytest.raises(OSError, match="No space left"):
        build(FaceSet("procedural", "train", 8, size=48), tmp_path, workers=1)
    assert [file.name for file in tmp_path.glob("*/*")] == ["lock"]


def test_settings_name_the_cache_and_the_place_of_the_model_does_not():
    base = FaceSet("ict", "train", 100, model_path="a")
    assert base.key() == FaceSet("ict", "train", 900, model_path="b").key()
    assert base.key() != FaceSet("ict", "train", 100, seed=1).key()
    assert base.key() != FaceSet("ict", "train", 100, wide=True).key()


def test_another_seed_shows_other_people(model):
    one, other = (make_face(model, FaceSet("procedural", "train", 20, size=16, seed=seed), 0)[1] for seed in (0, 1))
    assert one["subject"] != other["subject"]


def test_wide_faces_lie_outside_the_span_of_their_model(model, monkeypatch):
    """Training always has them; elsewhere a set asks for them."""
    done: list[str] = []
    for name in ("restyle", "reshape"):
        monkeypatch.setattr(generated, name, lambda scan, *rest, name=name: done.append(name) or scan)
    monkeypatch.setattr(type(model), "sample_identity", _noted(type(model).sample_identity, done))
    for split, wide in (("validation", False), ("validation", True), ("train", False), ("test", False)):
        done.clear()
        faces = FaceSet("procedural", split, 30, damaged=False, size=16, wide=wide)
        records = [make_face(model, faces, i)[1] for i in range(30)]
        shown = sum(record["units"] is not None for record in records)
        if wide or split == "train":
            assert done.count("spread") == shown and 0 < done.count("restyle") < shown > done.count("reshape") > 0
        else:
            assert done == []


def _noted(original, done: list[str]):
    def sample_identity(self, rng, **wide):
        done.extend(wide)
        return original(self, rng, **wide)

    return sample_identity


def test_settings_say_which_sets_are_made():
    data = DataConfig(("procedural", "ict"), "m", train_faces=(8, 9), clean_faces=(5, 0), wide_faces=4)
    train, clean = face_sets(data, "procedural", "train", 64)
    assert (train.count, train.damaged, clean.count, clean.damaged, clean.size) == (8, True, 5, False, 64)
    (ict,) = face_sets(data, "ict", "train", 64)
    assert train.seed != clean.seed and (train.model_path, ict.model_path, ict.count) == ("", "m", 9)
    usual, wide = face_sets(data, "ict", "validation", 64)
    assert (usual.count, usual.wide, usual.damaged) == (512, False, True)
    assert (wide.count, wide.wide, wide.damaged, wide.split) == (4, True, False, "validation")
    (test,) = face_sets(data, "ict", "test", 64)
    assert not test.damaged and not test.wide
    with pytest.raises(ValueError, match="data.clean_faces has 1 numbers for 2 data.sources"):
        DataConfig(("procedural", "ict"), "m", train_faces=(8, 9), clean_faces=(5,))


def test_batches_repeat_by_step_and_cover_every_face_once_an_epoch(cache):
    faces = RenderedFaces([cache[1]])
    batches = MixedBatches(faces, MixedViews(size=32), batch=4, steps=8, seed=0)
    all_of_them = list(batches)
    assert len(all_of_them) == 8
    np.testing.assert_array_equal(all_of_them[5]["views"], batches.make(5)["views"])
    for epoch in (all_of_them[:4], all_of_them[4:]):
        labels = np.concatenate([b["labels"].numpy() for b in epoch])
        np.testing.assert_array_equal(np.sort(labels), np.sort(faces.labels))
    resumed = list(MixedBatches(faces, MixedViews(size=32), batch=4, steps=8, seed=0, start=6))
    np.testing.assert_array_equal(resumed[0]["views"], all_of_them[6]["views"])


def test_a_batch_may_span_the_end_of_an_epoch(cache):
    faces = RenderedFaces([cache[1]])
    batch = MixedBatches(faces, MixedViews(size=32), batch=6, steps=9, seed=0).make(2)
    assert batch["views"].shape == (6, 3, 3, 32, 32)


def test_the_rows_of_all_ranks_are_the_batch_of_one(cache):
    faces = RenderedFaces([cache[1]])
    settings = {"batch": 16, "steps": 3, "seed": 0, "per_sample": 2, "prompts": PromptSet.load()}
    whole = MixedBatches(faces, MixedViews(size=32), **settings).make(2)
    parts = [MixedBatches(faces, MixedViews(size=32), **settings, rank=r, ranks=2).make(2) for r in range(2)]
    for key in ("views", "labels", "units", "weight"):
        np.testing.assert_array_equal(np.concatenate([part[key] for part in parts]), whole[key])
    assert parts[0]["prompts"] + parts[1]["prompts"] == whole["prompts"]
    with pytest.raises(ValueError, match="a batch of 12 for 2 ranks; a multiple of 8"):
        MixedBatches(faces, MixedViews(size=32), **{**settings, "batch": 12}, rank=1, ranks=2)


def test_a_device_may_make_the_pixels(cache):
    faces, views = RenderedFaces([cache[1]]), MixedViews(size=32, noise=0.0)
    settings = {"batch": 8, "steps": 3, "seed": 0, "per_sample": 2}
    here, there = (MixedBatches(faces, views, **settings, on_device=place).make(1) for place in (False, True))
    off = np.abs(unpack(there["packed"]).numpy().astype(int) - here["views"].numpy())
    assert "views" not in there and np.quantile(off, 0.99) <= 2
    np.testing.assert_array_equal(here["labels"], there["labels"])


def test_every_view_has_words_of_its_class_and_of_what_is_known(cache):
    faces, prompts = RenderedFaces([cache[1]]), PromptSet.load()
    settings = {"batch": 16, "steps": 9, "seed": 0, "prompts": prompts}
    batch = MixedBatches(faces, MixedViews(size=32), **settings).make(0)
    assert len(batch["prompts"]) == 16 and {len(row) for row in batch["prompts"]} == {3}
    assert any(len(set(row)) == 3 for row in batch["prompts"])
    order = shuffled(0, 0, len(faces))[:16]
    for face, row in zip(order, batch["prompts"], strict=True):
        assert set(row) <= set(prompts.prompts(LABELS[faces.labels[face]], faces.metadata[face]))
    known = [set(faces.metadata[i]) for i in range(len(faces)) if faces.labels[i] < 7]
    assert all({"sex", "age_group"} <= keys for keys in known)
    bare = MixedBatches(faces, MixedViews(size=32), **settings, metadata=False).make(0)
    words = {text for row in bare["prompts"] for text in row}
    assert words <= {text for row in prompts.rows for text in prompts.prompts(row)}


def test_a_face_with_two_labels_is_spoken_of_in_the_words_of_both(cache, tmp_path):
    listed = sorted(cache[1].glob("shard_*.json"))[0]
    records = json.loads(listed.read_text("utf-8"))
    first = next(row for row, record in enumerate(records) if record["label"] < len(EKMAN))
    both = {records[first]["label"], (records[first]["label"] + 1) % len(EKMAN)}
    records[first]["also"] = [EKMAN[next(iter(both - {records[first]["label"]}))]]
    (tmp_path / listed.name).write_text(json.dumps(records), "utf-8")
    (tmp_path / listed.with_suffix(".npy").name).symlink_to(listed.with_suffix(".npy"))
    faces, prompts = RenderedFaces([tmp_path]), PromptSet.load()
    assert faces.bears.sum(axis=1).tolist() == [1 + (row == first) for row in range(len(faces))]
    assert set(np.flatnonzero(faces.bears[first])) == both
    batches = MixedBatches(faces, MixedViews(size=32), batch=8, steps=9, seed=0, prompts=prompts)
    plain = MixedBatches(RenderedFaces([cache[1]], [8]), MixedViews(size=32), batch=8, steps=9, seed=0, prompts=prompts)
    told = set()
    for step in range(6):
        batch, without = batches.make(step), plain.make(step)
        for row, face in enumerate(shuffled(0, step, len(faces))):
            about = batch["words"][row].tolist()
            for label, text in zip(about, batch["prompts"][row], strict=True):
                assert batch["bears"][row, label]
                assert text in prompts.prompts(LABELS[label], faces.metadata[face])
            if face == first:
                told |= set(about)
            else:
                assert about == [faces.labels[face]] * 3
        assert (batch["labels"] == without["labels"]).all() and without["bears"].sum() == 8
    assert told == both
    records[first]["also"] = ["contempt"]
    (tmp_path / listed.name).write_text(json.dumps(records), "utf-8")
    with pytest.raises(ValueError, match="'contempt'"):
        RenderedFaces([tmp_path])


def test_labels_are_rows_of_the_classes_asked_for(cache):
    usual, turned = RenderedFaces([cache[1]]), RenderedFaces([cache[1]], classes=EKMAN[::-1], rejection=("neutral",))
    assert usual.rows == LABELS and turned.rows == (*EKMAN[::-1], "neutral")
    names = [usual.rows[label] for label in usual.labels]
    assert [turned.rows[label] for label in turned.labels] == [name for name in names if name != "no face"]
    assert list(turned.emotional) == [name in EKMAN for name in names if name != "no face"]
    with pytest.raises(ValueError, match="the classes are"):
        RenderedFaces([cache[1]], classes=EKMAN[:2])


def test_scans_come_first_where_asked(cache):
    faces = RenderedFaces([cache[1]])
    assert faces.photo.any() and not faces.photo.all()
    batches = MixedBatches(faces, MixedViews(size=32), batch=8, steps=4, seed=0, scans_first=2)
    scans = {tuple(np.nan_to_num(faces.units[i], nan=-1)) for i in np.flatnonzero(~faces.photo)}
    for step in range(2):
        assert {tuple(np.nan_to_num(row, nan=-1)) for row in batches.make(step)["units"].numpy()} <= scans
    later = np.concatenate([batches.make(step)["units"].numpy() for step in (2, 3)])
    np.testing.assert_array_equal(np.sort(later, axis=0), np.sort(faces.units, axis=0))


def test_slight_expressions_weigh_less_and_what_is_no_emotion_fully():
    weights = sample_weight(np.array([True, True, True, False, False]), np.array([0.25, 0.5, 1.0, 0.0, 0.0]))
    np.testing.assert_allclose(weights, [0.5, 0.8, 1.0, 1.0, 1.0], atol=1e-6)


def test_an_empty_cache_says_so(tmp_path):
    with pytest.raises(ValueError, match="build them first"):
        RenderedFaces([tmp_path])


def test_counts_limit_what_is_read(cache):
    faces = RenderedFaces([cache[1]], [11])
    assert len(faces) == 11
    assert faces.records == json.loads((cache[1] / "shard_0000.json").read_text()) + faces.records[8:]


@pytest.mark.parametrize(
    ("source", "message"), [("flame", "procedural, ict or makehuman"), ("ict", "model_path is empty")]
)
def test_unknown_sources_are_refused(source, message):
    with pytest.raises(ValueError, match=message):
        open_source(source)

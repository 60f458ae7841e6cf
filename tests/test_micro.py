"""Micro-expressions of our own: subtle, short, one-sided; a set that the indexer of 4DME reads, and its folds."""

from __future__ import annotations

import numpy as np
import pytest

from affectvlm.datasets.fourdme import index_fourdme, read_clips
from affectvlm.datasets.micro import CARD, NOISE_MM, SHEET, labels_of, make_micro
from affectvlm.emotions import FOURDME
from affectvlm.scan_io import read_scan
from affectvlm.synthesis.base import sided
from affectvlm.synthesis.micro import DURATION_S, PAIRS, RECIPES, STRENGTH, micro_timeline, sample_micro


def test_every_class_has_recipes_of_units_that_the_face_knows():
    from affectvlm.synthesis.procedural import ProceduralFace

    known = set(ProceduralFace().action_units)
    assert set(RECIPES) == set(FOURDME)
    for ways in RECIPES.values():
        for way in ways:
            assert {name.rstrip("LR") for name in way} <= known


def test_units_are_subtle_and_often_on_one_side():
    drawn = [sample_micro([label], np.random.default_rng([n, k])) for k, label in enumerate(FOURDME) for n in range(60)]
    assert all(0 < max(units.values()) <= STRENGTH[1] for units in drawn if units)
    ratios = [min(pair) / max(pair) for units in drawn for pair in sided(units).values() if max(pair) > 0]
    assert 0.3 < np.mean(np.array(ratios) < 0.6) < 0.7
    sides = [np.sign(left - right) for units in drawn for left, right in sided(units).values()]
    assert {-1.0, 1.0} <= set(sides)


def test_two_classes_show_the_units_of_both():
    held = sample_micro(["repression", "positive"], np.random.default_rng(3))
    bases = {name.rstrip("LR") for name in held}
    assert "AU12" in bases and bases & {"AU24", "AU14", "AU17"}
    for labels in ([], ["happy"]):
        with pytest.raises(ValueError, match="some of negative, positive"):
            sample_micro(labels, np.random.default_rng(0))


def test_a_course_is_short_starts_and_ends_at_rest_and_falls_slower_than_it_rises():
    for seed in range(30):
        curve = micro_timeline(60.0, np.random.default_rng(seed), still=3)
        assert (curve[:3] == 0).all() and (curve[-3:] == 0).all() and curve.max() == pytest.approx(1, abs=0.05)
        moving = np.flatnonzero(curve > 0)
        assert DURATION_S[0] * 60 - 3 <= len(moving) <= DURATION_S[1] * 60 + 1
        peak = int(curve.argmax())
        assert peak - moving[0] < moving[-1] - peak


def test_classes_come_in_turn_and_some_clips_bear_two():
    drawn = [labels_of(p, c, np.random.default_rng([p, c])) for p in range(20) for c in range(10)]
    assert all(labels in PAIRS or len(labels) == 1 for labels in drawn)
    assert 0.1 < np.mean([len(labels) == 2 for labels in drawn]) < 0.3
    assert {label for labels in drawn for label in labels} == set(FOURDME)


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    return make_micro(tmp_path_factory.mktemp("micro"), subjects=3, clips=1, fps=15.0)


def test_the_indexer_of_4dme_reads_the_set(micro):
    index = index_fourdme(micro)
    assert len(index) == 3 and index.subjects == ("sub01", "sub02", "sub03") and not index.excluded
    assert all(record.is_sequence and len(record.files) >= 8 for record in index.records)
    clips = {f"{clip.subject}/{clip.clip}": clip for clip in read_clips(micro / SHEET)}
    for record in index.records:
        clip = clips[record.id]
        assert (record.label, *record.also) == clip.labels and clip.length == len(record.files)
        assert clip.onset < clip.apex < clip.offset and clip.units


def test_frames_move_by_little_and_most_at_the_apex(micro):
    clip = read_clips(micro / SHEET)[0]
    folder = micro / clip.subject / clip.clip
    first, apex, last = (read_scan(folder / f"{n:05d}.ply").vertices for n in (clip.onset, clip.apex, clip.offset))
    assert first.shape == apex.shape
    still, moved = (np.linalg.norm(other - first, axis=1) for other in (last, apex))
    assert np.percentile(moved, 99.5) > 2 * np.percentile(still, 50) and NOISE_MM < moved.max() < 12


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files_and_what_is_there_stays(micro, tmp_path):
    again = make_micro(tmp_path, subjects=3, clips=1, fps=15.0)
    files = sorted(path.relative_to(micro) for path in micro.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((micro / file).read_bytes() == (again / file).read_bytes() for file in files)
    mesh = next(again.rglob("*.ply"))
    before = mesh.stat().st_mtime_ns
    assert make_micro(tmp_path, subjects=3, clips=1, fps=15.0) == again and mesh.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="other settings"):
        make_micro(tmp_path, subjects=4, clips=1, fps=15.0)
    assert (again / CARD).is_file()
    with pytest.raises(ValueError, match="1 subjects"):
        make_micro(tmp_path / "x", subjects=1)


def test_its_folds_leave_one_subject_out_and_score_several_labels(micro):
    from affectvlm.protocols import PROTOCOLS, folds

    given = PROTOCOLS["4dme"]
    assert given.multilabel and given.prompts == "4dme"
    records = index_fourdme(micro).records
    made = folds(given, records, partial=True)
    assert sorted(fold.test.subjects for fold in made) == [("sub01",), ("sub02",), ("sub03",)]
    assert sorted(name for fold in made for name in fold.test.ids) == [record.id for record in records]

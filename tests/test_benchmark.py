"""The synthetic benchmark: laid out as the data sets it stands in for, the same every time, and whole after a stop."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import numpy as np
import pytest

from affectvlm.datasets import benchmark, index_dataset
from affectvlm.datasets.benchmark import Benchmark, make_benchmark, mosaic, synthetic_name, verify, wrl
from affectvlm.protocols import PROTOCOLS, folds
from affectvlm.scan_io import read_scan


@pytest.fixture(scope="module")
def three_d(tmp_path_factory):
    return make_benchmark(tmp_path_factory.mktemp("three"), Benchmark("3d", 3), workers=1)


@pytest.fixture(scope="module")
def four_d(tmp_path_factory):
    return make_benchmark(tmp_path_factory.mktemp("four"), Benchmark("4d", 3, frames=3), workers=1)


@pytest.fixture(scope="module")
def seen(happy_scan):
    """A face as the benchmark sees it."""
    return benchmark._scanned(happy_scan, np.random.default_rng(0))


def test_the_whole_of_it_has_the_sizes_of_the_data_sets():
    whole = Benchmark("3d", benchmark.SUBJECTS["3d"])
    assert whole.scans == 2500 and Counter(name[0] for name, _ in whole.people) == {"F": 56, "M": 44}
    assert whole.people[0][0] == "F0001" and whole.people[-1][0] == "M0044"
    names = [name for task in benchmark._tasks(whole) for name in benchmark._files(whole, *task)]
    assert len(names) == len(set(names)) == 7500 and "F0001/F0001_AN01XX_F3D.wrl" in names
    assert Counter(name[-4:] for name in names) == {".wrl": 2500, ".bmp": 2500, ".bnd": 2500}
    assert sum("_NE00" in name for name in names) == 300
    sequences = Benchmark("4d", 20)
    assert sequences.scans == 20 * 6 * 10 and sequences.people[-1][0] == "M009"
    # fewer people are the first of all
    assert set(Benchmark("3d", 50).people) < set(whole.people)


@pytest.mark.parametrize("wrong", [("5d", 10, 10), ("3d", 2, 10), ("3d", 101, 10), ("4d", 10, 1)])
def test_other_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match="is needed|are possible"):
        Benchmark(*wrong)


def test_a_person_shows_an_emotion_in_one_way_at_all_levels():
    first, second = (benchmark._units(4, "fear", level / 4) for level in (2, 4))
    assert first == benchmark._units(4, "fear", 0.5) and first != benchmark._units(5, "fear", 0.5)
    # the same way to show it, twice as strong: parts keep their order
    shared = [unit for unit in first if unit in second and first[unit] > 0.05]
    assert len(shared) >= 3 and all(second[unit] > 1.5 * first[unit] or second[unit] == 1 for unit in shared)


def test_the_mosaic_shows_every_vertex_in_its_own_colour(seen):
    uv, uv_faces, picture = mosaic(seen)
    assert picture.shape == (128, 256, 3) and uv.min() >= 0 and uv.max() <= 1
    assert len(uv) > len(seen.vertices)  # vertices between the views have two places in the texture
    rows = np.clip(((1 - uv[:, 1]) * 128).astype(int), 0, 127)
    columns = np.clip((uv[:, 0] * 256).astype(int), 0, 255)
    vertex = np.empty(len(uv), int)
    vertex[uv_faces.ravel()] = seen.faces.ravel()
    difference = np.abs(picture[rows, columns].astype(int) - seen.colors[vertex].astype(int)).mean(axis=1)
    assert np.median(difference) < 6 and np.mean(difference < 40) > 0.9
    flipped = np.abs(picture[127 - rows, columns].astype(int) - seen.colors[vertex].astype(int)).mean(axis=1)
    assert np.median(flipped) > 3 * np.median(difference)
    # each face has its place in one half, the half of its side
    halves = uv[uv_faces][..., 0] > 0.5
    assert (halves.all(axis=1) | ~halves.any(axis=1)).all()
    right_cheek = seen.vertices[seen.faces].mean(axis=1)[:, 0] < 0
    np.testing.assert_array_equal(halves.any(axis=1), right_cheek)


def test_a_written_scan_is_read_back(seen, tmp_path):
    uv, uv_faces, picture = mosaic(seen)
    (tmp_path / "face.wrl").write_bytes(wrl(seen, uv, uv_faces, "face.bmp"))
    (tmp_path / "face.bmp").write_bytes(benchmark._picture(picture, ".bmp"))
    read = read_scan(tmp_path / "face.wrl")
    assert len(read.faces) == len(seen.faces) and read.unit == "mm"
    np.testing.assert_allclose(read.vertices[read.faces], seen.vertices[seen.faces], atol=0.0051)
    np.testing.assert_array_equal(read.texture, picture)
    np.testing.assert_allclose(read.uv[read.faces], uv[uv_faces], atol=5.1e-5)


@pytest.mark.slow
def test_it_is_read_as_bu3dfe(three_d):
    index = index_dataset("bu3dfe", three_d)
    assert len(index) == 75 and index.subjects == ("F0001", "F0002", "M0001") and not index.excluded
    assert Counter(record.intensity for record in index.records if record.label != "neutral") == {
        0.25: 18, 0.5: 18, 0.75: 18, 1.0: 18,
    }  # fmt: skip
    assert {record.metadata.get("sex") for record in index.records if record.subject[0] == "M"} == {"male"}
    assert not any("ethnicity" in record.metadata for record in index.records)  # XX says nothing
    made = folds("bu3dfe-subset2", index.records, repeats=1, partial=True)
    assert sum(len(fold.test.ids) for fold in made) == 3 * PROTOCOLS["bu3dfe-subset2"].per_person
    card = json.loads((three_d / "benchmark.json").read_text())
    assert card["version"] == benchmark.VERSIONS["3d"] == 2 and card["layout"] == "bu3dfe"
    assert synthetic_name(three_d) == "affectvlm-synth-3d v2, procedural, 3 people" and not synthetic_name("tests")
    scan = read_scan(three_d / "F0001" / "F0001_HA04XX_F3D.wrl")
    extent = np.ptp(scan.vertices, axis=0)
    assert 4000 < len(scan.vertices) < 9000 and (extent[:2] > 110).all() and (extent[:2] < 250).all()
    np.testing.assert_allclose((scan.vertices.min(0) + scan.vertices.max(0)) / 2, 0, atol=0.02)


@pytest.mark.slow
def test_landmarks_lie_beside_each_scan_on_its_vertices_and_where_they_are_called(three_d):
    from affectvlm.pose import frontalize
    from affectvlm.pose.landmarks import pose_from_landmarks

    assert not [remark for remark in index_dataset("bu3dfe", three_d).remarks if "landmarks" in remark]
    for stem in ("F0001/F0001_HA04XX_F3D", "F0002/F0002_NE00XX_F3D", "M0001/M0001_SU04XX_F3D"):
        mesh = (three_d / f"{stem}.wrl").read_text()
        points = np.array(mesh.split("point [")[1].split("]")[0].replace(",", " ").split(), float).reshape(-1, 3)
        lines = (three_d / f"{stem}.bnd").read_text().splitlines()
        rows = np.array([line.split() for line in lines], float)
        assert rows.shape == (83, 4) and all("\t\t" in line for line in lines)
        np.testing.assert_array_equal(points[rows[:, 0].astype(int)], rows[:, 1:])  # counted from 0
        landmarks = read_scan(three_d / f"{stem}.wrl").landmarks
        assert landmarks["left eye 4"][0] > landmarks["mouth 6"][0] > landmarks["nose 6"][0] > landmarks["mouth 0"][0]
        assert landmarks["right eye 4"][1] > landmarks["nose 6"][1] > landmarks["mouth 6"][1] > landmarks["chin 7"][1]
        # they say where the face looks, as the face itself does
        guess, found = pose_from_landmarks(landmarks, None), frontalize(read_scan(three_d / f"{stem}.wrl")).pose
        between = np.trace(guess.rotation @ found.rotation.T)
        assert np.degrees(np.arccos(np.clip((between - 1) / 2, -1, 1))) < 8
    jaw = [read_scan(three_d / "F0001" / f"F0001_SU0{level}XX_F3D.wrl").landmarks for level in (1, 4)]
    shut, dropped = (np.linalg.norm(one["nose 6"] - one["chin 7"]) for one in jaw)
    assert dropped > shut + 8  # the same points of the face, wherever it moves


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "vertices", "faces", "size"),
    [
        ("F0002/F0002_DI02XX_F3D", 5515, 10582, (28.346, 37.002, 19.129)),
        ("F0002/F0002_DI04XX_F3D", 5200, 9911, (27.851, 35.642, 14.668)),
        ("M0001/M0001_NE00XX_F3D", 5549, 10752, (29.544, 35.282, 15.925)),
    ],
)
def test_scans_of_version_two_are_those_of_version_one(three_d, name, vertices, faces, size):
    """Figures of files that version 1 wrote; a coordinate may differ in its last digit on another processor."""
    mesh = (three_d / f"{name}.wrl").read_text()
    points = np.array(mesh.split("point [")[1].split("]")[0].replace(",", " ").split(), float).reshape(-1, 3)
    assert len(points) == vertices and mesh.split("coordIndex [")[1].split("]")[0].count("-1") == faces
    np.testing.assert_allclose(np.abs(points).mean(axis=0), size, atol=0.005)
    before = [line for line in (three_d / "MANIFEST.sha256").read_text().splitlines() if not line.endswith(".bnd")]
    assert len(before) == 150


@pytest.mark.slow
def test_it_is_read_as_bu4dfe(four_d):
    assert four_d.name == "affectvlm-synth-4d-v1" and {path.suffix for path in four_d.glob("*/*/*")} == {".wrl", ".jpg"}
    index = index_dataset("bu4dfe", four_d)
    assert len(index) == 18 and all(record.frames == (0, 1, 2) for record in index.records) and not index.excluded
    assert index.counts == dict.fromkeys(index.classes, 3)
    assert len(folds("bu4dfe", index.records, partial=True)) == 3

    def opening(frame):
        """mm from the lowest to the highest point of the middle, which a dropped jaw makes longer."""
        points = read_scan(four_d / "F001" / "Surprise" / f"{frame:03d}.wrl").vertices
        assert -140 < points[:, 2].mean() < -60
        middle = points[np.abs(points[:, 0] - np.median(points[:, 0])) < 8]
        return np.ptp(middle[:, 1])

    # neutral, peak, neutral: both ends are alike
    assert abs(opening(0) - opening(2)) < 8


@pytest.mark.slow
def test_stopping_and_going_on_gives_the_same_files(three_d, tmp_path):
    lines = (three_d / "MANIFEST.sha256").read_text().splitlines()
    assert len(lines) == 225 and verify(three_d) == []
    for line in lines[:3]:
        digest, name = line.split("  ")
        assert hashlib.sha256((three_d / name).read_bytes()).hexdigest() == digest
    # one person again, in another place and by its own: byte for byte the same
    wanted = Benchmark("3d", 3)
    for task in (("M0001", 56, "fear"), ("F0002", 1, "neutral")):
        benchmark._make_one(tmp_path, wanted, task)
        for name in benchmark._files(wanted, *task):
            assert (tmp_path / name).read_bytes() == (three_d / name).read_bytes()
    # a file lost, another damaged and listed
    lost, damaged = three_d / "F0001" / "F0001_SA02XX_F3D.wrl", three_d / "F0002" / "F0002_NE00XX_F3D.bmp"
    kept, times = damaged.read_bytes(), {path: path.stat().st_mtime_ns for path in three_d.glob("F0002/*")}
    lost.unlink()
    damaged.write_bytes(kept[:-1] + b"x")
    assert verify(three_d) == [
        "F0001/F0001_SA02XX_F3D.wrl is missing", "F0002/F0002_NE00XX_F3D.bmp differs",
    ]  # fmt: skip
    damaged.write_bytes(kept)
    before = json.loads((three_d / "benchmark.json").read_text())["manifest"]
    make_benchmark(three_d.parent, wanted, workers=1)
    assert json.loads((three_d / "benchmark.json").read_text())["manifest"] == before and verify(three_d) == []
    assert all(path.stat().st_mtime_ns == times[path] for path in times if path != damaged)


def test_another_benchmark_or_other_files_are_left_alone(tmp_path):
    place = tmp_path / "affectvlm-synth-3d-v2"
    place.mkdir()
    (place / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds no benchmark.json"):
        make_benchmark(tmp_path, Benchmark("3d", 3), workers=1)
    (place / "benchmark.json").write_text(json.dumps(Benchmark("3d", 9).card()))
    with pytest.raises(ValueError, match=r"subjects 9 instead of 3"):
        make_benchmark(tmp_path, Benchmark("3d", 3), workers=1)
    assert {path.name for path in place.iterdir()} == {"mine.txt", "benchmark.json"}
    assert verify(place) == ["there is no MANIFEST.sha256"]

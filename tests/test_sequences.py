"""Sequences: frames in order from any container, smooth poses, dynamic images, memory, and the answers over time."""

from __future__ import annotations

import io
import json
import os
import stat
import struct
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from affectvlm.pose import FrontalScan, Pose, turn
from affectvlm.pose.following import follow
from affectvlm.pose.frontal import LOOK_CENTER, Sighting, search
from affectvlm.rank_pooling import RankPooling, rank_pool, to_uint8
from affectvlm.rendering import KINDS, picture, render_buffers
from affectvlm.scan import Scan, ScanError
from affectvlm.scan_io import limits, series
from affectvlm.scan_io.series import in_order
from affectvlm.sequences import (
    DynamicViews,
    FrontalFrames,
    ScanSequence,
    finding,
    is_sequence,
    open_sequence,
    smooth_poses,
    spread_evenly,
    streaming,
)
from affectvlm.sequences.dynamic import SCALE, values
from affectvlm.synthesis.procedural import ProceduralFace
from tests.scan_files import bnd, image_bytes, mask, obj, ply, triangles, two_colours, xyz, zipped
from tests.test_gltf_animation import Builder

VERTICES, QUADS, UV = mask()
MOVE = np.stack([0 * UV[:, 0], 0 * UV[:, 0], 8 * np.exp(-40 * ((UV - 0.4) ** 2).sum(axis=1))], axis=1)
"""What a frame adds: a bump that grows."""


def frame(share: float) -> np.ndarray:
    return VERTICES + share * MOVE


def frame_ply(share: float) -> bytes:
    return ply(frame(share), QUADS, "binary_little_endian")


SHARES = np.linspace(0, 1, 12)


@pytest.fixture
def folder(tmp_path):
    """Twelve frames, the second of which is named before the tenth, and things that are no frames."""
    place = tmp_path / "clip"
    place.mkdir()
    for number, share in enumerate(SHARES, 1):
        (place / f"frame{number}.ply").write_bytes(frame_ply(share))
    (place / "notes.txt").write_text("no scan")
    (place / "._frame1.ply").write_bytes(b"litter")
    return place


# ---- frames ----------------------------------------


@pytest.mark.parametrize(
    ("names", "ordered", "numbers"),
    [
        (["a10.ply", "a9.ply", "a1.ply"], ["a1.ply", "a9.ply", "a10.ply"], (1, 9, 10)),
        (["002.wrl", "000.wrl", "001.wrl"], ["000.wrl", "001.wrl", "002.wrl"], (0, 1, 2)),
        (["F1_T2_007.obj", "F1_T2_005.obj"], ["F1_T2_005.obj", "F1_T2_007.obj"], (5, 7)),
        (["3.obj.gz", "20.obj.gz"], ["3.obj.gz", "20.obj.gz"], (3, 20)),
        (["b.ply", "a.ply"], ["a.ply", "b.ply"], (1, 2)),
        (["start.ply", "9.ply", "10.ply"], ["9.ply", "10.ply", "start.ply"], (1, 2, 3)),
        (["p1_2.ply", "p2_1.ply", "p1_1.ply"], ["p1_1.ply", "p1_2.ply", "p2_1.ply"], (1, 2, 3)),
        (["only7.ply"], ["only7.ply"], (7,)),
    ],
)
def test_names_are_ordered_by_their_numbers(names, ordered, numbers):
    found, counted, _ = in_order(names)
    assert list(found) == ordered and counted == numbers


def test_gaps_are_reported_and_doubles_refused():
    gaps = in_order([f"{i}.ply" for i in (1, 2, 3, 6, 7, 10)])[2]
    assert gaps == ("4 of the frames 1 to 10 are missing: 4 to 5, 8 to 9",)
    assert in_order([f"{i}.ply" for i in range(0, 40, 4)])[2] == ()
    with pytest.raises(ScanError, match="both frame 7"):
        in_order(["7.ply", "007.ply", "8.ply"])


def test_folder_zip_list_and_animation_give_the_same_frames(folder):
    paths = [folder / f"frame{i}.ply" for i in range(1, 13)]
    archive = zipped({f"deep/clip/{path.name}": path.read_bytes() for path in reversed(paths)})
    on_disk = folder.parent / "clip.zip"
    on_disk.write_bytes(archive)
    builder = Builder().targets(MOVE).animate("weights", [0, 11 / 25], [0, 1])
    sources = [folder, str(folder), (archive, "clip.zip"), on_disk, paths, [path.read_bytes() for path in paths]]
    sources[-1] = [(data, "frame.ply") for data in sources[-1]]
    for source in [*sources, (builder.bytes(), "clip.glb")]:
        assert is_sequence(source)
        with open_sequence(source) as sequence:
            assert len(sequence) == 12 and sequence.numbers == tuple(range(1, 13))
            for index in (0, 3, 11):
                scan = sequence.read(index)
                assert np.allclose(scan.vertices, frame(SHARES[index]), rtol=0, atol=1e-3)
                assert np.array_equal(scan.faces, triangles(QUADS)) and scan.unit == "mm"
    with open_sequence(folder, fps=20) as sequence:
        assert sequence.times == pytest.approx(np.arange(12) / 20)


def test_frames_bring_their_textures_along(tmp_path):
    image, other = two_colours(), two_colours()[::-1].copy()
    members = {}
    for number, picture_ in ((1, image), (2, other)):
        material = f"newmtl m\nmap_Kd t/{number}.png\n".encode()
        members |= {f"x/{number}.obj": obj(VERTICES, QUADS, UV, f"mtllib {number}.mtl\nusemtl m\n")}
        members |= {f"x/{number}.mtl": material, f"x/t/{number}.png": image_bytes(picture_)}
    for name, data in members.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for source in ((zipped(members), "x.zip"), tmp_path / "x"):
        with open_sequence(source) as sequence:
            for index, picture_ in enumerate((image, other)):
                assert np.array_equal(sequence.read(index).texture, picture_)


def test_one_format_of_a_folder_is_the_sequence(folder):
    (folder / "extra.obj").write_bytes(obj(VERTICES, QUADS))
    (folder / "frame1.bnd").write_bytes(bnd(np.zeros((83, 3))))
    with open_sequence(folder) as sequence:
        assert len(sequence) == 12 and any("1 .obj were passed over" in remark for remark in sequence.remarks)


def test_a_unit_does_not_change_within_a_sequence():
    """A file of 88 units across reads as cm, one of 92 as mm: the guess of the first frame holds for all."""
    across = np.linalg.norm(np.ptp(np.percentile(VERTICES, (0.5, 99.5), axis=0), axis=0))
    small, large = (xyz(VERTICES * size / across) for size in (88, 92))
    with open_sequence([(small, "a.xyz"), (large, "b.xyz")]) as sequence:
        sizes = [np.linalg.norm(np.ptp(sequence.read(i).vertices, axis=0)) for i in (0, 1)]
        assert sizes[1] / sizes[0] == pytest.approx(92 / 88, rel=0.01) and sequence.read(1).unit == "cm"


def test_a_single_scan_is_no_sequence(folder, tmp_path):
    one = folder / "frame1.ply"
    lone = (zipped({"one.ply": one.read_bytes()}), "one.zip")
    for source in (one, lone, (one.read_bytes(), "a.ply"), tmp_path / "none", 7, [], [1], None, b"", {"front": b""}):
        assert not is_sequence(source)
    assert not is_sequence("x" * 5000) and not is_sequence("a\0b.zip")
    for source in (one, lone):
        with pytest.raises(ScanError, match="a single scan"):
            open_sequence(source)
    for source in (7, [], [1], None):
        with pytest.raises(ValueError, match="needed"):
            open_sequence(source)
    with pytest.raises(ValueError, match="fps"):
        open_sequence(folder, fps=0)


def test_frames_are_spread_evenly():
    assert spread_evenly(5, None).tolist() == spread_evenly(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert spread_evenly(101, 5).tolist() == [0, 25, 50, 75, 100] and spread_evenly(9, 1).tolist() == [4]
    with pytest.raises(ValueError, match="needed"):
        spread_evenly(5, 0)


def test_empty_and_unclear_folders_say_what_is_needed(tmp_path):
    with pytest.raises(ScanError, match="holds no scan"):
        open_sequence(tmp_path)
    (tmp_path / "Happy").mkdir()
    with pytest.raises(ScanError, match="folders Happy"):
        open_sequence(tmp_path)
    with pytest.raises(ScanError, match="cannot be opened"):
        open_sequence(tmp_path / "missing.zip")


# ---- hostile archives ----------------------------------------

PLY = frame_ply(0)


def _linked() -> bytes:
    info = zipfile.ZipInfo("2.ply")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    out = io.BytesIO(zipped({"1.ply": PLY}))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    return out.getvalue()


def _lying() -> bytes:
    """The second frame is longer than its entry says."""
    data = bytearray(zipped({"1.ply": PLY, "2.ply": PLY}))
    entry = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 24, len(PLY) - 40)
    return bytes(data)


def _encrypted() -> bytes:
    data = bytearray(zipped({"1.ply": PLY, "2.ply": PLY}))
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (zipped({"../1.ply": PLY, "2.ply": PLY}), "unsafe path"),
        (zipped({"/1.ply": PLY, "2.ply": PLY}), "unsafe path"),
        (_linked(), "symbolic link"),
        (_encrypted(), "encrypted"),
        (zipped({f"{i}.ply": PLY + b"\0" * 20_000_000 for i in range(3)}), "unpacks to"),
        (zipped({"1.ply": PLY, "2.ply": PLY, "more.zip": b"PK\x03\x04"}), "another archive"),
        (zipped({"a/1.ply": PLY, "b/1.ply": PLY}), "2 folders"),
        (zipped({"1.ply": PLY, "2.ply": PLY})[:-30], "zip"),
        (b"PK\x03\x04 and nothing", "zip"),
    ],
)
def test_hostile_zips_are_refused_in_words(data, words):
    with pytest.raises(ScanError, match=words) as caught:
        series.open_zip(data, (".ply",))
    assert len(str(caught.value)) < 500


def test_frames_that_lie_or_hide_an_archive_are_refused_when_opened():
    for data in (_lying(), zipped({"1.ply": PLY, "2.ply": zipped({"x.ply": PLY})})):
        with open_sequence((data, "clip.zip")) as sequence:
            assert len(sequence.read(0).vertices) == len(VERTICES)
            with pytest.raises(ScanError, match=r"^frame 2: "):
                sequence.read(1)


def test_too_many_files_are_refused(monkeypatch, folder):
    monkeypatch.setattr(series, "MAX_SERIES_MEMBERS", 8)
    with pytest.raises(ScanError, match="more than 8 files"):
        open_sequence(folder)
    data = zipped({f"{i}.ply": b"x" for i in range(9)})
    for source in (data, folder / "many.zip"):
        if isinstance(source, os.PathLike):
            source.write_bytes(data)
        with pytest.raises(ScanError, match="more than 8 files"):
            series.open_zip(source, (".ply",))
    monkeypatch.setattr(series, "MAX_SERIES_MEMBERS", limits.MAX_SERIES_MEMBERS)
    monkeypatch.setattr(series, "MAX_SERIES_FRAMES", 8)
    with pytest.raises(ScanError, match="9 frames"):
        series.open_zip(data, (".ply",))
    long = Builder().animate("translation", [0, 1e9], [[0, 0, 0], [1, 0, 0]])
    with pytest.raises(ScanError, match="animated frames"):
        open_sequence((long.bytes(), "long.glb"))


# ---- poses ----------------------------------------


def pose(degrees=(0.0, 0.0, 0.0), place=(300.0, 100.0, -900.0), certainty=0.98, scale=1.0) -> Pose:
    """A pose that puts the middle of the face, at `place` in the scan, where it belongs."""
    rotation = Rotation.from_rotvec(degrees, degrees=True).as_matrix()
    return Pose(rotation, LOOK_CENTER - scale * rotation @ np.asarray(place, float), scale, certainty)


def errors(track, truth) -> tuple[np.ndarray, np.ndarray]:
    """Degrees and mm (of the middle of the face) that each pose of a track is off."""
    pairs = list(zip(track.poses, truth, strict=True))
    turns = [Rotation.from_matrix(found.rotation @ true.rotation.T).magnitude() for found, true in pairs]
    middles = [[p.rotation.T @ (LOOK_CENTER - p.translation) / p.scale for p in pair] for pair in pairs]
    return np.degrees(turns), np.array([np.linalg.norm(a - b) for a, b in middles])


def moving(count: int) -> list[Pose]:
    at = np.arange(count)
    turns = np.stack([20 * np.sin(at / 15), 8 * np.sin(at / 9), 5 * np.cos(at / 20)], axis=1)
    places = np.array([300, 100, -900]) + np.stack([10 * np.sin(at / 20), 0 * at, 5 * np.cos(at / 12)], axis=1)
    return [pose(turn, place) for turn, place in zip(turns, places, strict=True)]


def shaken(poses: list[Pose], rng, degrees: float = 0.5) -> list[Pose]:
    """The same with noise about the middle of the face."""
    result = []
    for one in poses:
        turn = Rotation.from_rotvec(rng.normal(0, degrees, 3), degrees=True).as_matrix()
        translation = LOOK_CENTER + turn @ (one.translation - LOOK_CENTER) + rng.normal(0, degrees, 3)
        result.append(Pose(turn @ one.rotation, translation, one.scale, one.certainty))
    return result


def test_jitter_of_a_head_held_still_vanishes():
    truth, rng = [pose((10, -5, 3))] * 60, np.random.default_rng(0)
    track = smooth_poses(np.arange(60), shaken(truth, rng), np.arange(60))
    turns, moves = errors(track, truth)
    assert track.still and turns.max() < 0.25 and moves.max() < 0.25
    assert all(np.array_equal(one.rotation, track.poses[0].rotation) for one in track.poses)


def test_a_moving_head_is_followed_and_its_jitter_falls():
    truth, rng = moving(120), np.random.default_rng(1)
    noisy = shaken(truth, rng)
    track = smooth_poses(np.arange(120), noisy, np.arange(120))
    raw = errors(replace(track, poses=tuple(noisy)), truth)
    found = errors(track, truth)
    assert not track.still
    for before, after in zip(raw, found, strict=True):
        assert np.sqrt(np.mean(after**2)) < 0.6 * np.sqrt(np.mean(before**2)) and after.max() < 1.5


def test_without_noise_a_turning_head_is_followed_closely():
    truth = moving(120)
    turns, moves = errors(smooth_poses(np.arange(120), truth, np.arange(120)), truth)
    assert turns.max() < 0.4 and moves.max() < 0.4


def test_single_wrong_poses_do_not_count():
    truth, rng = moving(90), np.random.default_rng(2)
    noisy = shaken(truth, rng, 0.3)
    for index in (0, 17, 18, 44, 89):
        noisy[index] = pose(rng.normal(0, 60, 3), np.array([300, 100, -900]) + rng.normal(0, 40, 3), 0.5, 1.6)
    turns, moves = errors(smooth_poses(np.arange(90), noisy, np.arange(90)), truth)
    assert turns.max() < 1.5 and moves.max() < 1.5


def test_poses_between_those_found_are_filled_in():
    truth = moving(100)
    track = smooth_poses(np.arange(0, 100, 3), truth[::3], np.arange(100))
    turns, moves = errors(track, truth)
    assert turns.max() < 1.0 and moves.max() < 1.0
    assert track.found.sum() == 34 and track.found[::3].all()


def test_a_sequence_has_one_scale_about_the_middle_of_the_face():
    rng = np.random.default_rng(3)
    poses = [pose(scale=float(scale)) for scale in 1 + rng.normal(0, 0.03, 21)]
    track = smooth_poses(np.arange(21), poses, np.arange(21))
    assert {one.scale for one in track.poses} == {sorted(one.scale for one in poses)[10]}
    assert errors(track, [pose()] * 21)[1].max() < 1e-6


@pytest.mark.slow
def test_of_many_poses_the_middle_one_is_looked_for_among_some():
    truth, rng = pose((10, -5, 3)), np.random.default_rng(5)
    tracemalloc.start()
    try:
        track = smooth_poses(np.arange(600), shaken([truth] * 600, rng), np.arange(600))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000  # distances of each to each would take 15 MB
    finally:
        tracemalloc.stop()
    turns, moves = errors(track, [truth] * 600)
    assert track.still and turns.max() < 0.1 and moves.max() < 0.1


def test_a_handful_of_poses_stays_as_found():
    poses = moving(4)
    track = smooth_poses(np.array([0, 10, 20, 30]), poses, np.array([0, 4, 10, 20, 30]))
    assert [one is two for one, two in zip(track.poses, [poses[0], poses[0], *poses[1:]], strict=True)] == [True] * 5
    with pytest.raises(ValueError, match="needed"):
        smooth_poses(np.array([]), [], np.arange(3))


# ---- poses, frame by frame ----------------------------------------


def seen(turn: float = 0.0, certainty: float = 0.98, misfit: float = 1.0) -> Sighting:
    return Sighting(pose((0, turn, 0), certainty=certainty), np.zeros(1), np.array([0.8, misfit, 0, 0.8, 1, 0.3]))


class Frames:
    """Stand-ins for reading, searching and following; a scan is the number of its frame."""

    def __init__(self, monkeypatch, search=lambda frame: seen(), follow=lambda frame: seen()) -> None:
        self.searched, self.followed, self.refused = [], [], {}
        monkeypatch.setattr(finding, "search", lambda frame: (self.searched.append(frame), search(frame))[1])
        monkeypatch.setattr(finding, "follow", lambda frame, *_: (self.followed.append(frame), follow(frame))[1])

    def find(self, frames, read=lambda frame: frame) -> dict[int, Pose]:
        return finding.find_poses(list(frames), read, lambda frame, error: self.refused.update({frame: str(error)}))


def test_key_frames_are_searched_and_the_others_followed(monkeypatch):
    frames = Frames(monkeypatch)
    assert list(frames.find(range(0, 99, 3))) == list(range(0, 99, 3))
    assert frames.searched == [0, 48, 96] and frames.followed == list(range(3, 99, 3))
    assert list(frames.find([7])) == [7] and list(frames.find([7, 9])) == [7, 9]
    assert frames.searched[3:] == [7, 7, 9]


def test_a_frame_that_is_followed_less_surely_is_searched(monkeypatch):
    unsure = {3: seen(0, misfit=1.6), 4: seen(30, 0.8), 5: None}
    frames = Frames(monkeypatch, lambda frame: seen(frame / 4), lambda frame: unsure.get(frame, seen()))
    found = frames.find(range(10))
    assert frames.searched == [0, 3, 4, 5, 9]
    assert np.array_equal(found[4].rotation, seen(1).pose.rotation) and found[6].certainty == 0.98


def test_nothing_is_followed_from_a_doubtful_pose(monkeypatch):
    frames = Frames(monkeypatch, lambda frame: seen(certainty=0.4 if frame < 5 else 0.98))
    frames.find(range(9))
    assert frames.searched == [0, 1, 2, 3, 4, 5, 8] and frames.followed == [6, 7, 8]


def test_where_search_and_following_do_not_agree_all_since_the_key_frame_are_searched(monkeypatch):
    frames = Frames(monkeypatch, lambda frame: seen(0 if frame == 0 else 40))
    found = frames.find(range(33))
    assert frames.searched == [0, 16, *range(1, 16), 32, *range(17, 32)]
    assert list(found) == list(range(33))
    assert all(np.array_equal(found[frame].rotation, seen(40).pose.rotation) for frame in range(1, 33))


def test_frames_that_cannot_be_used_have_no_pose(monkeypatch):
    def read(frame):
        if frame in (0, 5):
            raise ScanError("cut off")
        return frame

    frames = Frames(monkeypatch)
    assert list(frames.find(range(8), read)) == [1, 2, 3, 4, 6, 7]
    assert frames.refused == {0: "cut off", 5: "cut off"} and frames.searched == [1, 7]


@pytest.mark.slow
@pytest.mark.parametrize(("unit", "noise"), [("mm", 0.0), ("mm", 0.7), ("unknown", 0.0)])
def test_a_turning_head_is_followed_as_well_as_it_is_found(monkeypatch, unit, noise):
    """A head that turns by 40 degrees while its mouth opens: error of the poses that are followed, and searched."""
    model, rng = ProceduralFace(), np.random.default_rng(0)
    person, rotations, scans = model.sample_identity(rng), [], []
    for share in np.linspace(0, 1, 9):
        scan = model.generate(person, {"AU26": float(share), "AU12": 0.4 * float(share)})
        vertices = scan.vertices + rng.normal(0, noise, scan.vertices.shape)
        rotations.append(turn(-20 + 40 * share, 8 * share, -5))
        moved = replace(scan, vertices=vertices, landmarks={}, unit=unit)
        scans.append(moved.transformed(rotations[-1], [40 + 30 * share, 0, -700]))

    def off(poses) -> np.ndarray:
        turns = [one.rotation @ rotation for one, rotation in zip(poses, rotations, strict=True)]
        return np.degrees(Rotation.from_matrix(turns).magnitude())

    sightings = [search(scan) for scan in scans]
    calls = []
    monkeypatch.setattr(finding, "search", lambda scan: (calls.append(1), search(scan))[1])
    found = finding.find_poses(range(9), lambda frame: scans[frame], lambda *_: pytest.fail("refused"))
    followed, searched = off(found.values()), off(sighting.pose for sighting in sightings)
    assert len(calls) == 2 and all(one.is_face for one in found.values())
    assert np.median(followed) < np.median(searched) + 0.3 and followed.max() < searched.max() + 0.6
    # a face that has jumped is not found from where it was, and the pose says so
    about = np.array([50, 0, -700])
    jumped = scans[3].transformed(turn(70, 0, 0), about - turn(70, 0, 0) @ about)
    lost = follow(jumped, found[2], sightings[0])
    assert lost is None or lost.pose.certainty < 0.8
    assert follow(scans[3].transformed(np.eye(3), [500, 0, 0]), found[2], sightings[0]) is None


# ---- streaming ----------------------------------------

HERE = Pose(np.eye(3), np.zeros(3), 1.0, 0.97)


def face_mesh(share: float = 0.0) -> Scan:
    """A bulge about the origin of the canonical frame that moves: enough for the view to have something in it."""
    return Scan(frame(share) - [0, 0, 60], triangles(QUADS))


@pytest.fixture
def quick(monkeypatch):
    """The pose is known and cleaning left out: what is tested is the way the frames go."""
    seen = Sighting(HERE, np.zeros(1), np.zeros(6))
    monkeypatch.setattr(finding, "search", lambda scan: seen)
    monkeypatch.setattr(finding, "follow", lambda scan, pose, key: seen)
    monkeypatch.setattr(streaming, "frontalize", lambda scan, correction, pose: FrontalScan(scan, pose))


def sequence_of(count: int, broken: dict[int, str] | None = None) -> ScanSequence:
    def read(index: int) -> Scan:
        if index in (broken or {}):
            raise ScanError(broken[index])
        return face_mesh(index / max(count - 1, 1))

    return ScanSequence("clip", read, range(1, count + 1))


def test_a_broken_frame_is_left_out_with_a_warning(quick):
    faces = FrontalFrames(sequence_of(20, {6: "cut off", 9: "cut off"}), every=4)
    assert [face.index for face in faces] == [i for i in range(20) if i not in (6, 9)]
    assert faces.warnings == faces.left_out == ("2 of 20 frames were left out (frame 7: cut off)",)


def test_too_many_broken_frames_are_refused(quick):
    with pytest.raises(ScanError, match=r"3 of 20 frames cannot be used, at most 2 may be \(frame 1: gone\)"):
        list(FrontalFrames(sequence_of(20, dict.fromkeys(range(20), "gone"))))
    with pytest.raises(ScanError, match="at most 0"):
        FrontalFrames(sequence_of(3, {1: "gone"}))
    with pytest.raises(ScanError, match="^frame 1: gone$"):
        FrontalFrames(sequence_of(1, {0: "gone"}))
    with pytest.raises(ScanError, match="none of the 2"):
        FrontalFrames(sequence_of(40, {0: "gone", 39: "gone"}), every=100)


def test_remarks_are_told_once(monkeypatch, quick):
    said = [f"{i + 2} pin holes were closed" for i in range(6)]
    sequence = sequence_of(6)
    read = sequence._read
    sequence._read = lambda index: read(index).with_warnings(said[index])
    faces = FrontalFrames(sequence)
    list(faces)
    assert faces.warnings == ("2 pin holes were closed (in 6 frames alike)",)


@pytest.mark.parametrize(("kept", "again"), [({}, 0), ({"KEPT_FRAMES": 5}, 7), ({"KEPT_BYTES": 0}, 12)])
def test_frames_are_read_twice_only_where_there_is_no_room(monkeypatch, quick, kept, again):
    for name, value in kept.items():
        monkeypatch.setattr(streaming, name, value)
    sequence, read, told = sequence_of(12), [], []
    once = sequence._read
    sequence._read = lambda index: (read.append(index), once(index))[1]
    sequence.on_read = told.append
    faces = FrontalFrames(sequence)
    for face in faces:
        assert np.array_equal(face.scan.vertices, once(face.index).vertices)
    assert len(read) == 12 + again and sorted(read[:12]) == list(range(12))
    assert told == [*range(12), *range(12)]  # whoever watches is told of frames that were kept too
    assert not faces._kept


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(quick):
    def peak(count: int) -> int:
        dynamic = DynamicViews()
        tracemalloc.start()
        try:
            for face in FrontalFrames(sequence_of(count)):
                dynamic.add(render_buffers(face.scan, size=32))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(4)
    short, long = peak(40), peak(300)
    assert long < short + 400_000  # 260 poses more; a frame as drawn is 700 kB


# ---- dynamic images ----------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_dynamic_images_are_the_rank_pooled_views(kind):
    drawn = [render_buffers(face_mesh(share), size=48) for share in (0, 0.3, 0.7, 1.0)]
    dynamic = DynamicViews(kind)
    for buffers in drawn:
        dynamic.add(buffers)
    always = np.all([buffers.coverage >= 0.5 for buffers in drawn], axis=0)
    expected = rank_pool([values(buffers, kind) for buffers in drawn])
    found = dynamic.result()
    assert np.allclose(found[always], expected[always], rtol=0, atol=1e-9) and np.abs(found).max() > 0.005
    assert np.array_equal(dynamic.pictures(), np.rint(128 + 127 * np.clip(found / SCALE, -1, 1)))
    never = np.all([buffers.coverage < 0.5 for buffers in drawn], axis=0)
    assert (dynamic.pictures()[never] == 128).all()


def test_values_are_those_of_the_picture_where_the_face_covers_it():
    buffers = render_buffers(face_mesh(), size=48)
    whole = buffers.coverage == 1
    for kind in KINDS:
        assert np.abs(255 * values(buffers, kind) - picture(buffers, kind))[whole].max() <= 0.51


def test_a_single_frame_is_its_own_dynamic_image():
    buffers, dynamic = render_buffers(face_mesh(), size=48), DynamicViews()
    dynamic.add(buffers)
    whole = buffers.coverage == 1
    assert np.abs(dynamic.pictures().astype(int) - picture(buffers, "normals"))[whole].max() <= 1
    with pytest.raises(ValueError, match="needed"):
        DynamicViews("sketch")


def test_noise_of_the_pose_does_not_become_motion(monkeypatch):
    """A face that does nothing, found with an error of half a degree."""
    still, rng = [face_mesh()] * 16, np.random.default_rng(4)
    poses = shaken([HERE] * 16, rng)
    # the last one is followed and searched
    found = (Sighting(one, np.zeros(1), np.zeros(6)) for one in [*poses, poses[-1]])
    monkeypatch.setattr(finding, "search", lambda scan: next(found))
    monkeypatch.setattr(finding, "follow", lambda scan, pose, key: next(found))
    monkeypatch.setattr(
        streaming,
        "frontalize",
        lambda scan, correction, at: FrontalScan(scan.transformed(at.rotation, at.translation, at.scale), at),
    )
    smooth, raw = DynamicViews(), DynamicViews()
    for face, rough in zip(FrontalFrames(open_sequence(still)), poses, strict=True):
        smooth.add(render_buffers(face.scan, size=48))
        raw.add(render_buffers(face_mesh().transformed(rough.rotation, rough.translation), size=48))
    energy = [np.abs(dynamic.result()).mean() for dynamic in (smooth, raw)]
    assert energy[0] < 1e-12 < 1e-4 < energy[1]


# ---- answers ----------------------------------------


@pytest.fixture(scope="module")
def surprise():
    """A made-up person who is surprised once: the scans, and the intensity of each."""
    from affectvlm.synthesis.expressions import prototype
    from affectvlm.synthesis.procedural import ProceduralFace
    from affectvlm.synthesis.timing import timeline

    model, truth = ProceduralFace(), timeline(0.8, 0.4, 0.8, 8)
    person = model.sample_identity(np.random.default_rng(1))
    return [model.generate(person, prototype("surprise", float(share))) for share in truth], truth


@pytest.mark.slow
def test_an_expression_is_named_and_timed(predictor, surprise):
    scans, truth = surprise
    answer = predictor.predict_sequence(scans, fps=8)
    curve = answer.curve
    assert answer.kind == "sequence" and answer.emotion == curve.emotion == "surprise" and answer.confidence > 0.6
    assert curve.raw.shape == curve.smoothed.shape == (len(scans), 6) and np.allclose(curve.raw.sum(axis=1), 1)
    assert curve.times[-1] == pytest.approx(2.0) and np.array_equal(curve.frames, np.arange(1, len(scans) + 1))
    # the model sees an expression from a tenth of its strength on, at the latest from two thirds
    onset, offset = truth[curve.onset], truth[curve.offset]
    assert curve.onset < curve.apex < curve.offset and truth[curve.apex] > 0.9
    assert 0.01 < onset < 0.67 and 0.01 < offset < 0.67
    assert curve.expressiveness[0] < 0.5 < curve.expressiveness[curve.apex]
    moved = np.abs(answer.dynamic_images.astype(int) - 128)
    assert moved.max() > 60 and np.median(moved) <= 3  # the brows and the mouth move, the rest of the face does not
    assert json.loads(json.dumps(answer.to_dict(), allow_nan=False)) == answer.to_dict()


@pytest.mark.slow
def test_the_shell_takes_a_folder_as_one_sequence(surprise, checkpoint_folder, tmp_path, capsys):
    from affectvlm.cli import _ply, main

    for number, scan in enumerate(surprise[0][:9:4]):
        (tmp_path / f"{number}.ply").write_bytes(_ply(scan))
    assert main(["predict", "--sequence", str(tmp_path), "--json", "--checkpoint", str(checkpoint_folder)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 1 and rows[0]["ok"] and rows[0]["curve"]["frames"] == [0, 1, 2]
    assert main(["predict", "--sequence", str(tmp_path / "0.ply"), "--checkpoint", str(checkpoint_folder)]) == 1
    assert "a single scan" in capsys.readouterr().err


@pytest.mark.slow
def test_records_of_sequences_are_stored_as_dynamic_pictures(surprise, tmp_path):
    from affectvlm.cli import _ply
    from affectvlm.data import RenderedFaces
    from affectvlm.datasets.records import Index, Record
    from affectvlm.datasets.rendered import render_index
    from affectvlm.datasets.views import FACING
    from affectvlm.emotions import EKMAN

    scans = surprise[0][:9:2]
    for number, scan in enumerate(scans):
        (tmp_path / f"{number:03d}.ply").write_bytes(_ply(scan))
    files = tuple(f"{number:03d}.ply" for number in range(len(scans)))
    record = Record("000.ply", "ann", "surprise", files, frames=tuple(range(len(scans))))
    index = Index(tmp_path, EKMAN, (record,))
    rendered = render_index(index, tmp_path / "cache", workers=1, size=56)
    assert rendered.count == rendered.fresh == 1 and not rendered.failures and not rendered.doubtful
    faces = RenderedFaces([rendered.folder])
    views = faces.views([0])[0]
    assert faces.picture[0] and not faces.photo[0] and faces.records[0]["frames"] == 5
    assert (views[..., :3] == FACING).all() and (views[..., 6] == 255).all()
    with open_sequence([tmp_path / file for file in files]) as sequence:
        dynamic = DynamicViews()
        for face in FrontalFrames(sequence):
            dynamic.add(render_buffers(face.scan, size=64, half_width=80 * 64 / 56))
    assert np.array_equal(views[..., 3:6], dynamic.pictures())
    assert render_index(index, tmp_path / "cache", workers=1, size=56).fresh == 0
    (tmp_path / "002.ply").write_bytes(_ply(surprise[0][-1]))
    assert render_index(index, tmp_path / "cache", workers=1, size=56).fresh == 1  # any frame counts
    (tmp_path / "002.ply").write_bytes(b"broken")
    (tmp_path / "003.ply").write_bytes(b"broken")
    with pytest.raises(ValueError, match="2 of 5 frames cannot be used"):
        render_index(index, tmp_path / "cache", workers=1, size=56)


@pytest.mark.parametrize("running_mean", [True, False])
def test_magnifying_what_was_pooled_is_pooling_what_was_magnified(running_mean):
    """Against frames whose change from the first was magnified before."""
    rng = np.random.default_rng(0)
    frames = 0.5 + 0.01 * rng.standard_normal((9, 1, 16, 16, 3)).cumsum(axis=0).clip(-3, 3)
    plain, strong = RankPooling(running_mean), RankPooling(running_mean)
    for frame in frames:
        plain.add(frame)
        strong.add(frames[0] + 8 * (frame - frames[0]))
    views = DynamicViews(running_mean=running_mean)
    views._pooling = plain
    np.testing.assert_allclose(strong.result(), 8 * plain.result(), atol=1e-12)
    assert np.array_equal(views.pictures(magnify=8.0), to_uint8(strong.result(), SCALE))
    weak, strong = (np.ptp(views.pictures(magnify=factor)) for factor in (1.0, 8.0))
    assert strong > 2 * weak > 0
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="magnify"):
            views.pictures(magnify=wrong)

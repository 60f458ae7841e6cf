"""Frontal pose: a face turned, scaled and cropped at random comes back; what is no face says so."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from affectvlm.pose import euler_angles, find_pose, frontalize, turn
from affectvlm.pose.alignment import Similarity, umeyama
from affectvlm.pose.cleaning import _border, _edges, _places, clean_face, tidy
from affectvlm.pose.landmarks import _BU83, _POINTS68, MEAN, pose_from_landmarks
from affectvlm.pose.meshing import mesh_cloud
from affectvlm.pose.network import PoseNetwork
from affectvlm.pose.sampling import surface_points, take_sample
from affectvlm.scan import Scan, ScanError
from affectvlm.synthesis.procedural import ProceduralFace

NO_FACES = np.zeros((0, 3), np.int32)


@pytest.fixture(scope="module")
def face() -> Scan:
    model = ProceduralFace()
    scan = model.generate(model.sample_identity(np.random.default_rng(7)), {"AU12": 0.6})
    return replace(scan, landmarks={})  # they would give the pose away


@pytest.fixture(scope="module")
def sphere() -> Scan:
    n = 60
    u, v = np.meshgrid(np.linspace(0, np.pi, n), np.linspace(0, 2 * np.pi, n), indexing="ij")
    points = 100 * np.stack([np.sin(u) * np.cos(v), np.sin(u) * np.sin(v), np.cos(u)], -1).reshape(-1, 3)
    at = np.arange(n * n).reshape(n, n)
    a, b, c, d = at[:-1, :-1].ravel(), at[1:, :-1].ravel(), at[1:, 1:].ravel(), at[:-1, 1:].ravel()
    return Scan(points, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]))


def error_degrees(pose, rotation) -> float:
    return float(np.degrees(Rotation.from_matrix(pose.rotation @ rotation).magnitude()))


@pytest.mark.parametrize("seed", range(3))
def test_a_face_turned_at_random_comes_back(face, seed):
    rotation = Rotation.random(random_state=seed).as_matrix()
    pose = find_pose(face.transformed(rotation, [300, -200, 50]))
    assert error_degrees(pose, rotation) < 10
    assert pose.is_face
    assert np.linalg.norm(pose.rotation @ [300, -200, 50] + pose.translation) < 15  # mm, of the nose tip


@pytest.mark.parametrize("scale", [0.001, 17.0])
def test_a_scan_of_unknown_unit_comes_back_in_millimetres(face, scale):
    rotation = turn(70, 20, 130)
    scan = replace(face.transformed(rotation, [0, 0, 0], scale), unit="unknown")
    frontal = frontalize(scan)
    assert error_degrees(frontal.pose, rotation) < 10
    assert frontal.pose.scale == pytest.approx(1 / scale, rel=0.12)
    assert frontal.scan.unit == "mm"


def test_a_known_unit_is_kept(face):
    assert find_pose(face.transformed(turn(20, 0, 0), [0, 0, 0])).scale == 1.0


def test_a_wrong_unit_is_noticed_and_said(face):
    frontal = frontalize(face.transformed(turn(20, 0, 0), [0, 0, 0], 0.1))
    assert frontal.pose.scale == pytest.approx(10, rel=0.12)
    assert any("unit" in warning for warning in frontal.scan.warnings)


def test_a_coloured_point_cloud_becomes_a_coloured_mesh(face):
    mask = face.vertices[:, 2] > -80
    cloud = replace(face, faces=NO_FACES).keep_vertices(mask)
    colors = np.zeros((len(cloud.vertices), 3), np.uint8)
    colors[:, 0] = np.clip(128 + cloud.vertices[:, 0], 0, 255)  # red grows toward the subject's left
    rotation = turn(-100, 10, 40)
    frontal = frontalize(replace(cloud, colors=colors).transformed(rotation, [5, 5, 5]))
    assert error_degrees(frontal.pose, rotation) < 12
    assert len(frontal.scan.faces) > 1000
    assert np.corrcoef(frontal.scan.colors[:, 0], frontal.scan.vertices[:, 0])[0, 1] > 0.95


def test_the_face_lies_in_the_canonical_frame(face):
    scan = frontalize(face.transformed(turn(160, -30, 15), [9, 9, 9])).scan
    v = scan.vertices
    assert np.linalg.norm(v - [0, -12, -25], axis=1).max() < 100.5
    front = v[(np.abs(v[:, :2]) < 40).all(axis=1)]
    tip = front[front[:, 2].argmax()]
    assert np.abs(tip).max() < 15  # the nose is the foremost point and near the origin


def test_the_crop_keeps_texture_coordinates_with_their_vertices(face):
    uv = (face.vertices[:, :2] / 1000 + 0.5).astype(np.float32)
    texture = np.zeros((4, 4, 3), np.uint8)
    scan = replace(face, uv=uv, texture=texture, colors=None).transformed(turn(30, 0, 0), [0, 0, 0])
    out = frontalize(scan)
    back = (out.scan.vertices - out.pose.translation) @ out.pose.rotation / out.pose.scale  # in the file's frame
    original = back @ turn(30, 0, 0)
    assert np.abs(out.scan.uv - (original[:, :2] / 1000 + 0.5)).max() < 0.005
    assert out.scan.texture is not None


def test_the_same_scan_gives_the_same_pose(face):
    scan = face.transformed(turn(33, 22, 11), [1, 2, 3])
    first, second = find_pose(scan), find_pose(scan)
    assert np.array_equal(first.rotation, second.rotation) and first.certainty == second.certainty


def test_a_correction_turns_the_nose_as_the_signs_say(face):
    plain = frontalize(face)
    turned = frontalize(face, (25.0, 0.0, 0.0))
    assert np.allclose(turned.pose.rotation, turn(25, 0, 0) @ plain.pose.rotation)
    bridge = turned.pose.rotation @ plain.pose.rotation.T @ [0, 0, 1]
    assert bridge[0] > 0.4  # yaw > 0: nose toward +x
    assert (turn(0, 20, 0) @ [0, 0, 1])[1] < -0.3  # pitch > 0: nose down
    assert (turn(0, 0, 20) @ [0, 1, 0])[0] < -0.3  # roll > 0: top of the head toward -x


def test_a_correction_by_the_reported_angles_restores_the_file_orientation(face):
    rotation = turn(40, -15, 10)
    scan = face.transformed(rotation, [0, 0, 0])
    pose = find_pose(scan)
    corrected = frontalize(scan, (pose.yaw, pose.pitch, pose.roll)).pose
    assert np.allclose(corrected.rotation, np.eye(3), atol=1e-6)
    assert np.allclose([corrected.yaw, corrected.pitch, corrected.roll], 0, atol=1e-4)


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, -20, 170), (-179, 80, 3), (90, 10, -90)])
def test_angles_and_rotation_agree(angles):
    assert np.allclose(euler_angles(turn(*angles)), angles, atol=1e-6)


def test_what_is_no_face_is_uncertain(sphere):
    frontal = frontalize(sphere)
    assert frontal.pose.certainty < 0.3
    assert any("no clear face" in warning for warning in frontal.scan.warnings)


def test_unusable_geometry_is_refused():
    flat = np.random.default_rng(0).random((500, 3)) * [100, 100, 0]
    with pytest.raises(ScanError, match="plane"):
        find_pose(Scan(flat, NO_FACES))
    with pytest.raises(ScanError, match="at least 100"):
        find_pose(Scan(flat[:20], NO_FACES))
    with pytest.raises(ScanError, match="one line or in one spot"):
        find_pose(Scan(np.linspace(0, 1, 300)[:, None] * [[1.0, 2.0, 3.0]], NO_FACES))


@pytest.mark.parametrize("mirrored", [1, -1])
def test_landmarks_give_the_pose_whichever_side_is_called_left(mirrored):
    names = {"Outer left eye corner": ("eye outer", 1), "Outer right eye corner": ("eye outer", -1)}
    names |= {"Inner left eye corner": ("eye inner", 1), "Inner right eye corner": ("eye inner", -1)}
    names |= {"Nose tip": ("nose tip", 0), "Left mouth corner": ("mouth corner", 1), "Chin middle": ("chin", 0)}
    truth = Similarity(turn(50, 60, 70), np.array([4.0, 5, 6]), 2.0)
    place = lambda name, side: np.array(MEAN[name]) * [mirrored * (side or 1), 1, 1]  # noqa: E731
    landmarks = {name: truth.invert(place(*meaning)[None])[0] for name, meaning in names.items()}
    found = pose_from_landmarks(landmarks, None)
    assert np.allclose(found.rotation, truth.rotation, atol=1e-6)
    assert found.scale == pytest.approx(truth.scale)


@pytest.mark.parametrize("names", [sorted(_BU83), sorted(f"68-{i}" for i in _POINTS68)])
def test_numbered_landmarks_give_the_pose(names):
    truth = Similarity(turn(-50, 20, 170), np.array([4.0, 5, 6]), 0.1)
    meanings = {**_BU83, **{f"68-{i}": meaning for i, meaning in _POINTS68.items()}}
    place = lambda name, side: np.array(MEAN[name]) * [side or 1, 1, 1]  # noqa: E731
    found = pose_from_landmarks({name: truth.invert(place(*meanings[name])[None])[0] for name in names}, None)
    assert np.allclose(found.rotation, truth.rotation, atol=1e-6)


def test_landmarks_that_are_no_face_are_left_aside():
    rng = np.random.default_rng(0)
    assert pose_from_landmarks({name: rng.normal(size=3) for name in _BU83}, None) is None
    assert pose_from_landmarks({"Nose tip": np.zeros(3)}, None) is None


def test_umeyama_finds_a_similarity_exactly():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 3))
    truth = Similarity(turn(10, 20, 30), np.array([1.0, 2, 3]), 0.3)
    found = umeyama(points, truth.apply(points), rng.random(20))
    assert np.allclose(found.rotation, truth.rotation) and found.scale == pytest.approx(0.3)


def test_the_network_is_blind_to_rotation():
    import torch

    rng = np.random.default_rng(0)
    sample = take_sample(rng.normal(size=(500, 3)) * [3, 2, 1], rng)
    rotation = torch.tensor(turn(12, 34, 56), dtype=torch.float32)
    network = PoseNetwork().eval()
    points, normals = torch.from_numpy(sample.points)[None], torch.from_numpy(sample.normals)[None]
    token = torch.arange(40)[None]
    plain, turned = network(points, normals, token), network(points @ rotation.T, normals @ rotation.T, token)
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(plain, turned, strict=True))


def test_surface_points_follow_area_not_vertices(sphere):
    points = surface_points(sphere.vertices, sphere.faces, 4000, np.random.default_rng(0))
    assert np.abs((np.abs(points[:, 2]) > 50).mean() - 0.5) < 0.03  # Archimedes: equal heights, equal areas
    assert np.linalg.norm(points, axis=1).min() > 99


def bumpy_sheet(n: int = 40) -> Scan:
    x, y = np.meshgrid(np.linspace(-40, 40, n), np.linspace(-40, 40, n))
    at = np.arange(n * n).reshape(n, n)
    a, b, c, d = at[:-1, :-1].ravel(), at[:-1, 1:].ravel(), at[1:, 1:].ravel(), at[1:, :-1].ravel()
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return Scan(np.stack([x, y, -(x**2 + y**2) / 100], -1).reshape(-1, 3), faces)


def test_cleaning_flattens_a_spike_and_says_so():
    sheet = bumpy_sheet()
    vertices = sheet.vertices.copy()
    vertices[820] += [0, 0, 60]
    clean = clean_face(replace(sheet, vertices=vertices))
    assert np.abs(clean.vertices[820] - sheet.vertices[820]).max() < 0.5
    assert any("spike" in warning for warning in clean.warnings)


def test_cleaning_turns_an_inside_out_surface_outwards():
    sheet = bumpy_sheet()
    assert np.array_equal(
        clean_face(replace(sheet, faces=sheet.faces[:, ::-1])).faces, sheet.faces[:, ::-1][:, [0, 2, 1]]
    )
    assert np.array_equal(clean_face(sheet).faces, sheet.faces)


def test_cleaning_winds_alike_what_was_wound_at_random(face):
    """Also across texture seams, where neighbours share places but no vertices."""
    mesh = frontalize(Scan(face.vertices, face.faces, unit="mm")).scan
    rng = np.random.default_rng(0)
    seam = mesh.vertices[:, 0] > 0
    doubled = np.concatenate([mesh.vertices, mesh.vertices[seam]])
    twin = np.where(seam, len(mesh.vertices) + np.cumsum(seam) - 1, np.arange(len(seam)))
    right = mesh.vertices[mesh.faces, 0].mean(axis=1) > 20
    split = Scan(doubled, np.where(right[:, None], twin[mesh.faces], mesh.faces), unit="mm")
    for whole in (mesh, split):
        faces = whole.faces.copy()
        over = rng.random(len(faces)) < 0.5
        faces[over] = faces[over][:, [0, 2, 1]]
        back = clean_face(replace(whole, faces=faces)).faces[: len(faces)]
        same = (np.sort(back, axis=1) == np.sort(faces, axis=1)).all(axis=1)
        assert same.all() and (_normals(whole, back) * _normals(whole, whole.faces) > -1e-9).all(axis=1).mean() > 0.999


def test_cleaning_leaves_a_strip_that_has_one_side_only():
    """A Möbius strip cannot be wound alike; it must not be lost or turned into something else."""
    around = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    low, high = (np.stack([(60 + w * np.cos(around / 2)) * np.cos(around), (60 + w * np.cos(around / 2)) *
                           np.sin(around), w * np.sin(around / 2)], axis=1) for w in (-15, 15))  # fmt: skip
    a, b = np.arange(40), np.arange(40) + 40
    after_a, after_b = np.append(a[1:], 40), np.append(b[1:], 0)  # the last edge meets the first turned over
    faces = np.concatenate([np.stack([a, after_a, b], 1), np.stack([after_a, after_b, b], 1)]).astype(np.int32)
    strip = Scan(np.concatenate([low, high]), faces, unit="mm")
    assert np.array_equal(np.sort(clean_face(strip).faces, axis=1), np.sort(faces, axis=1))


def _normals(scan: Scan, faces: np.ndarray) -> np.ndarray:
    a, b, c = (scan.vertices[faces[:, k]].astype(float) for k in range(3))
    return np.cross(b - a, c - a)


def test_cleaning_closes_a_pin_hole_but_no_large_one():
    sheet = bumpy_sheet()
    pin = replace(sheet, faces=sheet.faces[~np.isin(sheet.faces, [820]).any(axis=1)])
    filled = clean_face(tidy(pin))
    assert len(filled.vertices) == len(sheet.vertices)  # one vertex left with its faces, one came
    middle = np.linalg.norm(sheet.vertices, axis=1) < 20
    large = tidy(replace(sheet, faces=sheet.faces[~middle[sheet.faces].any(axis=1)]))
    assert len(clean_face(large).faces) == len(large.faces)


def test_places_borders_and_edges_are_those_that_counting_finds():
    rng = np.random.default_rng(3)
    points = rng.integers(-2, 3, (400, 3)).astype(np.float32) / 3  # many at one place
    points[points == 0] *= rng.choice([-1, 1], (points == 0).sum())  # 0 and -0 are one
    faces = rng.integers(0, 90, (120, 3))
    numbers = {place: number for number, place in enumerate(sorted({(z, y, x) for x, y, z in points.tolist()}))}
    assert _places(points).tolist() == [numbers[z, y, x] for x, y, z in points.tolist()]
    sides = [(int(face[k]), int(face[k - 2])) for face in faces for k in range(3)]
    times = Counter(tuple(sorted(side)) for side in sides)
    assert _edges(faces).tolist() == [list(edge) for edge in sorted(times)]
    alone = {tuple(sorted(side)): list(side) for side in sides if times[tuple(sorted(side))] == 1}
    assert _border(faces).tolist() == [alone[edge] for edge in sorted(alone)]


def test_tidy_drops_crumbs_lost_points_and_repeats():
    sheet = bumpy_sheet()
    crumb = np.array([[300, 0, 0], [300.5, 0, 0], [300, 0.5, 0]], np.float32)
    count = len(sheet.vertices)
    faces = np.concatenate([sheet.faces, [[count, count + 1, count + 2]]])
    assert len(tidy(Scan(np.concatenate([sheet.vertices, crumb]), faces)).vertices) == count
    cloud = Scan(np.concatenate([sheet.vertices, sheet.vertices[:10], [[0, 0, 900]]]), NO_FACES)
    cleaned = tidy(cloud)
    assert len(cleaned.vertices) == count and len(cleaned.warnings) == 2


def test_meshing_leaves_gaps_open():
    sheet = bumpy_sheet(60)
    keep = np.linalg.norm(sheet.vertices[:, :2] - [15, 0], axis=1) > 10
    meshed = mesh_cloud(replace(sheet, faces=NO_FACES).keep_vertices(keep), np.random.default_rng(0))
    a, b, c = (meshed.vertices[meshed.faces[:, k]] for k in range(3))
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()
    p, q, r = (sheet.vertices[sheet.faces[:, k]] for k in range(3))
    whole = 0.5 * np.linalg.norm(np.cross(q - p, r - p), axis=1).sum()
    assert area == pytest.approx(whole - np.pi * 100, rel=0.05)

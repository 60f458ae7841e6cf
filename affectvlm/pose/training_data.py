"""Scenes to train the pose network on: heads of a face model in all that an upload can put around or take away from
them.

A scene is a set of surface points with, for every point, where it lies in the canonical frame and whether it is face.
Its own orientation and unit never appear: the network sees neither (`network`), so no rotation has to be learned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from affectvlm.pose.sampling import SURFACE_POINTS, Sample, take_sample
from affectvlm.scan import Scan

HEAD_POINTS = 24_000
FACE_CENTER = np.array([0.0, 0.0, -35.0])  # mm; centre of what counts as face
FACE_RADIUS = 95.0  # mm
FACE_DEPTH = -95.0  # mm; behind that is ear and back of the head


class Head(NamedTuple):
    """Surface points (P, 3) of one head in the canonical frame (mm), their normals (P, 3), and which can be seen from
    outside, (P,) bool (a face model has mouth and eye sockets that no scanner sees)."""

    points: np.ndarray
    normals: np.ndarray
    outside: np.ndarray


class Scene(NamedTuple):
    """points: (M, 3) mm in the canonical frame; face: (M,) bool. Nothing is face where the scene holds none."""

    points: np.ndarray
    face: np.ndarray


class Example(NamedTuple):
    """sample: what the network sees; target: (N, 3) float32 canonical millimetres; face: (N,) bool."""

    sample: Sample
    target: np.ndarray
    face: np.ndarray


# --- heads -----------------------------------------------------------------------------------------------------------


def head_from_scan(scan: Scan, rng: np.random.Generator, count: int = HEAD_POINTS) -> Head:
    """Surface points of a scan that is already in the canonical frame."""
    vertices = scan.vertices.astype(np.float64)
    a, b, c = (vertices[scan.faces[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    area = np.linalg.norm(cross, axis=1)
    pick = rng.choice(len(area), count, p=area / area.sum())
    u, v = rng.random((2, count, 1))
    fold = u + v > 1
    u, v = np.where(fold, 1 - u, u), np.where(fold, 1 - v, v)
    points = a[pick] + u * (b[pick] - a[pick]) + v * (c[pick] - a[pick])
    normals = cross[pick] / np.maximum(area[pick, None], 1e-12)
    directions = rng.normal(size=(12, 3)) + [0, 0, 1.0]
    outside = np.zeros(count, bool)
    for direction in directions:
        outside |= visible(points, direction)
    return Head(points.astype(np.float32), normals.astype(np.float32), outside)


def visible(points: np.ndarray, direction: np.ndarray, cell: float = 6.0, depth: float = 7.0) -> np.ndarray:
    """Which points (P, 3) a distant viewer in `direction` (3,) sees, (P,) bool: the nearest layer of a coarse depth map
    of `cell` mm, `depth` mm thick, with what lies far behind neighbouring cells removed too."""
    w = np.asarray(direction, float) / np.linalg.norm(direction)
    u = np.cross(w, [0.31, 0.9, 0.17])
    u /= np.linalg.norm(u)
    v = np.cross(w, u)
    grid = np.floor((points @ np.stack([u, v]).T) / cell).astype(int)
    grid -= grid.min(axis=0) - 1
    z = points @ w
    front = np.full(grid.max(axis=0) + 2, -np.inf)
    np.maximum.at(front, (grid[:, 0], grid[:, 1]), z)
    around = np.max([np.roll(front, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0)
    at = (grid[:, 0], grid[:, 1])
    return (z > front[at] - depth) & (z > around[at] - 4 * depth)


def is_face(points: np.ndarray) -> np.ndarray:
    """(P,) bool: the part of a head in the canonical frame that counts as face."""
    near = ((points - FACE_CENTER) ** 2).sum(axis=1) < FACE_RADIUS**2
    return near & (points[:, 2] > FACE_DEPTH)


# --- what surrounds a head -------------------------------------------------------------------------------------------


def _sphere(count: int, rng: np.random.Generator) -> np.ndarray:
    points = rng.normal(size=(max(count, 1), 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _ellipsoid(center, radii, density: float, rng: np.random.Generator, rough: float = 0.0) -> np.ndarray:
    """Points on an ellipsoid, `density` a mm², with a wavy surface of relative height `rough`."""
    radii = np.asarray(radii, float)
    area = 4 * np.pi * float(np.prod(radii) ** (2 / 3)) * 1.1
    unit = _sphere(int(area * density), rng)
    wave = np.sin(unit @ rng.normal(scale=4, size=(3, 4)) + rng.random(4) * 6).mean(axis=1, keepdims=True)
    return np.asarray(center, float) + unit * radii * (1 + rough * wave)


def _inside(points: np.ndarray, center, radii) -> np.ndarray:
    return (((points - center) / radii) ** 2).sum(axis=1) < 1


def torso(density: float, rng: np.random.Generator) -> np.ndarray:
    """Neck, shoulders and chest under a head: ellipsoids, cut at a random height."""
    width = rng.uniform(0.8, 1.25)
    depth = rng.uniform(-110, -70)
    parts = [
        _ellipsoid([0, -150, depth], [58 * width, 80, 58], density, rng),
        _ellipsoid([0, -290, depth], [190 * width, 110, 95], density, rng, 0.05),
        _ellipsoid([0, -420, depth], [150 * width, 220, 110], density, rng, 0.05),
    ]
    points = np.concatenate(parts)
    points += rng.normal(size=3) * [12, 8, 15]
    return points[(points[:, 1] > rng.uniform(-480, -170)) & (points[:, 1] < -105)]


def add_hair(scene: Scene, density: float, rng: np.random.Generator) -> Scene:
    """Either the scalp swells by up to 4 cm in waves, or lumps of hair lie on it and beside the face."""
    points, face = scene
    scalp = 1 / (1 + np.exp(-(points[:, 1] - rng.uniform(55, 95) - 0.6 * (points[:, 2] + 60).clip(max=0)) / 6))
    if rng.random() < 0.5:
        wave = 1 + 0.6 * np.sin(points @ rng.normal(scale=0.03, size=(3, 3)) + rng.random(3) * 6).mean(1)
        outward = points - [0, 0, -95]
        outward /= np.linalg.norm(outward, axis=1, keepdims=True) + 1e-9
        return Scene(points + outward * (scalp * wave * rng.uniform(4, 40))[:, None], face & (scalp < 0.5))
    lumps = []
    for _ in range(rng.integers(1, 6)):
        if rng.random() < 0.6:
            center = rng.uniform([-80, 70, -160], [80, 120, -40])
            radii = rng.uniform(20, 65, 3)
        else:
            center = rng.uniform([72, -140, -120], [95, 20, -50]) * [rng.choice([-1, 1]), 1, 1]
            radii = rng.uniform([10, 50, 20], [28, 110, 60])
        outside = ~_inside(points, center, radii)
        points, face = points[outside], face[outside]
        lumps = [lump[~_inside(lump, center, radii)] for lump in lumps]
        lumps.append(_ellipsoid(center, radii, density, rng, 0.15))
    extra = np.concatenate(lumps)
    return Scene(np.concatenate([points, extra]), np.concatenate([face, np.zeros(len(extra), bool)]))


def add_clutter(scene: Scene, density: float, rng: np.random.Generator) -> Scene:
    """Shoulders, a wall behind, a lump somewhere: each now and then."""
    extra = []
    if rng.random() < 0.7:
        extra.append(torso(density, rng))
    if rng.random() < 0.15:
        size = rng.uniform(150, 320, 2)
        plane = rng.uniform(-1, 1, (int(4 * size[0] * size[1] * density * 0.6), 3)) * [size[0], size[1], 0]
        tilt = rng.normal(scale=0.15, size=2)
        plane[:, 2] = rng.uniform(-330, -190) + plane[:, :2] @ tilt
        extra.append(plane)
    if rng.random() < 0.2:
        center = rng.normal(size=3) * [150, 150, 100] - [0, 0, 100]
        lump = _ellipsoid(center, rng.uniform(15, 60, 3), density, rng, 0.2)
        extra.append(lump[np.linalg.norm(lump - FACE_CENTER, axis=1) > 105])
    if not extra:
        return scene
    points = np.concatenate(extra)
    return Scene(np.concatenate([scene.points, points]), np.concatenate([scene.face, np.zeros(len(points), bool)]))


# --- what is missing of a head ---------------------------------------------------------------------------------------


def crop_sphere(scene: Scene, rng: np.random.Generator) -> Scene:
    center = FACE_CENTER + [0, 0, 20] + rng.normal(size=3) * [18, 22, 18]
    keep = np.linalg.norm(scene.points - center, axis=1) < rng.uniform(68, 165)
    return Scene(scene.points[keep], scene.face[keep])


def crop_mask(scene: Scene, rng: np.random.Generator) -> Scene:
    """The front shell only, with an oval outline: how face data sets are cut."""
    p = scene.points
    half = rng.uniform([52, 70], [82, 125])
    oval = ((p[:, 0] / half[0]) ** 2 + ((p[:, 1] - rng.uniform(-12, 15)) / half[1]) ** 2) < 1
    keep = oval & (p[:, 2] > rng.uniform(-120, -50))
    return Scene(p[keep], scene.face[keep])


def crop_half(scene: Scene, rng: np.random.Generator) -> Scene:
    """A plane through the face, past the nose: up to 40 % of the face is gone."""
    normal = rng.normal(size=3) * [1, 0.6, 0.2]
    normal /= np.linalg.norm(normal)
    keep = (scene.points - FACE_CENTER) @ normal > -rng.uniform(8, 60)
    return Scene(scene.points[keep], scene.face[keep])


def crop_range(scene: Scene, rng: np.random.Generator) -> Scene:
    """What a depth camera sees from one side: yaw within 70°, pitch within 40°, thinner where the surface is steep."""
    yaw, pitch = np.radians([rng.uniform(-70, 70), rng.uniform(-40, 40)])
    direction = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    seen = visible(scene.points, direction)
    return Scene(scene.points[seen], scene.face[seen])


def punch_holes(scene: Scene, rng: np.random.Generator) -> Scene:
    keep = np.ones(len(scene.points), bool)
    for _ in range(rng.integers(1, 6)):
        center = scene.points[rng.integers(len(scene.points))]
        keep &= np.linalg.norm(scene.points - center, axis=1) > rng.uniform(5, 26)
    return Scene(scene.points[keep], scene.face[keep])


def vary_density(scene: Scene, rng: np.random.Generator) -> Scene:
    slope = scene.points @ rng.normal(size=3)
    keep = rng.random(len(slope)) < 0.15 + 0.85 * (slope - slope.min()) / max(np.ptp(slope), 1e-9)
    return Scene(scene.points[keep], scene.face[keep])


# --- scenes ----------------------------------------------------------------------------------------------------------


def face_scene(head: Head, rng: np.random.Generator) -> Scene:
    """One head with random proportions, surroundings, crop, holes and noise. (M, 3) mm canonical, (M,) face."""
    points = head.points[head.outside] if rng.random() < 0.6 else head.points
    points = points.astype(np.float64) * rng.normal(1.0, 0.05, 3).clip(0.87, 1.13)  # wider variety of builds
    if rng.random() < 0.5:
        points = points * [-1, 1, 1]
    scene = Scene(points, is_face(points))
    density = len(points) / 2.4e5
    if rng.random() < 0.6:
        scene = add_hair(scene, density, rng)
    kind = rng.choice(["full", "clutter", "sphere", "mask", "half", "range"], p=[0.08, 0.17, 0.25, 0.16, 0.09, 0.25])
    if kind in ("clutter", "range") or rng.random() < 0.15:
        scene = add_clutter(scene, density, rng) if kind != "range" or rng.random() < 0.6 else scene
    if kind in ("sphere", "half"):
        scene = crop_sphere(scene, rng)
    crops: dict[str, Callable] = {"mask": crop_mask, "half": crop_half, "range": crop_range}
    if kind in crops:
        scene = crops[kind](scene, rng)
    if kind == "range" and rng.random() < 0.5:
        scene = crop_sphere(scene, rng)
    if rng.random() < 0.4:
        scene = punch_holes(scene, rng)
    if rng.random() < 0.3:
        scene = vary_density(scene, rng)
    return scene


def empty_scene(head: Head, rng: np.random.Generator) -> Scene:
    """Something that is no face: solids, lumps, a hand, furniture, or a head with its face cut away."""
    kind = rng.integers(6)
    if kind == 0:
        points = _ellipsoid([0, 0, 0], rng.uniform(40, 120, 3), 0.05, rng, rng.choice([0, 0.1, 0.3]))
    elif kind == 1:
        points = np.concatenate(
            [
                _ellipsoid(rng.normal(size=3) * 60, rng.uniform(15, 90, 3), 0.04, rng, 0.1)
                for _ in range(rng.integers(2, 7))
            ]
        )
    elif kind == 2:
        points = np.concatenate([_box(rng) for _ in range(rng.integers(1, 8))])
    elif kind == 3:
        points = _hand(rng)
    elif kind == 4:
        around, tube = rng.random((2, 6000)) * 2 * np.pi
        big, small = 80, rng.uniform(10, 60)
        points = np.stack(
            [
                (big + small * np.cos(tube)) * np.cos(around),
                (big + small * np.cos(tube)) * np.sin(around),
                small * np.sin(tube),
            ],
            1,
        )
    else:
        points = head.points[(head.points[:, 2] < rng.uniform(-100, -75)) & head.outside].astype(float)
        if rng.random() < 0.5:
            points = np.concatenate([points, torso(0.08, rng)])
    if rng.random() < 0.3:
        points = points[visible(points, rng.normal(size=3))]
    return Scene(points, np.zeros(len(points), bool))


def _box(rng: np.random.Generator) -> np.ndarray:
    points = rng.uniform(-1, 1, (1500, 3))
    axis = rng.integers(0, 3, 1500)
    points[np.arange(1500), axis] = rng.choice([-1, 1], 1500)
    size = rng.uniform(5, 110, 3)
    return points * size + rng.normal(size=3) * 60


def _hand(rng: np.random.Generator) -> np.ndarray:
    parts = [_ellipsoid([0, 0, 0], [45, 50, 15], 0.15, rng, 0.05)]
    for finger in range(5):
        angle = np.radians(-35 + 17 * finger + rng.normal() * 5)
        along = np.array([np.sin(angle), np.cos(angle), rng.normal() * 0.3])
        for joint in range(3):
            parts.append(_ellipsoid(along * (48 + 25 * joint), [9, 16, 9], 0.15, rng))
    return np.concatenate(parts)


def spoil(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise of up to 1.5 mm, now and then spikes and flying points."""
    points = points + rng.normal(size=points.shape) * rng.choice([0.0, 0.3, 0.8, 1.5])
    if rng.random() < 0.2:
        hit = rng.random(len(points)) < 0.01
        points[hit] += rng.normal(size=(hit.sum(), 3)) * rng.uniform(3, 30)
    return points


def make_example(head: Head, rng: np.random.Generator, empty: float = 0.1) -> Example:
    """One training example; a share `empty` of them holds no face."""
    while True:
        scene = empty_scene(head, rng) if rng.random() < empty else face_scene(head, rng)
        if len(scene.points) >= 600:
            break
    pick = rng.permutation(len(scene.points))[:SURFACE_POINTS]
    points = scene.points[pick]
    sample = take_sample(spoil(points, rng), rng)
    return Example(sample, points[sample.index].astype(np.float32), scene.face[pick][sample.index])

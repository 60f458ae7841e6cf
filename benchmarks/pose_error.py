"""Pose error over faces the pose network never saw: python benchmarks/pose_error.py --data FOLDER [--count 200]

FOLDER holds `ict_face.npz`, `makehuman_face.npz` (packed face models) and `LeePerrySmith.glb`. Every trial takes a
face, crops it, turns and scales it at random and asks `find_pose`. The error is the angle between the found and the
true frontal orientation.

What 0° means: for ICT-FaceKit its own frontal pose. For the others the least-squares similarity between seven
landmarks of the profile (nasion, nose tip, subnasale, lips, chin furrow, chin) and the eyes (eyeball centres or eye
corners), picked once by looking, and the same landmarks of ICT's mean face. Faces differ in profile, so some degrees
of pitch are a matter of definition.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from affectvlm.pose import euler_angles, find_pose
from affectvlm.pose.alignment import umeyama
from affectvlm.pose.frontal import SURE
from affectvlm.pose.training_data import visible
from affectvlm.scan import Scan
from affectvlm.scan_io import read_scan
from affectvlm.synthesis.ict import ICTFace
from affectvlm.synthesis.objects import random_object

FAILURE = 20.0  # degrees

# Landmarks (mm) of ICT-FaceKit's mean face in the canonical frame: x to the subject's left.
ICT_PROFILE = np.array(
    [
        (0, 38.5, -24.3),
        (0, 0, 0),
        (0, -19.5, -15.5),
        (0, -30.4, -12.1),
        (0, -44.8, -14.3),
        (0, -57.5, -21.4),
        (0, -66, -20.2),
    ]
)
ICT_EYEBALLS = np.array([(31.0, 32.0, -50.8), (-31.0, 32.0, -50.8)])
ICT_EYE_CORNERS = np.array([(-44.6, 30.3, -44.7), (-18.4, 28.5, -38.7), (18.4, 28.5, -38.7), (44.6, 30.3, -44.7)])
MAKEHUMAN_PROFILE = [132, 297, 1540, 466, 495, 724, 1630]  # vertices
LPS_POINTS = np.array(  # the profile, then the eye corners, as shares of the scan's bounding box
    [
        *[(0.4866, 0.734, 0.9113), (0.4895, 0.6377, 1.0), (0.4871, 0.6009, 0.9411), (0.4866, 0.5715, 0.9532)],
        *[(0.4919, 0.5463, 0.9411), (0.4851, 0.5121, 0.9226), (0.4827, 0.4758, 0.9395)],
        *[(0.3781, 0.7093, 0.825), (0.4509, 0.7145, 0.8556), (0.5256, 0.7135, 0.8565), (0.5945, 0.7061, 0.8226)],
    ]
)


class Trial(NamedTuple):
    """One face: names of source and crop, angle of the error and its yaw, pitch, roll in degrees, distance between
    found and true nose tip in mm, certainty, milliseconds."""

    source: str
    crop: str
    degrees: float
    angles: tuple[float, float, float]
    nose: float
    certainty: float
    milliseconds: float


# --- sources: scans in the canonical frame ---------------------------------------------------------------------------


def random_units(names: tuple[str, ...], rng: np.random.Generator) -> dict[str, float]:
    chosen = rng.choice(names, rng.integers(0, 6), replace=False)
    return {str(name): float(rng.random()) for name in chosen}


def ict_faces(folder: Path, rng: np.random.Generator) -> Iterator[Scan]:
    model = ICTFace.load(folder / "ict_face.npz")
    while True:
        scan = model.generate(model.sample_identity(rng), random_units(model.action_units, rng))
        yield replace(scan, landmarks={})


def makehuman_faces(folder: Path, rng: np.random.Generator) -> Iterator[Scan]:
    """Blends of three of the 36 people, a few modifiers, and expression units; the frame is that of the neutral
    face."""
    pack = dict(np.load(folder / "makehuman_face.npz", allow_pickle=False))
    base, faces = pack["vertices"] * 10.0, pack["triangles"].astype(np.int32)
    parts = [pack["part"] == list(pack["part_names"]).index(name) for name in ("eye_L", "eye_R")]
    while True:
        people = pack["identity"][rng.choice(36, 3, replace=False)].astype(np.float64)
        neutral = base + 10.0 * np.tensordot(rng.dirichlet(np.ones(3)), people, 1)
        few = rng.choice(len(pack["modifiers"]), 12, replace=False)
        neutral += 10.0 * np.tensordot(rng.random(12) * 0.6, pack["modifiers"][few].astype(np.float64), 1)
        units = rng.choice(len(pack["units"]), rng.integers(0, 5), replace=False)
        posed = neutral + 10.0 * np.tensordot(rng.random(len(units)), pack["units"][units].astype(np.float64), 1)
        eyes = [neutral[part].mean(axis=0) for part in parts]
        points = np.concatenate([neutral[MAKEHUMAN_PROFILE], eyes])
        target = np.concatenate([ICT_PROFILE, ICT_EYEBALLS])
        frame = umeyama(points, target, np.ones(len(points)))
        yield Scan(frame.apply(posed) - frame.apply(points[1:2]), faces, source="MakeHuman")


def lee_perry_smith(folder: Path, rng: np.random.Generator) -> Iterator[Scan]:
    scan = read_scan(folder / "LeePerrySmith.glb")
    vertices = scan.vertices.astype(np.float64)
    points = vertices.min(axis=0) + LPS_POINTS * np.ptp(vertices, axis=0)
    target = np.concatenate([ICT_PROFILE, ICT_EYE_CORNERS])
    frame = umeyama(points, target, np.ones(len(points)))
    face = Scan(frame.apply(vertices) - frame.apply(points[1:2]), scan.faces, uv=scan.uv, texture=scan.texture)
    while True:
        yield face


SOURCES: dict[str, Callable[[Path, np.random.Generator], Iterator[Scan]]] = {
    "ICT": ict_faces,
    "MakeHuman": makehuman_faces,
    "LeePerrySmith": lee_perry_smith,
}


# --- crops: what is left of a scan -----------------------------------------------------------------------------------


def whole(scan: Scan, rng: np.random.Generator) -> Scan:
    return scan


def mask(scan: Scan, rng: np.random.Generator) -> Scan:
    """An oval shell of the front."""
    v = scan.vertices
    half = rng.uniform([58, 75], [80, 115])
    return scan.keep_vertices(
        (((v[:, :2] - [0, -5]) / half) ** 2).sum(axis=1) + 9.0 * (v[:, 2] < -rng.uniform(60, 110)) < 1
    )


def half(scan: Scan, rng: np.random.Generator) -> Scan:
    """A mask with one side cut off beyond the nose."""
    scan = mask(scan, rng)
    side = rng.choice([-1, 1])
    return scan.keep_vertices(side * scan.vertices[:, 0] > -rng.uniform(12, 45))


def ball(scan: Scan, rng: np.random.Generator) -> Scan:
    """What lies in a ball of 75 to 150 mm about a point up to some 30 mm off the face's centre."""
    center = np.array([0, 0, -25]) + rng.normal(size=3) * [15, 18, 15]
    return scan.keep_vertices(np.linalg.norm(scan.vertices - center, axis=1) < rng.uniform(75, 150))


def range_scan(scan: Scan, rng: np.random.Generator) -> Scan:
    """The layer a camera sees, from up to 55° aside and 30° above or below; as a cloud in a third of the cases."""
    yaw, pitch = np.radians([rng.uniform(-55, 55), rng.uniform(-30, 30)])
    direction = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    a, b, c = (scan.vertices[scan.faces[:, k]].astype(np.float64) for k in range(3))
    middle, cross = (a + b + c) / 3, np.cross(b - a, c - a)
    toward = cross @ direction > 0.1 * np.linalg.norm(cross, axis=1)
    seen = np.flatnonzero(toward)[visible(middle[toward], direction, 7.0, 9.0)]
    if rng.random() < 1 / 3:
        u, v = rng.random((2, len(seen), 1)) / 2
        cloud = np.concatenate([middle[seen], a[seen] + u * (b[seen] - a[seen]) + v * (c[seen] - a[seen])])
        return Scan(cloud + rng.normal(size=cloud.shape) * 0.4, np.zeros((0, 3), np.int32))
    used = np.zeros(len(scan.vertices), bool)
    used[scan.faces[seen]] = True
    return replace(scan, faces=scan.faces[seen]).keep_vertices(used)


def damaged(scan: Scan, rng: np.random.Generator) -> Scan:
    """A ball crop with holes, noise of 0.7 mm and spikes."""
    scan = ball(scan, rng)
    vertices = scan.vertices + rng.normal(size=scan.vertices.shape) * 0.7
    keep = np.ones(len(vertices), bool)
    for center in vertices[rng.integers(len(vertices), size=4)]:
        keep &= np.linalg.norm(vertices - center, axis=1) > rng.uniform(5, 18)
    spikes = rng.random(len(vertices)) < 0.003
    vertices[spikes] += rng.normal(size=(spikes.sum(), 3)) * 20
    return replace(scan, vertices=vertices).keep_vertices(keep)


CROPS = {"whole": whole, "mask": mask, "half": half, "ball": ball, "range": range_scan, "damaged": damaged}


# --- trials ----------------------------------------------------------------------------------------------------------


def shuffled(scan: Scan, rng: np.random.Generator) -> tuple[Scan, np.ndarray, np.ndarray, float]:
    """The scan at a random orientation, place and unit (half the time said to be mm, else unknown and of any size),
    and the rotation, translation and scale used."""
    known = rng.random() < 0.5
    rotation = Rotation.random(random_state=rng).as_matrix()
    scale = 1.0 if known else float(np.exp(rng.uniform(np.log(0.001), np.log(30))))
    translation = rng.normal(size=3) * 300 * scale
    moved = scan.transformed(rotation, translation, scale)
    return replace(moved, unit="mm" if known else "unknown"), rotation, translation, scale


def try_face(source: str, crop: str, face: Scan, rng: np.random.Generator) -> Trial:
    scan, rotation, translation, scale = shuffled(CROPS[crop](face, rng), rng)
    start = time.perf_counter()
    pose = find_pose(scan)
    spent = 1000 * (time.perf_counter() - start)
    left = pose.rotation @ rotation  # identity where the pose is right
    degrees = float(np.degrees(np.arccos(np.clip((np.trace(left) - 1) / 2, -1, 1))))
    nose = float(np.linalg.norm(pose.scale * pose.rotation @ translation + pose.translation))
    return Trial(source, crop, degrees, euler_angles(left), nose, pose.certainty, spent)


def run(folder: Path, count: int, seed: int) -> tuple[list[Trial], list[float]]:
    rng = np.random.default_rng((977, seed))  # far from the seeds of training
    trials = []
    for source, faces in SOURCES.items():
        supply = faces(folder, rng)
        for number in range(count):
            trials.append(try_face(source, list(CROPS)[number % len(CROPS)], next(supply), rng))
    empty = []
    for _ in range(count):
        scan = random_object(rng)
        if rng.random() < 0.3:
            scan = ball(scan, rng)
        empty.append(find_pose(shuffled(scan, rng)[0]).certainty)
    return trials, empty


def report(trials: list[Trial], empty: list[float]) -> str:
    lines = ["| source | crop | n | median ° | 95 % ° | > 20 ° | of these sure | right but unsure | nose mm | ms |"]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    groups = [(source, crop) for source in SOURCES for crop in CROPS]
    groups += [(source, None) for source in SOURCES] + [(None, None)]
    for source, crop in groups:
        rows = [t for t in trials if source in (None, t.source) and crop in (None, t.crop)]
        if not rows:
            continue
        error, sure = np.array([t.degrees for t in rows]), np.array([t.certainty for t in rows]) >= SURE
        failed = error > FAILURE
        cells = [
            source or "all",
            crop or "all",
            len(rows),
            f"{np.median(error):.1f}",
            f"{np.percentile(error, 95):.1f}",
        ]
        cells += [int(failed.sum()), int((failed & sure).sum()), int((~failed & ~sure).sum())]
        cells += [f"{np.median([t.nose for t in rows]):.1f}", f"{np.median([t.milliseconds for t in rows]):.0f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    for source in SOURCES:
        rows = [t for t in trials if t.source == source and t.degrees < FAILURE]
        if rows:
            bias = np.mean([t.angles for t in rows], axis=0)
            lines.append(
                f"\n{source}: mean error yaw {bias[0]:+.1f}, pitch {bias[1]:+.1f}, roll {bias[2]:+.1f} degrees"
            )
    if empty:
        wrong = sum(certainty >= SURE for certainty in empty)
        lines.append(f"\nNo face: {len(empty)} objects, {wrong} taken for a face")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200, help="trials a source, and shapes without a face")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(report(*run(args.data, args.count, args.seed)))


if __name__ == "__main__":
    main()

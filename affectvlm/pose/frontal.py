"""Frontal pose: where the face of a scan is and how it is turned, and the scan turned to the canonical frame.

Two looks of the network (the whole scan, then only what lies about the face it found) give starting poses, the
template fit refines them, and the best one's figures make the certainty. Nothing is random: the same scan gives the
same pose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from affectvlm.pose.alignment import Fit, Similarity, refine, solve
from affectvlm.pose.cleaning import MIN_POINTS, clean_face, tidy
from affectvlm.pose.landmarks import pose_from_landmarks
from affectvlm.pose.meshing import mesh_cloud
from affectvlm.pose.network import Correspondences, correspondences, shipped_network
from affectvlm.pose.sampling import SURFACE_POINTS, estimate_normals, surface_points, take_sample
from affectvlm.pose.template import shipped_template
from affectvlm.scan import Scan, ScanError

CROP_CENTER = np.array([0.0, -12.0, -25.0])  # mm; the nose tip is the origin
CROP_RADIUS = 100.0  # mm; holds all that the views at 0 and ±40 degrees show of a face
LOOK_CENTER = np.array([0.0, 0.0, -40.0])
LOOK_RADIUS = 125.0  # mm; what the second look and the fit see
FIT_POINTS = 3000
FIRST_LOOKS = 4  # at most
ENOUGH = 0.9  # certainty at which no further start is tried
UNIT_TOLERANCE = 1.4
"""A scan in a known unit keeps its size if the face found in it is within this factor of a usual one."""
CERTAINTY_WEIGHTS = np.array([4.19, -0.43, -1.20, 2.14, 2.49, -0.63])
CERTAINTY_BIAS = -1.92
RESIDUAL = 1
"""Which of the `evidence` is the mean distance from the template."""
SURE = 0.65
"""From this certainty on a pose is taken as found (`Pose.is_face`)."""


@dataclass(frozen=True)
class Pose:
    """Where the face of a scan is: canonical = scale * rotation @ p + translation (mm).

    Attributes:
        rotation: (3, 3) float64, proper; translation: (3,) float64 mm; scale: canonical mm per unit of the scan.
        yaw, pitch, roll: degrees, how the head in the file is turned relative to frontal, after the user's correction:
            rotation.T = R_y(yaw) @ R_x(pitch) @ R_z(roll). Yaw > 0: nose toward +x; pitch > 0: nose down; roll > 0:
            top of the head toward -x.
        certainty: 0 to 1, the chance that the pose is right to within 20 degrees, 0 where there is no face.
    """

    rotation: np.ndarray
    translation: np.ndarray
    scale: float
    certainty: float

    @property
    def yaw(self) -> float:
        return euler_angles(self.rotation.T)[0]

    @property
    def pitch(self) -> float:
        return euler_angles(self.rotation.T)[1]

    @property
    def roll(self) -> float:
        return euler_angles(self.rotation.T)[2]

    @property
    def is_face(self) -> bool:
        return self.certainty >= SURE


class Sighting(NamedTuple):
    """A pose and what it rests on, from which that of other frames of a sequence is found (`following`).

    pose: of the face; shape: (K,) the template's as fitted to it; values: (6,) the `evidence` for it."""

    pose: Pose
    shape: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class FrontalScan:
    """scan: cleaned, cropped mesh in the canonical frame (mm); pose: how it came there."""

    scan: Scan
    pose: Pose


def turn(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """R_y(yaw) @ R_x(pitch) @ R_z(roll), degrees → (3, 3) float64."""
    (cy, cx, cz), (sy, sx, sz) = (f(np.radians([yaw, pitch, roll])) for f in (np.cos, np.sin))
    r_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    r_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    r_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return r_y @ r_x @ r_z


def euler_angles(rotation: np.ndarray) -> tuple[float, float, float]:
    """(yaw, pitch, roll) in degrees with `turn(*angles)` = rotation; pitch within ±90."""
    r = np.asarray(rotation, np.float64)
    yaw = np.arctan2(r[0, 2], r[2, 2])
    pitch = np.arcsin(np.clip(-r[1, 2], -1, 1))
    roll = np.arctan2(r[1, 0], r[1, 1])
    return tuple(float(np.degrees(angle)) for angle in (yaw, pitch, roll))


def find_pose(scan: Scan) -> Pose:
    """The pose of the face in a scan of any orientation, size and surroundings, mesh or point cloud.

    Raises:
        ScanError: the geometry is unusable (under 100 points, or all on one plane or line). A scan without a face is no
            error: it gets a low certainty.
    """
    return search(scan).pose


def search(scan: Scan) -> Sighting:
    """As `find_pose`, with what the pose rests on.

    Raises:
        ScanError: as `find_pose`.
    """
    return _find(tidy(scan))


def frontalize(
    scan: Scan, correction: tuple[float, float, float] = (0.0, 0.0, 0.0), pose: Pose | None = None
) -> FrontalScan:
    """The face of a scan, cleaned, turned to the canonical frame, cropped, and meshed if it was a point cloud.

    Args:
        scan: any orientation, size and surroundings.
        correction: yaw, pitch, roll in degrees by which the face is turned further, about the nose tip
            (yaw > 0 turns the nose toward +x, the viewer's right).
        pose: where the face is, if that is known already (frames of a sequence); None looks for it.

    Raises:
        ScanError: the geometry is unusable, see `find_pose`.
    """
    scan = tidy(scan)
    pose = _find(scan).pose if pose is None else pose
    if any(correction):
        turned = turn(*correction)
        pose = replace(pose, rotation=turned @ pose.rotation, translation=turned @ pose.translation)
    frontal = scan.transformed(pose.rotation, pose.translation, pose.scale)
    frontal = _crop(replace(frontal, unit="mm"))
    if frontal.is_point_cloud:
        frontal = mesh_cloud(frontal, np.random.default_rng(0))
    frontal = clean_face(frontal)
    return FrontalScan(frontal.with_warnings(*_remarks(scan, pose)), pose)


def _find(scan: Scan) -> Sighting:
    """The face of a tidy scan: the best of some starts, each refined."""
    rng = np.random.default_rng(0)
    best: Sighting | None = None
    for candidate in _candidates(scan, rng):
        if best is None or candidate.pose.certainty > best.pose.certainty:
            best = candidate
        if best.pose.certainty > ENOUGH:
            break
    if best is None:
        raise ScanError(f"{scan.source or 'scan'}: no surface left where a face could be")
    return best


def _candidates(scan: Scan, rng: np.random.Generator) -> Iterator[Sighting]:
    """Refined poses, the most promising first; each is computed only when asked for."""
    for guess in _starts(scan, rng):
        surface = _surface_near(scan, guess, rng)
        if surface is None:
            continue
        word = correspondences([take_sample(surface, rng)], shipped_network())[0]
        for begin in (solve(word)[0], guess):
            yield _fit(begin, word, surface, scan.unit, rng)


def _starts(scan: Scan, rng: np.random.Generator) -> Iterator[Similarity]:
    """Coarse transforms, the most trusted first: from landmarks, then from the network's look at the whole scan."""
    from_landmarks = pose_from_landmarks(scan.landmarks, None)
    if from_landmarks is not None:
        yield from_landmarks
    surface = surface_points(scan.vertices, scan.faces, SURFACE_POINTS, rng)
    for _ in range(FIRST_LOOKS):
        word = correspondences([take_sample(surface, rng)], shipped_network())[0]
        yield solve(word)[0]


def _surface_near(scan: Scan, guess: Similarity, rng: np.random.Generator) -> np.ndarray | None:
    """Even surface points (M, 3) of the scan about a supposed face, in the scan's frame, or None where there are too
    few."""
    keep = np.linalg.norm(guess.apply(scan.vertices.astype(np.float64)) - LOOK_CENTER, axis=1) < LOOK_RADIUS
    faces = scan.faces[keep[scan.faces].any(axis=1)] if len(scan.faces) else scan.faces
    if len(scan.faces):
        if len(faces) == 0:
            return None
        surface = surface_points(scan.vertices, faces, 2 * SURFACE_POINTS, rng)
        surface = surface[np.linalg.norm(guess.apply(surface) - LOOK_CENTER, axis=1) < LOOK_RADIUS][:SURFACE_POINTS]
    else:
        surface = surface_points(scan.vertices[keep], faces, SURFACE_POINTS, rng)
    return surface if len(surface) >= MIN_POINTS else None


def _fit(
    begin: Similarity, word: Correspondences, surface: np.ndarray, unit: str, rng: np.random.Generator
) -> Sighting:
    known = is_known(unit, begin.scale)
    if known:
        begin = _resized(begin, 1.0)
    points = surface[:FIT_POINTS]
    normals = estimate_normals(surface, points, rng)
    fit = refine(begin, points, normals, shipped_template(), free_scale=not known)
    return sighting(fit, evidence(fit, word))


def is_known(unit: str, scale: float) -> bool:
    """Whether a scan keeps its size: its unit is known, and the scale (mm per unit) of the face in it does not speak
    against that."""
    return unit != "unknown" and 1 / UNIT_TOLERANCE < scale < UNIT_TOLERANCE


def sighting(fit: Fit, values: np.ndarray) -> Sighting:
    """What a fit found, as sure as its evidence (6,) says."""
    rotation, translation, scale = fit.transform
    return Sighting(Pose(rotation, translation, scale, certainty_of(values)), fit.shape, values)


def apart(a: Pose, b: Pose) -> tuple[float, float]:
    """How far two poses of one scan, or of scans in one frame, are from each other: degrees, and mm that the middle of
    the face lies elsewhere."""
    cosine = (np.trace(a.rotation @ b.rotation.T) - 1) / 2
    middle, other = (pose.rotation.T @ (LOOK_CENTER - pose.translation) / pose.scale for pose in (a, b))
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))), float(b.scale * np.linalg.norm(middle - other))


def _resized(transform: Similarity, scale: float) -> Similarity:
    """Another scale, with the middle of the face staying where it is."""
    middle = transform.invert(LOOK_CENTER[None])[0]
    return Similarity(transform.rotation, LOOK_CENTER - scale * transform.rotation @ middle, scale)


def evidence(fit: Fit, word: Correspondences) -> np.ndarray:
    """(6,) what speaks for and against a pose: coverage, residual, unusual shape, overlap, the network's belief in a
    face, and how far its coordinates are from where the fit puts them."""
    moved = fit.transform.apply(word.points)
    side = np.column_stack([np.abs(moved[:, 0]) - word.side, moved[:, 1:] - word.coords[:, 1:]])
    apart = float((np.linalg.norm(side, axis=1) * word.face).sum() / max(word.face.sum(), 1e-9))
    return np.array([fit.coverage, fit.residual, fit.strange, fit.overlap, word.presence, min(apart, 80.0) / 10])


def certainty_of(values: np.ndarray) -> float:
    """Logistic model of `evidence`, fitted on random scenes with and without a face (`calibrate`)."""
    return float(1 / (1 + np.exp(-(CERTAINTY_WEIGHTS @ values + CERTAINTY_BIAS))))


def _crop(scan: Scan) -> Scan:
    """What lies within `CROP_RADIUS` of `CROP_CENTER`; the scan as it is where that would leave next to nothing."""
    keep = np.linalg.norm(scan.vertices - CROP_CENTER, axis=1) < CROP_RADIUS
    cropped = scan.keep_vertices(keep) if keep.any() else scan
    return cropped if len(cropped.vertices) >= MIN_POINTS and (scan.is_point_cloud or len(cropped.faces)) else scan


def _remarks(scan: Scan, pose: Pose) -> list[str]:
    remarks = []
    if not pose.is_face:
        remarks.append(f"no clear face was found (certainty {pose.certainty:.2f}): check the pose")
    if scan.unit != "unknown" and pose.scale != 1.0:
        remarks.append(f"sizes do not fit the unit {scan.unit}: scaled by {pose.scale:.3g} to the size of a usual face")
    return remarks

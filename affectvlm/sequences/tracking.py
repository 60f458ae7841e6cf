"""The pose of a face over time: found frame by frame, then made smooth, so that noise of the pose does not become
motion.

What is smoothed are the poses of `finding`. Of them

* the sequence gets one scale, the median over its frames;
* a pose is taken as a rotation and the place of the middle of the face in the scan, which errors of the rotation do not
  move (a translation of the scan's origin they would);
* about every frame a parabola is fitted over time to the poses near it: rotations as rotation vectors (so(3)) about the
  pose of one of them that is nearest to all others, weights falling with distance in time, with the certainty of a
  pose, and with how far it is off the curve (Tukey's biweight, repeated): LOESS (Cleveland 1979). Single wrong poses do
  not count;
* a head whose smoothed pose stays near one pose, within STILL_DEGREES and STILL_MM or the scatter of the poses found,
  is held still: what is left is the pose's own error, which moves with the mouth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from affectvlm.pose import Pose
from affectvlm.pose.frontal import LOOK_CENTER

REACH = 8
"""Frames on either side that a pose is smoothed over; more where the poses found lie farther apart."""
NEIGHBOURS = 7
"""Poses found that a smoothed one rests on, at least."""
FEWEST = 5
"""With fewer poses than this there is nothing to smooth: they stay as they were found."""
STILL_DEGREES, STILL_MM = 1.0, 1.0
"""Root mean square."""
NOISE_DEGREES, NOISE_MM = 0.5, 0.5
"""Least scatter that is reckoned with, so that poses which agree all but perfectly do not shut out one a little off."""
CUT = 4.685
"""Tukey's constant: poses farther off than so many standard deviations do not count."""
SETTLED = 1e-3
"""Degrees or mm; a curve that changes by less is not fitted again."""
MOST_ASKED = 200
"""Poses, of those of a long sequence, between which the middle one is chosen."""


@dataclass(frozen=True, eq=False)
class PoseTrack:
    """Poses at some frames of a sequence.

    Attributes:
        frames: (n,) int64 indices into the sequence, rising.
        poses: of each, smoothed.
        found: (n,) bool, True where the pose was looked for and False where it lies between others.
        still: whether the head was taken as held still.
    """

    frames: np.ndarray
    poses: tuple[Pose, ...]
    found: np.ndarray
    still: bool = False


def smooth_poses(at: np.ndarray, poses: list[Pose], frames: np.ndarray) -> PoseTrack:
    """Smooth poses that were found at the frames `at` (m,), rising, and give them at `frames` (n,).

    With fewer than FEWEST poses, each frame gets the one that was found nearest to it, at the common scale.

    Raises:
        ValueError: no poses, or another number of frames.
    """
    at, frames = np.asarray(at, np.int64), np.asarray(frames, np.int64)
    if not poses or len(at) != len(poses):
        raise ValueError(f"{len(poses)} poses at {len(at)} frames; one each, and at least one, are needed")
    found = np.isin(frames, at)
    scale = _middle_scale(poses)
    poses = [_rescaled(pose, scale) for pose in poses]
    if len(poses) < FEWEST:
        nearest = np.abs(frames[:, None] - at).argmin(axis=1)
        return PoseTrack(frames, tuple(poses[i] for i in nearest), found)
    rotations = Rotation.from_matrix(np.stack([pose.rotation for pose in poses]))
    places = np.stack([pose.rotation.T @ (LOOK_CENTER - pose.translation) for pose in poses])  # canonical mm
    certainty = np.array([pose.certainty for pose in poses])
    turned, moved, sure = _curve(at, rotations, places, certainty, frames)
    there = (turned, moved) if np.array_equal(at, frames) else _curve(at, rotations, places, certainty, at)[:2]
    still = _is_still(rotations, places, certainty, *there)
    if still:
        turned, moved = _held(rotations, places, certainty, len(frames))
    smoothed = [
        Pose(rotation, LOOK_CENTER - rotation @ place, scale, value)
        for rotation, place, value in zip(turned.as_matrix(), moved, sure, strict=True)
    ]
    return PoseTrack(frames, tuple(smoothed), found, still)


def _middle_scale(poses: list[Pose]) -> float:
    """The median scale, weighted by certainty: wrong poses have wrong scales."""
    scales, weights = (np.array([getattr(pose, name) for pose in poses]) for name in ("scale", "certainty"))
    return _weighted_median(scales, weights)


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order] + 1e-9)
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _rescaled(pose: Pose, scale: float) -> Pose:
    """Another scale about the middle of the face; the pose itself where that is its scale already."""
    if pose.scale == scale:
        return pose
    translation = LOOK_CENTER - scale / pose.scale * (LOOK_CENTER - pose.translation)
    return Pose(pose.rotation, translation, scale, pose.certainty)


def _curve(
    at: np.ndarray, rotations: Rotation, places: np.ndarray, certainty: np.ndarray, frames: np.ndarray
) -> tuple[Rotation, np.ndarray, list[float]]:
    """Rotations (n,), places (n, 3) and certainties (n,) at some frames, from the poses found about each."""
    parts = [_local(at, rotations, places, certainty, frame) for frame in frames]
    turned, moved, sure = zip(*parts, strict=True)
    return Rotation.concatenate(turned), np.stack(moved), list(sure)


def _local(
    at: np.ndarray, rotations: Rotation, places: np.ndarray, certainty: np.ndarray, frame: int
) -> tuple[Rotation, np.ndarray, float]:
    """Rotation, place (3,) and certainty at one frame."""
    distance = np.abs(at - frame)
    enough = min(NEIGHBOURS, len(at)) - 1
    reach = max(REACH, np.partition(distance, enough)[enough]) + 1
    near = np.flatnonzero(distance < reach)
    time = (at[near] - frame) / reach
    kernel = (1 - np.abs(time) ** 3) ** 3
    turn, place = _robust_fit(time, rotations[near], places[near], certainty[near], kernel, degree=2)
    return turn, place, _weighted_median(certainty[near], kernel)


def _medoid(rotations: Rotation, places: np.ndarray, certainty: np.ndarray) -> int:
    """The pose with the least sum of distances (degrees + mm) to the others: one of the good ones. Of many poses, only
    some spread evenly are asked: the table of distances must not grow with the square of their number."""
    asked = np.linspace(0, len(places) - 1, min(len(places), MOST_ASKED)).round().astype(np.int64)
    quaternions, places = rotations.as_quat()[asked], places[asked]
    cosine = np.abs(quaternions @ quaternions.T)
    angle = np.degrees(2 * np.arccos(np.clip(cosine, 0, 1)))
    gap = np.linalg.norm(places[:, None] - places, axis=-1)
    return int(asked[((angle + gap) @ (certainty[asked] + 1e-3)).argmin()])


def _robust_fit(
    time: np.ndarray, rotations: Rotation, places: np.ndarray, certainty: np.ndarray, kernel: np.ndarray, degree: int
) -> tuple[Rotation, np.ndarray]:
    """Where polynomials through the poses over time (m,) are at time 0: rotation, place (3,).

    The first weights are against the weighted medians, not a first curve: a wild pose would bend that.
    """
    middle = _medoid(rotations, places, certainty)
    turns = np.degrees((rotations * rotations[middle].inv()).as_rotvec())
    values = np.concatenate([turns, places - places[middle]], axis=1)
    weight = kernel * (certainty + 1e-3)
    curve = np.tile([_weighted_median(column, weight) for column in values.T], (len(time), 1))
    design = time[:, None] ** np.arange(degree + 1)
    value = curve[0]
    for step in range(6):
        trust = weight.copy()
        for part, least in ((slice(0, 3), NOISE_DEGREES), (slice(3, 6), NOISE_MM)):
            miss = np.linalg.norm((values - curve)[:, part], axis=1)
            scatter = max(1.4826 * _weighted_median(miss, weight), least)
            # Before the first curve, a head that turns is far from its median too: be lenient.
            trust *= np.clip(1 - (miss / ((2 if step == 0 else 1) * CUT * scatter)) ** 2, 0, 1) ** 2
        damping = trust.sum() * np.array([1e-12, 1e-3, 1e-2])[: degree + 1]  # where poses are too few for a curve
        weighted = design * trust[:, None]
        solution = np.linalg.solve(design.T @ weighted + np.diag(damping), weighted.T @ values)
        before, curve, value = curve, design @ solution, solution[0]
        if np.abs(curve - before).max() < SETTLED:
            break
    return Rotation.from_rotvec(np.radians(value[:3])) * rotations[middle], places[middle] + value[3:]


def _held(rotations: Rotation, places: np.ndarray, certainty: np.ndarray, count: int) -> tuple[Rotation, np.ndarray]:
    """The robust middle of all poses, `count` times."""
    flat = np.zeros(len(places))
    turn, place = _robust_fit(flat, rotations, places, certainty, flat + 1, degree=0)
    return Rotation.concatenate([turn] * count), np.tile(place, (count, 1))


def _is_still(
    rotations: Rotation, places: np.ndarray, certainty: np.ndarray, turned: Rotation, moved: np.ndarray
) -> bool:
    """Whether the smooth poses, `turned` and `moved`, differ no more from their middle than those found scatter about
    them."""
    middle, place = _held(rotations, places, certainty, 1)
    noise = np.degrees((rotations * turned.inv()).magnitude()), np.linalg.norm(places - moved, axis=1)
    away = np.degrees((turned * middle[0].inv()).magnitude()), np.linalg.norm(moved - place, axis=1)
    return all(
        np.sqrt(np.mean(off**2)) <= max(limit, np.median(scatter))
        for off, scatter, limit in zip(away, noise, (STILL_DEGREES, STILL_MM), strict=True)
    )

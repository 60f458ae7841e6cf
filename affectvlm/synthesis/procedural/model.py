"""The procedural head as a `FaceModel`: mean head, directions in which heads differ, action units and colours."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from affectvlm.scan import Scan
from affectvlm.synthesis.base import sided
from affectvlm.synthesis.procedural.complexion import Complexion
from affectvlm.synthesis.procedural.identity import N_ASYMMETRIC, N_MODES, FaceIdentity, sample_identity
from affectvlm.synthesis.procedural.motion import ACTION_UNITS, Motion
from affectvlm.synthesis.procedural.parts import Layout, attach, build_layout
from affectvlm.synthesis.procedural.surface import SHAPE_NAMES, bell, skin_surface, smoothstep
from affectvlm.synthesis.procedural.topology import SkinMesh, build_skin

_LANDMARKS = {  # chart points (u, v) whose skin vertex is reported
    "nose_tip": (0.0, -1.5), "nasion": (0.0, 39.0), "chin": (0.0, -72.0), "menton": (0.0, -80.0),
    "brow_inner_left": (15.0, 49.0), "brow_inner_right": (-15.0, 49.0),
}  # fmt: skip


@dataclass(frozen=True)
class _Static:
    """Everything that is the same for all people: made once, read by every thread."""

    skin: SkinMesh
    layout: Layout
    mean: np.ndarray
    basis: np.ndarray
    motion: Motion
    complexion: Complexion
    landmarks: Mapping[str, int]


class ProceduralFace:
    """A human head made of formulas, with identities and action units; no data file is read.

    The first call prepares static arrays (one to two seconds); later ones take about 5 ms. Thread-safe.
    """

    name = "procedural"
    action_units = ACTION_UNITS

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def sample_identity(self, rng: np.random.Generator, spread: float = 1.0) -> FaceIdentity:
        """A new person; equal for equal generators. `spread` scales how far shapes lie from the average."""
        return sample_identity(rng, spread)

    def generate(self, identity: FaceIdentity, action_units: Mapping[str, float]) -> Scan:
        """That person's face showing those action units.

        Args:
            identity: from `sample_identity`, or that with fields replaced.
            action_units: "AU12" (both sides), "AU12L" or "AU12R" (the subject's left or right) → intensity in [0, 1].
                Units that the model does not know are ignored.

        Returns:
            A scan of 20,325 vertices and 39,578 triangles with colours, in mm, in the canonical frame: the tip of
            the neutral nose is the origin. Its landmarks include both corners of the mouth, of the eyes, and the chin.

        Raises:
            ValueError: a name that is no action unit, or an intensity outside [0, 1].
        """
        static = self._prepared
        units = {name: pair for name, pair in sided(action_units).items() if name in ACTION_UNITS}
        rest = self.neutral(identity)
        head = static.motion.apply(rest, units, identity.furrows)
        head = (head - rest[static.landmarks["nose_tip"]]) * identity.size
        return Scan(
            vertices=head,
            faces=static.layout.faces,
            colors=static.complexion.paint(identity.look),
            landmarks={name: head[index].astype(np.float32) for name, index in static.landmarks.items()},
            source="procedural face",
        )

    def neutral(self, identity: FaceIdentity) -> np.ndarray:
        """(V, 3) float64: the identity's rest head before scaling, in the mean head's frame."""
        static = self._prepared
        twisted = np.asarray(identity.asymmetric_modes) * identity.asymmetry
        weights = np.concatenate([identity.shape, identity.modes, twisted]).astype(np.float32)
        return static.mean + (weights @ static.basis).reshape(-1, 3)

    @property
    def _prepared(self) -> _Static:
        with self._lock:
            return self._static

    @cached_property
    def _static(self) -> _Static:
        skin = build_skin()
        layout = build_layout(skin)
        mean = _head(skin, layout, {})
        motion = Motion(skin, layout, mean)
        return _Static(
            skin, layout, mean, _basis(skin, layout, mean), motion, Complexion(skin, layout, motion.frame),
            _landmark_vertices(skin, mean),
        )  # fmt: skip


def _head(skin: SkinMesh, layout: Layout, shape: Mapping[str, float]) -> np.ndarray:
    return attach(skin, skin_surface(skin.chart, shape), layout, shape)


def _basis(skin: SkinMesh, layout: Layout, mean: np.ndarray) -> np.ndarray:
    """(29 + 28 + 12, 3 V) float32: what one standard deviation of each number does to the whole head, mm."""
    rows = [(_head(skin, layout, {name: 1.0}) - _head(skin, layout, {name: -1.0})) / 2 for name in SHAPE_NAMES]
    points = mean[layout["skin"]]
    rng = np.random.default_rng(7)
    for index in range(N_MODES + N_ASYMMETRIC):
        offset = _smooth_field(points, rng, symmetric=index < N_MODES)
        rows.append(attach(skin, points + offset, layout, {}) - mean)
    return np.stack(rows).reshape(len(rows), -1).astype(np.float32)


def _smooth_field(points: np.ndarray, rng: np.random.Generator, symmetric: bool) -> np.ndarray:
    """A random smooth deformation (S, 3) of about 0.4 mm: three waves of 90 to 240 mm, fading on the neck."""
    result = np.zeros_like(points)
    centred = points + [0.0, 0.0, 60.0]
    for _ in range(3):
        direction, way = rng.normal(size=3), rng.normal(size=3)
        wave = 2 * np.pi / rng.uniform(90, 240) * direction / np.linalg.norm(direction)
        phase = rng.uniform(0, 2 * np.pi)
        here = np.sin(centred @ wave + phase)[:, None] * way
        there = np.sin((centred * [-1, 1, 1]) @ wave + phase)[:, None] * way * [-1, 1, 1]
        result += here + (there if symmetric else -there)
    amount = 0.22 if symmetric else 0.11
    quiet = 1 - 0.6 * bell(np.abs(points[:, 0]), points[:, 1], 31.5, 30, 12, 8) * (points[:, 2] > -90)
    return amount * result * (quiet * smoothstep(points[:, 1], -150, -100))[:, None]


def _landmark_vertices(skin: SkinMesh, mean: np.ndarray) -> dict[str, int]:
    found = {name: int(np.argmin(((skin.chart - point) ** 2).sum(1))) for name, point in _LANDMARKS.items()}
    middle = np.flatnonzero(skin.chart[:, 0] == 0)
    found["nose_tip"] = int(middle[mean[middle, 2].argmax()])
    half = len(skin.eye_left) // 2
    quarter = len(skin.mouth) // 4
    for side, ring in (("left", skin.eye_left), ("right", skin.eye_right)):
        found[f"eye_inner_{side}"], found[f"eye_outer_{side}"] = int(ring[0]), int(ring[half])
    found["mouth_left"], found["mouth_right"] = int(skin.mouth[0]), int(skin.mouth[2 * quarter])
    found["upper_lip"], found["lower_lip"] = int(skin.mouth[quarter]), int(skin.mouth[3 * quarter])
    return found

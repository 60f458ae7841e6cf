"""What is not skin: lid edges, eyeballs, the inside of the mouth, teeth, tongue and ears.

Every part is made from the skin of the same head (`attach`), so that eyes fill their lids and teeth sit behind the lips
of every identity. Vertices of all parts follow the skin's in one array; `Layout` says which are which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from affectvlm.synthesis.procedural.surface import EYE_CENTRE, EYE_RADIUS, bell, smoothstep
from affectvlm.synthesis.procedural.topology import SkinMesh

PARTS = ("skin", "lid_left", "lid_right", "eye_left", "eye_right", "mouth", "upper_teeth", "lower_teeth", "tongue",
         "ear_left", "ear_right")  # fmt: skip

IRIS_RADIUS = 5.9
MOUTH_ROWS = 8
_EYE_TURNS = 32
_EYE_TILTS = np.deg2rad([0, 5, 9, 13, 17, 21, 25, 28, 29.5, 33, 40, 50, 62, 76, 92, 110])
"""Angle from the gaze to each row of the eyeball; rows lie close where pupil and iris end."""


@dataclass(frozen=True)
class Layout:
    """Which vertices belong to which part, and all triangles."""

    slices: Mapping[str, slice]
    faces: np.ndarray
    twin: np.ndarray

    def __getitem__(self, part: str) -> slice:
        return self.slices[part]


def build_layout(skin: SkinMesh) -> Layout:
    eye_n, mouth_n = len(skin.eye_left), len(skin.mouth)
    grids = {
        "eye_left": _grid_faces(len(_EYE_TILTS), _EYE_TURNS, wrap=True),
        "eye_right": _grid_faces(len(_EYE_TILTS), _EYE_TURNS, wrap=True)[:, ::-1],
        "upper_teeth": _grid_faces(*_TEETH_SHAPE),
        "lower_teeth": _grid_faces(*_TEETH_SHAPE)[:, ::-1],
        "tongue": _grid_faces(*_TONGUE_SHAPE)[:, ::-1],
        "ear_left": _grid_faces(len(_EAR_ROWS), _EAR_TURNS, wrap=True),
        "ear_right": _grid_faces(len(_EAR_ROWS), _EAR_TURNS, wrap=True)[:, ::-1],
    }
    sizes = {
        "skin": len(skin.chart), "lid_left": 2 * eye_n, "lid_right": 2 * eye_n,
        "eye_left": len(_EYE_TILTS) * _EYE_TURNS, "eye_right": len(_EYE_TILTS) * _EYE_TURNS,
        "mouth": MOUTH_ROWS * mouth_n,
        "upper_teeth": int(np.prod(_TEETH_SHAPE)), "lower_teeth": int(np.prod(_TEETH_SHAPE)),
        "tongue": int(np.prod(_TONGUE_SHAPE)),
        "ear_left": len(_EAR_ROWS) * _EAR_TURNS, "ear_right": len(_EAR_ROWS) * _EAR_TURNS,
    }  # fmt: skip
    start, slices, faces = 0, {}, [skin.faces]
    for part in PARTS:
        slices[part] = slice(start, start + sizes[part])
        if part in grids:
            faces.append(grids[part] + start)
        start += sizes[part]
    faces.append(_rim_faces(skin.eye_left, slices["lid_left"].start, 2))
    faces.append(_rim_faces(skin.eye_right, slices["lid_right"].start, 2)[:, ::-1])
    faces.append(_rim_faces(skin.mouth, slices["mouth"].start, MOUTH_ROWS)[:, ::-1])
    return Layout(slices, np.concatenate(faces).astype(np.int32), _twins(skin, slices))


def _grid_faces(rows: int, columns: int, wrap: bool = False) -> np.ndarray:
    index = np.arange(rows * columns).reshape(rows, columns)
    if wrap:
        index = np.concatenate([index, index[:, :1]], 1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3)])


def _rim_faces(ring: np.ndarray, start: int, rows: int) -> np.ndarray:
    """Rows of quads that carry on inward from a closed ring of skin vertices."""
    count = len(ring)
    index = np.concatenate([ring[None], start + np.arange(rows * count).reshape(rows, count)])
    return index.ravel()[_grid_faces(rows + 1, count, wrap=True)]


def _twins(skin: SkinMesh, slices: Mapping[str, slice]) -> np.ndarray:
    twin = np.arange(max(s.stop for s in slices.values()))
    twin[slices["skin"]] = skin.twin
    for left, right in (("lid_left", "lid_right"), ("eye_left", "eye_right"), ("ear_left", "ear_right")):
        twin[slices[left]], twin[slices[right]] = twin[slices[right]].copy(), twin[slices[left]].copy()
    count = len(skin.mouth)
    across = (count // 2 - np.arange(count)) % count
    for row in range(MOUTH_ROWS):
        start = slices["mouth"].start + row * count
        twin[start : start + count] = start + across
    for part, (rows, columns) in (
        ("upper_teeth", _TEETH_SHAPE),
        ("lower_teeth", _TEETH_SHAPE),
        ("tongue", _TONGUE_SHAPE),
    ):
        index = np.arange(rows * columns).reshape(rows, columns)
        twin[slices[part]] = slices[part].start + index[:, ::-1].ravel()
    return twin


def attach(skin: SkinMesh, points: np.ndarray, layout: Layout, shape: Mapping[str, float]) -> np.ndarray:
    """(V, 3) float64: the skin's points (S, 3) followed by the points of all other parts, in the order of `PARTS`."""
    left, right = eye_centre(points[skin.eye_left]), eye_centre(points[skin.eye_right])
    pieces = {"skin": points}
    mirror = np.array([-1.0, 1, 1])
    pieces["lid_left"] = lid_rim(points[skin.eye_left], left)
    pieces["lid_right"] = lid_rim(points[skin.eye_right], right)
    pieces["eye_left"] = left + _eyeball()
    pieces["eye_right"] = right + _eyeball() * mirror
    pieces["mouth"] = _mouth_cavity(points[skin.mouth])
    width = 1 + 0.03 * shape.get("mouth_width", 0.0)
    forward = 1.8 * shape.get("mouth_forward", 0.0)
    drop = points[skin.mouth[len(skin.mouth) // 4], 1] + 37.5
    pieces["upper_teeth"] = _teeth(True) * [width, 1, 1] + [0, drop, forward]
    pieces["lower_teeth"] = _teeth(False) * [width, 1, 1] + [0, drop, forward]
    pieces["tongue"] = _tongue() + [0, drop, forward]
    pieces["ear_left"] = _ear(points, shape)
    pieces["ear_right"] = pieces["ear_left"] * mirror
    return np.concatenate([pieces[part] for part in PARTS])


def eye_centre(ring: np.ndarray) -> np.ndarray:
    """Middle of an eyeball, following its lid margin (n, 3) where an identity moves it."""
    inner, outer = ring[0], ring[len(ring) // 2]
    middle = (inner + outer) / 2
    return np.array([middle[0], middle[1] + EYE_CENTRE[1] - 29.4, ring[:, 2].mean() - 9.8])


def lid_rim(margin: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Two rows behind the lid margin (n, 3): its edge on the eyeball, and one tucked behind, so that no gap shows."""
    ray = margin - centre
    ray = ray / np.linalg.norm(ray, axis=-1, keepdims=True)
    outward = margin - margin.mean(-2, keepdims=True)
    outward = outward / np.linalg.norm(outward, axis=-1, keepdims=True)
    edge = centre + ray * np.minimum(EYE_RADIUS + 0.15, np.linalg.norm(margin - centre, axis=-1, keepdims=True) - 0.4)
    tucked = centre + ray * (EYE_RADIUS - 0.9) + outward * 1.6
    return np.concatenate([edge, tucked], -2)


def _eyeball() -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, _EYE_TURNS, endpoint=False)
    tilt, turn = np.meshgrid(_EYE_TILTS, turn, indexing="ij")
    cornea = 0.9 * np.clip(1 - (tilt / np.deg2rad(31)) ** 2, 0, None) ** 0.8
    radius = EYE_RADIUS + cornea
    ball = np.stack([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)], -1)
    return (radius[..., None] * ball).reshape(-1, 3)


def eye_tilt_and_turn() -> tuple[np.ndarray, np.ndarray]:
    """Per eyeball vertex: angle from the gaze and angle round it, radians."""
    turn = np.linspace(0, 2 * np.pi, _EYE_TURNS, endpoint=False)
    tilt, turn = np.meshgrid(_EYE_TILTS, turn, indexing="ij")
    return tilt.ravel(), turn.ravel()


# per row behind the lips: depth behind the margin, height above or below the line (the first row laps over the other
# lip, so that closed lips show no crack), width, how far it is inside (0 to 1)
_CAVITY = np.array(
    [[1.4, -0.8, 1.0, 0.0], [3.4, 1.2, 1.0, 0.1], [5.0, 6.5, 0.99, 0.4], [9.0, 11.0, 0.97, 0.7],
     [14.0, 15.5, 1.03, 1.0], [26.0, 16.5, 1.1, 1.0], [42.0, 14.0, 0.9, 1.0], [58.0, 0.0, 0.0, 1.0]]
)  # fmt: skip


def _mouth_cavity(ring: np.ndarray) -> np.ndarray:
    """Lining from the lips' inner edge to the throat, (MOUTH_ROWS * n, 3)."""
    turn = np.linspace(0, 2 * np.pi, len(ring), endpoint=False)
    up = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** 0.7
    rows = []
    for depth, height, width, inside in _CAVITY:
        z = (1 - inside) * (ring[:, 2] - depth) + inside * (np.maximum(ring[:, 2], -34) * 0.4 - 12.5 - depth)
        rows.append(np.stack([ring[:, 0] * width, ring[:, 1] + height * up, z], 1))
    return np.concatenate(rows)


def cavity_depth(count: int) -> np.ndarray:
    """How far inside the mouth each lining vertex lies: 0 at the lips, 1 at the back."""
    return np.repeat(_CAVITY[:, 3], count)


_TEETH_SHAPE = (10, 97)
_TEETH_EDGES = np.cumsum([0, 8.6, 6.8, 7.8, 7.0, 6.8, 10.0, 10.0])
"""Widths of a quarter of the teeth from the midline, mm along the arch."""


def arch_depth(x: np.ndarray) -> np.ndarray:
    """Depth of the upper teeth's outer face, mm, at x from the midline."""
    return -24.0 - 42.0 * (1 - np.sqrt(np.clip(1 - (x / 28.5) ** 2, 0.02, None)))


def _teeth(upper: bool) -> np.ndarray:
    rows, columns = _TEETH_SHAPE
    part = np.linspace(-1, 1, columns)
    angle = part * 1.35
    x = 27.0 * np.sin(angle) * (1 if upper else 0.93)
    arc = np.abs(part) * _TEETH_EDGES[-1] * 0.98
    tooth = np.clip(np.searchsorted(_TEETH_EDGES, arc, side="right") - 1, 0, len(_TEETH_EDGES) - 2)
    within = (arc - _TEETH_EDGES[tooth]) / np.diff(_TEETH_EDGES)[tooth]
    gap = np.exp(-(((np.minimum(within, 1 - within)) / 0.09) ** 2))
    length = np.array([10.2, 8.8, 9.8, 8.2, 7.6, 7.0, 7.0] if upper else [8.6, 8.8, 9.4, 8.4, 7.8, 7.2, 7.2])[tooth]
    length = length - 1.3 * gap
    front = arch_depth(x / (1 if upper else 0.93)) - (0.0 if upper else 3.2)
    down = -1.0 if upper else 1.0
    neck = -29.5 if upper else -47.6
    # rows: three of gum, five down the face of the tooth, two back over its edge
    along = np.array([-9.0, -4.0, 0.0, 0.12, 0.4, 0.75, 0.95, 1.0, 0.97, 0.4])
    bulge = np.array([-6.0, -0.8, 0.4, 0.9, 1.2, 0.9, 0.3, -0.6, -2.4, -4.5])
    y = np.where(along[:, None] < 0, neck - down * -along[:, None], neck + down * along[:, None] * length)
    z = front + bulge[:, None] - 1.0 * gap * (along[:, None] > 0)
    return np.stack([np.broadcast_to(x, y.shape), y, z], -1).reshape(-1, 3)


def teeth_pattern() -> tuple[np.ndarray, np.ndarray]:
    """Per tooth vertex: 1 on gum and 0 on enamel, and how much it lies in a gap between teeth."""
    rows, columns = _TEETH_SHAPE
    part = np.abs(np.linspace(-1, 1, columns)) * _TEETH_EDGES[-1] * 0.98
    tooth = np.clip(np.searchsorted(_TEETH_EDGES, part, side="right") - 1, 0, len(_TEETH_EDGES) - 2)
    within = (part - _TEETH_EDGES[tooth]) / np.diff(_TEETH_EDGES)[tooth]
    gap = np.exp(-(((np.minimum(within, 1 - within)) / 0.09) ** 2))
    gum = np.array([1.0, 1, 0.9, 0.15, 0, 0, 0, 0, 0, 0])
    return np.repeat(gum, columns), np.tile(gap, rows)


_TONGUE_SHAPE = (11, 13)


def _tongue() -> np.ndarray:
    back, across = np.meshgrid(np.linspace(0, 1, 11), np.linspace(-1, 1, 13), indexing="ij")
    half = 17.0 * np.sqrt(np.clip(1 - (1 - np.clip(back * 1.6, 0, 1)) ** 2, 0.02, None))
    x = half * np.sin(across * np.pi / 2)
    y = (
        -51.0
        + 4.5 * np.sin(np.clip(back * 1.3, 0, 1) * np.pi * 0.55)
        - 5.0 * back
        - 3.5 * across**2
        + 0.9 * np.abs(across) ** 0.5
    )
    z = -31.0 - 40.0 * back
    return np.stack([x, y, z], -1).reshape(-1, 3)


_EAR_TURNS = 36
_EAR_ROWS = np.array([0.02, 0.15, 0.3, 0.42, 0.54, 0.65, 0.75, 0.83, 0.9, 0.96, 1.0, 1.0, 0.86, 0.6])


def _ear(points: np.ndarray, shape: Mapping[str, float]) -> np.ndarray:
    """A left ear: an egg-shaped plate with a rolled rim, inner fold, bowl and lobe; its back rows run into the head."""
    turn = np.linspace(0, 2 * np.pi, _EAR_TURNS, endpoint=False)
    row, turn = np.meshgrid(np.arange(len(_EAR_ROWS)), turn, indexing="ij")
    r = _EAR_ROWS[row]
    back, up = np.cos(turn), np.sin(turn)
    a = r * back * (17.5 + 2.5 * up) - 2.0 * r * (up < 0) * up**2
    b = r * up * np.where(up > 0, 31.0, 30.0) + 0.0 * r
    front = smoothstep(-back, 0.2, 0.9)
    lobe = smoothstep(-up, 0.55, 0.95)
    bowl = -7.5 * np.exp(-0.5 * (((a + 1) / 7.5) ** 2 + ((b + 3) / 9.5) ** 2))
    rim = 4.0 * np.exp(-0.5 * ((r - 0.93) / 0.06) ** 2) * (1 - front) * (1 - 0.8 * lobe)
    inner = 2.6 * np.exp(-0.5 * ((r - 0.62) / 0.085) ** 2) * (1 - front) * (1 - lobe)
    tragus = 3.0 * bell(a, b, -12, -4, 3, 5)
    height = bowl + rim + inner + tragus - 0.5 * lobe
    height = height - np.array([0] * 11 + [3.0, 7.0, 15.0])[row]
    # the plate's back edge stands away from the head; its front edge lies on it
    out = np.array([0.86, 0.0, 0.42])
    along = np.array([0.42, 0.0, -0.86])
    anchor = points[(np.abs(points[:, 1] - 12) < 8) & (points[:, 0] > 0) & (np.abs(points[:, 2] + 100) < 10), 0]
    base = np.array([anchor.mean() + 5.5, 11.0, -109.0])
    tilt = np.deg2rad(12.0)
    a, b = a * np.cos(tilt) + b * np.sin(tilt), b * np.cos(tilt) - a * np.sin(tilt)
    return base + (a[..., None] * along + b[..., None] * [0, 1, 0] + height[..., None] * out).reshape(-1, 3)

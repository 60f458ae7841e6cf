"""The shape of the skin: from chart and shape numbers to millimetres.

A stack of simple pieces, each a formula: horizontal cross-sections of a head (half ellipses whose size changes with
height), soft bumps and hollows for bones and fat, a nose made of a ridge, a ball and two wings melted together, lips as
two rolls along the mouth line, lids as a sphere melted into the eye socket. The dimensions are those of a mean adult:
140 mm across the cheekbones, 118 mm from nasion to chin, 63 mm between the pupils, mouth 50 mm, nose 34 mm.
`SHAPE_NAMES` lists the numbers that make one head differ from another; each is about N(0, 1) among people.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

from affectvlm.synthesis.procedural.topology import EYE, EYE_HALF_WIDTH, MOUTH, MOUTH_HALF_HEIGHT, MOUTH_HALF_WIDTH

SHAPE_NAMES = (
    "face_width", "face_length", "jaw_width", "chin_length", "chin_forward", "chin_width", "nose_width", "nose_length",
    "nose_bridge", "nose_tip_up", "nose_forward", "lip_thickness", "mouth_width", "mouth_forward", "eye_opening",
    "eye_distance", "eye_tilt", "eye_depth", "lid_fullness", "brow_ridge", "brow_height", "cheekbone", "cheek_fat",
    "forehead_slope", "forehead_height", "neck_width", "sag", "folds", "eye_bags",
)  # fmt: skip

EYE_CENTRE = np.array([31.5, 31.0, -46.5])
EYE_RADIUS = 12.2
LID_RADIUS = 13.3
"""Skin of the lids keeps this distance from the middle of the eye, mm."""

# v: height, depth of the midline, half width, depth of the widest place, depth of the back, how much the line climbs
# towards the ears, and how pointed the front is
_SECTIONS = np.array(
    [
        [-180, -150, -92, 55.9, -130, -195, 0, 1.0],
        [-160, -130, -88, 52.9, -128, -188, 0, 1.0],
        [-140, -112, -82, 51.9, -125, -185, 4, 1.0],
        [-125, -99, -75, 51.9, -120, -185, 12, 1.0],
        [-110, -92.5, -62, 53.4, -112, -185, 22, 1.1],
        [-95, -88, -46, 55.9, -100, -185, 30, 1.25],
        [-86, -84, -35, 57.8, -93, -185, 33, 1.35],
        [-80, -79.5, -28, 59.3, -90, -185, 33, 1.38],
        [-74, -74.5, -24.5, 60.3, -90, -186, 31, 1.3],
        [-60, -60, -22, 61.7, -92, -187, 24, 1.15],
        [-40, -40, -21, 64.7, -96, -190, 14, 1.03],
        [-20, -20, -20, 67.8, -101, -197, 7, 1.0],
        [0, 0, -22, 70.6, -106, -205, 2.5, 1.0],
        [20, 20, -26, 73, -110, -213, 0.5, 1.0],
        [40, 40, -25.5, 75.5, -113, -217, 0, 1.0],
        [60, 60, -24.5, 76.9, -117, -217, 0, 1.0],
        [80, 79.5, -30, 76, -120, -214, 0, 1.0],
        [100, 97.5, -39.5, 70.6, -121, -207, 0, 1.0],
        [120, 113, -53, 61.7, -122, -195, 0, 1.0],
        [140, 126, -70, 51, -122, -179, 0, 1.0],
        [160, 135, -89, 37.2, -122, -160, 0, 1.0],
        [180, 140, -109, 18.6, -122, -138, 0, 1.0],
        [194, 141.5, -121.5, 0.392, -122, -122.5, 0, 1.0],
    ]
)
_NOSE_PROFILE = np.array(  # height, depth of the ridge, half width of the ridge
    [[60, -34, 10], [48, -27.5, 11], [41, -24.6, 12], [33, -23, 14], [22, -15.6, 16], [12, -8.2, 16],
     [4, -3.2, 15], [0, -2.0, 14], [-6, -4.5, 11], [-10, -9.5, 8], [-14, -15, 7], [-18, -21, 7], [-24, -34, 7]]
)  # fmt: skip


def bell(
    x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float | np.ndarray | None = None
) -> np.ndarray:
    """A Gaussian bump of height 1 at (cx, cy)."""
    return np.exp(-0.5 * (((x - cx) / sx) ** 2 + ((y - cy) / (sx if sy is None else sy)) ** 2))


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def smooth_max(a: np.ndarray, b: np.ndarray, softness: float) -> np.ndarray:
    """The larger of both, with the seam rounded over about `softness` mm."""
    return 0.5 * (a + b + np.sqrt((a - b) ** 2 + softness**2) - softness * 0.3)


def dome(q: np.ndarray) -> np.ndarray:
    """Height of a unit ball over its disc, at squared radius q; falls steeply outside."""
    return np.sqrt(np.clip(1 - q, 0, None)) - 1.6 * np.clip(q - 1, 0, 3)


def mouth_line(x: np.ndarray) -> np.ndarray:
    """Height of the closed mouth, mm, at x from the midline."""
    s = np.clip(np.abs(x) / MOUTH_HALF_WIDTH, 0, 1.4)
    return -37.8 + 0.5 * np.cos(s * np.pi * 2.2) * np.exp(-((s / 0.7) ** 2)) - 1.7 * s**2


def mouth_frame(chart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance above (+) or below (-) the closed mouth line, mm, and height on the face before shaping."""
    u, rise = chart[:, 0], chart[:, 1] - MOUTH[1]
    edge = MOUTH_HALF_HEIGHT * np.sqrt(np.clip(1 - (u / MOUTH_HALF_WIDTH) ** 2, 0, None))
    gap = np.clip(np.abs(rise) - edge, 0, None)
    closed = np.sign(rise) * (gap + edge * (1 - np.exp(-((gap / 9) ** 2))))
    near = np.exp(-((u / 45) ** 4) - (closed / 22) ** 2)
    return closed, MOUTH[1] + closed + near * (mouth_line(u) - MOUTH[1])


def skin_surface(chart: np.ndarray, shape: Mapping[str, float]) -> np.ndarray:
    """(S, 3) float64 positions of chart points (S, 2), mm, before the nose tip is moved to the origin."""
    p = {name: 0.0 for name in SHAPE_NAMES} | dict(shape)
    lip, height = mouth_frame(chart)
    x, y, z, front = _head(chart[:, 0], MOUTH[1] + lip, height, p)
    side, ax = np.sign(x), np.abs(x)
    z = z + front * _bones(ax, y, p)
    out = front * (3.0 + 1.6 * p["cheekbone"]) * bell(ax, y, 60, 9, 13, 11)
    x = x + side * 0.45 * out
    z = z + front * _soft_tissue(ax, y, p)
    z = np.where(front > 0, _lids(ax, y, z, p), z)
    z = z + front * _lips(x, lip, p)
    x, y, z = _nose(x, ax, y, z, front, p)
    return _stretch(np.stack([x, y, z], 1), lip, p)


@lru_cache(maxsize=1)
def _sections() -> tuple[np.ndarray, np.ndarray]:
    """The sections at every half millimetre of v, (n,) and (7, n), smoothed so that no ring shows round the head."""
    heights = np.arange(_SECTIONS[0, 0], _SECTIONS[-1, 0] + 0.25, 0.5)
    columns = PchipInterpolator(_SECTIONS[:, 0], _SECTIONS[:, 1:])(heights).T
    smooth = gaussian_filter1d(columns, 10.0, mode="nearest")  # 5 mm
    keep = smoothstep(heights, 130, 160) + smoothstep(-heights, 150, 180)  # the crown and the cut of the neck
    return heights, keep * columns + (1 - keep) * smooth


def _head(u: np.ndarray, v: np.ndarray, height: np.ndarray, p: Mapping[str, float]) -> tuple[np.ndarray, ...]:
    """Broad form at chart points whose v is measured with the mouth closed; `height` adds the curve of its line."""
    t = u / 75.0
    heights, columns = _sections()
    y0, depth, width, widest, back, climb, point = (np.interp(v, heights, column) for column in columns)
    y0 = y0 + height - v
    flat = 1 - smoothstep(np.abs(u), 45, 120)  # in front, chart and face have the same x: t is about arcsin(u / width)
    q = u / np.maximum(width, 62.0)
    q = q / (1 + (q / 1.12) ** 8) ** 0.125
    t = (1 - flat) * t + flat * (q + q**3 / 6 + 0.075 * q**5)
    sine, cosine = np.sin(t), np.cos(t)
    face = smoothstep(cosine, 0.0, 0.3)
    jaw = bell(v, 0 * v, -70, 0, 32, 1)
    width = width * (1 + 0.035 * p["jaw_width"] * jaw + 0.03 * p["cheek_fat"] * bell(v, 0 * v, -50, 0, 45, 1))
    width = width * (1 + 0.06 * p["neck_width"] * smoothstep(-v, 92, 125))
    depth = depth - 5.0 * p["forehead_slope"] * smoothstep(v, 45, 110) * smoothstep(-v, -194, -150)
    front_z = widest + (depth - widest) * np.clip(cosine, 0, None) ** point
    z = np.where(cosine > 0, front_z, widest + (widest - back) * cosine)
    y = y0 + climb * np.where(cosine > 0, sine**2, 1.0)
    return width * sine, y, z, face


def head_without_features(chart: np.ndarray) -> np.ndarray:
    """(S, 3): the mean head's broad form, whose smooth normals say which way skin swells."""
    lip, height = mouth_frame(chart)
    x, y, z, _ = _head(chart[:, 0], MOUTH[1] + lip, height, dict.fromkeys(SHAPE_NAMES, 0.0))
    return np.stack([x, y, z], 1)


def _bones(ax: np.ndarray, y: np.ndarray, p: Mapping[str, float]) -> np.ndarray:
    ridge_y = 46.5 + 1.2 * p["brow_height"]
    ridge = (
        np.exp(-0.5 * ((y - ridge_y + 0.004 * (ax - 30) ** 2) / 5.5) ** 2)
        * smoothstep(ax, 2, 16)
        * smoothstep(-ax, -62, -40)
    )
    return (
        (2.6 + 1.5 * p["brow_ridge"]) * ridge
        + 1.0 * bell(ax, y, 0, 47, 9, 7)
        - (5.2 + 1.0 * p["eye_depth"]) * bell(ax, y, 30, 31, 14, 9.5)
        - 5.5 * bell(ax, y, 17, 30, 5.0, 6.5)
        - 2.0 * bell(ax, y, 45, 30, 7, 7)
        + (4.5 + 1.6 * p["cheekbone"]) * bell(ax, y, 56, 8, 15, 13)
        - 2.5 * bell(ax, y, 73, 52, 14, 18)
        + (4.5 + 1.8 * p["mouth_forward"]) * bell(ax, y, 0, -27, 17, 15)
        + (1.0 + 1.2 * p["mouth_forward"]) * bell(ax, y, 0, -46, 16, 9)
        + (5.0 + 1.6 * p["chin_forward"]) * bell(ax, y, 0, -69, 12 + 2.2 * p["chin_width"], 8.5)
        + 1.3 * p["chin_width"] * bell(ax, y, 18, -70, 8, 8)
        - 4.0 * bell(ax, y, 0, -56.5, 15, 5)
        - 3.0 * bell(ax, y, 36, -72, 12, 10)
        + 1.0 * bell(ax, y, 25, 68, 18, 12)
    )


def _soft_tissue(ax: np.ndarray, y: np.ndarray, p: Mapping[str, float]) -> np.ndarray:
    """Cheek pads, and what age adds: jowls, bags and the resting nasolabial fold."""
    fold = polyline_distance(ax, y, NASOLABIAL)
    below = polyline_distance(ax, y, MARIONETTE)
    bag = polyline_distance(ax, y, EYE_BAG)
    amount = np.clip(0.5 + 0.6 * p["folds"], 0.0, None)
    return (
        (1.5 + 2.6 * p["cheek_fat"]) * bell(ax, y, 44, -22, 16, 20)
        + 2.0 * p["cheek_fat"] * bell(ax, y, 20, -82, 22, 9)
        + 1.8 * bell(ax, y, 33, -4, 12, 13)
        + 2.2 * bell(ax, y, 32, 18.5, 12, 4.5)
        - 0.5 * bell(ax, y, 21, 17, 7, 6)
        + amount * fold.fold()
        + 0.7 * amount * bell(ax, y, 31, -13, 7, 10)
        + 0.6 * max(p["folds"] + 0.1, 0.0) * below.fold()
        + 2.2 * p["sag"] * (bell(ax, y, 38, -62, 12, 11) - 0.6 * bell(ax, y, 44, -8, 12, 12))
        + np.clip(0.3 + 0.7 * p["eye_bags"], 0, None) * (bell(ax, y, 31, 21.5, 10, 3) - 0.9 * bag.groove(1.8, 1.0))
    )


def _lids(ax: np.ndarray, y: np.ndarray, z: np.ndarray, p: Mapping[str, float]) -> np.ndarray:
    """The eyeball's bulge under the lids, and the crease of the upper lid."""
    cx, cy, cz = EYE_CENTRE
    cz = cz - 0.8 * p["eye_depth"]
    q = ((ax - cx) ** 2 + (y - cy) ** 2) / LID_RADIUS**2
    ball = cz + LID_RADIUS * dome(q)
    near = 1 - smoothstep(q, 1.2, 2.6)
    melted = z + near * (smooth_max(z, ball, 3.2) - z)
    s = (ax - EYE[0]) / EYE_HALF_WIDTH
    margin = EYE[1] + lid_top(s)
    above = y - margin
    span = smoothstep(1.15 - np.abs(s), 0.0, 0.35)
    crease = np.exp(-0.5 * ((above - 3.6 + 1.2 * p["lid_fullness"]) / 0.9) ** 2) * span
    fold = np.exp(-0.5 * ((above - 6.3 + 1.2 * p["lid_fullness"]) / 2.3) ** 2) * span
    return melted - 1.5 * crease + (1.6 + 0.9 * p["lid_fullness"]) * fold


def lid_top(s: np.ndarray) -> np.ndarray:
    """Upper lid margin over the eye's middle, continued smoothly past the corners."""
    return -0.8 + 0.9 * s + 6.1 * np.exp(-(np.abs(s) ** 2.6) * 0.9)


def lip_extent(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Height of the red of the upper and of the lower lip, mm, at x from the midline; 0.4 beyond the corners."""
    s = np.abs(x) / MOUTH_HALF_WIDTH
    arch = np.clip(1 - s**2, 0, None)
    bow = 1 - 0.13 * np.exp(-((s / 0.14) ** 2)) + 0.06 * np.exp(-(((s - 0.28) / 0.16) ** 2))
    upper = 7.8 * arch**0.75 * bow + 0.4
    lower = 9.0 * arch**0.62 + 0.4
    return upper, lower


def _lips(x: np.ndarray, d: np.ndarray, p: Mapping[str, float]) -> np.ndarray:
    s = np.abs(x) / MOUTH_HALF_WIDTH
    upper_size, lower_size = lip_extent(x)
    r = np.abs(d) / np.where(d > 0, upper_size, lower_size)
    arch = np.exp(-((s / 0.8) ** 4))
    roll = 2.5 * np.clip(r, 0, 3) ** 0.62 * np.exp(-((r / 0.82) ** 2))
    full = np.where(d > 0, 3.9, 4.3) * (1 + 0.14 * p["lip_thickness"])
    inward = -2.6 * np.exp(-((d / 1.7) ** 2)) * np.exp(-((s / 0.95) ** 6))
    border = 0.55 * np.exp(-0.5 * ((r - 1.06) / 0.1) ** 2) * (d > 0)
    corner = -1.1 * np.exp(-0.5 * (((np.abs(x) - 26.5) / 3.5) ** 2 + (d / 3.0) ** 2))
    philtrum = _philtrum(x, d - upper_size)
    return arch * (full * roll + border) + inward + corner + philtrum


def _philtrum(x: np.ndarray, above: np.ndarray) -> np.ndarray:
    reach = smoothstep(above, -0.5, 1.5) * smoothstep(-above, -12, -7)
    return reach * (0.45 * np.exp(-0.5 * ((np.abs(x) - 4.8) / 1.7) ** 2) - 0.5 * np.exp(-0.5 * (x / 2.4) ** 2))


def _nose(x, ax, y, z, front, p) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ridge_z, ridge_w = PchipInterpolator(_NOSE_PROFILE[::-1, 0], _NOSE_PROFILE[::-1, 1:])(np.clip(y, -24, 60)).T
    ridge_z = ridge_z + 1.6 * p["nose_bridge"] * bell(0 * y, y, 0, 27, 1, 10)
    ridge = ridge_z - 34 * (1 - np.exp(-((np.hypot(ax, 2.0) / ridge_w) ** 1.8)) - 0.03)
    tip = -11.8 + 11.2 * dome((ax / 11.0) ** 2 + ((y + 2.8) / 9.6) ** 2)
    wing = -21.5 + 8.8 * dome(((ax - 10.2) / 7.6) ** 2 + ((y + 7.2) / 7.8) ** 2)
    nose = smooth_max(smooth_max(ridge, tip, 3.2), wing, 3.6)
    nose = nose + 1.9 * p["nose_forward"] * smoothstep(y, 45, 5)
    near = front * smoothstep(-ax, -34, -24) * smoothstep(y, -30, -22) * smoothstep(-y, -62, -52)
    z = z + near * (smooth_max(z, nose, 3.0) - z)
    hole = bell(ax, y, 6.8, -12.6, 2.7, 2.2) * front
    return x - np.sign(x) * 0.5 * hole, y + 2.0 * hole, z - 5.0 * hole


def _stretch(points: np.ndarray, lip: np.ndarray, p: Mapping[str, float]) -> np.ndarray:
    """Proportions: how wide, how long, where eyes and mouth sit; smooth moves of what is there already."""
    x, y, z = points.T.copy()
    front = smoothstep(z, -110, -70)
    side = np.sign(x)
    ax = np.abs(x)
    dx = 0.03 * p["face_width"] * x * smoothstep(y, -140, -60)
    dx = dx + front * side * (1.9 * p["mouth_width"] * bell(ax, y, 26, -39, 11, 13))
    dx = dx + front * side * 1.1 * p["eye_distance"] * bell(ax, y, 31, 30, 13, 14)
    dx = dx + front * 0.1 * p["nose_width"] * x * bell(ax, y, 0, -4, 15, 12)
    dy = (2.6 * p["face_length"]) * (-smoothstep(-y, 5, 70) + 0.5 * smoothstep(y, 5, 45))
    dy = dy - 2.4 * p["chin_length"] * smoothstep(-y, 42, 74)
    dy = dy + front * 1.4 * p["nose_tip_up"] * bell(ax, y, 0, -4, 11, 9) * smoothstep(z, -26, -8)
    dy = dy + 0.15 * p["lip_thickness"] * _lip_growth(x, lip, front)
    dy = dy - front * 2.0 * p["nose_length"] * bell(ax, y, 0, -8, 17, 11)
    dy = dy + front * 0.85 * p["eye_opening"] * (bell(ax, y, 31, 36, 9, 3.2) - 0.45 * bell(ax, y, 31, 26, 9, 3.2))
    dy = dy + front * 0.065 * p["eye_tilt"] * (ax - 31) * bell(ax, y, 33, 31, 11, 8)
    dy = dy + front * 1.5 * p["brow_height"] * bell(ax, y, 32, 50, 20, 7)
    dy = dy - front * 1.4 * p["sag"] * (bell(ax, y, 42, 37, 10, 6) + 0.8 * bell(ax, y, 27, -41, 9, 9))
    dy = dy + 5.0 * p["forehead_height"] * smoothstep(y, 55, 130)
    return np.stack([x + dx, y + dy, z], 1)


def _lip_growth(x: np.ndarray, lip: np.ndarray, front: np.ndarray) -> np.ndarray:
    """How far lips twice as thick would lie from the mouth line, mm, letting the skin around give way."""
    upper, lower = lip_extent(x)
    size = np.where(lip > 0, upper, lower)
    beyond = np.clip(np.abs(lip) - size, 0, None)
    return front * np.sign(lip) * np.minimum(np.abs(lip), size) * np.exp(-beyond / 5.0)


class Crease:
    """Signed distance of points to a curve on the face, with the ends faded out.

    Attributes:
        distance: (n,) mm, positive on the left of the curve's direction.
        fade: (n,) 1 along the curve, 0 beyond its ends.
    """

    def __init__(self, distance: np.ndarray, fade: np.ndarray) -> None:
        self.distance, self.fade = distance, fade

    def groove(self, width: float, bulge: float = 0.0) -> np.ndarray:
        """1 in the furrow, negative (up to about -bulge / 2) on the swollen skin beside it."""
        q = self.distance / width
        return self.fade * (
            np.exp(-0.5 * (q / 0.6) ** 2) - 0.5 * bulge * np.exp(-0.5 * ((np.abs(q) - 1.9) / 0.75) ** 2)
        )

    def fold(self) -> np.ndarray:
        """Skin that hangs over: a crease about 1 deep, steep on the positive side, which swells into a roll."""
        d = self.distance
        crease = np.exp(-0.5 * (d / np.where(d > 0, 1.8, 3.6)) ** 2)
        return self.fade * (0.7 * np.exp(-0.5 * ((d - 5.0) / 2.8) ** 2) - crease)


def polyline_distance(x: np.ndarray, y: np.ndarray, curve: np.ndarray, taper: float = 0.25) -> Crease:
    """Distance to a polyline (k, 2), in mm; `taper` is the part of its length over which each end fades."""
    low, high = curve.min(0) - _CREASE_REACH, curve.max(0) + _CREASE_REACH
    near = np.flatnonzero((x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1]))
    points = np.stack([x[near], y[near]], 1)
    step = np.diff(curve, axis=0)
    length = np.linalg.norm(step, axis=1)
    start = np.concatenate([[0], np.cumsum(length)])
    best, along, sign = np.full(len(near), np.inf), np.zeros(len(near)), np.ones(len(near))
    for k in range(len(step)):
        offset = points - curve[k]
        part = np.clip(offset @ step[k] / length[k] ** 2, 0, 1)
        gap = np.hypot(*(offset - part[:, None] * step[k]).T)
        closer = gap < best
        best = np.where(closer, gap, best)
        along = np.where(closer, start[k] + part * length[k], along)
        cross = step[k, 0] * offset[:, 1] - step[k, 1] * offset[:, 0]
        sign = np.where(closer, np.sign(cross), sign)
    part = along / start[-1]
    distance, fade = np.full(len(x), np.inf), np.zeros(len(x))
    distance[near] = best * sign
    fade[near] = smoothstep(part, 0, taper) * smoothstep(1 - part, 0, taper)
    return Crease(distance, fade)


_CREASE_REACH = 20.0
"""Beyond this distance from a curve, mm, no crease is felt."""


NASOLABIAL = np.array([[16.0, -2], [20, -9], [26, -19], [31.5, -30], [34.5, -40], [35, -47]])
MARIONETTE = np.array([[27.0, -40], [29.5, -47], [31, -55], [31, -62]])
EYE_BAG = np.array([[18.0, 22], [24, 18.5], [31, 17.5], [38, 19], [44, 23]])

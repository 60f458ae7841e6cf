"""From action units to a moved face: fields, lids on eyeballs, lips that touch but do not cross, the jaw's hinge.

The order matters. Linear fields move the skin of a closed jaw; lids then close by a part of the gap that is left and
are pushed out of the eyeball; lips are kept apart and off the teeth; last the jaw turns, taking skin, lower teeth and
tongue with it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from affectvlm.scan import vertex_normals
from affectvlm.synthesis.procedural.muscles import Skin, build_actions
from affectvlm.synthesis.procedural.parts import Layout, arch_depth, cavity_depth, lid_rim
from affectvlm.synthesis.procedural.surface import (
    EYE_RADIUS,
    LID_RADIUS,
    head_without_features,
    mouth_frame,
    smoothstep,
)
from affectvlm.synthesis.procedural.topology import (
    EYE,
    EYE_HALF_WIDTH,
    MOUTH_HALF_WIDTH,
    SkinMesh,
    lid_outline,
)

HINGE = np.array([0.0, 6.0, -98.0])
"""Axis of the jaw joints, mm, in the mean face."""

# part of the gap between the lids that a unit closes at full intensity, from above and from below
_CLOSURE = {
    "AU43": (0.88, 0.12), "AU7": (0.16, 0.36), "AU6": (0.07, 0.20), "AU5": (-0.32, -0.03), "AU9": (0.10, 0.16),
    "AU4": (0.10, 0.0), "AU12": (0.02, 0.07), "AU10": (0.0, 0.06), "AU2": (-0.05, 0.0), "AU20": (0.0, 0.02),
    "AU27": (-0.03, 0.0),
}  # fmt: skip
JAW_ANGLE = {"AU26": 14.0, "AU27": 26.0}
"""Degrees that the jaw opens at full intensity; both together open it hardly wider than the larger."""

ACTION_UNITS = tuple(
    f"AU{n}" for n in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 16, 17, 18, 20, 22, 23, 24, 25, 26, 27, 28, 34, 43)
)


class Motion:
    """Moves a rest head by action units. Holds only arrays made once; safe to share between threads.

    Args:
        skin: the skin's chart and triangles.
        layout: all parts of the head.
        rest: (V, 3) the mean head, mm.
    """

    def __init__(self, skin: SkinMesh, layout: Layout, rest: np.ndarray) -> None:
        self.skin, self.layout = skin, layout
        points = rest[layout["skin"]]
        lip, _ = mouth_frame(skin.chart)
        normal = vertex_normals(head_without_features(skin.chart), skin.faces).astype(np.float64)
        self.frame = Skin(skin.chart, points, normal, lip)
        self._build_fields()
        self._build_lids()
        self._build_mouth()
        self.jaw_weight = _jaw_weight(self.frame)

    def _build_fields(self) -> None:
        f = self.frame
        still = 1 - 0.8 * np.exp(-((_lid_distance(self.skin.chart) / 4.0) ** 2))
        rows, names = [], []
        for name, action in build_actions(f).items():
            left = smoothstep(f.x, -action.blend, action.blend)
            for side, weight in (("L", left), ("R", 1 - left)):
                rows.append(action.motion * (weight * still)[:, None])
                names.append((name, side, "motion"))
                if action.furrows is not None:
                    rows.append(action.furrows * (weight * still)[:, None])
                    names.append((name, side, "furrows"))
        rows = np.stack(rows)
        self._active = np.flatnonzero(np.abs(rows).max((0, 2)) > 1e-3)
        self._fields = rows[:, self._active].reshape(len(rows), -1).astype(np.float32)
        self._names = names

    def _build_lids(self) -> None:
        """Per eye: vertices near it, where they stand along the lids, how far they follow the upper and lower one."""
        chart = self.skin.chart
        count = len(self.skin.eye_left)
        self._lid_columns = -np.cos(np.linspace(0, np.pi, count // 2 + 1))
        self._lids = {}
        for side, sign in (("L", 1.0), ("R", -1.0)):
            near = np.flatnonzero((np.abs(sign * chart[:, 0] - EYE[0]) < 20) & (np.abs(chart[:, 1] - EYE[1]) < 19))
            s = (sign * chart[near, 0] - EYE[0]) / EYE_HALF_WIDTH
            v = chart[near, 1] - EYE[1]
            clipped = np.clip(s, -1, 1)
            above = v - lid_outline(clipped, np.ones(len(s), bool))
            below = lid_outline(clipped, np.zeros(len(s), bool)) - v
            upper = np.where(above > -0.01, 1 - smoothstep(above, 0.8, 10.0), 0.0)
            lower = np.where(below > -0.01, 1 - smoothstep(below, 0.5, 9.0), 0.0)
            lower = np.where((above > -0.01) & (below > -0.01), 0.0, lower)
            ring = self.skin.eye_left if side == "L" else self.skin.eye_right
            top, bottom = ring[: count // 2 + 1], np.append(ring[0], ring[: count // 2 - 1 : -1])
            self._lids[side] = (near, s, upper, lower, top, bottom)

    def _build_mouth(self) -> None:
        ring = self.skin.mouth
        half = len(ring) // 2
        self._lip_pairs = ring[: half + 1], np.append(ring[0], ring[: half - 1 : -1])
        f = self.frame
        self._near_lips = np.flatnonzero((f.front > 0) & (f.ax < 30) & (np.abs(f.lip) < 12))
        near = self._near_lips
        fade = np.exp(-((f.lip[near] / 5.0) ** 2))
        self._lip_up = np.where(f.above[near], fade, 0.0)
        self._lip_down = np.where(f.above[near], 0.0, fade)
        self._off_teeth = np.flatnonzero((f.front > 0) & (f.ax < 26) & (np.abs(f.lip) < 9))
        turn = np.linspace(0, 2 * np.pi, len(ring), endpoint=False)
        depth = cavity_depth(len(ring)).reshape(-1, len(ring))
        self._cavity_follow = 1 - 0.75 * depth
        self._cavity_lips = np.clip(1 - depth / 0.55, 0, 1)
        self._cavity_jaw = 0.5 - 0.5 * np.sin(turn)

    def apply(self, rest: np.ndarray, units: Mapping[str, tuple[float, float]], furrows: float) -> np.ndarray:
        """The head moved by action units.

        Args:
            rest: (V, 3) float64, an identity's neutral head, mm.
            units: name → intensity on the subject's left and right, as `synthesis.base.sided` gives.
            furrows: how deep this person's skin folds, 1 for a mean adult.

        Returns:
            (V, 3) float64, mm.
        """
        head = rest.copy()
        points = head[self.layout["skin"]]
        points[self._active] += self._displacement(units, furrows)
        eyes = {"L": _eye_middle(rest[self.layout["eye_left"]]), "R": _eye_middle(rest[self.layout["eye_right"]])}
        for index, side in enumerate("LR"):
            self._close_lids(points, side, eyes[side], {name: pair[index] for name, pair in units.items()})
        self._part_lips(points)
        teeth_front = rest[self.layout["upper_teeth"], 2].max() - arch_depth(np.zeros(1))[0] - 1.2
        off = self._off_teeth
        points[off, 2] = np.maximum(points[off, 2], arch_depth(points[off, 0]) + teeth_front + 1.4)
        moved_lips = points[self.skin.mouth] - rest[self.skin.mouth]
        turn, slide = jaw_turn(units)
        points += self.jaw_weight[:, None] * (turned(points, turn, slide) - points)
        head[self.layout["skin"]] = points
        self._follow(head, rest, eyes, moved_lips, turn, slide)
        return head

    def _displacement(self, units: Mapping[str, tuple[float, float]], furrows: float) -> np.ndarray:
        weights = field_weights(units)
        row = np.zeros(len(self._names), np.float32)
        for index, (name, side, kind) in enumerate(self._names):
            value = weights.get(name, (0.0, 0.0))["LR".index(side)]
            row[index] = value if kind == "motion" else furrows * value**1.25
        used = np.flatnonzero(row)
        return (row[used] @ self._fields[used]).reshape(-1, 3)

    def _close_lids(self, points: np.ndarray, side: str, eye: np.ndarray, units: Mapping[str, float]) -> None:
        near, s, upper, lower, top, bottom = self._lids[side]
        shut = units.get("AU43", 0.0)
        down, up = (
            sum(_CLOSURE[name][k] * value for name, value in units.items() if name in _CLOSURE and name != "AU43")
            for k in (0, 1)
        )
        down, up = shut * _CLOSURE["AU43"][0] + (1 - shut) * down, shut * _CLOSURE["AU43"][1] + (1 - shut) * up
        total = max(down, 0) + max(up, 0)
        if total > 1:
            down, up = down / total, up / total
        gap = points[top, 1] - points[bottom, 1]
        gap = np.where(gap < 0, gap / max(down + up, 1e-6) if down + up > 0.05 else 0.0, gap)
        column = np.interp(s, self._lid_columns, gap, left=0, right=0)
        points[near, 1] += column * (up * lower - down * upper)
        ray = points[near] - eye
        length = np.linalg.norm(ray, axis=1, keepdims=True)
        points[near] = eye + ray * np.maximum(1.0, (LID_RADIUS - 0.05) / length)

    def _part_lips(self, points: np.ndarray) -> None:
        """Moves lips that have crossed back to where they just touch, each by half."""
        top, bottom = self._lip_pairs
        overlap = np.clip(points[bottom, 1] - points[top, 1], 0, None)
        if overlap.max() < 1e-6:
            return
        u = self.skin.chart[self._near_lips, 0]
        order = np.argsort(self.skin.chart[top, 0])
        push = np.interp(u, self.skin.chart[top, 0][order], overlap[order], left=0, right=0)
        points[self._near_lips, 1] += 0.5 * push * (self._lip_up - self._lip_down)

    def _follow(self, head, rest, eyes, moved_lips, turn, slide) -> None:
        """Parts that hang on the skin or on the jaw."""
        for side, part, ring in (("L", "lid_left", self.skin.eye_left), ("R", "lid_right", self.skin.eye_right)):
            head[self.layout[part]] = lid_rim(head[ring], eyes[side])
        cavity = rest[self.layout["mouth"]].reshape(-1, len(self.skin.mouth), 3)
        cavity = cavity + self._cavity_follow[..., None] * moved_lips
        lips = self.jaw_weight[self.skin.mouth]
        weight = self._cavity_lips * lips + (1 - self._cavity_lips) * self._cavity_jaw
        cavity = cavity + weight[..., None] * (turned(cavity, turn, slide) - cavity)
        head[self.layout["mouth"]] = cavity.reshape(-1, 3)
        for part in ("lower_teeth", "tongue"):
            head[self.layout[part]] = turned(head[self.layout[part]], turn, slide)


def field_weights(units: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Intensity of every field, with the places where units do not simply add up.

    Raised brows hold against AU4's lowering (its drawing together stays), and a mouth stretched or pressed at once
    goes with the stronger pull.
    """

    def of(name: str) -> np.ndarray:
        return np.array(units.get(name, (0.0, 0.0)))

    weights = {name: np.array(pair) for name, pair in units.items()}
    weights["AU4 together"] = of("AU4")
    weights["AU4 lower"] = of("AU4") * (1 - 0.85 * np.maximum(of("AU1"), 0.8 * of("AU2")))
    weights["AU18"] = of("AU18") * (1 - 0.5 * np.maximum(of("AU12"), of("AU20")))
    weights["AU15"] = of("AU15") * (1 - 0.4 * of("AU12"))
    press = 1 - np.clip(of("AU23") + of("AU24") + of("AU28"), 0, 1)
    weights["AU25"] = of("AU25") * press
    weights["AU24"] = of("AU24") * (1 - 0.4 * of("AU23"))
    weights["AU23"] = of("AU23") * (1 - 0.4 * of("AU24"))
    return {name: (float(pair[0]), float(pair[1])) for name, pair in weights.items()}


def jaw_turn(units: Mapping[str, tuple[float, float]]) -> tuple[float, np.ndarray]:
    """Angle by which the jaw opens, radians, and how far it slides, (3,) mm. One-sided units open half as far."""
    pairs = {name: units.get(name, (0.0, 0.0)) for name in JAW_ANGLE}
    angle = sum((JAW_ANGLE[name] * (left + right) / 2) ** 3 for name, (left, right) in pairs.items()) ** (1 / 3)
    sideways = sum(left - right for left, right in pairs.values())
    return np.deg2rad(angle), np.array([2.5 * sideways, -0.06 * angle, 0.3 * angle])


def turned(points: np.ndarray, angle: float, slide: np.ndarray) -> np.ndarray:
    """Points (..., 3) moved with the opening jaw: about the hinge, then along the joint."""
    y, z = points[..., 1] - HINGE[1], points[..., 2] - HINGE[2]
    cosine, sine = np.cos(angle), np.sin(angle)
    rotated = np.stack([points[..., 0], HINGE[1] + cosine * y - sine * z, HINGE[2] + sine * y + cosine * z], -1)
    return rotated + slide


def _eye_middle(eyeball: np.ndarray) -> np.ndarray:
    return eyeball[0] - [0, 0, EYE_RADIUS + 0.9]


def _lid_distance(chart: np.ndarray) -> np.ndarray:
    """Distance to the opening between the lids, mm, roughly."""
    u = np.abs(chart[:, 0]) - EYE[0]
    s = np.clip(u / EYE_HALF_WIDTH, -1, 1)
    v = chart[:, 1] - EYE[1]
    high, low = lid_outline(s, np.ones(len(s), bool)), lid_outline(s, np.zeros(len(s), bool))
    vertical = np.maximum(np.maximum(v - high, low - v), 0)
    return np.hypot(vertical, np.maximum(np.abs(u) - EYE_HALF_WIDTH, 0))


def _jaw_weight(f: Skin) -> np.ndarray:
    """How far skin follows the jaw: 1 on the chin, 0 on the upper lip, about 0.4 at the corners of the mouth.

    Written in elliptic coordinates about the mouth line, in which upper and lower lip are different sides of one angle;
    so the opening is an ellipse, and weights are smooth everywhere but across the mouth.
    """
    distance = np.where(np.abs(f.lip) < 1e-6, np.where(f.above, 1e-6, -1e-6), f.lip)
    ellipse = np.arccosh((f.x + 1j * distance) / MOUTH_HALF_WIDTH)
    sine, far = np.sin(ellipse.imag), smoothstep(np.abs(ellipse.real), 0.1, 1.0)
    below = 0.42 + 0.58 * np.abs(sine) ** (1 - 0.45 * far)
    above = 0.42 * (1 - np.abs(sine) ** (1 - 0.4 * far)) * np.exp(-((distance / 36) ** 2))
    weight = np.where(sine < 0, below, above)
    return weight * (1 - smoothstep(np.abs(f.u), 85, 125)) * smoothstep(f.v, -128, -80)

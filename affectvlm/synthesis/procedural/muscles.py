"""What each action unit does to the skin, as displacement fields in mm at full intensity.

Every unit is one or more fields: where the skin is drawn (a direction, strongest at the muscle's insertion and fading
with distance), where it swells, and which furrows appear. Furrows are separate fields so that age can deepen them. The
units and their looks follow Ekman & Friesen, Facial Action Coding System (1978); amounts are typical millimetres. Lid
closure, jaw rotation and contact between lips, teeth and eyes are not linear and live in `motion`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from affectvlm.synthesis.procedural.surface import (
    NASOLABIAL,
    bell,
    lip_extent,
    polyline_distance,
    smoothstep,
)
from affectvlm.synthesis.procedural.topology import MOUTH_HALF_WIDTH


class Skin:
    """The mean face's skin in the coordinates that the fields are written in.

    Attributes:
        x, y, z: (S,) position, mm; ax is |x|; out is the sign of x, softened on the midline.
        lip: (S,) signed distance above (+) or below (-) the mouth line, mm.
        upper, lower: (S,) 1 on the red of that lip, fading over 3 mm beyond it.
        s: (S,) 0 in the middle of the mouth, 1 at its corners.
        normal: (S, 3) unit normals of the head's broad form, without its features.
        front: (S,) 1 on the face, 0 from the ears back.
    """

    def __init__(self, chart: np.ndarray, points: np.ndarray, normal: np.ndarray, lip: np.ndarray) -> None:
        self.x, self.y, self.z = points.T
        self.u, self.v = chart.T
        self.ax = np.abs(self.x)
        self.out = np.tanh(self.x / 2.5)
        self.lip = lip
        self.s = self.ax / MOUTH_HALF_WIDTH
        self.normal = normal
        self.front = smoothstep(self.z, -108, -85)
        self.above = (lip > 0) | ((lip == 0) & (self.v > -38))
        top, bottom = lip_extent(self.x)
        beyond = np.where(self.above, lip - top, -lip - bottom)
        red = np.exp(-((np.clip(beyond, 0, None) / 3.0) ** 2)) * np.exp(-((np.clip(self.ax - 26, 0, None) / 3) ** 2))
        self.upper, self.lower = self.front * red * self.above, self.front * red * ~self.above
        self.lip_size = np.where(self.above, top, bottom)

    def bump(self, cx: float, cy: float, sx: float, sy: float | None = None) -> np.ndarray:
        """A bump on each side of the face."""
        return self.front * bell(self.ax, self.y, cx, cy, sx, sy)

    def skewed(self, cx: float, cy: float, sx: float, up: float, down: float) -> np.ndarray:
        """A bump that reaches `up` mm upward and `down` mm downward."""
        return self.front * bell(self.ax, self.y, cx, cy, sx, np.where(self.y > cy, up, down))

    def move(self, weight: np.ndarray, outward: float, up: float, forward: float) -> np.ndarray:
        """(S, 3): a pull of so many mm, mirrored on the other side."""
        return weight[:, None] * np.stack(
            [self.out * outward, np.full(len(self.x), up), np.full(len(self.x), forward)], 1
        )

    def swell(self, weight: np.ndarray) -> np.ndarray:
        return weight[:, None] * self.normal

    def furrow(self, curve: list | np.ndarray, depth: float, width: float = 2.0, bulge: float = 1.0) -> np.ndarray:
        """A groove `depth` mm deep along a curve given on the subject's left, with swollen banks."""
        crease = polyline_distance(self.ax, self.y, np.asarray(curve, float))
        return self.swell(-depth * self.front * crease.groove(width, bulge))

    def fold(self, curve: list | np.ndarray, depth: float) -> np.ndarray:
        """Skin rolling over a crease along a curve; the roll is on the curve's left."""
        crease = polyline_distance(self.ax, self.y, np.asarray(curve, float), taper=0.4)
        return self.swell(depth * self.front * crease.fold())

    def lip_weight(self, above: float, below: float, middle: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """`middle(s)` along the mouth, fading over `above` mm up and `below` mm down."""
        reach = np.where(self.above, above, below)
        return self.front * middle(self.s) * np.exp(-0.5 * (self.lip / reach) ** 2)

    def top(self, reach: float) -> np.ndarray:
        """The upper lip and `reach` mm above it, weaker at the corners."""
        return self.above * self.lip_weight(reach, 1.0, lambda s: np.exp(-((s / 0.85) ** 4)))

    def bottom(self, reach: float) -> np.ndarray:
        """The lower lip and `reach` mm below it, weaker at the corners."""
        return ~self.above * self.lip_weight(1.0, reach, lambda s: np.exp(-((s / 0.85) ** 4)))

    def gathered(self) -> np.ndarray:
        """Everything round the mouth that is drawn towards its middle when the lips purse."""
        return self.lip_weight(14, 14, lambda s: np.clip(s, 0, 1) * np.exp(-((np.clip(s - 1, 0, None) / 0.6) ** 2)))


@dataclass(frozen=True)
class Action:
    """One action unit's fields, (S, 3) mm at full intensity on both sides; `blend` mm wide seam between the sides."""

    motion: np.ndarray
    furrows: np.ndarray | None = None
    blend: float = 6.0


def arch(s: np.ndarray) -> np.ndarray:
    """1 in the middle of the mouth, 0 from its corners on."""
    return np.sqrt(np.clip(1 - s**2, 0, 1))


def corner(s: np.ndarray) -> np.ndarray:
    """0 in the middle of the mouth, 1 at its corners, fading on the cheek."""
    return np.clip(s, 0, 1) ** 1.6 * np.exp(-((np.clip(s - 1, 0, None) / 0.55) ** 2))


def ramp(s: np.ndarray) -> np.ndarray:
    """How far a point shares in a sideways pull on the corner: rising to 1 there, fading on the cheek."""
    return np.clip(s, 0, 1) ** 1.1 * np.exp(-((np.clip(s - 1, 0, None) / 0.7) ** 2))


def thin(f: Skin, part: float) -> np.ndarray:
    """Lips drawn towards the mouth line by that part of their height."""
    beyond = np.clip(np.abs(f.lip) - f.lip_size, 0, None)
    shift = -np.sign(f.lip) * np.minimum(np.abs(f.lip), f.lip_size) * part * np.exp(-beyond / 6.0)
    return np.stack([0 * shift, shift * f.front * np.exp(-((np.clip(f.s - 1, 0, None) / 0.2) ** 2)), 0 * shift], 1)


def build_actions(f: Skin) -> dict[str, Action]:
    """All fields by name. "AU4" is split into drawing together and lowering, because raised brows stop the latter."""
    return _brow(f) | _cheek(f) | _sneer(f) | _smile(f) | _corners(f) | _chin_and_jaw(f) | _lips(f)


def _brow(f: Skin) -> dict[str, Action]:
    lines = [(61, 1.0), (69, 1.15), (77, 1.0)]
    inner = sum(f.furrow([[-14, y + 1], [0, y], [12, y + 0.5], [26, y + 2.5]], 0.75 * d, 2.4) for y, d in lines)
    outer = sum(f.furrow([[14, y + 1], [28, y + 3.5], [42, y + 3], [56, y - 3]], 0.75 * d, 2.4) for y, d in lines)
    frown = f.furrow([[4.5, 35], [5.5, 42], [7.0, 50], [6.5, 57], [5.5, 63]], 1.35, 2.4) + f.furrow(
        [[-4, 37.5], [0, 36.5], [4, 37.5]], 1.0, 1.6
    )
    together = f.skewed(16, 49, 11, 10, 7)
    return {
        "AU1": Action(
            f.move(f.skewed(13, 50, 11, 17, 8), 0.4, 7.0, 0.3) + f.swell(0.8 * f.bump(15, 57, 10, 4)), inner, 8.0
        ),
        "AU2": Action(
            f.move(f.skewed(44, 52, 14, 17, 8.5), 1.2, 7.5, -1.0) + f.swell(0.7 * f.bump(40, 60, 13, 4)), outer
        ),
        "AU4 together": Action(
            f.move(together, -3.6, -0.4, 0.8) + f.swell(1.7 * f.bump(12, 49, 5, 6) - 0.9 * f.bump(0, 47, 3, 8)),
            frown,
            3.0,
        ),
        "AU4 lower": Action(
            f.move(f.skewed(18, 50, 14, 15, 8.5), -0.4, -5.6, 1.2)
            + f.move(f.skewed(42, 52, 13, 13, 8), 0, -2.8, 0.4)
            + f.swell(1.0 * f.bump(20, 44, 11, 3.5)),
        ),
        "AU5": Action(f.move(f.skewed(31, 43, 14, 6, 5), 0, 1.0, -0.6)),
    }


def _under_eye(f: Skin) -> np.ndarray:
    return f.furrow([[19, 22], [26, 18], [34, 17], [43, 20]], 1.0, 2.0)


def _cheek(f: Skin) -> dict[str, Action]:
    feet = [[[47, 30], [53, 34], [60, 39]], [[48, 28], [55, 29], [63, 30]], [[47, 26], [54, 23], [61, 20]]]
    crows = sum(f.furrow(line, 0.65, 1.9) for line in feet)
    pouch = _under_eye(f)
    return {
        "AU6": Action(
            f.move(f.skewed(45, 3, 15, 12, 14), -0.6, 5.6, 2.2)
            + f.swell(2.6 * f.bump(43, 7, 12, 7) + 0.8 * f.bump(31, 19.5, 11, 3))
            + f.move(f.bump(52, 40, 9, 7), -0.5, -1.8, 0.2)
            + f.move(f.bump(26, -20, 9, 12), 0.4, 1.4, 0.4),
            crows + pouch + 0.5 * f.fold(NASOLABIAL[:5], 1.05),
        ),
        "AU7": Action(
            f.swell(0.9 * f.bump(31, 22, 11, 2.6)) + f.move(f.bump(31, 20, 13, 5), -0.6, 1.4, 0.3),
            0.5 * pouch + 0.2 * crows,
        ),
    }


def _sneer(f: Skin) -> dict[str, Action]:
    bunny = sum(
        f.furrow(line, 0.9, 1.5)
        for line in (
            [[3, 36], [7, 33], [12, 28]],
            [[3, 31], [8, 27], [13, 22]],
            [[-3, 33], [0, 34], [3, 33]],
            [[-3, 38], [0, 39], [3, 38]],
        )
    )
    return {
        "AU9": Action(
            f.move(f.skewed(16, -7, 7, 13, 6), 0.5, 5.0, -0.2)
            + f.move(f.skewed(24, -16, 8, 10, 9), -1.2, 6.0, 1.2)
            + f.move(f.lip_weight(13, 1.5, lambda s: np.exp(-(((s - 0.5) / 0.5) ** 2))) * f.above, 0, 4.4, 0.5)
            + f.move(f.skewed(14, 48, 12, 9, 8), -1.4, -3.4, 0.8)
            + f.swell(1.9 * f.bump(17, 12, 6, 8) + 1.2 * f.bump(8, 28, 4, 5))
            + f.move(f.bump(31, 20, 12, 5), -0.8, 1.5, 0.6),
            bunny + 0.9 * f.fold([[15, 2], [19, -5], [24, -13], [29, -24], [31, -34]], 1.8),
            4.0,
        ),
        "AU10": Action(
            f.move(f.lip_weight(12, 1.5, lambda s: np.exp(-(((s - 0.3) / 0.6) ** 4))) * f.above, 0.4, 6.0, 0.9)
            + f.move(f.skewed(25, -17, 8, 11, 9), 0.6, 5.2, 1.6)
            + f.move(f.skewed(15, -8, 6, 6, 5), 0.8, 2.4, 0)
            + f.move(f.lip_weight(8, 8, corner), 0, 1.6, 0)
            + f.swell(2.0 * f.bump(30, -8, 9, 8)),
            f.fold(NASOLABIAL[:5], 1.5) + 0.3 * _under_eye(f),
            4.0,
        ),
    }


def _smile(f: Skin) -> dict[str, Action]:
    corner_reach = f.lip_weight(15, 13, corner)
    side_reach = f.lip_weight(16, 14, ramp)
    whole = f.lip_weight(10, 11, lambda s: np.exp(-((s / 1.1) ** 4)))
    dimple = f.fold([[28, -26], [32, -33], [33, -40], [31.5, -47], [28, -54]], 1.8)
    return {
        "AU12": Action(
            f.move(side_reach, 8.0, 0.5, 0)
            + f.move(corner_reach, 0, 9.5, -7.5)
            + f.move(whole, 0, 0.6, -1.6)
            + 0.9 * thin(f, 0.22)
            + f.move(f.skewed(41, -18, 12, 17, 13), 2.6, 6.0, 0.5)
            + f.swell(3.6 * f.bump(41, -5, 12, 11) - 1.6 * f.bump(42, -44, 10, 12))
            + f.move(f.bump(14, -10, 7, 6), 1.6, 1.2, -0.8)
            + f.move(f.bump(32, 20, 12, 4), 0, 0.8, 0.5),
            f.fold(NASOLABIAL, 1.45),
            8.0,
        ),
        "AU14": Action(
            f.move(f.lip_weight(8, 8, corner), 3.0, 1.4, -4.0)
            + f.move(f.lip_weight(6, 6, lambda s: ramp(s) * (s < 1.2)), 1.6, 0, -0.6)
            + f.swell(-1.6 * f.bump(30, -39, 5, 6) + 1.4 * f.bump(38, -38, 6, 10)),
            dimple,
        ),
    }


def _corners(f: Skin) -> dict[str, Action]:
    side_reach = f.lip_weight(12, 13, ramp)
    return {
        "AU15": Action(
            f.move(f.lip_weight(10, 13, corner), 1.2, -8.0, -2.2)
            + f.move(f.lip_weight(9, 9, lambda s: np.exp(-((s / 0.6) ** 2))), 0, 0.6, 0.3)
            + f.swell(1.7 * f.bump(24, -54, 8, 5)),
            f.fold([[26, -34], [30, -42], [32.5, -51], [32.5, -60], [30, -68]], 1.3)
            + f.furrow([[-9, -56], [0, -55], [9, -56]], 0.9, 2.5),
            8.0,
        ),
        "AU20": Action(
            f.move(side_reach, 8.5, -1.8, -1.5)
            + f.move(f.lip_weight(10, 10, corner), 0, 0, -5.5)
            + f.move(f.lip_weight(8, 9, lambda s: np.exp(-((s / 1.0) ** 4))), 0, 0, -1.2)
            + thin(f, 0.22)
            + f.move(f.bump(34, -58, 12, 12), 3.0, -2.2, -1.0)
            + f.swell(1.3 * f.bump(40, -40, 6, 13)),
            f.fold([[29, -24], [35, -32], [38, -41], [37.5, -50], [34, -58]], 1.6) + 0.5 * f.fold(NASOLABIAL, 1.6),
            8.0,
        ),
    }


def _chin_weight(f: Skin) -> np.ndarray:
    return f.skewed(0, -65, 13, 9, 8)


def _chin_and_jaw(f: Skin) -> dict[str, Action]:
    """The jaw's turn is made in `motion`; here only what the skin does besides."""
    chin, gathered = _chin_weight(f), f.gathered()
    dimples = (
        0.12
        * np.cos(f.x * 1.15)
        * np.sin(f.y * 1.05)
        * f.front
        * np.exp(-0.5 * ((f.x / 9) ** 2 + ((f.y + 66) / 6) ** 2))
    )
    part_top = f.lip_weight(8, 1.0, arch) * f.above
    part_bottom = f.lip_weight(1.0, 9, arch) * ~f.above
    return {
        "AU16": Action(
            f.move(f.lip_weight(1.0, 9, lambda s: np.exp(-((s / 0.78) ** 6))) * ~f.above, 0.3, -6.0, 0.6)
            + f.swell(1.2 * f.bump(13, -56, 9, 4))
            + f.move(f.bump(20, -56, 9, 8), 0.6, -2.2, 0),
            f.furrow([[-15, -57], [0, -58], [15, -57]], 0.7, 2.6),
            6.0,
        ),
        "AU17": Action(
            f.move(chin, 0, 6.5, 1.4)
            + f.swell(1.8 * f.bump(0, -66, 10, 6))
            + f.move(f.bottom(8), 0, 4.2, 3.4)
            + f.move(f.top(7), 0, 2.6, 1.4)
            + f.move(f.lip_weight(8, 9, corner), 0, -1.6, 0),
            f.swell(dimples) + f.furrow([[-13, -53], [0, -52], [13, -53]], 1.6, 2.6),
            8.0,
        ),
        "AU25": Action(f.move(part_top, 0, 2.2, 0.3) + f.move(part_bottom, 0, -3.4, 0.2), None, 6.0),
        "AU26": Action(f.move(gathered, -3.0, 0, 0.5), None, 8.0),
        "AU27": Action(f.move(gathered, -5.5, 0, 0.5) - f.swell(1.5 * f.bump(42, -30, 12, 14)), None, 8.0),
        "AU34": Action(
            f.swell(9.0 * f.bump(38, -32, 13, 14) + 3.0 * f.bump(16, -26, 10, 5) + 3.0 * f.bump(16, -52, 11, 5))
            + f.move(f.lip_weight(9, 9, corner), -2.0, 0, 2.5),
            None,
            8.0,
        ),
    }


def _lips(f: Skin) -> dict[str, Action]:
    whole, gathered = f.lip_weight(8, 8, lambda s: np.exp(-(s**4))), f.gathered()
    purse = 0.22 * np.cos(f.x * 1.3) * f.lip_weight(9, 8, lambda s: np.exp(-((s / 0.55) ** 2))) * (np.abs(f.lip) > 2)
    return {
        "AU18": Action(
            f.move(gathered, -10.0, 0, 0)
            + f.move(whole, 0, 0, 5.2)
            + f.move(f.lip_weight(9, 9, corner), 0, 0, 3.4)
            + f.move(f.top(7), 0, 1.0, 0)
            - f.move(f.bottom(7), 0, 1.0, 0),
            f.swell(purse),
            8.0,
        ),
        "AU22": Action(
            f.move(gathered, -5.5, 0, 0)
            + f.move(f.top(8), 0, 4.2, 5.5)
            + f.move(f.bottom(8), 0, -5.0, 4.8)
            + f.move(f.lip_weight(8, 8, corner), 0, 0, 4.5),
            None,
            8.0,
        ),
        "AU23": Action(
            thin(f, 0.42)
            + f.move(f.lip_weight(6, 6, ramp), -2.0, 0, 0)
            + f.move((f.upper + f.lower) * arch(f.s), 0, 0, -1.6)
            + f.swell(1.0 * f.bump(0, -50, 17, 3.5) + 0.9 * f.bump(8, -27, 10, 3)),
            f.swell(purse) + f.furrow([[-13, -53], [0, -54], [13, -53]], 0.9, 2.5),
        ),
        "AU24": Action(
            thin(f, 0.5)
            + f.move((f.upper + f.lower) * arch(f.s), 0, 0, -2.4)
            + f.swell(1.7 * f.bump(0, -50, 18, 4) + 1.4 * f.bump(8, -27, 11, 3.5) + 1.2 * f.bump(34, -42, 7, 9))
            + f.move(_chin_weight(f), 0, 1.6, 0.8),
            f.furrow([[-13, -54], [0, -55], [13, -54]], 1.1, 2.5),
        ),
        "AU28": Action(
            thin(f, 0.8)
            + f.move((f.upper + f.lower) * np.sqrt(arch(f.s)), 0, 0, -3.0)
            + f.move(f.top(7), 0, -1.6, -1.6)
            + f.move(f.bottom(8), 0, 2.0, -1.8),
            None,
            6.0,
        ),
    }

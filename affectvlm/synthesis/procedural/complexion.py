"""Colours of the procedural head, one per vertex."""

from __future__ import annotations

import numpy as np

from affectvlm.synthesis.procedural.muscles import Skin
from affectvlm.synthesis.procedural.parts import (
    IRIS_RADIUS,
    Layout,
    cavity_depth,
    eye_tilt_and_turn,
    teeth_pattern,
)
from affectvlm.synthesis.procedural.surface import EYE_RADIUS, bell, lip_extent, smoothstep
from affectvlm.synthesis.procedural.topology import EYE, EYE_HALF_WIDTH, SkinMesh, lid_outline


class Complexion:
    """Paints heads; `masks` (name → (S,) in [0, 1]) say where on the skin what grows."""

    def __init__(self, skin: SkinMesh, layout: Layout, frame: Skin) -> None:
        self.skin, self.layout = skin, layout
        x, y = frame.ax, frame.y
        rng = np.random.default_rng(20)
        noise = rng.normal(size=len(x))
        noise = (noise + noise[skin.twin]) / np.sqrt(2)
        top, bottom = lip_extent(frame.x)
        size = np.where(frame.above, top, bottom)
        red = smoothstep(size - np.abs(frame.lip), -0.7, 0.7) * smoothstep(-x, -26.5, -24.5) * frame.front
        self.masks = {
            "lips": red * (np.abs(frame.lip) < 14),
            "brows": brow_mask(frame) * np.clip(0.85 + 0.25 * noise, 0, 1),
            "lashes": self._lashes(),
            "blush": frame.front * (bell(x, y, 44, -3, 15, 12) + 0.9 * bell(x, y, 0, -3, 9, 9)),
            "shade": frame.front * (bell(x, y, 31, 24, 12, 6) * 0.7 + bell(x, y, 22, 33, 7, 6) * 0.6),
            "stubble": self._beard(frame) * np.clip(0.8 + 0.4 * noise, 0, 1),
            "hair": self._hair(frame, noise),
            "nostrils": frame.front * np.clip(1.6 * bell(x, y, 6.3, -10.3, 2.1, 1.9), 0, 1),
        }
        self.mottle = 0.02 * noise

    def _lashes(self) -> np.ndarray:
        u, v = np.abs(self.skin.chart[:, 0]) - EYE[0], self.skin.chart[:, 1] - EYE[1]
        s = np.clip(u / EYE_HALF_WIDTH, -1, 1)
        upper = np.abs(v - lid_outline(s, np.ones(len(s), bool)))
        lower = np.abs(v - lid_outline(s, np.zeros(len(s), bool)))
        inside = smoothstep(-np.abs(u), -EYE_HALF_WIDTH - 1, -EYE_HALF_WIDTH + 2)
        return inside * np.maximum(np.exp(-((upper / 0.9) ** 2)), 0.45 * np.exp(-((lower / 0.6) ** 2)))

    @staticmethod
    def _beard(f: Skin) -> np.ndarray:
        jaw = smoothstep(-f.y - 0.35 * f.ax, 8, 30) * smoothstep(f.v, -112, -92) * smoothstep(-np.abs(f.u), -105, -85)
        lip = bell(f.ax, f.y, 10, -24, 14, 5)
        return np.clip(jaw * smoothstep(f.ax + np.clip(-f.y - 46, 0, 40), 24, 36) + 0.9 * lip, 0, 1) * (
            np.abs(f.lip) > 1
        )

    @staticmethod
    def _hair(f: Skin, noise: np.ndarray) -> np.ndarray:
        line = (
            92
            - 0.55 * np.clip(np.abs(f.u) - 40, 0, 55)
            - 26 * smoothstep(np.abs(f.u), 78, 92)
            - 50 * smoothstep(np.abs(f.u), 105, 150)
        )
        return smoothstep(f.v - line + 1.2 * noise, -3, 3)

    def paint(self, look) -> np.ndarray:
        """(V, 3) uint8 RGB for a `Look`."""
        layout = self.layout
        colors = np.zeros((len(layout.twin), 3), np.float32)
        skin = np.asarray(look.skin, np.float32)
        tint = np.broadcast_to(skin, (len(self.skin.chart), 3)) * (1 + self.mottle)[:, None].astype(np.float32)
        m = self.masks
        for mask, colour, strength in (
            ("blush", skin * [1.04, 0.78, 0.76], 0.45),
            ("shade", skin * [0.86, 0.78, 0.8], 0.55),
            ("stubble", skin * 0.45 + np.asarray(look.hair) * 0.35, look.stubble),
            ("lips", look.lips, 0.9),
            ("nostrils", skin * [0.3, 0.22, 0.2], 0.95),
            ("hair", look.hair, look.hairiness),
            ("brows", look.brows, 0.85),
            ("lashes", (38, 28, 26), 0.85),
        ):
            part = (m[mask] * strength)[:, None].astype(np.float32)
            tint = tint + part * (np.asarray(colour, np.float32) - tint)
        colors[layout["skin"]] = tint
        self._paint_parts(colors, skin, look)
        return np.clip(colors, 0, 255).astype(np.uint8)

    def _paint_parts(self, colors: np.ndarray, skin: np.ndarray, look) -> None:
        layout = self.layout
        for part in ("lid_left", "lid_right"):
            colors[layout[part]] = skin * [0.85, 0.62, 0.6]
        eye = self._eye(look)
        colors[layout["eye_left"]] = eye
        colors[layout["eye_right"]] = eye
        depth = cavity_depth(len(self.skin.mouth))[:, None]
        colors[layout["mouth"]] = (1 - depth) * np.asarray(look.lips) * [0.85, 0.7, 0.7] + depth * [38, 8, 10]
        gum, gap = teeth_pattern()
        enamel = np.asarray(look.teeth) * (1 - 0.35 * gap[:, None])
        for part in ("upper_teeth", "lower_teeth"):
            colors[layout[part]] = gum[:, None] * [168, 84, 84] + (1 - gum[:, None]) * enamel
        colors[layout["tongue"]] = [172, 84, 86]
        for part in ("ear_left", "ear_right"):
            colors[layout[part]] = skin * [1.0, 0.88, 0.87]

    def _eye(self, look) -> np.ndarray:
        tilt, turn = eye_tilt_and_turn()
        edge = np.arcsin(IRIS_RADIUS / EYE_RADIUS)
        iris = smoothstep(edge - tilt, -0.01, 0.02)[:, None]
        pupil = smoothstep(np.deg2rad(11) - tilt, -0.03, 0.03)[:, None]
        rays = 1 + 0.16 * np.sin(turn * 8)[:, None] * np.sin(tilt * 9)[:, None]
        limbus = 1 - 0.5 * np.exp(-(((tilt - edge) / 0.06) ** 2))[:, None]
        white = np.array([232, 226, 220.0]) - smoothstep(tilt, 0.6, 1.2)[:, None] * [14, 40, 44]
        colour = iris * np.asarray(look.iris) * rays * limbus + (1 - iris) * white
        return (1 - pupil) * colour + pupil * [10, 8, 8]


def brow_mask(f: Skin) -> np.ndarray:
    """1 where the eyebrows grow."""
    middle = 48.3 + 3.6 * np.sin(np.clip((f.ax - 12) / 44, 0, 1) * np.pi * 0.85)
    half = 2.7 - 1.4 * smoothstep(f.ax, 30, 56)
    across = np.exp(-(((f.y - middle) / half) ** 4))
    return f.front * across * smoothstep(f.ax, 10.5, 15) * smoothstep(-f.ax, -57, -50)

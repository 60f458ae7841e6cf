"""Pictures to train the finder and the framer on: rendered heads with hair, glasses and clothes in front of clutter.

Everything is drawn here, nothing is read: a user can train the same network from a face model alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from affectvlm.photos.faces import FaceBox, cut_out
from affectvlm.photos.network import CLOSE_SIDE, CLOSE_UP, HALF_UNIT, LARGEST, SIDE, SMALLEST, STRIDE
from affectvlm.rendering import HALF_WIDTH_MM, PIVOT_MM, render_buffers, rotation_y
from affectvlm.scan import Scan

SPRITE = 224  # pixels
SPRITE_HALF = 170.0  # mm: holds head and neck
SURFACE = 40.0  # mm in front of the pivot; where perspective leaves sizes as they are
SCULL = (np.array([0.0, 30.0, -85.0]), np.array([84.0, 102.0, 102.0]))  # mm; centre and radii of where hair grows
EYES = np.array([[-32.0, 34.0, -22.0], [32.0, 34.0, -22.0]])


class Sprite(NamedTuple):
    """A head drawn once, its pivot in the middle, SPRITE_HALF mm from there to the edge.

    normals: (S, S, 3) int8 of unit 127; albedo: (S, S) uint8; cover: (S, S) uint8; rotation: (3, 3); distance: mm from
    the camera to the pivot; yaw: degrees; bald: True where hair may be drawn.
    """

    normals: np.ndarray
    albedo: np.ndarray
    cover: np.ndarray
    rotation: np.ndarray
    distance: float
    yaw: float
    bald: bool

    def project(self, points: np.ndarray) -> np.ndarray:
        """Canonical mm (n, 3) → (n, 3): right and down in mm from the pivot as drawn, and nearness in mm."""
        turned = (points - PIVOT_MM) @ self.rotation.T
        zoom = (self.distance - SURFACE) / (self.distance - turned[:, 2])
        return np.column_stack([turned[:, 0] * zoom, -turned[:, 1] * zoom, turned[:, 2]])


class Picture(NamedTuple):
    """image: (SIDE, SIDE) uint8 grey. faces: (n, 5) window centre x, y, half side (pixels), yaw, roll (degrees)."""

    image: np.ndarray
    faces: np.ndarray


def make_sprite(scan: Scan, rng: np.random.Generator) -> Sprite:
    """A head of a face model from a random side, through a camera at a random distance."""
    yaw = rng.normal(0, 9) if rng.random() < 0.3 else rng.uniform(-105, 105)
    pitch = np.radians(rng.normal(2, 9))
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    rotation = nod @ rotation_y(yaw)
    distance = float(np.exp(rng.uniform(np.log(380), np.log(3000))))
    masked = rng.random() < 0.2
    if masked:  # a face cut out of its head, as many scans are
        off = (scan.vertices - [0, -10, -25]) / [rng.uniform(60, 85), rng.uniform(78, 100), rng.uniform(40, 90)]
        scan = scan.keep_vertices(np.linalg.norm(off, axis=1) < 1)
    sprite = Sprite(*np.zeros((3, 1)), rotation, distance, float(yaw), not masked)
    points = sprite.project(scan.vertices.astype(np.float64)) * [1, -1, 1] + PIVOT_MM
    scan = replace(scan, vertices=points.astype(np.float32), landmarks={})
    buffers = render_buffers(scan, (0.0,), SPRITE, SPRITE_HALF, supersample=1)
    grey = buffers.albedo[0] @ np.array([0.299, 0.587, 0.114], np.float32)
    if rng.random() < 0.15:  # a relief without colours of its own
        grey = np.full_like(grey, rng.uniform(0.5, 0.9))
    return sprite._replace(
        normals=(buffers.normals[0] * 127).astype(np.int8),
        albedo=(grey * 255).astype(np.uint8),
        cover=(buffers.coverage[0] * 255).astype(np.uint8),
    )


def make_picture(sprites: list[Sprite], rng: np.random.Generator) -> Picture:
    """A random scene: usually one face, sometimes two or none."""
    image = clutter(rng)
    count = int(rng.choice([0, 1, 1, 1, 1, 1, 1, 1, 1, 2]))
    faces: list[np.ndarray] = []
    for _ in range(count):
        sprite = sprites[rng.integers(len(sprites))]
        largest = LARGEST if count == 1 else 30.0
        half = np.exp(rng.uniform(np.log(SMALLEST), np.log(largest)))
        slack = max(0.0, SIDE / 2 - 0.75 * half)
        x, y = SIDE / 2 + rng.uniform(-slack, slack, 2)
        if any(np.hypot(x - other[0], y - other[1]) < 1.6 * (half + other[2]) for other in faces):
            continue
        roll = float(np.clip(rng.normal(0, 9), -40, 40))
        mirrored = rng.random() < 0.5
        _draw_head(image, sprite, x, y, half, roll, mirrored, rng)
        faces.append(np.array([x, y, half, -sprite.yaw if mirrored else sprite.yaw, roll]))
    return Picture(_photographed(image, rng), np.array(faces, np.float32).reshape(-1, 5))


def targets(faces: np.ndarray) -> np.ndarray:
    """(8, h, w) float32 of a picture's faces: the network's outputs as they should be, and the weight of `face`.

    Cells near the middle of a face are it (1), those a little further off do not count, the rest are not (0).
    """
    cells = SIDE // STRIDE
    result = np.zeros((8, cells, cells), np.float32)
    result[7] = 1
    at = (np.arange(cells) + 0.5) * STRIDE
    for x, y, half, yaw, roll in faces:
        dx, dy = np.meshgrid(x - at, y - at)
        away = np.hypot(dx, dy) / max(half, 1.5 * STRIDE)
        result[7][away < 0.6] = 0
        inner = away < max(0.3, away.min() + 1e-3)
        result[7][inner] = 1
        angles = np.radians([yaw, roll])
        values = [
            1,
            dx / HALF_UNIT,
            dy / HALF_UNIT,
            np.log(half / HALF_UNIT),
            np.sin(angles[0]),
            np.cos(angles[0]),
            angles[1],
        ]
        for channel, value in enumerate(values):
            result[channel][inner] = np.broadcast_to(value, inner.shape)[inner]
    return result


def close_up(picture: Picture, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What the framer looks at, about a face of a picture or now and then about something else.

    Returns:
        (CLOSE_SIDE, CLOSE_SIDE) uint8, and (7,) float32, what the framer should say of it.
    """
    face = None
    if len(picture.faces) and rng.random() < 0.85:
        face = picture.faces[rng.integers(len(picture.faces))].astype(np.float64)
        x, y, half, yaw, roll = face
        off = np.clip(rng.normal(0, 0.2, 2), -0.5, 0.5) * half
        guess = half * np.exp(np.clip(rng.normal(0, 0.2), -0.5, 0.5))
        tilt = 0.0 if rng.random() < 0.4 else roll + np.clip(rng.normal(0, 8), -20, 20)
        box = FaceBox(x + off[0], y + off[1], guess, tilt)
    else:
        box = FaceBox(
            *rng.uniform(0, SIDE, 2), np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))), rng.normal(0, 8)
        )
        for x, y, half, *_ in picture.faces:
            if np.hypot(box.x - x, box.y - y) < half + 0.5 * box.half:
                box = replace(box, half=0.3 * half)  # a piece of a face is not one
    image = cut_out(picture.image, replace(box, half=CLOSE_UP * box.half), CLOSE_SIDE)
    if face is None:
        return image, np.zeros(7, np.float32)
    turn = np.radians(-box.roll)
    dx, dy = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ [x - box.x, y - box.y] / box.half
    angles = np.radians([yaw, roll - box.roll])
    said = [1, dx, dy, np.log(half / box.half), np.sin(angles[0]), np.cos(angles[0]), angles[1]]
    return image, np.array(said, np.float32)


# --- what surrounds a face --------------------------------------------------------------------------------------------


def clutter(rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """(side, side) float32 in [0, 255]: plain, shaded, textured or full of things."""
    image = np.full((side, side), rng.uniform(0, 255), np.float32)
    if rng.random() < 0.25:
        return image
    if rng.random() < 0.6:
        slope = rng.normal(0, 1.2, 2)
        ramp = np.arange(side, dtype=np.float32) - side / 2
        image += slope[0] * ramp[:, None] + slope[1] * ramp
    for _ in range(rng.integers(0, 4)):
        cells = int(2 ** rng.uniform(1, 6))
        noise = rng.normal(0, rng.uniform(5, 60), (cells, cells)).astype(np.float32)
        image += cv2.resize(noise, (side, side), interpolation=rng.choice([cv2.INTER_CUBIC, cv2.INTER_NEAREST]))
    for _ in range(rng.integers(0, 14)):
        _draw_thing(image, rng)
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 5)))
    return np.clip(image, 0, 255)


def _draw_thing(image: np.ndarray, rng: np.random.Generator) -> None:
    side = len(image)
    shade, at = float(rng.uniform(0, 255)), rng.integers(0, side, (6, 2))
    thickness = -1 if rng.random() < 0.5 else int(rng.integers(1, 8))
    axes = rng.integers(2, side // 3, 2).tolist()
    draw = rng.integers(5)
    if draw == 0:
        cv2.ellipse(image, at[0].tolist(), axes, float(rng.uniform(0, 180)), 0, 360, shade, thickness)
    elif draw == 1:
        cv2.rectangle(image, at[0].tolist(), at[1].tolist(), shade, thickness)
    elif draw == 2:
        cv2.fillPoly(image, [at[: rng.integers(3, 7)].astype(np.int32)], shade)
    elif draw == 3:
        cv2.putText(
            image, "".join(map(chr, rng.integers(33, 126, 5))), at[0].tolist(), 0, rng.uniform(0.3, 2), shade, 2
        )
    else:
        step = axes[0] + 2  # bars, as of blinds, shelves or fences
        for start in range(int(at[0][0]) % step, side, step):
            across = rng.integers(2) if step % 2 else 0
            line = ((start, 0), (start, side)) if across else ((0, start), (side, start))
            cv2.line(image, *line, shade, max(1, abs(thickness) // 2))


def _draw_head(
    image: np.ndarray, sprite: Sprite, x: float, y: float, half: float, roll: float, mirrored: bool,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Clothes, hair, head, glasses, in place."""
    scale = half / HALF_WIDTH_MM  # pixels per mm
    turn = np.radians(roll)
    axes = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    axes = axes @ np.diag([-1.0 if mirrored else 1.0, 1.0])

    def place(points: np.ndarray) -> np.ndarray:
        return points[:, :2] @ axes.T + [x, y]

    if sprite.bald and rng.random() < 0.7:
        _draw_clothes(image, place, rng)
    hair = _Hair(sprite, place, scale, rng) if sprite.bald and rng.random() < 0.65 else None
    if hair:
        hair.draw(image, behind=True)
    lit = _lit(sprite, rng)
    into = axes * (2 * SPRITE_HALF / SPRITE)
    shift = np.array([x, y]) - 0.5 - into @ np.full(2, (SPRITE - 1) / 2)
    matrix = np.column_stack([into, shift])
    if scale * 2 * SPRITE_HALF / SPRITE < 0.6:  # shrink by averaging first
        lit, cover = (cv2.resize(part, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for part in lit)
        matrix = np.column_stack([2 * into, np.array([x, y]) - 0.5 - 2 * into @ np.full(2, (SPRITE / 2 - 1) / 2)])
    else:
        lit, cover = lit
    drawn = cv2.warpAffine(lit * cover, matrix, image.shape[::-1])
    cover = cv2.warpAffine(cover, matrix, image.shape[::-1])
    image[:] = image * (1 - cover) + drawn
    if hair:
        hair.draw(image, behind=False)
    if sprite.bald and rng.random() < 0.2 and abs(sprite.yaw) < 70:
        _draw_glasses(image, sprite, place, scale, rng)


def _lit(sprite: Sprite, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """((S, S) float32 grey in [0, 255], (S, S) float32 cover in [0, 1]) under random lamps, exposed fairly well."""
    normals = sprite.normals.astype(np.float32) / 127
    light = np.full(normals.shape[:2], rng.uniform(0.1, 0.6), np.float32)
    for _ in range(rng.integers(1, 4)):
        direction = rng.normal(size=3) * [0.9, 0.6, 0.4] + [0, 0.3, 0.8]
        light += rng.uniform(0.2, 0.8) * np.maximum(
            normals @ (direction / np.linalg.norm(direction)).astype(np.float32), 0
        )
    image = sprite.albedo * light
    cover = sprite.cover.astype(np.float32) / 255
    mean = (image * cover).sum() / max(cover.sum(), 1)
    return np.clip(image * rng.uniform(70, 190) / max(mean, 5), 0, 255).astype(np.float32), cover


def _draw_clothes(image: np.ndarray, place, rng: np.random.Generator) -> None:
    wide, neck, low = rng.uniform(150, 230), rng.uniform(45, 70), rng.uniform(95, 120)
    left = np.array([[-neck, low], [-0.8 * wide, low + 45], [-wide, low + 120], [-1.1 * wide, 900]])
    outline = np.concatenate([left, left[::-1] * [-1, 1]]) + [rng.normal(0, 12), 0]
    shade = float(rng.uniform(0, 255))
    cv2.fillPoly(image, [place(outline).astype(np.int32)], shade)
    if rng.random() < 0.5:  # a collar or neckline
        neckline = np.array([[-neck, low], [0, low + rng.uniform(20, 90)], [neck, low]])
        cv2.polylines(
            image, [place(neckline).astype(np.int32)], False, float(rng.uniform(0, 255)), int(rng.integers(1, 5))
        )


class _Hair:
    """Locks: dots on the scull where hair grows, and for long hair a curtain behind the face."""

    def __init__(self, sprite: Sprite, place, scale: float, rng: np.random.Generator) -> None:
        count = 420
        direction = rng.normal(size=(count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        center, radii = SCULL
        points = center + direction * (radii + rng.gamma(2, rng.uniform(1, 9), (count, 1)))
        line = rng.normal(66, 10)
        grows = 0.9 * points[:, 1] + 0.9 * np.maximum(0, -points[:, 2] - 50) > line
        near = direction @ sprite.rotation[2]
        front = points[grows & (near > -0.15)]
        behind = points[grows & (near <= 0.1)]
        if rng.random() < 0.45:
            long = np.column_stack([
                rng.choice([-1, 1], 160) * rng.uniform(55, 115, 160), rng.uniform(-rng.uniform(40, 220), 60, 160),
                rng.uniform(-130, -75, 160),
            ])  # fmt: skip
            behind = np.concatenate([behind, long])
        self._parts = {True: place(sprite.project(behind)), False: place(sprite.project(front))}
        self._radius = max(1, int(round(rng.uniform(8, 14) * scale)))
        self._shade, self._spread = rng.uniform(5, 200), rng.uniform(2, 25)
        self._rng = rng

    def draw(self, image: np.ndarray, behind: bool) -> None:
        shades = np.clip(self._rng.normal(self._shade, self._spread, len(self._parts[behind])), 0, 255)
        for (x, y), shade in zip(self._parts[behind], shades, strict=True):
            if abs(x) < 1000 and abs(y) < 1000:
                cv2.circle(image, (int(x), int(y)), self._radius, float(shade), -1)


def _draw_glasses(image: np.ndarray, sprite: Sprite, place, scale: float, rng: np.random.Generator) -> None:
    shade, thick = (
        float(rng.choice([rng.uniform(0, 60), rng.uniform(0, 255)])),
        max(1, int(round(rng.uniform(2, 5) * scale))),
    )
    eyes = place(sprite.project(EYES))
    narrow = abs(np.cos(np.radians(sprite.yaw)))
    axes = (max(1, int(rng.uniform(21, 28) * scale * narrow)), max(1, int(rng.uniform(16, 24) * scale)))
    dark = rng.random() < 0.25
    for eye in eyes.astype(int).tolist():
        if dark:
            cv2.ellipse(image, eye, axes, 0, 0, 360, float(rng.uniform(0, 70)), -1)
        cv2.ellipse(image, eye, axes, 0, 0, 360, shade, thick)
    cv2.line(image, *eyes.astype(int).tolist(), shade, 1)


def _photographed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Something in front, blur, contrast, noise: what cameras and files bring."""
    side = len(image)
    if rng.random() < 0.12:
        width, height = rng.integers(side // 10, side // 3, 2)
        left, top = rng.integers(0, side - width), rng.integers(0, side - height)
        image[top : top + height, left : left + width] = rng.uniform(0, 255)
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.6)))
    image = 255 * np.clip(image / 255, 0, 1) ** np.exp(rng.normal(0, 0.3))
    image = (image - 128) * rng.uniform(0.4, 1.2) + 128 + rng.normal(0, 20)
    image += rng.standard_normal(image.shape).astype(np.float32) * np.float32(rng.uniform(0, 9))
    return np.clip(image, 0, 255).astype(np.uint8)

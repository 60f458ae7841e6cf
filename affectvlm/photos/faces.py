"""Where the face of a photo is, how it is turned, and the window that frames it as our rendered views frame theirs.

The face finder looks at the photo in several sizes, then again at what it found, set upright and at the size it knows
best, once as it is and once mirrored. It has seen rendered faces only, so OpenCV's Haar cascades, which have seen
photos only (Viola & Jones, CVPR 2001), have a second vote on what it found; alone they miss most faces that are turned.
A picture that is already a view of ours stays as it is (`is_own_view`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import cv2
import numpy as np

LEVELS = (88, 128, 208, 320)
"""Pixels of the photo's longer side at each look; the smallest lets a face be larger than the photo."""
POSSIBLE, FOUND = 0.2, 0.35
"""Score from which a place is looked at again, and from which it counts as a face."""
LYING, LYING_ROLL = 0.8, 60.0
"""Score from which a face that lies on its side counts, and degrees of roll from which one does: of three looks more
each may be wrong, so it has to look more like a face."""
VOTE_SIDE = 128
VOTES = np.array([0.56, 1.37, 1.52, 0.90, 1.85, -10.41])
"""Weights of the logits of finder, finder once more and framer, of the cascades' agreement (0 or 1), of the log of half
over the photo's longer side, and 1: a logistic model of 1,082 candidates in rendered and photographed pictures."""
CANDIDATES = 4
TURNED = 20.0
"""Degrees of yaw from which a face is no longer seen from the front."""


@dataclass(frozen=True)
class FaceBox:
    """A square window of a photo.

    Attributes:
        x, y: its centre in pixels (0, 0 = the photo's top left corner).
        half: half its side in pixels.
        roll: degrees by which it is turned clockwise.
        yaw: degrees by which the head is turned, > 0: nose toward image right; 0 where no face was found.
        score: how surely it holds a face, 0 to 1.
    """

    x: float
    y: float
    half: float
    roll: float = 0.0
    yaw: float = 0.0
    score: float = 0.0

    @property
    def role(self) -> str:
        """The view this is: "front", "left" (it shows the subject's left cheek) or "right"."""
        return "front" if abs(self.yaw) <= TURNED else "left" if self.yaw < 0 else "right"


def find_face(image: np.ndarray) -> FaceBox | None:
    """The most face-like window of (H, W, 3) uint8 RGB, or None where nothing looks like a face."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    best = max((second_look(grey, box) for box in candidates(grey)), key=lambda box: box.score, default=None)
    return best if best is not None and best.score >= FOUND else None


def find_lying_face(image: np.ndarray) -> FaceBox | None:
    """The face of a photo (H, W, 3) uint8 RGB that lies on a side or on its head, as cameras leave it whose note of the
    orientation got lost; its roll is beyond LYING_ROLL. None where nothing looks much like a face."""
    height, width = image.shape[:2]
    found = []
    for quarters in (1, 2, 3):
        box = find_face(np.ascontiguousarray(np.rot90(image, quarters)))
        if box is not None and box.score >= LYING and abs(box.roll) < 90 - LYING_ROLL:
            x, y = {1: (width - box.y, box.x), 2: (width - box.x, height - box.y), 3: (box.y, height - box.x)}[quarters]
            roll = (90 * quarters + box.roll + 180) % 360 - 180
            found.append(replace(box, x=x, y=y, roll=roll))
    return max(found, key=lambda box: box.score, default=None)


def candidates(grey: np.ndarray) -> list[FaceBox]:
    """Up to CANDIDATES possible faces of (H, W) uint8, the most likely first."""
    found = np.concatenate([_level(grey, side) for side in LEVELS])
    found = found[np.argsort(-found[:, 0])]
    boxes: list[FaceBox] = []
    while len(found) and len(boxes) < CANDIDATES:
        score, x, y, half = found[0, :4]
        apart = np.hypot(found[:, 1] - x, found[:, 2] - y)
        same = (apart < 0.6 * half) & (np.abs(np.log(found[:, 3] / half)) < 0.5)
        boxes.append(_mean(found[same], score))
        found = found[~same & (apart > 0.3 * half)]
    return boxes


def second_look(grey: np.ndarray, box: FaceBox) -> FaceBox:
    """The box as the framer frames it, looking twice; its score weighs what networks and cascades say of it."""
    first = _reframed(grey, box)
    framed = _reframed(grey, first)
    window = cut_out(grey, replace(framed, half=2 * framed.half), VOTE_SIDE)
    votes = [box.score, _found_again(window), framed.score]
    logits = np.log(np.clip(votes, 0.005, 0.995)) - np.log1p(-np.clip(votes, 0.005, 0.995))
    size = np.log(max(framed.half / max(grey.shape), 0.05))
    evidence = [*logits, float(cascades_agree(window)), size, 1.0]
    return replace(framed, score=float(1 / (1 + np.exp(-np.dot(VOTES, evidence)))))


def _found_again(window: np.ndarray) -> float:
    """How surely the finder sees a face in the middle of a window (VOTE_SIDE, VOTE_SIDE), half as wide; 0 to 1."""
    import torch

    from affectvlm.photos.network import HALF_UNIT, decoded, normalised, shipped_finder

    with torch.inference_mode():
        places = decoded(shipped_finder()(normalised(np.stack([window, window[:, ::-1]])))).reshape(2, -1, 6)
    away = np.abs(places[..., 1:3] - VOTE_SIDE / 2).max(axis=2)
    fits = (away < 0.35 * HALF_UNIT) & (np.abs(np.log(places[..., 3] / HALF_UNIT)) < 0.35)
    return float(np.where(fits, places[..., 0], 0).max(axis=1).mean())


def _reframed(grey: np.ndarray, box: FaceBox) -> FaceBox:
    """What the framer says of a box, on the mean of the window as it is and mirrored."""
    import torch

    from affectvlm.photos.network import CLOSE_SIDE, CLOSE_UP, framing, normalised, shipped_framer

    seen = cut_out(grey, replace(box, half=CLOSE_UP * box.half), CLOSE_SIDE)
    with torch.inference_mode():
        said = framing(shipped_framer()(normalised(np.stack([seen, seen[:, ::-1]]))))
    said[1, [1, 4, 5]] *= -1  # dx, yaw and roll change sides
    face, dx, dy, size, _, roll = said.mean(axis=0).tolist()
    yaw = np.degrees(np.arctan2(*(f(np.radians(said[:, 4])).sum() for f in (np.sin, np.cos))))
    turn = np.radians(box.roll)
    x = box.x + box.half * (np.cos(turn) * dx - np.sin(turn) * dy)
    y = box.y + box.half * (np.sin(turn) * dx + np.cos(turn) * dy)
    return FaceBox(float(x), float(y), float(box.half * np.exp(size)), box.roll + roll, float(yaw), face)


def cascades_agree(window: np.ndarray) -> bool:
    """Whether a Haar cascade sees a face in the middle of a window (S, S) uint8, its face about half as wide."""
    side = len(window)
    for name in ("frontalface_alt2", "profileface"):
        for mirrored in (False, True) if name == "profileface" else (False,):
            seen = np.ascontiguousarray(window[:, ::-1]) if mirrored else window
            least, most = (round(share * side) for share in (0.28, 0.75))
            boxes = _cascade(name).detectMultiScale(seen, 1.1, 2, minSize=(least, least), maxSize=(most, most))
            if any(np.abs(box[:2] + box[2:] / 2 - side / 2).max() < 0.16 * side for box in np.reshape(boxes, (-1, 4))):
                return True
    return False


_LOCAL = threading.local()


def _cascade(name: str) -> cv2.CascadeClassifier:
    """One for each thread: a classifier keeps scratch memory of its own."""
    cascades = _LOCAL.__dict__.setdefault("cascades", {})
    if name not in cascades:
        cascades[name] = cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_{name}.xml")
    return cascades[name]


def is_own_view(image: np.ndarray, box: FaceBox) -> bool:
    """Whether a photo is already framed as a view: square, drawn background, the window found nearly all of it."""
    height, width = image.shape[:2]
    side = max(height, width)
    off = max(abs(box.x - width / 2), abs(box.y - height / 2)) / side
    is_framed = off < 0.17 and 0.38 < box.half / side < 0.7 and abs(box.roll) < 15
    return is_framed and min(height, width) > 0.95 * side and background(image) is not None


def background(image: np.ndarray) -> np.ndarray | None:
    """The colour (3,) behind what was drawn, or None: a fifth of the edge has one colour, unlike a camera's."""
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]).astype(np.int16)
    colours, counts = np.unique(edge // 4, axis=0, return_counts=True)
    around = np.abs(edge - (4 * colours[counts.argmax()] + 2)).max(axis=1) <= 4
    plain = edge[around]
    return np.median(plain, axis=0) if around.mean() > 0.2 and plain.std(axis=0).max() < 1.0 else None


def foreground_box(image: np.ndarray) -> FaceBox:
    """The window to use where no face was found: about what stands out from an even background, else the middle."""
    height, width = image.shape[:2]
    middle = FaceBox(width / 2, height / 2, min(height, width) / 2)
    colour = background(image)
    if colour is None:
        return middle
    rows, columns = np.nonzero(np.abs(image.astype(np.int16) - colour).max(axis=2) > 16)
    if len(rows) == 0:
        return middle
    left, right, top, bottom = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
    half = max(right - left, bottom - top) / 2
    if half > 0.8 * middle.half:
        return middle
    return FaceBox((left + right) / 2, (top + bottom) / 2, float(half))


def cut_out(image: np.ndarray, box: FaceBox, size: int) -> np.ndarray:
    """The window, set upright, (size, size) or (size, size, 3) uint8; what lies beyond the photo repeats its edge."""
    shrink = box.half / size  # how many photo pixels a pixel of half the side has to hold
    if shrink > 1:  # average first, so that fine detail does not alias
        image = cv2.resize(image, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
        box = replace(box, x=box.x / shrink, y=box.y / shrink, half=box.half / shrink)
    matrix = _window_matrix(box, size)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _window_matrix(box: FaceBox, size: int) -> np.ndarray:
    """(2, 3): pixel index in the window → pixel index in the photo (index 0 = the middle of the first pixel)."""
    turn = np.radians(box.roll)
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * (2 * box.half / size)
    return np.column_stack([axes, np.array([box.x, box.y]) - 0.5 - axes @ np.full(2, (size - 1) / 2)])


def _level(grey: np.ndarray, side: int) -> np.ndarray:
    """Possible faces seen with the longer side at `side` pixels: (n, 6) score, x, y, half (photo pixels), yaw, roll."""
    import torch

    from affectvlm.photos.network import SIDE, STRIDE, decoded, normalised, shipped_finder

    scale = side / max(grey.shape)
    width, height = (max(1, round(length * scale)) for length in grey.shape[::-1])
    small = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    # whole strides, and room for a face that is larger than the photo
    want = [
        max(SIDE, -(-length // STRIDE) * STRIDE) if side < SIDE else -(-length // STRIDE) * STRIDE
        for length in (height, width)
    ]
    top, left = (want[0] - height) // 2, (want[1] - width) // 2
    padded = cv2.copyMakeBorder(small, top, want[0] - height - top, left, want[1] - width - left, cv2.BORDER_REPLICATE)
    with torch.inference_mode():
        places = decoded(shipped_finder()(normalised(padded[None])))[0].reshape(-1, 6)
    places = places[places[:, 0] > POSSIBLE]
    places[:, 1] = (places[:, 1] - left) / (width / grey.shape[1])
    places[:, 2] = (places[:, 2] - top) / (height / grey.shape[0])
    places[:, 3] /= scale
    return places


def _mean(places: np.ndarray, score: float) -> FaceBox:
    """One box from what several cells say, weighted by how sure they are."""
    weights = places[:, 0] ** 2 / (places[:, 0] ** 2).sum()
    x, y, roll = (float(weights @ places[:, k]) for k in (1, 2, 5))
    half = float(np.exp(weights @ np.log(places[:, 3])))
    yaw = np.radians(places[:, 4])
    yaw = float(np.degrees(np.arctan2(weights @ np.sin(yaw), weights @ np.cos(yaw))))
    return FaceBox(x, y, half, roll, yaw, float(score))

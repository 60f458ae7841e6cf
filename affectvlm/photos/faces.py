"""Where the face of a photo is, framed as our rendered views frame theirs."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class FaceBox:
    """A square window of a photo: centre (x, y) and half its side in pixels; score: how surely a face, 0 to 1."""

    x: float
    y: float
    half: float
    score: float


_LOCAL = threading.local()
_WORK_SIDE = 480


def find_face(image: np.ndarray) -> FaceBox | None:
    """The window of the most face-like place of (H, W, 3) uint8 RGB, or None."""
    scale = min(1.0, _WORK_SIDE / max(image.shape[:2]))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else grey
    found = []
    for name in ("alt2", "default", "profile"):
        for mirrored in (False, True) if name == "profile" else (False,):
            seen = np.ascontiguousarray(grey[:, ::-1]) if mirrored else grey
            boxes, _, weights = _cascade(name).detectMultiScale3(
                seen, 1.1, 3, minSize=(40, 40), outputRejectLevels=True
            )
            for (left, top, side, _), weight in zip(boxes, np.ravel(weights), strict=True):
                x = left + side / 2
                x = grey.shape[1] - x if mirrored else x
                found.append((name != "profile", float(weight), x / scale, (top + side / 2) / scale, side / scale))
        if found:
            break
    if not found:
        return None
    _, _, x, y, side = max(found)
    return FaceBox(x, y + 0.18 * side, 0.48 * side, 1.0)


def _cascade(name: str) -> cv2.CascadeClassifier:
    """One per thread: a classifier keeps scratch memory of its own."""
    cascades = _LOCAL.__dict__.setdefault("cascades", {})
    if name not in cascades:
        cascades[name] = cv2.CascadeClassifier(_cascade_file(name))
    return cascades[name]


@functools.cache
def _cascade_file(name: str) -> str:
    file = "profileface" if name == "profile" else f"frontalface_{name}"
    return f"{cv2.data.haarcascades}haarcascade_{file}.xml"

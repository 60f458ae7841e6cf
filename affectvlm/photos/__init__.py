"""Photos of a face → three square views framed like the rendered ones: decoded, cropped to the face, roles checked."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from affectvlm.photos.decoding import ImageSource, PhotoError, read_photo
from affectvlm.photos.faces import FaceBox, find_face
from affectvlm.rendering import VIEW_NAMES

__all__ = ["FaceBox", "ImageSource", "PhotoError", "PreparedPhotos", "prepare_photos", "read_photo"]


@dataclass(frozen=True, eq=False)
class PreparedPhotos:
    """What the model is shown of three photos.

    Attributes:
        views: (3, S, S, 3) uint8 RGB in the order front, left, right; mid-grey where there is no photo.
        present: (3,) bool.
        warnings: in plain words, naming the photo.
        boxes: per photo the window that became the view, in pixels of the upright photo; None where there is no photo.
    """

    views: np.ndarray
    present: np.ndarray
    warnings: tuple[str, ...]
    boxes: tuple[FaceBox | None, ...]


def prepare_photos(
    front: ImageSource | None = None,
    left: ImageSource | None = None,
    right: ImageSource | None = None,
    size: int = 224,
) -> PreparedPhotos:
    """Decode, find the face, crop, and check what was given for what.

    Args:
        front, left, right: one to three photos; "left" shows the subject's left cheek.
        size: pixels a side of the views.

    Raises:
        PhotoError: no photo at all, or one that cannot be read.
    """
    sources = (front, left, right)
    if all(source is None for source in sources):
        raise PhotoError("no photo was given; at least one of front, left and right is needed")
    photos = [None if s is None else read_photo(s, f"{n} photo") for n, s in zip(VIEW_NAMES, sources, strict=True)]
    views = np.full((3, size, size, 3), 128, np.uint8)
    boxes: list[FaceBox | None] = [None, None, None]
    warnings = []
    for i, (name, photo) in enumerate(zip(VIEW_NAMES, photos, strict=True)):
        if photo is None:
            warnings.append(f"there is no {name} photo")
            continue
        box = find_face(photo)
        if box is None:
            warnings.append(f"no face was found in the {name} photo; its middle was used")
            height, width = photo.shape[:2]
            box = FaceBox(width / 2, height / 2, min(height, width) / 2, 0.0)
        boxes[i] = box
        views[i] = crop(photo, box, size)
    return PreparedPhotos(views, np.array([p is not None for p in photos]), tuple(warnings), tuple(boxes))


def crop(image: np.ndarray, box: FaceBox, size: int) -> np.ndarray:
    """The window as (size, size, 3) uint8; what lies beyond the photo repeats its edge."""
    scale = size / (2 * box.half)
    if scale < 0.5:  # shrink by averaging first, so that fine detail does not alias
        step = 0.5 / scale
        image = cv2.resize(image, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
        box = FaceBox(box.x / step, box.y / step, box.half / step, box.score)
        scale *= step
    shift_x, shift_y = ((size - 1) / 2 - scale * (at - 0.5) for at in (box.x, box.y))
    matrix = np.array([[scale, 0, shift_x], [0, scale, shift_y]])
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

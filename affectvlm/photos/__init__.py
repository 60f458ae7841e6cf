"""Photos of a face → three square views framed like the rendered ones: decoded, cropped to the face, roles checked.

photos = prepare_photos(front="front.jpg", left=left_bytes)     # one to three; any may be missing
photos.views, photos.present, photos.warnings
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from affectvlm.photos.decoding import FORMATS, ImageSource, PhotoError, read_photo
from affectvlm.photos.faces import (
    LYING_ROLL,
    FaceBox,
    cut_out,
    find_face,
    find_lying_face,
    foreground_box,
    is_own_view,
)  # fmt: skip
from affectvlm.rendering import VIEW_NAMES

__all__ = ["FORMATS", "FaceBox", "ImageSource", "PhotoError", "PreparedPhotos", "prepare_photos", "read_photo"]

SHOWS = {"front": "the face from the front", "left": "the left cheek", "right": "the right cheek"}
SAME_PICTURE = 0.995
"""Correlation of two photos, small and grey, from which they are taken for the same picture."""
CLEARLY_TURNED = 30.0
"""Degrees of yaw in a front photo from which it is said; less is within what the classifier copes with."""
CLEARLY_FRONTAL = 10.0


@dataclass(frozen=True, eq=False)
class PreparedPhotos:
    """What the model is shown of three photos.

    Attributes:
        views: (3, S, S, 3) uint8 RGB in the order front, left, right; mid-grey where there is no photo.
        present: (3,) bool.
        warnings: in plain words, naming the photo.
        boxes: per photo the window that became the view, in pixels of the upright photo (its longer side at most
            decoding.MAX_SIDE); score 0 where no face was found; None where there is no photo.
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
    """Decode, find the face, crop, and check that each photo shows what it was given for.

    Args:
        front, left, right: one to three photos of one face, see `read_photo`; "left" shows the subject's left cheek
            (the nose points to image left).
        size: pixels a side of the views.

    Raises:
        PhotoError: no photo at all, or one that cannot be read.
    """
    sources = dict(zip(VIEW_NAMES, (front, left, right), strict=True))
    photos = {name: read_photo(source, f"{name} photo") for name, source in sources.items() if source is not None}
    if not photos:
        raise PhotoError("no photo was given; at least one of front, left and right is needed")
    boxes = {name: _framed(photo) for name, photo in photos.items()}
    views = np.full((len(VIEW_NAMES), size, size, 3), 128, np.uint8)
    for row, name in enumerate(VIEW_NAMES):
        if name in photos:
            views[row] = cut_out(photos[name], boxes[name], size)
    return PreparedPhotos(
        views=views,
        present=np.array([name in photos for name in VIEW_NAMES]),
        warnings=tuple(_remarks(photos, boxes)),
        boxes=tuple(boxes.get(name) for name in VIEW_NAMES),
    )


def _framed(photo: np.ndarray) -> FaceBox:
    """The window of a photo that becomes its view."""
    box = find_face(photo) or find_lying_face(photo)
    if box is None:
        return foreground_box(photo)
    if is_own_view(photo, box):
        height, width = photo.shape[:2]
        return FaceBox(width / 2, height / 2, max(height, width) / 2, 0.0, box.yaw, box.score)
    return box


def _remarks(photos: dict[str, np.ndarray], boxes: dict[str, FaceBox]) -> Iterator[str]:
    missing = [name for name in VIEW_NAMES if name not in photos]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        yield f"no {_listed(missing)} photo{plural}: the answer rests on the {_listed(list(photos))} photo alone"
    for name, box in boxes.items():
        if box.score == 0:
            yield f"no face was found in the {name} photo: it was used as it is"
        elif abs(box.roll) > LYING_ROLL:
            yield f"the {name} photo lies on its side or head: the face in it was set upright"
    same = [pair for pair in _pairs(list(photos)) if _same_picture(*(photos[name] for name in pair))]
    for first, second in same:
        yield f"the {first} and the {second} photo are the same picture"
    yield from _role_remarks({n: b for n, b in boxes.items() if b.score > 0 and not any(n in pair for pair in same)})


def _role_remarks(boxes: dict[str, FaceBox]) -> Iterator[str]:
    """What is odd about who looks where."""
    seen = {name: box.role for name, box in boxes.items()}
    if seen.get("left") == "right" and seen.get("right") == "left":
        yield "the left and the right photo seem to be swapped: left is the one that shows the subject's left cheek"
        seen = {name: role for name, role in seen.items() if name == "front"}
    for name, role in seen.items():
        yaw = abs(boxes[name].yaw)
        if name != role and (role != "front" or yaw < CLEARLY_FRONTAL) and (name != "front" or yaw > CLEARLY_TURNED):
            yield f"the {name} photo seems to show {SHOWS[role]}, not {SHOWS[name]}"


def _same_picture(first: np.ndarray, second: np.ndarray) -> bool:
    """Equal, or nearly: compressed, scaled or brightened copies count, another view of the same face does not."""
    if abs(np.log(first.shape[0] * second.shape[1] / (first.shape[1] * second.shape[0]))) > 0.03:
        return False
    small = [
        cv2.resize(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), (48, 48), interpolation=cv2.INTER_AREA) for p in (first, second)
    ]
    flat = [(part - part.mean()).ravel() for part in (part.astype(np.float64) for part in small)]
    norms = [np.linalg.norm(part) for part in flat]
    if min(norms) < 48:  # hardly any structure: only equal is the same
        return max(norms) < 48 and abs(float(small[0].mean()) - float(small[1].mean())) < 2
    return float(flat[0] @ flat[1] / (norms[0] * norms[1])) > SAME_PICTURE


def _pairs(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((first, second) for i, first in enumerate(names) for second in names[i + 1 :])


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)

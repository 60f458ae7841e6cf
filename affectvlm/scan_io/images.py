"""Texture images: decoding with bounds, and several textures packed into one."""

from __future__ import annotations

import io
import logging

import numpy as np
from PIL import Image

from affectvlm.scan import ScanError
from affectvlm.scan_io.limits import MAX_IMAGE_BYTES, MAX_TEXTURE_PIXELS, MAX_TEXTURES

log = logging.getLogger(__name__)

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".tga")
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "TGA")
UNTEXTURED = 200
"""Grey level (of 255) of faces without a texture beside faces that have one."""


def decode_image(data: bytes, what: str, warnings: list[str]) -> np.ndarray | None:
    """A texture as (H, W, 3) uint8 RGB, first row on top; None and a warning where it cannot be decoded.

    Raises ScanError where the image is too large to be opened safely; the size is read before any pixel.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise ScanError(f"the texture {what} has {len(data):,} bytes; at most {MAX_IMAGE_BYTES:,} are accepted")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height <= MAX_TEXTURE_PIXELS:
                return _rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ScanError(
            f"the texture {what} is larger than any that is accepted ({MAX_TEXTURE_PIXELS:,} pixels)"
        ) from None
    except Exception as error:  # noqa: BLE001  Pillow's decoders raise a dozen kinds on damaged data
        log.debug("texture not decoded: %s", error)
        warnings.append(f"The texture {what} could not be decoded and was left out.")
        return None
    raise ScanError(
        f"the texture {what} has {width} x {height} pixels; at most {MAX_TEXTURE_PIXELS:,} in all are accepted"
    )


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        grey = np.asarray(image, np.float64)
        grey = (grey / max(grey.max(), 255.0) * 255.0).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.array(image.convert("RGB"), np.uint8)


def keep_image(images: list[np.ndarray], image: np.ndarray | None) -> int:
    """Appends a texture and returns its index (-1 for None); ScanError where they become too many or too large."""
    if image is None:
        return -1
    images.append(image)
    pixels = sum(i.shape[0] * i.shape[1] for i in images)
    if len(images) > MAX_TEXTURES or pixels > MAX_TEXTURE_PIXELS:
        raise ScanError(
            f"{len(images)} textures of {pixels:,} pixels; at most {MAX_TEXTURES} of {MAX_TEXTURE_PIXELS:,} together"
        )
    return len(images) - 1


def pack_atlas(
    images: list[np.ndarray], uv: np.ndarray, image_of_vertex: np.ndarray, warnings: list[str]
) -> tuple[np.ndarray | None, np.ndarray]:
    """One texture of several, stacked from the top down, and `uv` (V, 2) moved into it.

    `image_of_vertex` (V,) names each vertex's image, -1 for none. Vertices without an image land on a grey patch.
    Texture coordinates outside [0, 1], which tile a lone image, are clipped where images are packed.
    """
    used = [int(i) for i in np.unique(image_of_vertex) if i >= 0]
    if not used:
        return None, uv
    if len(used) == 1 and (image_of_vertex >= 0).all():
        return images[used[0]], uv
    patch = np.full((4, 4, 3), UNTEXTURED, np.uint8)
    tiles = [(i, images[i]) for i in used] + ([(-1, patch)] if (image_of_vertex < 0).any() else [])
    height, width = sum(t.shape[0] for _, t in tiles), max(t.shape[1] for _, t in tiles)
    if height * width > MAX_TEXTURE_PIXELS:
        raise ScanError(f"textures of {height * width:,} pixels together; at most {MAX_TEXTURE_PIXELS:,} are accepted")
    atlas = np.zeros((height, width, 3), np.uint8)
    packed = np.zeros_like(uv)
    outside = ((uv < -0.01) | (uv > 1.01)).any(axis=1)
    if (outside & (image_of_vertex >= 0)).any():
        warnings.append("A texture is tiled beyond its borders; the tiles were left out.")
    top = 0
    for index, tile in tiles:
        rows, cols = tile.shape[:2]
        atlas[top : top + rows, :cols] = tile
        chosen = image_of_vertex == index
        inside = np.clip(uv[chosen], 0.5 / np.array([cols, rows]), 1 - 0.5 / np.array([cols, rows]))
        if index < 0:
            inside = np.full_like(inside, 0.5)
        packed[chosen, 0] = inside[:, 0] * cols / width
        packed[chosen, 1] = (height - top - rows + inside[:, 1] * rows) / height
        top += rows
    if len(used) > 1:
        warnings.append(f"{len(used)} textures were packed into one image.")
    return atlas, packed

"""Photos in: bytes, paths, PIL images or arrays → upright (H, W, 3) uint8 RGB. Nothing of a photo is kept or logged."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MAX_PIXELS = 60_000_000
MAX_BYTES = 64 << 20
MAX_SIDE = 1600
"""Larger photos are scaled down to this many pixels on their longer side: a view needs far fewer."""
MIN_SIDE = 16

ImageSource = bytes | bytearray | str | Path | Image.Image | np.ndarray
_TOO_LARGE = f"{{}}: more than {MAX_BYTES >> 20} MB; a smaller file is needed"
_SIGNATURES = {
    b"ftypheic": "a HEIC picture", b"ftypheix": "a HEIC picture", b"ftypmif1": "a HEIF picture",
    b"ftypavif": "an AVIF picture", b"GIF8": "a GIF picture", b"II*\0": "a TIFF picture", b"MM\0*": "a TIFF picture",
    b"jP  \r\n": "a JPEG 2000 picture", b"%PDF": "a PDF file",
}  # fmt: skip


class PhotoError(ValueError):
    """A photo that cannot be used; the message says what was found and what is accepted."""


def read_photo(source: ImageSource, name: str = "photo") -> np.ndarray:
    """Decode one photo.

    Args:
        source: the bytes of a file, its path, a PIL image, or an array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4);
            uint8, uint16, bool, or floating in [0, 1]; colour as RGB or RGBA.
        name: how messages call it ("front photo").

    Returns:
        (H, W, 3) uint8 RGB, turned upright as its EXIF orientation says, transparent parts on mid-grey, the longer side
        at most MAX_SIDE.

    Raises:
        PhotoError: missing, broken, cut off, too large or too small, or of another format.
    """
    if isinstance(source, np.ndarray):
        image = _from_array(source, name)
    elif isinstance(source, Image.Image):
        image = source
    elif isinstance(source, bytes | bytearray | str | Path):
        image = _open(_content(source, name), name)
    else:
        raise PhotoError(f"{name}: got {type(source).__name__}; a path, bytes, a PIL image or an array is needed")
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height} pixels"
        raise PhotoError(f"{name}: {size}; at most {MAX_PIXELS // 10**6} megapixels are accepted")
    if min(image.size) < MIN_SIDE:
        raise PhotoError(f"{name}: {image.width} x {image.height} pixels; at least {MIN_SIDE} a side are needed")
    try:
        return _upright_rgb(image)
    except (OSError, ValueError, SyntaxError, MemoryError) as error:
        raise PhotoError(f"{name}: the picture is damaged or cut off ({type(error).__name__})") from error


def _content(source: bytes | bytearray | str | Path, name: str) -> bytes:
    if isinstance(source, bytes | bytearray):
        content = bytes(source)
    else:
        path = Path(source)
        try:
            if not path.is_file():
                raise PhotoError(f"{name}: no file {path.name}")
            if path.stat().st_size > MAX_BYTES:
                raise PhotoError(_TOO_LARGE.format(name))
            content = path.read_bytes()
        except OSError as error:
            raise PhotoError(f"{name}: the file {path.name} cannot be read") from error
    if not content:
        raise PhotoError(f"{name}: the file is empty; a {_accepted('or')} picture is needed")
    if len(content) > MAX_BYTES:
        raise PhotoError(_TOO_LARGE.format(name))
    return content


def _open(content: bytes, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # the size is checked by us before a pixel is decoded
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PhotoError(f"{name}: too many pixels; at most {MAX_PIXELS // 10**6} megapixels are accepted") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        found = next((kind for mark, kind in _SIGNATURES.items() if mark in content[:16]), "")
        hint = "; save it as JPEG first" if found.endswith("picture") else ""
        said = found or "not a picture we can read"
        raise PhotoError(f"{name}: {said}; {_accepted('and')} are accepted{hint}") from error


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.size == 0 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise PhotoError(f"{name}: an array of shape {array.shape}; (H, W), (H, W, 3) or (H, W, 4) is needed")
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise PhotoError(f"{name}: a floating array outside [0, 1]; finite values from 0 to 1 are needed")
        array = (array * 255 + 0.5).astype(np.uint8)
    elif array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise PhotoError(f"{name}: an array of {array.dtype}; uint8, uint16 or floating in [0, 1] is needed")
    return Image.fromarray(np.ascontiguousarray(array))


def _upright_rgb(image: Image.Image) -> np.ndarray:
    if image.format == "JPEG":
        image.draft("RGB", (MAX_SIDE, MAX_SIDE))  # decodes huge photos at a fraction of their size
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _eight_bit(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (128, 128, 128, 255)), image)
    image = image.convert("RGB")
    if max(image.size) > MAX_SIDE:
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return np.array(image, np.uint8)


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit and floating greys → 8 bits; Pillow's own conversion only cuts off."""
    values = np.asarray(image)
    top = 65535.0 if values.max(initial=0) > 255 else 255.0 if values.max(initial=0) > 1 else 1.0
    if values.dtype.kind == "f":
        return Image.fromarray((np.clip(np.nan_to_num(values) / top, 0, 1) * 255 + 0.5).astype(np.uint8))
    grey = (np.clip(np.arange(65536) / top, 0, 1) * 255 + 0.5).astype(np.uint8)  # a table: a large photo fits in memory
    return Image.fromarray(grey[values if values.dtype == np.uint16 else np.clip(values, 0, 65535)])


def _accepted(word: str) -> str:
    return f"{', '.join(FORMATS[:-1])} {word} {FORMATS[-1]}"

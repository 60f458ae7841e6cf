"""Maps as pictures: laid over the views, painted on vertices, and as a table of many faces.

One colour scale everywhere, "inferno" of matplotlib (CC0): its lightness rises evenly, so that it reads the same with
any colour vision and in print. What is weak stays clear and lets the face through. The scale ends at the level that
BRIGHT of all places with evidence reach, not at the strongest place: a small hot spot would leave the rest dark.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_INFERNO = np.array(
    [(0, 0, 4), (11, 7, 36), (33, 12, 74), (61, 9, 101), (87, 16, 110), (113, 25, 110),
     (138, 34, 106), (163, 44, 97), (188, 55, 84), (210, 70, 68), (228, 90, 49), (241, 115, 29),
     (249, 142, 9), (252, 172, 17), (249, 203, 53), (242, 234, 105), (252, 255, 164)],
    np.float32,
)  # fmt: skip
"""(17, 3) evenly spaced colours, 0 to 255."""

CLEAR, FULL = 0.08, 0.5
"""Strengths up to which a map is clear, and from which it covers as much as the opacity says."""

BRIGHT = 0.01
"""Share of the places where anything speaks for the target that get the brightest colour."""

PLAIN_GREY = (146, 146, 148)
"""Colour of a mesh where nothing speaks for the target: darker than skin, so that the bright end stands out."""

_TITLES = {"front": "Front", "left": "Left cheek", "right": "Right cheek"}


def scale_colors(values: np.ndarray) -> np.ndarray:
    """(...) in [0, 1] → (..., 3) float32 in [0, 255]."""
    spots = np.clip(values, 0, 1) * (len(_INFERNO) - 1)
    low = np.minimum(spots.astype(int), len(_INFERNO) - 2)
    share = (spots - low)[..., None].astype(np.float32)
    return _INFERNO[low] * (1 - share) + _INFERNO[low + 1] * share


def overlay(views: np.ndarray, maps: np.ndarray, opacity: float = 0.8) -> np.ndarray:
    """Maps laid over grey copies of the views: (N, H, W, 3) uint8.

    Args:
        views: (N, H, W, 3) uint8 RGB; maps: (N, H, W) float in [0, 1].
        opacity: of the strongest places, 0 to 1.

    Raises:
        ValueError: shapes that do not fit, or an opacity out of range.
    """
    if views.shape[:3] != maps.shape or not 0 <= opacity <= 1:
        raise ValueError(
            f"views are {views.shape}, maps {maps.shape}, opacity {opacity}; (N, H, W, 3), (N, H, W), 0 to 1 are needed"
        )
    grey = 0.9 * (views @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    return _blended(np.repeat(grey, 3, axis=-1), maps, opacity)


def vertex_paint(values: np.ndarray, opacity: float = 1.0) -> np.ndarray:
    """Evidence of vertices (V,), NaN where unseen → (V, 3) uint8; plain grey where weak or unseen."""
    values = np.nan_to_num(np.asarray(values, np.float32))
    return _blended(np.tile(np.array(PLAIN_GREY, np.float32), (len(values), 1)), values, opacity)


def stretched(values: np.ndarray) -> np.ndarray:
    """(...) float in [0, 1], a map → as coloured: in proportion, 1 for the strongest BRIGHT of what is above 0."""
    evidence = values[values > 0]
    return np.minimum(values / np.quantile(evidence, 1 - BRIGHT), 1.0) if len(evidence) else values


def _blended(base: np.ndarray, values: np.ndarray, opacity: float) -> np.ndarray:
    values = stretched(values)
    rise = np.clip((values - CLEAR) / (FULL - CLEAR), 0, 1)
    cover = (opacity * rise * rise * (3 - 2 * rise))[..., None]
    return (base * (1 - cover) + scale_colors(values) * cover + 0.5).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class GridRow:
    """One face of a grid: what it is called, what the model says of it, its views (N, S, S, 3) uint8 and maps
    (N, S, S) in [0, 1]."""

    title: str
    answer: str
    views: np.ndarray
    maps: np.ndarray


def strip_png(views: np.ndarray, maps: np.ndarray, opacity: float = 0.8) -> bytes:
    """The views with their maps side by side, as PNG."""
    from PIL import Image

    return _png(Image.fromarray(np.concatenate(list(overlay(views, maps, opacity)), axis=1)))


def grid_png(
    rows: Sequence[GridRow], view_names: Sequence[str], heading: str = "", opacity: float = 0.8, side: int = 168
) -> bytes:
    """Faces by views, as in the papers' figures: per face its views, and the same with their maps; PNG on white.

    Args:
        rows: at least one; all with as many views as `view_names`.
        heading: a line above it all.
        side: pixels of a view in the figure.

    Raises:
        ValueError: no rows.
    """
    from PIL import Image, ImageDraw

    if not rows:
        raise ValueError("a grid of no faces was asked for; at least one row is needed")
    gap, label, top = 6, 186, 34 + (34 if heading else 0)
    columns = 2 * len(view_names)
    width = label + columns * (side + gap) + 3 * gap  # a wider gap between pictures and maps
    figure = Image.new("RGB", (width, top + len(rows) * (side + gap) + _legend_height()), "white")
    draw = ImageDraw.Draw(figure)

    def left(column: int) -> int:
        return label + column * (side + gap) + (2 * gap if column >= len(view_names) else 0)

    if heading:
        draw.text((gap, 10), heading, fill=(20, 20, 24), font=_font(20))
    for column in range(columns):
        name = view_names[column % len(view_names)]
        draw.text((left(column) + 2, top - 24), _TITLES.get(name, name), fill=(70, 70, 76), font=_font(14))
    for number, row in enumerate(rows):
        y = top + number * (side + gap)
        draw.text((gap, y + side // 2 - 22), _shortened(row.title, 22), fill=(20, 20, 24), font=_font(15))
        draw.text((gap, y + side // 2), row.answer, fill=(90, 90, 96), font=_font(14))
        pictures = [*row.views, *overlay(row.views, row.maps, opacity)]
        for column, picture in enumerate(pictures):
            figure.paste(Image.fromarray(np.ascontiguousarray(picture)).resize((side, side)), (left(column), y))
    _legend(figure, draw, left(len(view_names)), figure.height - _legend_height() + 8)
    return _png(figure)


def _legend_height() -> int:
    return 40


def _legend(figure, draw, x: int, y: int) -> None:
    from PIL import Image

    bar = np.tile(scale_colors(np.linspace(0, 1, 200))[None], (12, 1, 1)).astype(np.uint8)
    draw.text((x, y), "says little", fill=(90, 90, 96), font=_font(13))
    figure.paste(Image.fromarray(bar), (x + 76, y + 3))
    draw.text((x + 284, y), "says much", fill=(90, 90, 96), font=_font(13))


def _font(size: int):
    from PIL import ImageFont

    return ImageFont.load_default(size)  # comes with pillow


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _png(picture) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()

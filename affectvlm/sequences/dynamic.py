"""Dynamic images of the views of a face: a sequence becomes one picture a view, by approximate rank pooling.

Pooled are a view's own values (surface directions, grey relief, colours or depth, each from 0 to 1), not blended with
the background, and for each pixel over the frames in which the face covers it. A pixel that is covered in fewer than
half of the frames, at a hole or along the outline, shows no motion.
"""

from __future__ import annotations

import numpy as np

from affectvlm.rank_pooling import RankPooling, to_uint8
from affectvlm.rendering import DEPTH_RANGE_MM, KINDS, Buffers, lambert

SCALE = 0.15
"""Mean difference between a later and an earlier frame that becomes white: the one constant for all sequences, so that
a slight motion stays slight."""
COVERED = 0.5
"""Share of a pixel that the face has to cover for the pixel to be there in a frame."""
LEAST = 0.5
"""Share of the frames in which a pixel has to be there."""
_GREY = 0.86


class DynamicViews:
    """The dynamic images of N views, made in one pass; memory does not depend on the number of frames.

    Args:
        kind: one of rendering.KINDS.
        running_mean: False pools with the linear weights.

    Raises:
        ValueError: another kind.
    """

    def __init__(self, kind: str = "normals", running_mean: bool = True) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; one of {', '.join(KINDS)} is needed")
        self.kind = kind
        self._pooling = RankPooling(running_mean)

    def __len__(self) -> int:
        """How many frames were added."""
        return len(self._pooling)

    def add(self, buffers: Buffers) -> None:
        """The views of one more frame, drawn as those before."""
        self._pooling.add(values(buffers, self.kind), buffers.coverage >= COVERED)

    def result(self) -> np.ndarray:
        """(N, H, W, 3) float64: the mean difference between later and earlier frames; of a single frame, its values.

        Raises:
            ValueError: no frame was added.
        """
        return self._pooling.result(least=LEAST)

    def pictures(self, scale: float | None = SCALE, magnify: float = 1.0) -> np.ndarray:
        """(N, H, W, 3) uint8, 128 where nothing moved; of a single frame, that frame. See `rank_pooling.to_uint8`.

        `magnify` shows motion so many times as strong, as a micro-expression needs it: pooling is linear and its
        weights sum to zero, so that pooling frames whose change was magnified (f_0 + m (f_t - f_0), the linear Eulerian
        magnification of Wu et al. 2012 without its filters) is the same as magnifying what was pooled.

        Raises:
            ValueError: no frame was added, or a scale or `magnify` that is not above 0.
        """
        if not magnify > 0:
            raise ValueError(f"magnify is {magnify}; more than 0 is needed")
        if len(self) == 1:
            return np.rint(255 * np.clip(self.result(), 0, 1)).astype(np.uint8)
        return to_uint8(self.result(), None if scale is None else scale / magnify)


def values(buffers: Buffers, kind: str) -> np.ndarray:
    """What a kind of picture shows of the face alone, (N, H, W, 3) float32 in [0, 1]; meaningless where it is not."""
    if kind == "normals":
        return buffers.normals * 0.5 + 0.5
    if kind == "depth":
        low, high = DEPTH_RANGE_MM
        return np.repeat(np.clip((buffers.depth - low) / (high - low), 0, 1)[..., None], 3, axis=-1)
    colour = buffers.albedo if kind == "textured" else np.full(3, _GREY, np.float32)
    return np.clip(colour * lambert(buffers.normals)[..., None], 0, 1)

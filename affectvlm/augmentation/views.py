"""Mixed view augmentation: every view of a sample draws its own flip, rotation, crop, scale, light and photometric
change.

It works on stored buffers (surface direction, own colour, coverage) instead of finished pictures, so one rendered
face can be lit anew at each step: as a map of surface directions, as grey relief, or as something like a photo in
front of some background. A flip turns a left profile into a right one: the two side views are therefore flipped
together and change places, the front view on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numba
import numpy as np

CHANNELS = 7
"""Of a stored view, uint8: normal x y z (0 to 255 for -1 to 1), albedo r g b, coverage."""

NORMALS, SHADED, TEXTURED, PICTURE, DIRECTIONS = 0, 1, 2, 3, 4
"""How a view is shown: surface directions, grey relief, colours under lamps, colours as they are (pictures whose light
is already in them), or pictures whose red and green are directions x and y, as dynamic images of normals: they turn
with the view, and no light or contrast is theirs."""

_NODES = 6
"""Of the grid of random numbers that bends a view, along each side."""


@dataclass(frozen=True)
class MixedViews:
    """Settings of mixed view augmentation; with these, but for `kinds` and `calm`, the shipped model was trained.

    Attributes:
        size: pixels of the square result, which a model scales to its own side where they differ; in settings 0 stands
        for the model's own.
        kinds: shares of views shown as normals, shaded, textured; a photo-like sample is always textured.
        rotation: standard deviation in degrees. zoom, shift: of the log scale, and of the offset as a share of the
        size; both twice as wide for photo-like samples, whose frame was found in a picture. flip, blur, noise,
        occlusion: probability of each.
        bend: standard deviation of a smooth random displacement, as a share of the size; tilt: of a smooth random
        change of the surface directions. Together they make other proportions and other bones of the same face.
        calm: share of the samples that are changed a quarter as much and a quarter as often as the rest: what tells
        fear from sadness is smaller than what unlike people and poor scans bring, and both must be learned.
        mixed: False draws one geometric change for all views of a sample (for ablation).

    Raises:
        ValueError: a value out of range.
    """

    size: int = 0
    kinds: tuple[float, float, float] = (0.45, 0.35, 0.20)
    rotation: float = 5.0
    zoom: float = 0.06
    shift: float = 0.025
    flip: float = 0.5
    blur: float = 0.25
    noise: float = 0.35
    occlusion: float = 0.12
    bend: float = 0.02
    tilt: float = 0.12
    calm: float = 0.0
    mixed: bool = True

    def __post_init__(self) -> None:
        if self.size and not 32 <= self.size <= 1024:
            raise ValueError(f"views.size is {self.size}; 32 to 1024 pixels, or 0, are needed")
        if min(self.kinds) < 0 or abs(sum(self.kinds) - 1) > 1e-8:
            raise ValueError(f"views.kinds is {self.kinds}; three shares, 1 in all, are needed")
        for name in ("rotation", "zoom", "shift", "bend", "tilt"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"views.{name} is {getattr(self, name)}; 0 or more is needed")
        for name in ("flip", "blur", "noise", "occlusion", "calm"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"views.{name} is {getattr(self, name)}; a share from 0 to 1 is needed")


_CALM = 0.25
"""How much of each change a calm sample gets."""

MARGIN = 8 / 7
"""The window of a stored view over that of a picture: room for turns, shifts and zooms."""


def stored_side(size: int) -> int:
    """Pixels of a stored view from which pictures of `size` pixels are taken without scaling."""
    return 2 * round(size * MARGIN / 2)


def picture_side(stored: int) -> int:
    """Pixels of the picture in the middle of a stored view of so many pixels; undoes `stored_side`."""
    return 2 * round(stored / MARGIN / 2)


def store(buffers) -> np.ndarray:
    """Rendered `Buffers` of N views → (N, S, S, 7) uint8 as this module reads them."""
    parts = [buffers.normals * 0.5 + 0.5, buffers.albedo, buffers.coverage[..., None]]
    return (np.clip(np.concatenate(parts, axis=-1), 0, 1) * 255 + 0.5).astype(np.uint8)


@dataclass(frozen=True)
class Draws:
    """What was drawn for n = B * N views, sample by sample; arrays of n rows.

    Attributes:
        order: (B, N) which stored view stands at each place (sides change places when they are flipped).
        flips: bool. angle: radians. zoom: factor. shift: (n, 2) pixels. bends: (n, NODES, NODES, 4) float32, pixels and
        change of direction at the nodes of a grid. modes: NORMALS to PICTURE. lights: (n, 4, 6) float32, see `_lights`.
        backgrounds: (n, size, size, 3) uint8.
        blur: standard deviation in pixels, 0 = none. gamma, gain: of the brightness, 1 = none. grey: bool, colours
        dropped. noise: standard deviation in levels, 0 = none; its seed is `noise_seed`. patch: (n, 4) rows top, left,
        height, width of what is covered, zeros = nothing; patch_colour: (n, 3).
    """

    order: np.ndarray
    flips: np.ndarray
    angle: np.ndarray
    zoom: np.ndarray
    shift: np.ndarray
    bends: np.ndarray
    modes: np.ndarray
    lights: np.ndarray
    backgrounds: np.ndarray
    blur: np.ndarray
    gamma: np.ndarray
    gain: np.ndarray
    grey: np.ndarray
    noise: np.ndarray
    noise_seed: np.ndarray
    patch: np.ndarray
    patch_colour: np.ndarray


def join(parts: Sequence[Draws]) -> Draws:
    """Draws of several groups of samples as one."""
    return Draws(**{one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Draws)})


def augment(
    stored: np.ndarray,
    photo: np.ndarray,
    settings: MixedViews,
    rng: np.random.Generator,
    kind: int | None = None,
    picture: np.ndarray | None = None,
) -> np.ndarray:
    """Draw a new appearance for every view, and make it. `on_device` makes it on a GPU.

    Args:
        stored: (B, 3, S, S, 7) uint8 from `store` (or (B, 2, ...): front and one side), with the room about the
        pictures that `MARGIN` says; S best is `stored_side(settings.size)`.
        photo: (B,) bool, samples rendered to look like photos.
        kind: None draws from `settings.kinds`; NORMALS, SHADED or TEXTURED fixes it.
        picture: (B,) PICTURE or DIRECTIONS for samples stored from pictures: no lamp shines on them; else 0. None =
        none is.

    Returns:
        (B, 3, 3, size, size) uint8 RGB, channels first, views still in the order front, left, right.
    """
    return show(stored, draw(stored, photo, settings, rng, kind, picture))


def draw(
    stored: np.ndarray,
    photo: np.ndarray,
    settings: MixedViews,
    rng: np.random.Generator,
    kind: int | None = None,
    picture: np.ndarray | None = None,
) -> Draws:
    """The random half of `augment`: what becomes of each view."""
    batch, views = stored.shape[:2]
    size, count = settings.size, batch * views
    flips = np.empty((batch, views), bool)
    flips[:, 0] = rng.random(batch) < settings.flip
    flips[:, 1:] = (rng.random(batch) < settings.flip)[:, None]
    order = np.tile(np.arange(views), (batch, 1))
    if views == 3:
        order[:, 1:] = np.where(flips[:, 1:2], [2, 1], [1, 2])

    draws = rng.normal(size=(batch, views, 4))
    if not settings.mixed:
        draws[:] = draws[:, :1]
    draws = draws.reshape(count, 4)
    strength = np.where(rng.random(batch) < settings.calm, _CALM, 1.0) if settings.calm else np.ones(batch)
    strength = np.repeat(strength, views)
    freedom = np.where(np.repeat(photo, views), 2.0, 1.0) * strength
    modes = np.repeat(rng.choice(3, batch, p=settings.kinds) if kind is None else np.full(batch, kind), views)
    modes = np.where(np.repeat(photo, views), TEXTURED, modes)
    if picture is not None:
        modes = np.where(np.repeat(picture, views) > 0, np.repeat(picture, views), modes)
    lights = _lights(batch, rng)
    lights[..., 3:] *= np.where(modes[::views] == TEXTURED, _exposure(stored, rng), 1.0)[:, None, None]
    bends = rng.standard_normal((count, _NODES, _NODES, 4), np.float32)
    bends *= np.array([settings.bend * size] * 2 + [settings.tilt] * 2, np.float32)
    bends *= strength[:, None, None, None].astype(np.float32)
    return Draws(
        order=order,
        flips=flips.ravel(),
        angle=np.deg2rad(settings.rotation) * strength * draws[:, 0],
        zoom=np.exp(settings.zoom * freedom * draws[:, 1]),
        shift=settings.shift * size * freedom[:, None] * draws[:, 2:],
        bends=bends,
        modes=modes,
        lights=lights.repeat(views, axis=0),
        backgrounds=_backgrounds(modes, size, rng),
        **_photometric(modes, strength, settings, rng),
    )


def show(stored: np.ndarray, draws: Draws) -> np.ndarray:
    """The other half: what was drawn is done to the stored views (B, N, S, S, 7); returns as `augment`."""
    batch, views, source = stored.shape[:3]
    if views == 3:
        stored = np.take_along_axis(stored, draws.order[:, :, None, None, None], axis=1)
    size = draws.backgrounds.shape[1]
    images = np.empty((batch * views, size, size, 3), np.uint8)
    _compose(
        stored.reshape(-1, source, source, CHANNELS), draws.flips, draws.angle, draws.zoom, draws.shift, draws.bends,
        draws.modes, draws.lights, draws.backgrounds, images,
    )  # fmt: skip
    for number, image in enumerate(images):
        _retouch(image, draws, number)
    return np.ascontiguousarray(images.reshape(batch, views, size, size, 3).transpose(0, 1, 4, 2, 3))


def plain(stored: np.ndarray, kind: int, size: int) -> np.ndarray:
    """Stored views without any change: (B, N, 3, size, size) uint8, as `rendering.render_views` draws them, or, for
    PICTURE, as the picture was."""
    from affectvlm.rendering import BACKGROUND, lambert

    side = picture_side(stored.shape[2])
    margin = (stored.shape[2] - side) // 2
    cut = stored[:, :, margin : margin + side, margin : margin + side]
    if side != size:
        cut = _scaled(cut, size)
    cut = cut.astype(np.float32) / 255
    cover = cut[..., 6:]
    if kind == NORMALS:
        image = cut[..., :3] * cover
    else:
        normals = cut[..., :3] * 2 - 1
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
        colour = cut[..., 3:6] if kind in (TEXTURED, PICTURE) else np.full(3, 0.86, np.float32)
        light = 1.0 if kind == PICTURE else lambert(normals)[..., None]
        image = colour * light * cover + BACKGROUND * (1 - cover)
    return np.ascontiguousarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(0, 1, 4, 2, 3))


def _scaled(views: np.ndarray, size: int) -> np.ndarray:
    """(B, N, S, S, 7) uint8 → (B, N, size, size, 7), what is empty kept from bleeding into the edge of a face."""
    method = cv2.INTER_AREA if size < views.shape[2] else cv2.INTER_LINEAR
    result = np.empty((*views.shape[:2], size, size, CHANNELS), np.uint8)
    for at in np.ndindex(views.shape[:2]):
        cover = views[at][..., 6:].astype(np.float32)
        weighted = np.concatenate([views[at][..., :6] * cover, cover], axis=-1)
        weighted = np.dstack(
            [cv2.resize(channel, (size, size), interpolation=method) for channel in np.dsplit(weighted, 7)]
        )
        colours = weighted[..., :6] / np.maximum(weighted[..., 6:], 1e-3)
        result[at] = np.rint(np.concatenate([colours, weighted[..., 6:]], axis=-1))
    return result


def _lights(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 4, 6) float32: ambient light, then three lamps; direction and colour a row. Total brightness stays near
    one."""
    lights = np.zeros((count, 4, 6), np.float32)
    direction = rng.normal(size=(count, 3, 3)) * [0.8, 0.7, 0.3] + [0, 0.25, 0.8]
    lights[:, 1:, :3] = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    power = rng.dirichlet([0.8, 1.6, 0.5, 0.3], count) * rng.uniform(0.75, 1.25, (count, 1))
    tint = 1 + rng.normal(0, 0.08, (count, 4, 3))
    lights[..., 3:] = power[..., None] * tint
    lights[:, 0, 3:] = np.maximum(lights[:, 0, 3:], 0.08)
    return lights


def _exposure(stored: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(B,) factor: cameras expose for the face, brighter for darker skin, not always quite enough."""
    albedo = stored[:, 0, ::8, ::8, 3:6].mean(axis=-1) / 255.0
    cover = stored[:, 0, ::8, ::8, 6] / 255.0
    mean = (albedo * cover).sum(axis=(1, 2)) / np.maximum(cover.sum(axis=(1, 2)), 1e-3)
    return (0.6 / np.clip(mean, 0.08, 1.0)) ** rng.uniform(0.4, 1.0, len(mean))


def _backgrounds(modes: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """(n, size, size, 3) uint8: black for normals, else grey, a colour, or coloured clutter of random coarseness."""
    result = np.zeros((len(modes), size, size, 3), np.uint8)
    for image, mode in zip(result, modes, strict=True):
        if mode in (NORMALS, DIRECTIONS):
            image[:] = 0 if mode == NORMALS else 128
            continue
        draw = rng.random()
        if draw < (0.7 if mode == SHADED else 0.35):  # a scan is drawn on grey, a photo was taken somewhere
            image[:] = 128
        elif draw < 0.55:
            image[:] = rng.integers(0, 256, 3)
        else:
            cells = int(2 ** rng.uniform(1, 5))
            noise = rng.integers(0, 256, (cells, cells, 3)).astype(np.uint8)
            method = cv2.INTER_NEAREST if draw > 0.92 else cv2.INTER_CUBIC
            image[:] = cv2.resize(noise, (size, size), interpolation=method)
    return result


def _photometric(
    modes: np.ndarray, strength: np.ndarray, settings: MixedViews, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Blur, contrast and gamma (not where values are directions), noise, a patch that covers; see `Draws`."""
    count, size = len(modes), settings.size

    def chosen(share: float | np.ndarray) -> np.ndarray:
        return rng.random(count) < share

    blur = np.where(chosen(settings.blur * strength), rng.uniform(0.4, 1.4, count), 0.0)
    directions = np.isin(modes, (NORMALS, DIRECTIONS))
    other = chosen(0.6) & ~directions
    gamma = np.where(other, np.exp(rng.normal(0, 0.25, count)), 1.0)
    gain = np.where(other, rng.uniform(0.8, 1.2, count), 1.0)
    grey = other & chosen(0.2)
    noise = np.where(chosen(settings.noise * strength), rng.uniform(1, 10, count), 0.0)
    extent = rng.integers(size // 10, size // 3, (count, 2))
    corner = (rng.random((count, 2)) * (size - extent)).astype(int)
    patch = np.where(chosen(settings.occlusion * strength)[:, None], np.concatenate([corner, extent], axis=1), 0)
    colour = rng.integers(0, 256, (count, 3))
    colour[directions] = np.where(modes == NORMALS, 0, 128)[directions, None]
    return {
        "blur": blur, "gamma": gamma, "gain": gain, "grey": grey, "noise": noise,
        "noise_seed": rng.integers(0, 2**62, count), "patch": patch, "patch_colour": colour.astype(np.uint8),
    }  # fmt: skip


def _retouch(image: np.ndarray, draws: Draws, number: int) -> None:
    """In place: what comes after the light."""
    if draws.blur[number]:
        image[:] = cv2.GaussianBlur(image, (0, 0), float(draws.blur[number]))
    gamma, gain = draws.gamma[number], draws.gain[number]
    if gamma != 1.0 or gain != 1.0:
        table = np.clip(255 * gain * (np.arange(256) / 255) ** gamma, 0, 255).astype(np.uint8)
        image[:] = table[image]
    if draws.grey[number]:
        image[:] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    if draws.noise[number]:
        rng = np.random.default_rng(draws.noise_seed[number])
        noise = rng.standard_normal(image.shape, np.float32) * np.float32(draws.noise[number])
        image[:] = np.clip(image + noise, 0, 255)
    top, left, height, width = draws.patch[number]
    image[top : top + height, left : left + width] = draws.patch_colour[number]


@numba.njit(cache=True, nogil=True, fastmath=True)
def _compose(stored, flips, angles, zooms, shifts, bends, modes, lights, backgrounds, out):
    """Sample, light and place each view over its background; see `augment` for the meaning of the arguments."""
    count, source = stored.shape[0], stored.shape[1]
    size = out.shape[1]
    sample, bend = np.empty(7, np.float32), np.empty(4, np.float32)
    cells = bends.shape[1] - 1
    per_cell = np.float32(cells / size)
    pitch = np.float32(2 * round(source / MARGIN / 2) / size)  # as `picture_side`, which compiled code cannot call
    zero, half, one, two = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
    unit, middle = np.float32(1 / 255), np.float32(128 / 255)
    for n in range(count):
        cos, sin = np.float32(np.cos(angles[n])), np.float32(np.sin(angles[n]))
        inverse = np.float32(1 / zooms[n])
        middle_x, middle_y = np.float32(size / 2 - 0.5 + shifts[n, 0]), np.float32(size / 2 - 0.5 + shifts[n, 1])
        centre = np.float32(source / 2 - 0.5)
        for row in range(size):
            for col in range(size):
                across, down = (np.float32(col) + half) * per_cell, (np.float32(row) + half) * per_cell
                i, j = int(across), int(down)
                across, down = across - np.float32(i), down - np.float32(j)
                across, down = across * across * (3 - two * across), down * down * (3 - two * down)  # no kinks at nodes
                for k in range(4):
                    upper = bends[n, j, i, k] * (one - across) + bends[n, j, i + 1, k] * across
                    lower = bends[n, j + 1, i, k] * (one - across) + bends[n, j + 1, i + 1, k] * across
                    bend[k] = upper * (one - down) + lower * down
                x = (np.float32(col) - middle_x + bend[0]) * inverse
                y = (np.float32(row) - middle_y + bend[1]) * inverse
                u, v = pitch * (cos * x - sin * y), pitch * (sin * x + cos * y)
                if flips[n]:
                    u = -u
                u += centre
                v += centre
                u0, v0 = int(np.floor(u)), int(np.floor(v))
                fu, fv = u - np.float32(u0), v - np.float32(v0)
                sample[:] = zero
                for dv in range(2):
                    for du in range(2):
                        r, c = v0 + dv, u0 + du
                        if r < 0 or c < 0 or r >= source or c >= source:
                            continue
                        weight = (fu if du else one - fu) * (fv if dv else one - fv) * unit
                        # Weighting by coverage keeps the empty surroundings from bleeding into the face's edge.
                        cover = weight * np.float32(stored[n, r, c, 6])
                        if cover > zero:
                            for k in range(6):
                                sample[k] += cover * unit * np.float32(stored[n, r, c, k])
                            sample[6] += cover
                alpha = sample[6]
                if alpha < half * unit:
                    for k in range(3):
                        out[n, row, col, k] = backgrounds[n, row, col, k]
                    continue
                nx = two * sample[0] / alpha - one
                ny = two * sample[1] / alpha - one
                nz = two * sample[2] / alpha - one
                if flips[n]:
                    nx = -nx
                nx, ny = cos * nx - sin * ny + bend[2], sin * nx + cos * ny + bend[3]
                length = np.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-6)
                nx, ny, nz = nx / length, ny / length, nz / length
                if modes[n] == 4:
                    dx, dy = sample[3] / alpha - middle, sample[4] / alpha - middle
                    dx = -dx if flips[n] else dx
                    sample[3] = (cos * dx - sin * dy + middle) * alpha
                    sample[4] = (sin * dx + cos * dy + middle) * alpha
                for k in range(3):
                    if modes[n] == 0:
                        direction = nx if k == 0 else (ny if k == 1 else nz)
                        value = direction * half + half
                    elif modes[n] >= 3:
                        value = sample[3 + k] / alpha
                    else:
                        value = lights[n, 0, 3 + k]
                        for lamp in range(1, 4):
                            facing = nx * lights[n, lamp, 0] + ny * lights[n, lamp, 1] + nz * lights[n, lamp, 2]
                            value += lights[n, lamp, 3 + k] * max(facing, zero)
                        value *= sample[3 + k] / alpha if modes[n] == 2 else np.float32(0.75)
                    value = np.float32(255) * value * alpha + backgrounds[n, row, col, k] * (one - alpha)
                    out[n, row, col, k] = np.uint8(min(max(value + half, zero), np.float32(255)))

"""Mixed view augmentation on a GPU: what `views.draw` drew, done by torch to a whole batch at once.

The numbers are drawn on the CPU in both cases, so a view gets the same flip, turn, bend, light and patch wherever it is
made; only the noise has another source. Pixels agree with `views.show` to a level or two (a test holds it).
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from affectvlm.augmentation.views import DIRECTIONS, NORMALS, PICTURE, TEXTURED, Draws, picture_side

_MIDDLE = 128 / 255
"""What stands for no direction in a picture of them."""
_RADIUS = 4
"""Of the blur, in pixels: three standard deviations of the widest."""


def pack(stored: np.ndarray, draws: Draws) -> dict[str, Tensor]:
    """Stored views and draws as tensors, for a loader to hand over and a trainer to move."""
    parts = {"stored": stored} | {one.name: _narrow(getattr(draws, one.name)) for one in fields(draws)}
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in parts.items()}


def unpack(packed: dict[str, Tensor]) -> Tensor:
    """(B, N, 3, size, size) uint8 from what `pack` made, on whatever device it is by now."""
    return show(packed["stored"], packed)


def show(stored: Tensor, draws: dict[str, Tensor]) -> Tensor:
    """As `views.show`, for tensors: stored (B, N, S, S, 7) uint8; the fields of `Draws` by name."""
    batch, views = stored.shape[:2]
    if views == 3:
        stored = stored.gather(1, draws["order"].long()[:, :, None, None, None].expand_as(stored))
    images = _compose(stored.flatten(0, 1), draws)
    images = _retouch(images, draws)
    return images.to(torch.uint8).unflatten(0, (batch, views))


def _compose(stored: Tensor, draws: dict[str, Tensor]) -> Tensor:
    """(n, 3, size, size) float32 whole levels: sample, light and place each view over its background."""
    size = draws["backgrounds"].shape[1]
    column = torch.arange(size, device=stored.device, dtype=torch.float32)
    bend = _bends(draws["bends"], column)  # (n, 4, size, size)
    cos, sin = (f(draws["angle"].float()).view(-1, 1, 1) for f in (torch.cos, torch.sin))
    flip = torch.where(draws["flips"], -1.0, 1.0).view(-1, 1, 1)
    middle = size / 2 - 0.5 + draws["shift"].float()
    zoom = draws["zoom"].float().view(-1, 1, 1)
    x = (column.view(1, 1, -1) - middle[:, 0].view(-1, 1, 1) + bend[:, 0]) / zoom
    y = (column.view(1, -1, 1) - middle[:, 1].view(-1, 1, 1) + bend[:, 1]) / zoom
    pitch = picture_side(stored.shape[1]) / size  # stored pixels to one of the picture
    u, v = pitch * flip * (cos * x - sin * y), pitch * (sin * x + cos * y)

    source = stored.float().permute(0, 3, 1, 2) / 255  # (n, 7, S, S)
    cover = source[:, 6:]
    # weighting by coverage keeps the empty surroundings from bleeding into the face's edge
    weighted = torch.cat([source[:, :6] * cover, cover], dim=1)
    grid = torch.stack([u, v], dim=-1) / (source.shape[-1] / 2 - 0.5)
    sample = F.grid_sample(weighted, grid, "bilinear", "zeros", align_corners=True)
    alpha = sample[:, 6:]
    sample = sample[:, :6] / alpha.clamp_min(1e-6)
    shown = _light(sample, bend, flip, cos, sin, draws)
    background = draws["backgrounds"].permute(0, 3, 1, 2).float()
    value = 255 * shown * alpha + background * (1 - alpha)
    value = torch.where(alpha < 0.5 / 255, background, value + 0.5)
    return value.clamp(0, 255).floor()


def _bends(nodes: Tensor, column: Tensor) -> Tensor:
    """(n, 4, size, size): smooth between the nodes (n, M, M, 4), without kinks at them."""
    place = (column + 0.5) * ((nodes.shape[1] - 1) / len(column))
    low = place.floor().long()
    part = place - low
    part = part * part * (3 - 2 * part)
    along = nodes.permute(0, 3, 1, 2)  # (n, 4, M, M)
    rows = along[:, :, low] * (1 - part)[:, None] + along[:, :, low + 1] * part[:, None]  # (n, 4, size, M)
    return rows[..., low] * (1 - part) + rows[..., low + 1] * part


def _light(sample: Tensor, bend: Tensor, flip: Tensor, cos: Tensor, sin: Tensor, draws: dict[str, Tensor]) -> Tensor:
    """(n, 3, size, size) in [0, 1] or a little over: directions as colours, colours under lamps, or colours."""
    nx, ny, nz = (2 * sample[:, :3] - 1).unbind(1)
    nx = flip * nx
    normal = torch.stack([cos * nx - sin * ny + bend[:, 2], sin * nx + cos * ny + bend[:, 3], nz], dim=1)
    normal = normal / (normal.norm(dim=1, keepdim=True) + 1e-6)
    lights = draws["lights"]  # (n, 4, 6)
    facing = torch.einsum("nlk,nkhw->nlhw", lights[:, 1:, :3], normal).clamp_min(0)
    lit = lights[:, 0, 3:, None, None] + torch.einsum("nlc,nlhw->nchw", lights[:, 1:, 3:], facing)
    modes = draws["modes"].view(-1, 1, 1, 1)
    colour = torch.where(modes == TEXTURED, sample[:, 3:], 0.75)
    shown = torch.where(modes == PICTURE, sample[:, 3:], lit * colour)
    x, y = sample[:, 3] - _MIDDLE, sample[:, 4] - _MIDDLE
    x = flip * x
    turned = torch.stack([cos * x - sin * y + _MIDDLE, sin * x + cos * y + _MIDDLE, sample[:, 5]], dim=1)
    shown = torch.where(modes == DIRECTIONS, turned, shown)
    return torch.where(modes == NORMALS, normal * 0.5 + 0.5, shown)


def _retouch(images: Tensor, draws: dict[str, Tensor]) -> Tensor:
    """Blur, brightness, grey, noise and patch, each rounded to levels as pictures are."""

    def per_view(name: str) -> Tensor:
        return draws[name].view(-1, 1, 1, 1)

    images = torch.where(per_view("blur") > 0, _blurred(images, draws["blur"].float()), images)
    toned = (255 * per_view("gain") * (images / 255) ** per_view("gamma")).clamp(0, 255).floor()
    changed = (per_view("gain") != 1) | (per_view("gamma") != 1)
    images = torch.where(changed, toned.float(), images)
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    images = torch.where(per_view("grey"), (images * weights).sum(1, keepdim=True).round(), images)
    noisy = (images + torch.randn_like(images) * per_view("noise").float()).clamp(0, 255).floor()
    images = torch.where(per_view("noise") > 0, noisy, images)
    colour = draws["patch_colour"].float()[:, :, None, None]
    return torch.where(_covered(draws["patch"], images.shape[-1]), colour, images)


def _blurred(images: Tensor, deviation: Tensor) -> Tensor:
    """Each view with its own Gaussian, borders mirrored."""
    offset = torch.arange(-_RADIUS, _RADIUS + 1, device=images.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offset / deviation.clamp_min(0.1)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)  # (3 n, 2 R + 1)
    flat = F.pad(images, [_RADIUS] * 4, mode="reflect").flatten(0, 1)[None]  # (1, 3 n, ...)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=flat.shape[1])
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=flat.shape[1])
    return flat.view_as(images).round()


def _covered(patch: Tensor, size: int) -> Tensor:
    """(n, 1, size, size) bool."""
    place = torch.arange(size, device=patch.device)
    top, left, height, width = patch.unbind(1)
    rows = (place >= top[:, None]) & (place < (top + height)[:, None])
    columns = (place >= left[:, None]) & (place < (left + width)[:, None])
    return (rows[:, None, :, None]) & (columns[:, None, None, :])


def _narrow(values: np.ndarray) -> np.ndarray:
    """float32 instead of float64: half the bytes to move."""
    return values.astype(np.float32) if values.dtype == np.float64 else values

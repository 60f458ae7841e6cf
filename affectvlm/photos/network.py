"""The face finder: a small convolutional network that says, for every place of a grey picture, whether a face is there.

For each cell of STRIDE pixels: is this the middle of a face; where exactly is the middle of its window; how large is
the window; how is the head turned. The window is that of our rendered views (`rendering.HALF_WIDTH_MM` about
`rendering.PIVOT_MM`), so what is cut out is framed as the classifier was trained. Trained on rendered faces in random
scenes by `affectvlm.photos.train`.
"""

from __future__ import annotations

import functools
from importlib import resources

import numpy as np
import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

STRIDE = 8
SIDE = 128
"""Pixels of the pictures it was trained on; others may be larger, in multiples of STRIDE."""
HALF_UNIT = 32.0
"""Pixels: half the side of the window that the network calls 1."""
SMALLEST, LARGEST = 12.0, 72.0
"""Half sides in pixels that it was trained to find."""
WEIGHTS = "face_finder.safetensors"

OUTPUTS = ("face", "dx", "dy", "size", "yaw_sin", "yaw_cos", "roll")
"""Channels of the output. face: logit. dx, dy: window centre minus cell centre, in HALF_UNIT. size: log of half /
HALF_UNIT. yaw_sin, yaw_cos: of the head's yaw (> 0: nose toward image right). roll: radians, > 0: clockwise."""


class FaceFinder(nn.Module):
    """(B, 1, H, W) float32 of zero mean and unit deviation, H and W multiples of STRIDE → (B, 7, H / 8, W / 8)."""

    def __init__(self, width: int = 40, dilations: tuple[int, ...] = (1, 2, 4, 1, 2, 1)) -> None:
        super().__init__()
        stem = [_step(1, 16), _step(16, 32), _Block(32, 1), _step(32, width)]
        self.body = nn.Sequential(*stem, *(_Block(width, dilation) for dilation in dilations))
        self.head = nn.Conv2d(width, len(OUTPUTS), 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


class _Block(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.net(x))


def _step(before: int, after: int) -> nn.Module:
    """Half the size, `after` channels."""
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def normalised(images: np.ndarray) -> Tensor:
    """(B, H, W) uint8 → (B, 1, H, W) float32, each of zero mean and unit deviation (a flat picture is zero)."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).float()
    pixels = pixels - pixels.mean((1, 2), keepdim=True)
    return (pixels / pixels.std((1, 2), keepdim=True).clamp(min=4.0))[:, None]


def decoded(out: Tensor) -> np.ndarray:
    """(B, 7, h, w) output → (B, h, w, 6) float32: face in [0, 1]; x, y, half in pixels; yaw and roll in degrees."""
    face, dx, dy, size, sine, cosine, roll = out.float().unbind(1)
    rows, columns = torch.meshgrid(torch.arange(out.shape[2]), torch.arange(out.shape[3]), indexing="ij")
    x = (columns + 0.5) * STRIDE + dx * HALF_UNIT
    y = (rows + 0.5) * STRIDE + dy * HALF_UNIT
    half = HALF_UNIT * size.clamp(-2, 2).exp()
    yaw, roll = torch.rad2deg(torch.atan2(sine, cosine)), torch.rad2deg(roll)
    return torch.stack([face.sigmoid(), x, y, half, yaw, roll], -1).numpy()


@functools.cache
def shipped_network() -> FaceFinder:
    """The network with the shipped weights, in evaluation mode."""
    network = FaceFinder()
    content = resources.files("affectvlm.photos").joinpath(WEIGHTS).read_bytes()
    network.load_state_dict({name: value.float() for name, value in load_safetensors(content).items()}, strict=False)
    return network.eval().requires_grad_(False)

"""Two small convolutional networks: the finder says where in a grey picture a face may be, the framer says exactly how
to frame it.

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

CLOSE_SIDE = 80
"""Pixels of the window that the framer looks at."""
CLOSE_UP = 1.6
"""Half the side of that window over half the side of a face's own window."""
FRAMER_WEIGHTS = "face_framer.safetensors"

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


class FaceFramer(nn.Module):
    """(B, 1, 80, 80) float32, normalised, a face roughly in the middle → (B, 7), as OUTPUTS, of that one face.

    dx, dy: middle of the face's window minus the picture's, in halves of the window supposed (25 pixels). size: log of
    the true half over that. roll: radians.
    """

    def __init__(self) -> None:
        super().__init__()
        convolutions = [_step(1, 24), _step(24, 32), _step(32, 64), _Block(64, 1), _step(64, 96)]
        self.body = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(96 * 25, 96), nn.ReLU(inplace=True))
        self.head = nn.Linear(96, len(OUTPUTS))

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


def framing(out: Tensor) -> np.ndarray:
    """(B, 7) output of the framer → (B, 6) float32: face in [0, 1]; dx, dy, log size as there; degrees of yaw, roll."""
    face, dx, dy, size, sine, cosine, roll = out.float().unbind(1)
    yaw, roll = torch.rad2deg(torch.atan2(sine, cosine)), torch.rad2deg(roll)
    return torch.stack([face.sigmoid(), dx, dy, size.clamp(-0.7, 0.7), yaw, roll], -1).numpy()


@functools.cache
def shipped_finder() -> FaceFinder:
    return _shipped(FaceFinder(), WEIGHTS)


@functools.cache
def shipped_framer() -> FaceFramer:
    return _shipped(FaceFramer(), FRAMER_WEIGHTS)


def _shipped(network: nn.Module, file: str) -> nn.Module:
    """The network with the weights of this package, in evaluation mode."""
    content = resources.files("affectvlm.photos").joinpath(file).read_bytes()
    network.load_state_dict({name: value.float() for name, value in load_safetensors(content).items()}, strict=False)
    return network.eval().requires_grad_(False)

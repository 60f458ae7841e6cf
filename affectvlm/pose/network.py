"""The pose network: for some hundred surface points, where each lies in the canonical frame, and whether it is face.

Everything it looks at (lengths relative to the size of the cloud, angles between normals and connecting lines, the
handedness of two normals) is unchanged by rotation, translation and scale of the scan. So no orientation has to be
learned, and rotating the file cannot change the answer. It is a transformer over point tokens whose attention sees the
geometry of each pair, in the spirit of point pair features (Drost et al., CVPR 2010) and invariant point attention
(Jumper et al., Nature 2021). The pose itself is solved from the predicted coordinates (`solve`).
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load as load_safetensors
from torch import nn

from affectvlm.pose.sampling import Sample

TOKENS = 80
NEIGHBOURS = 16
COARSE_STEP = 6  # every sixth point makes the second, wider neighbourhood
UNIT = 50.0  # mm in one unit of the network's coordinates
INVARIANTS = 6
WEIGHTS = "pose_network.safetensors"


class Prediction(NamedTuple):
    """coords: (B, T, 3) canonical mm / UNIT, x with sign; side: (B, T) |x|, the same unit; spread: (B, T) log of the
    expected error, the same unit; face: (B, T) logits; presence: (B,) logit that there is a face at all."""

    coords: torch.Tensor
    side: torch.Tensor
    spread: torch.Tensor
    face: torch.Tensor
    presence: torch.Tensor


class PoseNetwork(nn.Module):
    """points (B, N, 3), normals (B, N, 3) float32 normalised as in `Sample`, token (B, T) int64 → `Prediction`."""

    def __init__(self, width: int = 128, heads: int = 8, layers: int = 4) -> None:
        super().__init__()
        self.layers, self.heads = layers, heads
        self.fine = _Patch(64)
        self.coarse = _Patch(64)
        self.embed = nn.Linear(2 * 2 * 64 + 3, width)
        self.pair = nn.Linear(INVARIANTS, 32)
        self.pair_bias = nn.Linear(32, heads * layers, bias=False)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.point_head = nn.Linear(width, 6)
        self.global_head = nn.Sequential(nn.Linear(2 * width, 64), nn.GELU(), nn.Linear(64, 1))

    def forward(self, points: torch.Tensor, normals: torch.Tensor, token: torch.Tensor) -> Prediction:
        at, normal = _gather(points, token), _gather(normals, token)  # (B, T, 3)
        step = slice(None, None, COARSE_STEP)
        fine, fine_size = self.fine(at, normal, points, normals)
        coarse, coarse_size = self.coarse(at, normal, points[:, step], normals[:, step])
        height = (at * normal).sum(-1, keepdim=True)
        hidden = self.embed(torch.cat([fine, coarse, fine_size, coarse_size, height], -1))  # (B, T, C)
        b, t = token.shape
        shared = [
            weight.expand(b, -1, -1) for weight in (self.pair.bias[:, None], self.pair.weight, self.pair_bias.weight)
        ]
        pairs = torch.baddbmm(shared[0], shared[1], _pair_invariants(at, normal).flatten(2)).relu_()  # (B, 32, T T)
        bias = torch.bmm(shared[2], pairs).view(b, self.layers, self.heads, t, t)
        for block, block_bias in zip(self.blocks, bias.unbind(1), strict=True):
            hidden = block(hidden, at, normal, block_bias)
        hidden = self.norm(hidden)
        out = self.point_head(hidden)
        presence = self.global_head(torch.cat([hidden.mean(1), hidden.amax(1)], -1))[:, 0]
        return Prediction(out[..., :3], out[..., 3], out[..., 4].clamp(-4, 3), out[..., 5], presence)


class _Patch(nn.Module):
    """A token's neighbourhood, described by invariants and pooled: (B, T, 2 C), and the log of its size (B, T, 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(INVARIANTS, 48), nn.ReLU(), nn.Linear(48, width))

    def forward(self, at, normal, points, normals):
        with torch.no_grad():
            square = torch.cdist(at, points)
            near = square.topk(min(NEIGHBOURS, points.shape[1]), largest=False).indices  # (B, T, K)
        flat = near.flatten(1)
        offset = _gather(points, flat).view(*near.shape, 3) - at[:, :, None]
        other = _gather(normals, flat).view(*near.shape, 3)
        size = offset.norm(dim=-1).mean(-1, keepdim=True).clamp_min(1e-3)  # (B, T, 1)
        offset = offset / size[..., None]
        features = self.net(_invariants(offset, normal[:, :, None].expand_as(other), other, -1))
        return torch.cat([features.amax(2), features.mean(2)], -1), size.log()


class _Block(nn.Module):
    """Attention biased by the geometry of each pair. Each head also says where the points it attends to lie and face on
    average, as invariants seen from the token; two heads and the token's normal tell left from right."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width + heads * (INVARIANTS + 2), width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, hidden: torch.Tensor, at: torch.Tensor, normal: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        b, t, c = hidden.shape
        q, k, v = self.qkv(self.norm1(hidden)).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        weight = torch.softmax(torch.add(bias, q @ k.transpose(-1, -2), alpha=(c // self.heads) ** -0.5), -1)
        place = torch.cat([at, normal], -1)[:, None].expand(-1, self.heads, -1, -1)
        message = (weight @ torch.cat([v, place], -1)).transpose(1, 2)  # (B, T, H, C / H + 6)
        offset = message[..., -6:-3] - at[:, :, None]
        own = normal[:, :, None].expand_as(offset)
        turned = offset.roll(1, 2)
        geometry = torch.cat(
            [
                _invariants(offset, own, message[..., -3:], -1),
                (offset * turned).sum(-1, keepdim=True),
                (torch.linalg.cross(offset, turned) * own).sum(-1, keepdim=True),
            ],
            -1,
        )
        hidden = hidden + self.out(torch.cat([message[..., :-6].flatten(2), geometry.flatten(2)], -1))
        return hidden + self.mlp(self.norm2(hidden))


def _gather(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """values (B, N, 3), index (B, M) → (B, M, 3)."""
    return torch.gather(values, 1, index[..., None].expand(-1, -1, values.shape[-1]))


def _invariants(offset: torch.Tensor, normal: torch.Tensor, other: torch.Tensor, dim: int) -> torch.Tensor:
    """Six numbers stacked along a new dimension `dim`: length of `offset` (…, 3), heights over both tangent planes,
    angle of the normals, handedness, lateral distance."""
    height = (offset * normal).sum(-1)
    square = offset.square().sum(-1)
    return torch.stack(
        [
            (square + 1e-8).sqrt(),
            height,
            (offset * other).sum(-1),
            (normal * other).sum(-1),
            (torch.linalg.cross(normal, other) * offset).sum(-1),
            (square - height.square()).clamp_min(1e-8).sqrt(),
        ],
        dim,
    )


def _pair_invariants(at: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
    """The invariants of every pair of tokens (B, 6, T, T), written as products of matrices to save memory."""
    square = (at.square().sum(-1)[:, :, None] + at.square().sum(-1)[:, None] - 2 * at @ at.transpose(1, 2)).clamp_min(0)
    across = normal @ at.transpose(1, 2)  # n_i · p_j
    own = (normal * at).sum(-1)
    height = across - own[:, :, None]
    # (n_i × n_j) · (p_j − p_i) = n_i · (n_j × p_j) − n_j · (p_i × n_i)
    moment = torch.linalg.cross(normal, at)
    twist = normal @ moment.transpose(1, 2) + moment @ normal.transpose(1, 2)
    lateral = (square - height.square()).clamp_min(1e-8).sqrt()
    facing = own[:, None] - across.transpose(1, 2)
    return torch.stack([(square + 1e-8).sqrt(), height, facing, normal @ normal.transpose(1, 2), twist, lateral], 1)


@functools.cache
def shipped_network() -> PoseNetwork:
    """The trained network that comes with the package; built once, in evaluation mode, safe to share among threads."""
    weights = load_safetensors(resources.files(__package__).joinpath(WEIGHTS).read_bytes())
    network = PoseNetwork()
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


class Correspondences(NamedTuple):
    """Where points of the scan lie in the canonical frame, as the network says.

    points: (K, 3) float64 in the scan's frame; coords: (K, 3) canonical mm; side: (K,) |x| mm; error: (K,) expected
    error in mm; face: (K,) probability of being face; presence: probability that there is a face.
    """

    points: np.ndarray
    coords: np.ndarray
    side: np.ndarray
    error: np.ndarray
    face: np.ndarray
    presence: float


def correspondences(samples: list[Sample], network: PoseNetwork) -> list[Correspondences]:
    """The network's word on each of some samples, in one batch; three disjoint sets of tokens of each are asked."""
    draws = 3
    points = torch.from_numpy(np.stack([s.points for s in samples for _ in range(draws)]))
    normals = torch.from_numpy(np.stack([s.normals for s in samples for _ in range(draws)]))
    token = torch.arange(draws * TOKENS).view(draws, TOKENS).repeat(len(samples), 1)
    with torch.no_grad():
        out = network(points, normals, token)
    result = []
    for i, sample in enumerate(samples):
        rows = slice(draws * i, draws * (i + 1))
        flat = [value[rows].flatten(0, 1).double().numpy() for value in out[:4]]
        where = sample.points[: draws * TOKENS].astype(np.float64) * sample.radius + sample.center
        result.append(
            Correspondences(
                where,
                flat[0] * UNIT,
                flat[1] * UNIT,
                np.exp(flat[2]) * UNIT,
                1 / (1 + np.exp(-flat[3])),
                float(torch.sigmoid(out.presence[rows]).mean()),
            )
        )
    return result

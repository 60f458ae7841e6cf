"""What ranks share while they train: rows of a batch with their gradients, and the statistics of batch normalisation.

The convention: B rows in all, B / W on each of W ranks; every rank gathers and computes the same loss L of all B rows;
DDP averages the gradients of the ranks. Then each parameter's gradient is that of one rank with all B rows:

* backward, a collective adds up what the W copies of L ask of a rank's rows: it hands on dL/dz from each, W dL/dz;
* so parameters before a gather get W dL/dz dz/dp from the rows of each rank, and the average over ranks is dL/dp;
* parameters after it get dL/dp on every rank, whose average is dL/dp, too. Nothing is left to scale.
"""

from __future__ import annotations

import functools

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_AFTERWARDS = ("drop", "act")  # what timm's BatchNormAct2d holds, and applies in this order


@torch.compiler.disable  # collectives stay out of compiled graphs: the graph is cut here
def gather(tensor: Tensor) -> Tensor:
    """The rows of all ranks in the order of the ranks: (B, ...) on each of W ranks to (B * W, ...), with gradient.

    Any dtype; integers and bools have no gradient. The tensor itself where there is one process. All ranks must call it
    equally often and in the same order, and either all of them or none go backward through it.

    Raises:
        ValueError: no rows to speak of (a scalar), or ranks with different numbers of rows: all ranks raise it alike.
    """
    if not tensor.ndim:
        raise ValueError("a scalar was handed in; (B, ...) is needed")
    if _ranks() == 1:
        return tensor
    # a collective of unequal tensors would hang or read past the end
    rows = [int(count) for count in _collect(torch.tensor([len(tensor)], device=tensor.device))]
    if len(set(rows)) > 1:
        raise ValueError(f"the ranks hold {', '.join(map(str, rows))} rows; the same number on each is needed")
    return _Gather.apply(tensor)


def synchronise_batch_norm(module: nn.Module) -> nn.Module:
    """Make every batch normalisation inside `module` take its training statistics from the batches of all ranks.

    The layers change in place and keep parameters, buffers and hooks, so optimisers and checkpoints see no difference.
    On CUDA they do as torch.nn.SyncBatchNorm; elsewhere, where that one refuses, the same with kernels of the CPU. In
    evaluation mode, and where there is one process, they do as before. Running statistics are the same on all ranks.
    In training mode all ranks must run the layers together; their batches may differ in size.

    Returns:
        `module`.

    Raises:
        ValueError: a kind of batch normalisation whose ways are not known: neither torch's nor timm's.
    """
    for name, layer in module.named_modules():
        if not isinstance(layer, _PLAIN) or isinstance(layer, _AcrossRanks):
            continue
        kind = type(layer)
        if kind not in _PLAIN and {part for part, _ in layer.named_children()} != set(_AFTERWARDS):
            raise ValueError(f"{name or 'the module'} is a {kind.__name__}; torch's or timm's BatchNorm is needed")
        layer.__class__ = _across_ranks(kind)
    return module


class _AcrossRanks:
    """What a kind of batch normalisation becomes over all ranks.

    It does not become an nn.SyncBatchNorm, only borrows its forward pass: DDP refuses modules on a CPU that hold one.
    """

    process_group = None  # all ranks
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or _ranks() == 1:
            return super().forward(x)
        x = nn.SyncBatchNorm.forward(self, x) if x.is_cuda else self._normalise(x)
        for name in _AFTERWARDS:
            if name in self._modules:
                x = self._modules[name](x)
        return x

    @torch.compiler.disable
    def _normalise(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        mean, variance, count = _statistics(x)
        if self.track_running_stats:
            self._remember(mean, variance * (count / (count - 1)))
        return _Normalise.apply(x, self.weight, self.bias, mean, variance, count, self.eps)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        share = 1.0 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)


@functools.cache
def _across_ranks(kind: type[nn.Module]) -> type[nn.Module]:
    return type(f"{kind.__name__}AcrossRanks", (_AcrossRanks, kind), {})


@torch.no_grad()
def _statistics(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and variance (C,) of the channels of all ranks, and how many values of a channel there are; float32 at
    least. Their gradient is part of `_Normalise`.

    Means and centred variances are put together, not sums of squares: those cancel where a mean is large.

    Raises:
        ValueError: a rank without rows, or one value of a channel in all, which has no variance; on all ranks alike.
    """
    channels = x.shape[1]
    wide = torch.promote_types(x.dtype, torch.float32)
    own = torch.full((2 * channels + 1,), x.numel() // channels, dtype=wide, device=x.device)
    if x.numel():
        # the dtype of running statistics is that of the result: without them bf16 would be rounded to bf16
        unused = torch.zeros(channels, dtype=wide, device=x.device), torch.ones(channels, dtype=wide, device=x.device)
        own[:channels], own[channels:-1] = torch.batch_norm_update_stats(x, *unused, 0.0)
    means, variances, counts = torch.stack(_collect(own)).split([channels, channels, 1], dim=1)
    total = int(counts.sum())
    if total < 2 or not counts.all():
        found = ", ".join(str(int(count)) for count in counts)
        raise ValueError(f"the ranks have {found} values per channel; one on each and two in all are needed")
    share = counts / total
    mean = (share * means).sum(dim=0)
    return mean, (share * (variances + (means - mean).square())).sum(dim=0), total


class _Normalise(torch.autograd.Function):
    """w (x - mean) / sqrt(variance + eps) + b by statistics of the N values that all ranks hold of a channel.

    Backward, with xhat the normalised x and g the gradient that comes: db = sum g and dw = sum g xhat of this rank's
    rows, dx = w / sqrt(variance + eps) (g - S_g - S_gx xhat), where S_g and S_gx are the means of g and g xhat over all
    N (equation of batch normalisation with the sums taken over ranks). Each step is one of torch's own kernels, which
    read a channel once in the dtype and layout it has: plain operations take three times as long as the whole network.
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, count: int,
        eps: float,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.count, ctx.eps = count, eps
        return functional.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=_layout(x))
        of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, torch.ones_like(mean), mean, variance, None, None, False, ctx.eps, [False, True, True]
        )[1:]
        sums = torch.stack([of_bias, of_weight])
        dist.all_reduce(sums)
        mean_g, mean_gx = sums / ctx.count
        scale = torch.rsqrt(variance + ctx.eps) * (1.0 if weight is None else weight)
        # two normalisations whose statistics are chosen so that they give scale (g - S_g) and scale S_gx xhat
        of_x = functional.batch_norm(gradient, mean_g, torch.ones_like(mean_g), scale, training=False, eps=0.0)
        of_x -= functional.batch_norm(x, mean, variance, scale * mean_gx, training=False, eps=ctx.eps)
        affine = (of_weight, of_bias) if weight is not None else (None, None)
        return of_x, *affine, None, None, None, None


def _layout(x: Tensor) -> torch.memory_format:
    """Channels last where `x` lies so, as kernels want both of their tensors in one layout."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
    return last if last and x.is_contiguous(memory_format=last) else torch.contiguous_format


class _Gather(torch.autograd.Function):
    """Rows of all ranks; backward, the sum over ranks of the gradients of this rank's rows.

    The sum is an all-reduce of which each rank keeps its part: gloo cannot reduce and scatter at once, and features
    are small.
    """

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        ctx.rows = len(tensor)
        return torch.cat(_collect(tensor))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)  # others may hold the same gradient
        dist.all_reduce(total)
        return total[dist.get_rank() * ctx.rows :][: ctx.rows]


def _collect(tensor: Tensor) -> list[Tensor]:
    """The tensors of all ranks, of the same shape on each."""
    tensor = tensor.detach().contiguous()
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor)
    return parts


def _ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1

"""An image tower cut in two at a layer, and its attention laid open: what explaining an answer needs.

No hooks: a hook on a model that sessions share fires for all of them. The two halves are plain functions, so that
`torch.autograd.grad` of a score with respect to what flows between them is an affair of the one call alone. Known are
open_clip's own towers: `VisionTransformer`, and `ModifiedResNet` with its attention pooling (our compact model too).
The private methods of open_clip that this takes are named here and nowhere else; tests hold the halves against the
towers' own forward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor

from affectvlm.model.clip import MultiviewCLIP

_STAGES = ("layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class Split:
    """An image tower in two halves: `upper(lower(images))` is what `encode_views` gives, view by view.

    Attributes:
        lower: (M, 3, H, W) RGB, uint8 or floating in [0, 1] → what flows at the layer, of any shape.
        upper: that → (M, D) float32 features of unit length.
        grid: that, or a gradient with respect to it → (M, C, h, w), channels by place in the image; of a transformer
            the normed tokens without the class token.
    """

    lower: Callable[[Tensor], Tensor]
    upper: Callable[[Tensor], Tensor]
    grid: Callable[[Tensor], Tensor]


def layer_names(model: MultiviewCLIP) -> tuple[str, ...]:
    """The layers a model can be split at, from the image to the answer; empty where its tower is not known here.

    Of a transformer these are the norms at the entry of its blocks ("resblocks.11.ln_1"), not the blocks' outputs. The
    patches of the last output have no gradient, as only the class token is read. Those of the last but one are read
    through that norm alone, which does not see their length: gradient times activation is zero there.
    """
    visual = model.clip.visual
    if isinstance(visual, ModifiedResNet):
        return _STAGES
    if isinstance(visual, VisionTransformer) and visual.transformer.batch_first and _is_plain(visual):
        return tuple(f"resblocks.{i}.ln_1" for i in range(len(visual.transformer.resblocks)))
    return ()


def places(model: MultiviewCLIP, layer: str) -> int | None:
    """How many places a side a layer of a ResNet has; None for a transformer, whose layers are all alike."""
    if isinstance(model.clip.visual, ModifiedResNet):
        return model.image_size // (4 << _STAGES.index(layer))
    return None


def split(model: MultiviewCLIP, layer: str) -> Split:
    """The model's image tower, split after a layer of `layer_names`.

    Raises:
        ValueError: no such layer.
    """
    names = layer_names(model)
    if layer not in names:
        raise ValueError(f"layer is {layer!r}; one of {', '.join(names) or 'none (unknown image tower)'} is needed")
    visual = model.clip.visual
    halves = _split_resnet if isinstance(visual, ModifiedResNet) else _split_transformer
    below, above, grid = halves(visual, names.index(layer))
    return Split(
        lower=lambda images: below(model._normalised(images)),
        upper=lambda flow: F.normalize(above(flow).float(), dim=-1),
        grid=grid,
    )


def has_attention(model: MultiviewCLIP) -> bool:
    """Whether `attentive_features` knows the model's image tower."""
    visual = model.clip.visual
    if isinstance(visual, ModifiedResNet):
        return isinstance(visual.attnpool, AttentionPool2d)
    return (
        isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and visual.transformer.batch_first
        and _is_plain(visual)
    )


def attentive_features(model: MultiviewCLIP, images: Tensor) -> tuple[Tensor, list[Tensor], tuple[int, int]]:
    """Features together with the attention they came by, ready for gradients with respect to it.

    Args:
        images: (M, 3, H, W) RGB, uint8 or floating in [0, 1].

    Returns:
        (M, D) float32 features of unit length; the attention of each block (of a ResNet: of its pooling alone),
        (M, heads, 1 + h * w, 1 + h * w), rows attend to columns and sum to 1, the first token is the one that is read,
        the others go through the image row by row; and (h, w).

    Raises:
        ValueError: `has_attention` is False.
    """
    if not has_attention(model):
        raise ValueError("the image tower has no attention that is known here; another method is needed")
    visual = model.clip.visual
    read = _attentive_resnet if isinstance(visual, ModifiedResNet) else _attentive_transformer
    features, attention, shape = read(visual, model._normalised(images))
    return F.normalize(features.float(), dim=-1), attention, shape


def _split_resnet(visual: ModifiedResNet, index: int) -> tuple[Callable, Callable, Callable]:
    blocks = [visual.stem, *(getattr(visual, name) for name in _STAGES)]

    def below(x: Tensor) -> Tensor:
        for block in blocks[: index + 2]:
            x = block(x)
        return x

    def above(x: Tensor) -> Tensor:
        for block in blocks[index + 2 :]:
            x = block(x)
        return visual.attnpool(x)

    return below, above, lambda x: x


def _is_plain(visual: VisionTransformer) -> bool:
    return all(type(block) is ResidualAttentionBlock for block in visual.transformer.resblocks)


def _split_transformer(visual: VisionTransformer, index: int) -> tuple[Callable, Callable, Callable]:
    """What flows is (2, M, T, C): the tokens that go past the block, and the normed ones that go in."""
    blocks = list(visual.transformer.resblocks)
    first, rest = blocks[index], blocks[index + 1 :]

    def below(x: Tensor) -> Tensor:
        x = visual._embeds(x)
        for block in blocks[:index]:
            x = block(x)
        return torch.stack([x, first.ln_1(x)])

    def above(flow: Tensor) -> Tensor:
        x, normed = flow
        x = x + first.ls_1(first.attention(normed))
        x = x + first.ls_2(first.mlp(first.ln_2(x)))
        for block in rest:
            x = block(x)
        return _pooled(visual, x)

    def grid(flow: Tensor) -> Tensor:
        return flow[1, :, 1:].transpose(1, 2).unflatten(2, visual.grid_size)

    return below, above, grid


def _pooled(visual: VisionTransformer, x: Tensor) -> Tensor:
    pooled, _ = visual._pool(x)
    return pooled if visual.proj is None else pooled @ visual.proj


def _attentive_resnet(visual: ModifiedResNet, pixels: Tensor) -> tuple[Tensor, list[Tensor], tuple[int, int]]:
    x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels)))))
    pool, shape = visual.attnpool, tuple(x.shape[2:])
    tokens = x.flatten(2).transpose(1, 2)  # (M, h * w, C)
    tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + pool.positional_embedding.to(x.dtype)
    projections = (pool.q_proj, pool.k_proj, pool.v_proj)
    mixed, attention = _attend(*(part(tokens) for part in projections), pool.num_heads)
    return pool.c_proj(mixed)[:, 0], [attention], shape


def _attentive_transformer(visual: VisionTransformer, pixels: Tensor) -> tuple[Tensor, list[Tensor], tuple[int, int]]:
    x, attentions = visual._embeds(pixels), []
    for block in visual.transformer.resblocks:
        heads = block.attn
        parts = F.linear(block.ln_1(x), heads.in_proj_weight, heads.in_proj_bias).chunk(3, dim=-1)
        mixed, attention = _attend(*parts, heads.num_heads)
        x = x + block.ls_1(heads.out_proj(mixed))
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
        attentions.append(attention)
    return _pooled(visual, x), attentions, tuple(visual.grid_size)


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """(M, T, C) queries, keys, values → (M, T, C), and the attention (M, heads, T, T) that autograd can be asked of."""
    q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (q, k, v))  # (M, heads, T, C / heads)
    attention = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1)
    if torch.is_grad_enabled() and not attention.requires_grad:
        attention.requires_grad_()  # the weights are frozen: the path of the gradient begins here
    return (attention @ v).transpose(1, 2).flatten(2), attention

"""`MultiviewCLIP`: any open_clip network, looking at N views of one face with one shared image tower.

B samples, N views, P prompts, K classes, R rejection rows, D embedding width. Pixels are normalised inside the model,
so that training, evaluation and the app cannot differ. Nothing here uses the network unless a pretrained tag is asked
for.
"""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import safetensors
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CustomTextCLIP
from torch import Tensor, nn

from affectvlm.prompts import PromptSet

OPENAI_MEAN, OPENAI_STD = tuple(open_clip.OPENAI_DATASET_MEAN), tuple(open_clip.OPENAI_DATASET_STD)

_CONFIGS = Path(__file__).parents[1] / "model_configs"
_MAX_SCALE = 100.0  # CLIP's own bound on the logit scale
# what torch, safetensors, pickle and zip raise for a file that is not such weights (StopIteration: an empty dict)
_UNFIT = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, OSError, EOFError, StopIteration)
_UNFIT += (AssertionError, pickle.UnpicklingError, safetensors.SafetensorError)
_PROMPT_CHUNK = 256  # prompts encoded at once; bounds the memory of a large text bank


class MultiviewCLIP(nn.Module):
    """An open_clip network for faces seen from several sides.

    Attributes:
        clip: the open_clip network with both towers and the logit scale.
        arch: the name of its architecture.
        model_cfg: the full open_clip configuration the network was made from.
        image_size: side of the square image the tower takes, in pixels.
        mean, std: of the RGB channels, for pixels in [0, 1].
    """

    def __init__(
        self,
        clip: nn.Module,
        arch: str,
        model_cfg: Mapping[str, Any],
        mean: Sequence[float] = OPENAI_MEAN,
        std: Sequence[float] = OPENAI_STD,
    ) -> None:
        super().__init__()
        self.clip = clip
        self.arch = arch
        self.model_cfg = copy.deepcopy(dict(model_cfg))
        self.image_size = _square(self.model_cfg["vision_cfg"])
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self._tokenizer = _tokenizer(self.model_cfg["text_cfg"].get("context_length", 77))
        # (x - mean) / std as x * gain + shift; not saved with the weights, the card has them
        gain = 1.0 / torch.tensor(self.std)
        self.register_buffer("_gain", gain.view(3, 1, 1), persistent=False)
        self.register_buffer("_shift", (-torch.tensor(self.mean) * gain).view(3, 1, 1), persistent=False)

    @property
    def embed_dim(self) -> int:
        """D, the width of every feature."""
        return int(self.model_cfg["embed_dim"])

    @property
    def logit_scale(self) -> Tensor:
        """The factor on cosines, a scalar in (0, 100], float32."""
        return self.clip.logit_scale.float().exp().clamp(max=_MAX_SCALE).reshape(())

    def forward(self, views: Tensor, mask: Tensor | None = None) -> Tensor:
        """`aggregate(encode_views(views), mask)`: (B, D) of unit length."""
        return self.aggregate(self.encode_views(views), mask)

    def encode_views(self, views: Tensor) -> Tensor:
        """Each view's feature: (B, N, D) float32 of unit length.

        Args:
            views: (B, N, 3, H, W) RGB, uint8 or floating in [0, 1], square; resized where the side is not `image_size`.

        Raises:
            ValueError: another shape or dtype.
        """
        if views.ndim != 5 or views.shape[2] != 3 or views.shape[3] != views.shape[4] or 0 in views.shape:
            raise ValueError(f"views have shape {tuple(views.shape)}; (B, N, 3, S, S) is needed")
        pixels = self._normalised(views.flatten(0, 1))
        features = self.clip.encode_image(pixels).float()
        return F.normalize(features, dim=-1).unflatten(0, views.shape[:2])

    def aggregate(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """One feature per sample, the normalised mean over its views: (B, D) of unit length.

        Args:
            z: (B, N, D) features of views.
            mask: (B, N) bool, True where a view is present; None = all are.

        Raises:
            ValueError: shapes that do not fit, or a sample without any view.
        """
        if mask is None:
            return F.normalize(z.mean(dim=1), dim=-1)
        if mask.shape != z.shape[:2] or mask.dtype != torch.bool:
            raise ValueError(f"mask is {tuple(mask.shape)} {mask.dtype}; {tuple(z.shape[:2])} torch.bool is needed")
        if not mask.any(dim=1).all():
            raise ValueError("a sample has no view; one at least is needed")
        # zeroed by selection, not by a product: whatever stands in a missing view must not matter, NaN included
        return F.normalize(z.masked_fill(~mask[..., None], 0.0).sum(dim=1), dim=-1)

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Each prompt's feature: (P, D) float32 of unit length. Equal prompts are encoded once.

        Raises:
            ValueError: no prompt at all, or a string instead of a list of them.
        """
        if isinstance(prompts, str) or not len(prompts):
            raise ValueError(f"prompts are {prompts!r}; a list with at least one string is needed")
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        device = self.clip.logit_scale.device
        tokens = self._tokenizer(list(places)).to(device)
        features = torch.cat([self.clip.encode_text(part).float() for part in tokens.split(_PROMPT_CHUNK)])
        index = torch.tensor([places[prompt] for prompt in prompts], device=device)
        return F.normalize(features, dim=-1)[index]

    def reads_whole(self, prompt: str) -> bool:
        """Whether the text tower takes the prompt to its end; of a longer one it takes the beginning."""
        ends = 2  # the tokens before and after every text
        return len(self._tokenizer.encode(prompt)) + ends <= self._tokenizer.context_length

    def text_bank(self, prompts: PromptSet) -> Tensor:
        """One feature per class and rejection row, the normalised mean of its prompts: (K + R, D) of unit length."""
        rows = [prompts.bank_prompts(row) for row in prompts.rows]
        features = self.encode_prompts([prompt for row in rows for prompt in row])
        means = [part.mean(dim=0) for part in features.split([len(row) for row in rows])]
        return F.normalize(torch.stack(means), dim=-1)

    def logits(self, z: Tensor, bank: Tensor) -> Tensor:
        """Scaled cosines of features (..., D) with a text bank (K + R, D): (..., K + R)."""
        return self.logit_scale * z @ bank.T

    def _normalised(self, images: Tensor) -> Tensor:
        """(M, 3, H, W) uint8 or floating → (M, 3, S, S), normalised, dtype and device of the image tower."""
        weight = next(self.clip.visual.parameters())
        images = images.to(weight.device)
        if images.dtype == torch.uint8:
            pixels = images.float() / 255.0
        elif images.is_floating_point():
            pixels = images.float()
        else:
            raise ValueError(f"views are {images.dtype}; uint8, or floating in [0, 1], is needed")
        if pixels.shape[-1] != self.image_size:
            size = (self.image_size, self.image_size)
            pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
        return (pixels * self._gain.float() + self._shift.float()).to(weight.dtype)


def probabilities(
    logits: Tensor, n_classes: int, temperature: float = 1.0, margin: float = 0.0
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Class probabilities that go flat as the rejection rows take over.

    With s = softmax(logits / temperature) over all K + R rows, the margin added to the logits of the R rejection rows
    before, and p = the mass of s on those rows, class k gets (1 - p) * (its softmax among the classes) + p / K, which
    is s_k + p / K: the K always sum to 1.

    Args:
        logits: (..., K + R), classes first.
        n_classes: K.
        temperature: of the calibration, > 0.
        margin: by how much a class has to lie above the rejection rows; it never changes the order of the classes.

    Returns:
        (..., K) probabilities, and (..., R) masses of the rejection rows; both float32.

    Raises:
        ValueError: more classes than rows, a temperature that is not positive, or a margin that is not finite.
    """
    if not 1 <= n_classes <= logits.shape[-1]:
        raise ValueError(f"{n_classes} classes in logits of shape {tuple(logits.shape)}; 1 to {logits.shape[-1]} fit")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature is {temperature}; a positive number is needed")
    if not abs(margin) < float("inf"):
        raise ValueError(f"margin is {margin}; a finite number is needed")
    logits = logits.float()
    logits = torch.cat([logits[..., :n_classes], logits[..., n_classes:] + margin], dim=-1)
    shares = torch.softmax(logits / temperature, dim=-1)
    rejected = shares[..., n_classes:]
    return shares[..., :n_classes] + rejected.sum(dim=-1, keepdim=True) / n_classes, rejected


def build_model(arch: str = "affectvlm-compact", pretrained: str | Path | None = None) -> MultiviewCLIP:
    """A model by the name of its architecture, on the CPU, in evaluation mode.

    Args:
        arch: any architecture of open_clip ("ViT-B-32", "RN50", ...) or of ours ("affectvlm-compact").
        pretrained: a pretrained tag of open_clip ("openai", "laion2b_s34b_b79k"; downloaded and cached by it), the path
            of a local weight file (a state dict in .safetensors or .pt), or None for random weights. A tag brings its
            activation and normalisation with it; for a file the name must say it ("ViT-B-32-quickgelu").

    Raises:
        ValueError: an unknown architecture, tag or file, or weights that do not fit the architecture.
    """
    model_cfg = _arch_config(arch)
    if pretrained is None:
        return from_config(arch, model_cfg)
    tag = open_clip.get_pretrained_cfg(arch, str(pretrained))
    if tag and tag.get("quick_gelu", False):
        # weights trained with one activation load into a network with the other and give wrong features in silence
        model_cfg["quick_gelu"] = True
    model = from_config(arch, model_cfg, tag.get("mean") or OPENAI_MEAN, tag.get("std") or OPENAI_STD)
    path = open_clip.download_pretrained(tag) if tag else Path(pretrained)
    if not Path(path).is_file():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(arch)) or "none"
        raise ValueError(f"{str(pretrained)!r} is neither a tag of {arch} ({tags}) nor a weight file")
    _load_weights(model.clip, Path(path), arch)
    return model


def from_config(
    arch: str,
    model_cfg: Mapping[str, Any],
    mean: Sequence[float] = OPENAI_MEAN,
    std: Sequence[float] = OPENAI_STD,
) -> MultiviewCLIP:
    """A model with random weights from a full open_clip configuration, without any look-up by name or network.

    Raises:
        ValueError: a configuration that open_clip cannot build.
    """
    cfg = copy.deepcopy(dict(model_cfg))
    try:
        if cfg["vision_cfg"].get("timm_model_name"):
            cfg["vision_cfg"]["timm_model_pretrained"] = False
        if "multimodal_cfg" in cfg or cfg["text_cfg"].get("hf_model_name") or cfg["text_cfg"].get("hf_tokenizer_name"):
            raise ValueError(f"{arch} is a CoCa or needs a tokenizer or text tower of transformers; not supported")
        full_cfg = copy.deepcopy(cfg)
        # a dual-tower network keeps the text tower as a module of its own where its configuration says so
        network = CustomTextCLIP if cfg.pop("custom_text", False) else CLIP
        return MultiviewCLIP(network(**cfg), arch, full_cfg, mean, std).eval()
    except (KeyError, TypeError, AttributeError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        raise ValueError(f"open_clip cannot build {arch} from its configuration: {error!r}") from error


def image_side(arch: str) -> int:
    """Side in pixels of the pictures an architecture takes.

    Raises:
        ValueError: an unknown architecture.
    """
    return _square(_arch_config(arch)["vision_cfg"])


def at_size(model: MultiviewCLIP, side: int) -> MultiviewCLIP:
    """The same network for pictures of another side, in pixels: equal weights, its grid of positions resampled.

    Raises:
        ValueError: a network that cannot take pictures of that side.
    """
    if side == model.image_size:
        return model
    cfg = copy.deepcopy(model.model_cfg)
    cfg["vision_cfg"]["image_size"] = side
    other = from_config(model.arch, cfg, model.mean, model.std)
    weights, wanted = model.state_dict(), other.state_dict()
    for name, value in wanted.items():
        if weights[name].shape != value.shape:
            weights[name] = _resampled(name, weights[name], value.shape)
    other.load_state_dict(weights)
    return other


def _resampled(name: str, positions: Tensor, shape: torch.Size) -> Tensor:
    """Embeddings of one token for the whole picture and of a square grid: (1 + g * g, C) → (1 + h * h, C)."""
    old, new = (round((rows - 1) ** 0.5) for rows in (len(positions), shape[0]))
    grids = positions.ndim == 2 and 1 + old**2 == len(positions) and 1 + new**2 == shape[0] and new > 0
    if not (grids and name.endswith("positional_embedding") and positions.shape[1:] == shape[1:]):
        raise ValueError(
            f"{name} is {tuple(positions.shape)} and would have to be {tuple(shape)} for pictures of that side; "
            "a square grid of positions, one at least, is needed"
        )
    grid = positions[1:].T.reshape(1, -1, old, old)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([positions[:1], grid.flatten(2)[0].T])


def _arch_config(arch: str) -> dict[str, Any]:
    _register_configs()
    config = open_clip.get_model_config(arch) if open_clip.factory.parse_model_name(arch)[0] is None else None
    if config is None:
        raise ValueError(f"no architecture {arch!r}; known: {', '.join(open_clip.list_models())}")
    return config


@functools.cache
def _register_configs() -> None:
    """Make our configurations known to open_clip, once in a process."""
    open_clip.add_model_config(_CONFIGS)


def _load_weights(clip: nn.Module, path: Path, arch: str) -> None:
    """Load a state dict by open_clip's own reader, which unpickles nothing but tensors (`weights_only`)."""
    try:
        open_clip.load_checkpoint(clip, str(path), strict=True, weights_only=True)
    except _UNFIT as error:
        raise ValueError(f"{path.name} does not hold weights of {arch}: {str(error)[:500]}") from error


@functools.cache
def _tokenizer(context_length: int) -> open_clip.SimpleTokenizer:
    """CLIP's own tokenizer, bundled with open_clip; kept, as reading its vocabulary takes a third of a second."""
    return open_clip.SimpleTokenizer(context_length=context_length)


def _square(vision_cfg: Mapping[str, Any]) -> int:
    size = vision_cfg.get("image_size", 224)
    sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(set(sides)) != 1 or not isinstance(sides[0], int) or sides[0] < 1:
        raise ValueError(f"image_size is {size!r}; one side of a square in pixels is needed")
    return sides[0]

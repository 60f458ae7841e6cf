"""Which parameters of a `MultiviewCLIP` are trained, and how fast.

Parameters fall into named groups, from the input of each tower to its output:

* image.stem, then image.layer1 to image.layer4 (ResNet) or image.block00, image.block01, ... (ViT), then image.head
  (the attention pool, or the last norm and the projection). A tower of timm is image.trunk and image.head;
* text.embedding, text.block00, ..., text.head (the last norm and the projection);
* logit_scale.

The start of names stands for all of them: "image" is the whole tower, "image.block" all its blocks.

    prepare(model, tuning)                                   # what has a gradient
    print(table(model, tuning, lr))
    optimizer = torch.optim.AdamW(optimizer_groups(model, tuning, lr, weight_decay))
    ...
    merge(model)                                             # before a checkpoint is written
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from affectvlm.model.clip import MultiviewCLIP

MODES = ("full", "lora", "projection")
TOWERS = ("image", "text")

_SCALE = "logit_scale"
_PROJECTION = ("image.head", "text.head", _SCALE)
# open_clip's own names of the parts of a tower; what is in neither is a block, a layer or the trunk
_INPUTS = {"conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "ln_pre", "class_embedding", "positional_embedding"}
_INPUTS |= {"token_embedding", "cls_emb"}
_HEADS = {"attnpool", "attn_pool", "attn_pool_contrastive", "ln_post", "proj", "head", "ln_final", "text_projection"}
_INPUT_GROUP = {"image": "stem", "text": "embedding"}
_ORDER = {"stem": 0, "embedding": 0, "head": 2}  # all else lies between


@dataclass(frozen=True)
class TuningConfig:
    """How much of a model is trained.

    Attributes:
        mode: "full" trains every weight; "projection" the groups image.head, text.head and logit_scale alone; "lora"
            none of the weights W, but low-rank updates of them, W + lora_alpha / lora_rank * B @ A.
        freeze: groups, or starts of their names, which are not trained whatever the mode says.
        layer_decay: in (0, 1]; each group learns this much slower than the next one toward its tower's output.
        lora_rank: rows of A and columns of B, >= 1; a matrix with a shorter side gets that many.
        lora_alpha: > 0; the update's factor is lora_alpha / lora_rank.
        lora_towers: those that get updates: "image", "text" or both.

    Raises:
        ValueError: a value out of range, or settings that contradict each other.
    """

    mode: str = "full"
    freeze: tuple[str, ...] = ()
    layer_decay: float = 1.0
    lora_rank: int = 8
    lora_alpha: float = 16.0
    lora_towers: tuple[str, ...] = TOWERS

    def __post_init__(self) -> None:
        towers = self.lora_towers
        _need(self.mode in MODES, "mode", self.mode, f"one of {', '.join(MODES)}")
        _need(_is_names(self.freeze), "freeze", self.freeze, "a tuple of names of groups")
        _need(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "a number above 0, 1 at most,")
        _need(self.lora_rank >= 1, "lora_rank", self.lora_rank, "1 or more")
        _need(0 < self.lora_alpha < math.inf, "lora_alpha", self.lora_alpha, "a positive number")
        is_towers = (
            _is_names(towers) and bool(towers) and len(set(towers)) == len(towers) and set(towers) <= set(TOWERS)
        )
        _need(is_towers, "lora_towers", towers, "image, text or both")
        self._check_frozen()

    def _check_frozen(self) -> None:
        if self._freezes(*TOWERS, _SCALE):
            raise ValueError(f"tuning.freeze names everything ({', '.join(self.freeze)}); nothing is left to train")
        if self.mode == "projection" and self._freezes(*_PROJECTION):
            raise ValueError(f"mode projection trains {', '.join(_PROJECTION)} alone, and tuning.freeze names them all")
        for tower in self.lora_towers:
            if self.mode == "lora" and self._freezes(tower):
                raise ValueError(
                    f"tuning.freeze names {tower}, which is one of tuning.lora_towers; one of them must go"
                )

    def _freezes(self, *groups: str) -> bool:
        return all(any(_covers(name, group) for name in self.freeze) for group in groups)


def parameter_groups(model: MultiviewCLIP) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Group → (name, parameter) of each of its parameters; every parameter of the model once, input first.

    Parameters that `prepare` has added are in the group of the weight they update.
    """
    classifier = _classifier(model)
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        group = "image.head" if id(parameter) in classifier else _group(name)
        groups.setdefault(group, []).append((name, parameter))
    # sorting is stable, and blocks come in their order
    return dict(sorted(groups.items(), key=lambda item: _place(item[0])))


def select(groups: Collection[str], names: Iterable[str]) -> list[str]:
    """The groups that names stand for, in the order of `groups`.

    Args:
        groups: all groups of a model.
        names: each a group, or the start of groups up to a dot or to a block's number: "image", "image.block".

    Raises:
        ValueError: a name that stands for no group.
    """
    names = list(names)
    for name in names:
        if not any(_covers(name, group) for group in groups):
            raise ValueError(f"no group of parameters {name!r}; known: {', '.join(groups)}, and starts such as image")
    return [group for group in groups if any(_covers(name, group) for name in names)]


def prepare(model: MultiviewCLIP, tuning: TuningConfig) -> None:
    """Set which parameters have a gradient, and add low-rank updates in mode "lora".

    Updates go to every matrix of the towers' attention and linear layers and to 1x1 convolutions; B is zero at first,
    so that the model's answers stay what they are. The first values of A are drawn from torch's generator.

    Batch norms without a trained parameter keep to their running statistics from now on, in `model.train()` as well:
    else a frozen group would move, and answer by the batch. To go from one tuning to another call this again, after
    `merge` where the model has updates.

    Raises:
        ValueError: an unknown group, nothing left to train, nothing that low-rank updates could adapt, or a model that
            has such updates already. The model is unchanged then.
    """
    if _updated(model):
        raise ValueError("the model has low-rank updates already; merge it before it is prepared again")
    groups = parameter_groups(model)
    frozen = select(groups, tuning.freeze)
    wanted = {"full": (*TOWERS, _SCALE), "projection": _PROJECTION, "lora": tuning.lora_towers}[tuning.mode]
    trained = [group for group in select(groups, wanted) if group not in frozen]
    if not trained:
        raise ValueError(f"tuning.freeze ({', '.join(tuning.freeze)}) leaves nothing to train in mode {tuning.mode}")
    weights = {name for group in trained for name, _ in groups[group]}
    matrices = _matrices(model, weights) if tuning.mode == "lora" else []
    if tuning.mode == "lora" and not matrices:
        raise ValueError(f"no attention, linear layer or 1x1 convolution in {', '.join(trained)}; nothing for lora")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in weights and tuning.mode != "lora")
    for module, tensor in matrices:
        update = _LowRank(getattr(module, tensor), tuning.lora_rank, tuning.lora_alpha / tuning.lora_rank)
        parametrize.register_parametrization(module, tensor, update)
    _hold_statistics(model)


def merge(model: MultiviewCLIP) -> None:
    """Fold the low-rank updates into the weights: same answers, and the state dict has its own keys again.

    A model without updates stays as it is. A copy can be merged while the training of its original goes on. What was
    frozen stays frozen; `prepare` says anew what is trained.
    """
    for module, tensor in _updated(model):
        # torch removes the tensor's property from the module's class, which a deep copy shares with its original: so
        # this module first gets a class of its own
        cls = type(module)
        module.__class__ = type(cls.__name__, cls.__bases__, dict(cls.__dict__))
        parametrize.remove_parametrizations(module, tensor, leave_parametrized=True)
        _put_first(module, tensor)


def optimizer_groups(
    model: MultiviewCLIP, tuning: TuningConfig, lr: float, weight_decay: float, text_factor: float = 1.0
) -> list[dict[str, Any]]:
    """What `torch.optim.AdamW` takes: every trained parameter of a prepared model once.

    The head of each tower learns at `lr`, each group before it `layer_decay` times as fast as the next one, all of the
    text tower `text_factor` times as fast; the logit scale learns at `lr`. Frozen groups count as steps all the same.
    Vectors and scalars (gains, biases, the logit scale) have no weight decay.

    Args:
        lr: learning rate of the heads, > 0.
        weight_decay: of everything else, >= 0.
        text_factor: >= 0.

    Returns:
        Dicts with params, lr, weight_decay and name, which is that of the group, with ".no_decay" where that is so; no
        two are the same.

    Raises:
        ValueError: a number out of range, or a model that was not prepared for this mode.
    """
    _need(0 <= weight_decay < math.inf, "weight_decay", weight_decay, "0 or more", section="")
    rates = _rates(model, tuning, lr, text_factor)
    found = []
    for group, members in parameter_groups(model).items():
        trained = [parameter for _, parameter in members if parameter.requires_grad]
        for name, decay, is_matrix in ((group, weight_decay, True), (f"{group}.no_decay", 0.0, False)):
            params = [parameter for parameter in trained if (parameter.ndim > 1) == is_matrix]
            if params:
                found.append({"params": params, "lr": rates[group], "weight_decay": decay, "name": name})
    return found


def table(model: MultiviewCLIP, tuning: TuningConfig, lr: float, text_factor: float = 1.0) -> str:
    """Lines of text, one per group of a prepared model and one for their total: how many numbers it has, how many and
    which share of them are trained, and the learning rate.

    Raises:
        ValueError: as `optimizer_groups`.
    """
    rates = _rates(model, tuning, lr, text_factor)
    counts = {group: _count(members) for group, members in parameter_groups(model).items()}
    rows = [("group", "parameters", "trainable", "share", "learning rate")]
    for group, (size, trained) in counts.items():
        rows.append(_row(group, size, trained, f"{rates[group]:.2e}" if trained else "-"))
    rows.append(_row("total", *map(sum, zip(*counts.values(), strict=True)), ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def interpolate(start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """A state dict on the straight line between two: (1 - share) * start + share * end.

    Between a pretrained model and what fine-tuning made of it there are often models that do well on the new data and
    keep more of what the old one knew (WiSE-FT). Running statistics of batch norms are interpolated as weights are.

    Args:
        start, end: of the same keys and shapes.
        share: in [0, 1].

    Returns:
        Floating tensors in float32, all others as in `end`; no memory shared with either.

    Raises:
        ValueError: other keys, shapes or kinds of numbers, or a share out of range.
    """
    _need(0 <= share <= 1, "share", share, "a number from 0 to 1", section="")
    if set(start) != set(end):
        lost, new = sorted(set(start) - set(end))[:3], sorted(set(end) - set(start))[:3]
        raise ValueError(f"the end lacks tensors such as {lost} of the start and has others such as {new}")
    for name, value in start.items():
        for what in (lambda tensor: tuple(tensor.shape), _kind):
            if what(value) != what(end[name]):
                raise ValueError(
                    f"{name} is {what(value)} at the start and {what(end[name])} at the end; they must be alike"
                )
    return {name: _between(value, end[name], share) for name, value in start.items()}


class _LowRank(nn.Module):
    """W → W + scale * B @ A for a weight W of shape (rows, ...), seen as a matrix of `rows` rows."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        rank = min(rank, rows, columns)  # more would not make the update any richer
        bound = columns**-0.5  # torch's own for the weights of a linear layer
        self.scale = scale
        self.A = nn.Parameter(weight.new_empty(rank, columns).uniform_(-bound, bound))
        self.B = nn.Parameter(weight.new_zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.B @ self.A).view_as(weight)


def _group(name: str) -> str:
    """The group of a parameter by its name in the model: clip.visual.conv1.weight → image.stem."""
    parts = name.removeprefix("clip.").split(".")
    if parts[0] in ("logit_scale", "logit_bias"):
        return _SCALE
    tower = "image" if parts[0] == "visual" else "text"
    if parts[0] in ("visual", "text"):  # CustomTextCLIP has a module "text", in CLIP its parts lie open
        parts = parts[1:]
    if parts[:2] == ["transformer", "resblocks"]:
        return f"{tower}.block{int(parts[2]):02d}"
    if re.fullmatch(r"layer\d", parts[0]):
        return f"{tower}.{parts[0]}"
    if parts[0] in _INPUTS:
        return f"{tower}.{_INPUT_GROUP[tower]}"
    return f"{tower}.{'head' if parts[0] in _HEADS else 'trunk'}"


def _place(group: str) -> tuple[int, int]:
    tower, _, part = group.partition(".")
    return ((*TOWERS, _SCALE).index(tower), _ORDER.get(part, 1))


def _classifier(model: MultiviewCLIP) -> set[int]:
    """Ids of the parameters by which a trunk of timm projects on its own, where open_clip adds no head to it."""
    trunk = getattr(model.clip.visual, "trunk", None)
    classifier = trunk.get_classifier() if hasattr(trunk, "get_classifier") else None
    return {id(parameter) for parameter in classifier.parameters()} if isinstance(classifier, nn.Module) else set()


def _covers(name: str, group: str) -> bool:
    """Whether a name is the group or a start of it, up to a dot or to a number: image.block1 is not image.block12."""
    return re.fullmatch(re.escape(name) + r"(\..+|(?<!\d)\d+)?", group) is not None


def _matrices(model: MultiviewCLIP, weights: Collection[str]) -> list[tuple[nn.Module, str]]:
    """The modules and the names of the weights in them, among `weights`, that low-rank updates can adapt."""
    found = []
    for path, module in model.named_modules():
        tensor = _matrix(module)
        if tensor and f"{path}.{tensor}" in weights:
            found.append((module, tensor))
    return found


def _matrix(module: nn.Module) -> str | None:
    if isinstance(getattr(module, "in_proj_weight", None), nn.Parameter):  # attention, of torch or of open_clip
        return "in_proj_weight"
    is_pointwise = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    return "weight" if is_pointwise or isinstance(module, nn.Linear) else None


def _updated(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """The modules that have low-rank updates, with the name of the weight."""
    return [
        (module, tensor)
        for module in model.modules()
        if parametrize.is_parametrized(module)
        for tensor, chain in module.parametrizations.items()
        if isinstance(chain[0], _LowRank)
    ]


def _put_first(module: nn.Module, tensor: str) -> None:
    """Where torch registers it: the order of parameters stays that of a model which never had an update."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        if name != tensor:
            delattr(module, name)
            module.register_parameter(name, parameter)


def _hold_statistics(model: nn.Module) -> None:
    """Keep batch norms whose parameters are all frozen in evaluation mode, and no others."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            vars(module).pop("train", None)
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                # on the instance: a later model.train() must not undo it
                module.train = types.MethodType(_stay, module)
            module.train(module.training)


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return nn.Module.train(module, False)


def _rates(model: MultiviewCLIP, tuning: TuningConfig, lr: float, text_factor: float) -> dict[str, float]:
    """Each group's learning rate, whether it is trained or not."""
    _need(0 < lr < math.inf, "lr", lr, "a positive number", section="")
    _need(0 <= text_factor < math.inf, "text_factor", text_factor, "0 or more", section="")
    if bool(_updated(model)) != (tuning.mode == "lora"):
        raise ValueError(f"the model is not prepared for mode {tuning.mode}; prepare(model, tuning) comes first")
    groups = parameter_groups(model)
    rates = dict.fromkeys(groups, float(lr))
    for tower, factor in zip(TOWERS, (1.0, text_factor), strict=True):
        for depth, group in enumerate(reversed(select(groups, [tower]))):
            rates[group] = lr * factor * tuning.layer_decay**depth
    return rates


def _count(members: list[tuple[str, nn.Parameter]]) -> tuple[int, int]:
    """How many numbers there are, and how many are trained."""
    parameters = [parameter for _, parameter in members]
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def _row(group: str, size: int, trained: int, rate: str) -> tuple[str, ...]:
    return group, f"{size:,}", f"{trained:,}", f"{100 * trained / size:.1f} %", rate


def _between(start: Tensor, end: Tensor, share: float) -> Tensor:
    if not end.is_floating_point():
        return end.detach().clone()
    return (1.0 - share) * start.detach().float() + share * end.detach().float()


def _kind(value: Tensor) -> str:
    return "floating" if value.is_floating_point() else "integer"


def _is_names(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(name, str) for name in value)


def _need(ok: bool, what: str, got: Any, wanted: str, section: str = "tuning.") -> None:
    if not ok:
        raise ValueError(f"{section}{what} is {got!r}; {wanted} is needed")

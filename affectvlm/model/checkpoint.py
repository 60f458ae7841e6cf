"""A checkpoint: a folder with `model.safetensors` (weights only) and `card.json` (everything else, readable).

The card holds all that is needed to use the weights right, so that nothing is guessed at load time: the architecture in
full, classes in order, prompts, view names and angles, image kind and size, normalisation, calibration temperature. The
weights are a plain open_clip state dict, so `open_clip` reads them too. Nothing is ever unpickled: a file of pickle's
kind is refused by its name. Weights are written first and the card after them, each in one step; the card carries the
sha256 of the weights, so a pair that does not belong together is noticed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

import affectvlm
from affectvlm.model.clip import MultiviewCLIP, from_config
from affectvlm.prompts import PromptSet
from affectvlm.rendering import DEFAULT_YAWS, HALF_WIDTH_MM, KINDS, VIEW_NAMES

CARD, WEIGHTS = "card.json", "model.safetensors"
FORMAT, FORMAT_VERSION = "affectvlm-checkpoint", 1

_PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".tar", ".th"}
_MAX_CARD_BYTES = 4 << 20
_MAX_WEIGHT_BYTES = 16 << 30  # ViT-bigG in fp32 has 10 GB
_MAX_CONFIG_NUMBER = 1_000_000  # the vocabulary, the largest number of a sane configuration, has 49408 words
_MAX_LAYERS = 256
_FLOATS = {"F16", "BF16", "F32"}

logger = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A folder or file that is not a usable checkpoint; the message says what was found and what is wanted."""


@dataclass(frozen=True)
class Card:
    """What a checkpoint says of itself.

    Attributes:
        name: of the checkpoint.
        arch, model_cfg: architecture name and the full open_clip configuration.
        prompts: the words of the model; they also hold its classes and rejection rows, in order.
        view_names, yaws: the N views in order, and the head's turn in each, in degrees (> 0: nose toward image right).
        image_kind: what the views show: shaded, textured, depth or normals.
        temporal: trained on dynamic images of sequences; single faces are none of its business.
        magnify: how many times as strong the motion in those images is shown.
        half_width: of the orthographic window about the nose tip, in mm.
        image_size: side of the square image the tower takes, in pixels.
        mean, std: RGB normalisation for pixels in [0, 1].
        temperature: of the calibration, > 0: logits are divided by it.
        rejection_margin: added to the logits of the rejection rows before, so that what is no emotion gets no confident
        answer.
        training_data, metrics: summaries, plain JSON.
        licence, intended_use, limits: plain text.
        created: date and time, ISO 8601; set when saved.
        code_version: of this package; set when saved.
        weights_sha256: of `model.safetensors`; set when saved.

    Raises:
        CheckpointError: a value of the wrong type, out of range, or in contradiction to another.
    """

    name: str
    arch: str
    model_cfg: Mapping[str, Any]
    prompts: PromptSet
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    view_names: tuple[str, ...] = VIEW_NAMES
    yaws: tuple[float, ...] = DEFAULT_YAWS
    image_kind: str = "shaded"
    temporal: bool = False
    magnify: float = 1.0
    half_width: float = HALF_WIDTH_MM
    temperature: float = 1.0
    rejection_margin: float = 0.0
    training_data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""
    intended_use: str = ""
    limits: str = ""
    created: str = ""
    code_version: str = ""
    weights_sha256: str = ""

    @classmethod
    def of(cls, model: MultiviewCLIP, prompts: PromptSet, name: str, **rest: Any) -> Card:
        """The card of a model: architecture and preprocessing are the model's own, `rest` are further attributes."""
        own = {key: getattr(model, key) for key in ("arch", "model_cfg", "image_size", "mean", "std")}
        return cls(name=name, prompts=prompts, **own, **rest)

    def __post_init__(self) -> None:
        for key in ("view_names", "yaws", "mean", "std"):
            value = getattr(self, key)
            _need(isinstance(value, list | tuple), key, value, "a list")
            object.__setattr__(self, key, tuple(value))
        for key in ("name", "arch", "licence", "intended_use", "limits", "created", "code_version", "weights_sha256"):
            _need(isinstance(getattr(self, key), str), key, getattr(self, key), "a string")
        for key in ("name", "arch"):
            _need(getattr(self, key).strip() != "", key, getattr(self, key), "a string that is not empty")
        for key in ("model_cfg", "training_data", "metrics"):
            _need(isinstance(getattr(self, key), Mapping), key, getattr(self, key), "an object")
        _need(isinstance(self.temporal, bool), "temporal", self.temporal, "true or false")
        _need(isinstance(self.prompts, PromptSet), "prompts", self.prompts, "a PromptSet")
        _check_config(self.model_cfg)
        self._check_views()
        self._check_numbers()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.prompts.classes

    @property
    def rejection(self) -> tuple[str, ...]:
        return self.prompts.rejection

    @property
    def quick_gelu(self) -> bool:
        return bool(self.model_cfg.get("quick_gelu", False))

    def to_json(self) -> str:
        """The text of `card.json`."""
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "name": self.name}
        readable = {"classes": self.classes, "rejection": self.rejection, "quick_gelu": self.quick_gelu}
        rest = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        # the long parts last: a reader sees first what the model is
        long = {"model_cfg": rest.pop("model_cfg"), "prompts": rest.pop("prompts").to_dict()}
        content = {**head, **rest, **readable, **long}
        try:
            return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise CheckpointError(f"the card of {self.name!r} is not plain JSON data: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> Card:
        """The card in the text of a `card.json`.

        Raises:
            CheckpointError: not JSON, another format or version, unknown or missing entries, or wrong values.
        """
        try:
            content = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{CARD} is not JSON: {error}") from error
        _need(isinstance(content, dict), CARD, content, "a JSON object")
        found = content.pop("format", None), content.pop("format_version", None)
        _need(found == (FORMAT, FORMAT_VERSION), "format", found, f"{FORMAT!r}, version {FORMAT_VERSION}")
        derived = {key: content.pop(key, None) for key in ("classes", "rejection", "quick_gelu")}
        for key, value in (("temporal", False), ("magnify", 1.0), ("rejection_margin", 0.0)):
            content.setdefault(key, value)  # cards of the first versions have none of these
        known = {item.name for item in dataclasses.fields(cls)}
        if set(content) != known:
            missing, unknown = sorted(known - set(content)), sorted(set(content) - known)
            raise CheckpointError(f"{CARD} lacks {missing} and has unknown entries {unknown}")
        try:
            content["prompts"] = PromptSet.from_dict(content["prompts"])
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{CARD}: prompts cannot be used: {error}") from error
        card = cls(**content)
        for key, value in derived.items():
            own = getattr(card, key)
            own = list(own) if isinstance(own, tuple) else own
            _need(value == own and type(value) is type(own), key, value, f"{own}, as in model_cfg and prompts")
        return card

    def _check_views(self) -> None:
        names = self.view_names
        is_named = all(isinstance(name, str) and name for name in names) and len(set(names)) == len(names) > 0
        _need(is_named, "view_names", names, "different names, one at least")
        _need(len(self.yaws) == len(names), "yaws", self.yaws, f"one angle for each view of {names}")
        _need(all(_is_number(yaw) and abs(yaw) <= 180 for yaw in self.yaws), "yaws", self.yaws, "degrees, -180 to 180")
        _need(self.image_kind in KINDS, "image_kind", self.image_kind, f"one of {', '.join(KINDS)}")

    def _check_numbers(self) -> None:
        for key in ("half_width", "temperature", "magnify"):
            value = getattr(self, key)
            _need(_is_number(value) and value > 0, key, value, "a positive number")
        _need(_is_number(self.rejection_margin), "rejection_margin", self.rejection_margin, "a finite number")
        for key in ("mean", "std"):
            value = getattr(self, key)
            _need(len(value) == 3 and all(map(_is_number, value)), key, value, "three numbers")
        _need(all(value > 0 for value in self.std), "std", self.std, "three positive numbers")
        size = self.image_size
        _need(isinstance(size, int) and not isinstance(size, bool) and size > 0, "image_size", size, "pixels")


def save_checkpoint(folder: str | Path, model: MultiviewCLIP, card: Card, half: bool = True) -> Card:
    """Write weights and card into `folder` (made where needed; other files in it stay).

    Args:
        half: write floating weights as float16, half the size; they are float32 again once loaded.

    Returns:
        The card as written, with date, code version and the sha256 of the weights.

    Raises:
        CheckpointError: the card is of another model, or weights are not finite (in float16, where `half`).
        OSError: the folder cannot be written.
    """
    own = Card.of(model, card.prompts, card.name)
    for key in ("arch", "model_cfg", "image_size", "mean", "std"):
        got, wanted = getattr(card, key), getattr(own, key)
        _need(got == wanted, key, got, f"{wanted}, as the model has,")
    tensors = {name: _storable(value, half) for name, value in model.clip.state_dict().items()}
    _check_finite(tensors, "the model")
    content = safetensors.torch.save(tensors, metadata={"format": "pt"})
    card = dataclasses.replace(
        card,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        code_version=affectvlm.__version__,
        weights_sha256=hashlib.sha256(content).hexdigest(),
    )
    text = card.to_json().encode()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / WEIGHTS, content)
    _replace(folder / CARD, text)
    return card


def load_checkpoint(folder: str | Path, device: str | torch.device = "cpu") -> tuple[MultiviewCLIP, Card]:
    """The model of a checkpoint folder in evaluation mode, in float32, and its card.

    Raises:
        CheckpointError: anything that is not such a folder, whole and unchanged; the message says what was found.
    """
    folder = Path(folder)
    card = read_card(folder)
    shapes = _header(folder / WEIGHTS)
    try:
        # first without memory: a card that asks for more than the file holds is refused before anything is allocated
        with torch.device("meta"):
            wanted = {name: tuple(value.shape) for name, value in _network(card).clip.state_dict().items()}
        _check_shapes(shapes, wanted)
        model = _network(card)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{folder.name}: {error}") from error
    found = _sha256(folder / WEIGHTS)
    _need(card.image_size == model.image_size, "image_size", card.image_size, f"{model.image_size}, by model_cfg,")
    _need(found == card.weights_sha256, f"sha256 of {WEIGHTS}", found, f"{card.weights_sha256}, as the card says")
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    _check_finite(tensors, WEIGHTS)
    model.clip.load_state_dict(tensors, strict=True)
    return model.to(device), card


def read_card(folder: str | Path) -> Card:
    """The card of a checkpoint folder, without its weights.

    Raises:
        CheckpointError: not a checkpoint folder, or a card that cannot be used.
    """
    folder = Path(folder)
    wanted = f"a folder with {CARD} and {WEIGHTS} is wanted"
    if folder.is_file():
        kind = "a pickle by its name and never opened" if folder.suffix.lower() in _PICKLES else "a file"
        raise CheckpointError(f"{folder.name} is {kind}; {wanted}")
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint {str(folder)!r}; {wanted}")
    for name in (CARD, WEIGHTS):
        if not (folder / name).is_file():
            pickles = sorted(item.name for item in folder.iterdir() if item.suffix.lower() in _PICKLES)
            remark = f" ({', '.join(pickles)}: pickles by their names and never opened)" if pickles else ""
            raise CheckpointError(f"{folder.name} has no file {name}{remark}; {wanted}")
    path = folder / CARD
    try:
        size = path.stat().st_size
        _need(size <= _MAX_CARD_BYTES, f"size of {CARD}", size, f"at most {_MAX_CARD_BYTES} bytes")
        return Card.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{CARD} of {folder.name} cannot be read: {error}") from error


def _network(card: Card) -> MultiviewCLIP:
    return from_config(card.arch, card.model_cfg, card.mean, card.std)


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file, read from its header alone."""
    size = path.stat().st_size
    _need(0 < size <= _MAX_WEIGHT_BYTES, f"size of {WEIGHTS}", size, f"1 to {_MAX_WEIGHT_BYTES} bytes")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
            for name, part in slices.items():
                is_count = part.get_dtype() == "I64"  # batch norm counts its batches
                _need(is_count or part.get_dtype() in _FLOATS, f"dtype of {name}", part.get_dtype(), "float weights")
            return {name: tuple(part.get_shape()) for name, part in slices.items()}
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{WEIGHTS} is broken or not a safetensors file: {error}") from error


def _check_shapes(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> None:
    if set(found) != set(wanted):
        missing, unknown = sorted(set(wanted) - set(found))[:3], sorted(set(found) - set(wanted))[:3]
        raise CheckpointError(f"{WEIGHTS} lacks tensors such as {missing} and has unknown ones such as {unknown}")
    for name, shape in wanted.items():
        _need(found[name] == shape, f"shape of {name} in {WEIGHTS}", found[name], f"{shape}, by the card's model_cfg,")


def _check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f"{name} of {what} holds NaN or infinite weights; finite ones are needed")


def _check_config(config: Any, depth: int = 0) -> None:
    """Numbers in an architecture that no real one has would stall or exhaust the machine while it is built."""
    _need(depth < 8, "model_cfg", "deeply nested data", "a flat configuration")
    items = config.items() if isinstance(config, Mapping) else enumerate(config)
    for key, value in items:
        if isinstance(value, Mapping | list | tuple):
            if key == "layers":
                _need(len(value) <= 8, "model_cfg layers", value, "at most 8 stages")
                _check_config({"layers": max(filter(_is_number, value), default=0)}, depth + 1)
            _check_config(value, depth + 1)
        elif _is_number(value):
            limit = _MAX_LAYERS if key == "layers" else _MAX_CONFIG_NUMBER
            _need(abs(value) <= limit, f"model_cfg {key}", value, f"at most {limit}")


def _storable(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu()
    if value.is_floating_point():
        value = value.to(torch.float16 if half else torch.float32)
    return value.clone().contiguous()  # a copy: safetensors refuses tensors that share memory


def _replace(path: Path, content: bytes) -> None:
    """Write a file in one step: a reader sees the old or the new one, whole."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _need(ok: bool, what: str, got: Any, wanted: str) -> None:
    if not ok:
        raise CheckpointError(f"{what} is {str(got)[:120]!r}; {wanted} is needed")

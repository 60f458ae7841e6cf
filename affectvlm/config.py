"""Settings: frozen dataclasses, a YAML file over their defaults, and `section.key=value` over both.

Unknown names and values of the wrong type are refused in words; what was resolved can be written back as YAML.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from affectvlm.augmentation.views import MixedViews
from affectvlm.losses.supervised import MARGIN_RANGE
from affectvlm.model.tuning import TuningConfig

T = TypeVar("T")

METHODS = ("affectvlm", "multiviewvlm", "smilevlm", "mifar")
"""The training methods; the first learns from labels, the others without."""

GENERATED, OWN = ("procedural", "ict", "makehuman"), ("folder", "unlabelled")
"""Sources of faces: face models, and files of the user's own."""

PATHS = (
    "data.ict_path", "data.makehuman_path", "data.folder", "data.split", "data.cache", "run.folder", "model.start",
    "model.pretrained", "prompts.file",
)  # fmt: skip
"""Settings that name places on the machine."""

MOST_STEPS, MOST_ROWS = 10**9, 10**6
"""Of a training, and of one batch: more is a slip of the hand."""


def _at_least(low: float, section: str, settings: Any, *names: str) -> None:
    """Refuse a number, or one of several, that is smaller."""
    for name in names:
        value = getattr(settings, name)
        if min(value if isinstance(value, tuple) else (value,), default=low) < low:
            raise ValueError(f"{section}.{name} is {value}; {low} or more is needed")


def _some_weight(section: str, settings: Any, *names: str) -> None:
    """Refuse weights of terms below 0, and those that leave nothing to learn from."""
    _at_least(0, section, settings, *names)
    if not any(getattr(settings, name) for name in names):
        raise ValueError(f"{section} switches off {', '.join(names)}: nothing is left to learn from")


@dataclass(frozen=True)
class DataConfig:
    """Which faces: `train_faces` and the others are numbers per source; `cache` keeps rendered views.

    `clean_faces` are generated training faces beside those, one number a source, without damage and pose error; and
    `wide_faces` of each generated source join validation, as clean, and as unlike each other as those of training: the
    calibration then knows such faces too. A count of 0 in `train_faces` takes all of a folder. `folder` is a folder of
    your own scans or view triples, or a CSV file about them, or a data set in the layout that `dataset` names (source
    "folder"); `split_seed` decides which of its subjects are trained on, or `split`, a JSON file {"train": [record
    ids], "validation": ..., "test": ...}. As source "unlabelled" it is any folder with faces, all of them trained on by
    a method that reads no label.
    `ict_path` and `makehuman_path` say where ICT-FaceKit and MakeHuman lie, as checkouts or packed.
    `options` are name=value pairs for the data set's indexer (exclude=faults.txt, sheet=labels.csv, ...).
    `photos` False trains on scans alone; `scans_first` does so for as many steps at the start, which random weights
    need.
    `image_kind` is what the model will be shown of scans: normals, shaded or textured.
    `loaders` processes prepare batches; 0 = one on a CPU, and as many as there are cores to spare beside a GPU.
    `augment` says who makes the augmented pixels: the loaders (cpu), the device that trains (device), or, with auto,
    the GPU where there is one. `magnify` shows the motion in dynamic images of sequences so many times as strong
    (micro-expressions).
    """

    sources: tuple[str, ...] = ("procedural",)
    ict_path: str = ""
    makehuman_path: str = ""
    folder: str = ""
    dataset: str = "folder"
    options: tuple[str, ...] = ()
    split: str = ""
    split_seed: int = 0
    train_faces: tuple[int, ...] = (4096,)
    clean_faces: tuple[int, ...] = ()
    wide_faces: int = 0
    validation_faces: int = 512
    test_faces: int = 512
    photos: bool = True
    scans_first: int = 600
    image_kind: str = "normals"
    cache: str = "cache"
    workers: int = 0
    loaders: int = 0
    augment: str = "auto"
    magnify: float = 1.0

    def __post_init__(self) -> None:
        if unknown := [name for name in self.sources if name not in GENERATED + OWN]:
            raise ValueError(f"data.sources names {unknown[0]!r}; there are {', '.join(GENERATED + OWN)}")
        if not self.sources:
            raise ValueError("data.sources is empty; one source of faces at least is needed")
        if len(self.sources) != len(self.train_faces):
            raise ValueError(
                f"data.train_faces has {len(self.train_faces)} numbers for {len(self.sources)} data.sources; "
                "one each is needed"
            )
        if self.clean_faces and len(self.clean_faces) != len(self.sources):
            raise ValueError(
                f"data.clean_faces has {len(self.clean_faces)} numbers for {len(self.sources)} data.sources; one each, "
                "0 where none are wanted, or none at all is needed"
            )
        if self.image_kind not in ("normals", "shaded", "textured"):
            raise ValueError(f"data.image_kind is {self.image_kind!r}; normals, shaded or textured is needed")
        if bad := [text for text in self.options if "=" not in text]:
            raise ValueError(f"data.options has {bad[0]!r}; name=value is needed")
        if self.augment not in ("auto", "cpu", "device"):
            raise ValueError(f"data.augment is {self.augment!r}; auto, cpu or device is needed")
        if not self.magnify > 0:
            raise ValueError(f"data.magnify is {self.magnify}; more than 0 is needed")
        for source, path, wanted in (
            ("ict", self.ict_path, "ICT-FaceKit"),
            ("makehuman", self.makehuman_path, "MakeHuman"),
        ):
            if source in self.sources and not path:
                raise ValueError(
                    f"data.sources names {source} but data.{source}_path is empty; the path of {wanted} is needed"
                )
        if {"folder", "unlabelled"} & set(self.sources) and not self.folder:
            raise ValueError("data.sources names a folder but data.folder is empty; a folder or a CSV file is needed")
        if len(set(self.sources)) != len(self.sources):
            raise ValueError(f"data.sources is {self.sources}; each source once is needed")
        _at_least(
            0, "data", self, "train_faces", "clean_faces", "wide_faces", "validation_faces", "test_faces",
            "split_seed", "scans_first", "workers", "loaders",
        )  # fmt: skip
        if not set(OWN) & set(self.sources):
            self._check_generated()

    def _check_generated(self) -> None:
        """Where there are generated faces alone, each split needs some."""
        if not any(self.train_faces + self.clean_faces):
            raise ValueError(f"data.train_faces is {self.train_faces}; generated faces to train on are needed")
        _at_least(1, "data", self, "test_faces")
        if not self.validation_faces + self.wide_faces:
            raise ValueError("data.validation_faces is 0; generated faces to validate on are needed")


@dataclass(frozen=True)
class ModelConfig:
    """`arch` is any open_clip architecture or affectvlm-compact; `pretrained` a tag or a local weight file; `start` a
    checkpoint. `image_size` is the side in pixels of the pictures the image tower takes; 0 = as it was made. Another
    one keeps the weights and resamples the grid of positions.

    Weights that began from either are mixed with their start at the end, in the `interpolate` shares of the trained
    ones, and validation chooses among the mixtures and the trained weights.
    """

    arch: str = "affectvlm-compact"
    pretrained: str = ""
    start: str = ""
    image_size: int = 0
    interpolate: tuple[float, ...] = (0.5, 0.75, 0.9)

    def __post_init__(self) -> None:
        if self.pretrained and self.start:
            raise ValueError("model.pretrained and model.start are both given; one place to begin from is needed")
        if self.image_size and not 32 <= self.image_size <= 1024:
            raise ValueError(f"model.image_size is {self.image_size}; 32 to 1024 pixels, or 0, are needed")
        if not all(0 < share < 1 for share in self.interpolate):
            raise ValueError(f"model.interpolate is {self.interpolate}; shares between 0 and 1 are needed")


@dataclass(frozen=True)
class PromptConfig:
    """The words, and with them the classes: `file` is a prompt set that comes with the package (ekman, bp4d, 4dme), or
    a YAML file of your own.

    `augmented` False leaves one plain sentence a class (for ablation); `metadata` False keeps what is known of a
    subject out of the prompts.
    """

    file: str = "ekman"
    augmented: bool = True
    metadata: bool = True


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay; `batch` samples a step over all ranks together.

    `views`: 3 gives every view of a sample to each step; 2 the front and one side, drawn anew. `word_steps` separate
    the words of the classes before faces are seen (random weights only); after that the text tower learns at `text_lr`
    times the rate, and rests where that is 0. `precision` auto is bf16 where the hardware is fast at it, else fp32;
    weights are kept in fp32 either way. `patience` ends the training after so many validations without a better score
    (0 = never). `ema` is the decay of the running average of the weights, `clip` the norm that gradients are cut to (0
    = they are not).
    `compile` fuses the image tower's operations with torch.compile: a minute or two at the start, then faster; it
    needs a C++ compiler on CPUs.
    """

    steps: int = 600
    batch: int = 64
    views: int = 2
    lr: float = 2e-3
    text_lr: float = 0.0
    word_steps: int = 60
    weight_decay: float = 0.05
    warmup: int = 60
    ema: float = 0.98
    clip: float = 1.0
    precision: str = "auto"
    patience: int = 0
    threads: int = 0
    compile: bool = False

    def __post_init__(self) -> None:
        if self.views not in (2, 3):
            raise ValueError(f"optim.views is {self.views}; 2 or 3 is needed")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"optim.precision is {self.precision!r}; auto, bf16 or fp32 is needed")
        if self.steps < 1 or self.batch < 1 or self.lr <= 0:
            raise ValueError(f"optim has {self.steps} steps of {self.batch} at {self.lr}; numbers above 0 are needed")
        if self.steps > MOST_STEPS or self.batch > MOST_ROWS:
            raise ValueError(
                f"optim has {self.steps} steps of {self.batch}; at most {MOST_STEPS} steps of {MOST_ROWS} are needed"
            )
        _at_least(
            0, "optim", self, "text_lr", "word_steps", "weight_decay", "warmup", "clip", "patience", "threads"
        )  # fmt: skip
        if not 0 <= self.ema < 1:
            raise ValueError(f"optim.ema is {self.ema}; a number from 0 up to below 1 is needed")
        if self.warmup >= self.steps:
            raise ValueError(f"optim.warmup ({self.warmup}) must be less than optim.steps ({self.steps})")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms; 0 switches one off. `margin` is the learnable margin at the start, `margin_lr` its learning
    rate.

    `units` weighs an auxiliary term of ours: generated faces know their action units, and views that predict them
    learn faster.
    """

    contrastive: float = 0.25
    triplet: float = 0.25
    alignment: float = 1.0
    units: float = 2.0
    margin: float = 0.2
    margin_lr: float = 1e-3

    def __post_init__(self) -> None:
        _some_weight("loss", self, "contrastive", "triplet", "alignment", "units")
        _at_least(0, "loss", self, "margin_lr")
        low, high = MARGIN_RANGE
        if not low < self.margin < high:
            raise ValueError(f"loss.margin is {self.margin}; a number between {low} and {high} is needed")


@dataclass(frozen=True)
class PseudoConfig:
    """Pseudo-labels of the methods that learn without labels; see `methods.clustering`.

    They are renewed every `epochs` (passes over the faces; 0 = made once, at the start). `clusters` False takes the
    zero-shot guesses themselves, `balance` False without an even share of the classes; `per_class` clusters belong to
    each class. Of each class the most confident share is kept, from `keep[0]` in the first round to `keep[1]` in the
    last, and nothing under `confidence`. `classes` names the classes and rejection rows that may occur among the faces
    (empty = all of the prompts). Where plain guesses put a share of `dominance` on one class the target is taken for
    one-sided, and they stand as they are (1 = never). `people` says whose faces are whose, so that what is a person's
    own can be taken out of the features: "subjects" where the source names them (an unlabelled folder does not),
    "folders" where each folder of an unlabelled source holds one person, "none". `teacher` True asks the running
    average of the weights, False the present ones.
    """

    epochs: float = 3.0
    clusters: bool = True
    balance: bool = True
    per_class: int = 2
    restarts: int = 4
    keep: tuple[float, float] = (0.5, 0.9)
    confidence: float = 0.0
    dominance: float = 0.95
    classes: tuple[str, ...] = ()
    people: str = "subjects"
    teacher: bool = True

    def __post_init__(self) -> None:
        if not all(0 < share <= 1 for share in self.keep):
            raise ValueError(f"pseudo.keep is {self.keep}; two shares above 0, 1 at most, are needed")
        if self.epochs < 0 or self.per_class < 1 or self.restarts < 0 or not 0 <= self.confidence < 1:
            raise ValueError(
                f"pseudo has epochs {self.epochs}, per_class {self.per_class}, restarts {self.restarts}, confidence "
                f"{self.confidence}; 0 or more, 1 or more, 0 or more, and a share below 1 are needed"
            )
        if not 0 < self.dominance <= 1:
            raise ValueError(f"pseudo.dominance is {self.dominance}; a share above 0, 1 at most, is needed")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"pseudo.classes is {self.classes}; each class once is needed")
        if self.people not in ("subjects", "folders", "none"):
            raise ValueError(f"pseudo.people is {self.people!r}; subjects, folders or none is needed")


@dataclass(frozen=True)
class MultiviewConfig:
    """MultiviewVLM: weights of its terms (0 switches one off), the factor on the cosine inside the sigmoid of its pair
    terms, and whether other prompts of the same class count as negatives, as the paper prints it."""

    contrastive: float = 1.0
    multiview: float = 0.5
    positive: float = 0.25
    negative: float = 0.25
    pair_scale: float = 10.0
    false_negatives: bool = False

    def __post_init__(self) -> None:
        _some_weight("multiview", self, "contrastive", "multiview", "positive", "negative")
        if not self.pair_scale > 0:
            raise ValueError(f"multiview.pair_scale is {self.pair_scale}; a positive number is needed")


@dataclass(frozen=True)
class SmileConfig:
    """SMILE-VLM: weights of its terms (0 switches one off), lambda of the decorrelation, width of the projections that
    are decorrelated."""

    decorrelation: float = 1.0
    alignment: float = 1.0
    redundancy: float = 0.25
    off_diagonal: float = 0.005
    projection: int = 128

    def __post_init__(self) -> None:
        _some_weight("smile", self, "decorrelation", "alignment", "redundancy")
        _at_least(0, "smile", self, "off_diagonal")
        _at_least(2, "smile", self, "projection")


@dataclass(frozen=True)
class MifarConfig:
    """The MiFaR-style baseline: weights of its terms, lambda, width of the projections."""

    distortions: float = 1.0
    views: float = 1.0
    off_diagonal: float = 0.005
    projection: int = 128

    def __post_init__(self) -> None:
        _some_weight("mifar", self, "distortions", "views")
        _at_least(0, "mifar", self, "off_diagonal")
        _at_least(2, "mifar", self, "projection")


@dataclass(frozen=True)
class RunConfig:
    """Where the run is kept, and how often it says something (`every`) and is scored on validation and saved
    (`validate`), in steps; it is also saved every `save_minutes`.

    An empty `name` takes the method's and the first free number. `measure` True writes what clusters and a linear probe
    say of the features before and after, too, as methods without labels always do. `devices` and `nodes`: 0 = all GPUs,
    else one CPU process; under torchrun and SLURM what they started.
    """

    name: str = ""
    folder: str = "runs"
    seed: int = 0
    every: int = 20
    validate: int = 150
    save_minutes: float = 5.0
    measure: bool = False
    devices: int = 0
    nodes: int = 0

    def __post_init__(self) -> None:
        if Path(self.name).name != self.name or self.name.startswith("."):
            raise ValueError(f"run.name is {self.name!r}; a plain name of a folder is needed")
        if min(self.every, self.validate) < 1:
            raise ValueError(f"run.every is {self.every}, run.validate {self.validate}; 1 or more is needed")
        _at_least(0, "run", self, "save_minutes", "devices", "nodes")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"run.seed is {self.seed}; a whole number from 0 to {2**32 - 1} is needed")


@dataclass(frozen=True)
class TrainConfig:
    """Everything `train.py` can be told. `method` is affectvlm, which learns from labels; or multiviewvlm, smilevlm or
    mifar, which read none and have sections of their own beside `pseudo`."""

    method: str = "affectvlm"
    data: DataConfig = field(default_factory=DataConfig)
    views: MixedViews = field(default_factory=MixedViews)
    model: ModelConfig = field(default_factory=ModelConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    prompts: PromptConfig = field(default_factory=PromptConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    pseudo: PseudoConfig = field(default_factory=PseudoConfig)
    multiview: MultiviewConfig = field(default_factory=MultiviewConfig)
    smile: SmileConfig = field(default_factory=SmileConfig)
    mifar: MifarConfig = field(default_factory=MifarConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; one of {', '.join(METHODS)} is needed")
        if "unlabelled" in self.data.sources and (not self.unsupervised or len(self.data.sources) > 1):
            raise ValueError("data.sources names unlabelled; that is for methods without labels, and stands alone")
        if self.unsupervised and self.optim.patience:
            raise ValueError(f"optim.patience is for validation labels, which {self.method} must not learn from")
        if self.unsupervised and self.optim.batch < 2:
            raise ValueError(f"optim.batch is {self.optim.batch}; {self.method} compares faces: 2 or more are needed")

    @property
    def unsupervised(self) -> bool:
        """Whether the method learns without labels."""
        return self.method != METHODS[0]


def load(cls: type[T], file: str | Path | None = None, overrides: Sequence[str] = ()) -> T:
    """Defaults of `cls`, then the YAML file, then overrides such as `optim.lr=0.001`.

    Raises:
        ValueError: unknown section or key (with the nearest known one), one that is given twice in the file, what is no
            plain YAML, wrong type, a number that is not finite, or a value its dataclass refuses.
        OSError: the file cannot be read.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        tree = _read(Path(file).read_text("utf-8"), Path(file).name)
        if tree is None:
            tree = {}
        if not isinstance(tree, dict):
            raise ValueError(f"{Path(file).name} holds {type(tree).__name__}; sections with settings are needed")
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals:
            raise ValueError(f"{override!r} is not section.key=value")
        *sections, key = path.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise ValueError(f"{override!r} takes {section} for a section, but it has been given a value")
        value = _read(text, f"{override!r} cannot be read as section.key=value")
        node[key] = value if isinstance(value, dict) else _Given(text, value)
    return _make(cls, tree, "")


@dataclass(frozen=True)
class _Given:
    """The value of an override: as text, which is what a name is (007, true), and as YAML reads it."""

    text: str
    value: Any


class _Plain(yaml.SafeLoader):
    """YAML that refuses what would be lost in silence: a key that is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _read(text: str, where: str) -> Any:
    """What YAML text holds.

    Raises:
        ValueError: it is none, has tags, or gives a key twice; `where` says which text it was.
    """
    try:
        return yaml.load(text, _Plain)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark and "\n" in text else ""
        raise ValueError(f"{where}{line}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:  # characters that YAML does not allow
        raise ValueError(f"{where}: {str(error).splitlines()[0]}") from error


def to_dict(config: Any) -> dict[str, Any]:
    """Plain lists, numbers and strings, as YAML and JSON take them."""
    return {
        key: list(value) if isinstance(value, tuple) else to_dict(value) if dataclasses.is_dataclass(value) else value
        for key, value in ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config))
    }


def _make(cls: type[T], tree: Any, prefix: str) -> T:
    tree = tree.value if isinstance(tree, _Given) else tree
    if not isinstance(tree, dict):
        raise ValueError(f"{prefix.rstrip('.') or 'settings'} is {tree!r}; keys with values are needed")
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in tree.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            raise ValueError(f"unknown setting {prefix}{key}" + (f"; did you mean {prefix}{near[0]}?" if near else ""))
        values[key] = _convert(value, hints[key], prefix + key)
    return cls(**values)


def _convert(value: Any, wanted: Any, name: str) -> Any:
    if dataclasses.is_dataclass(wanted):
        return _make(wanted, value, name + ".")
    if isinstance(value, _Given):
        if wanted is str and not isinstance(value.value, str):
            return value.text.strip()
        value = value.value
    origin = typing.get_origin(wanted)
    if origin is tuple:
        items = list(value) if isinstance(value, (list, tuple)) else [value]
        kinds = typing.get_args(wanted)
        kinds = [kinds[0]] * len(items) if len(kinds) == 2 and kinds[1] is Ellipsis else list(kinds)
        if len(items) != len(kinds):
            raise ValueError(f"{name} has {len(items)} values; {len(kinds)} are needed")
        return tuple(_convert(item, kind, name) for item, kind in zip(items, kinds, strict=True))
    if origin in (types.UnionType, typing.Union):
        raise TypeError(f"{name}: unions are not supported in settings")
    if wanted is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML reads 1e-3 as text
        except (ValueError, OverflowError):
            raise ValueError(f"{name} is {str(value)[:40]!r}; a number is needed") from None
        if not math.isfinite(number):
            raise ValueError(f"{name} is {number}; a finite number is needed")
        return number
    if wanted is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if type(value) is not wanted:
        raise ValueError(f"{name} is {value!r}; {wanted.__name__} is needed")
    return value

"""From a few choices to the settings of a training: method, data, preset, where to begin, and what an expert adds.

plan = Plan(name="mine", data="folder", path="my_scans", preset="short", start="checkpoints/affectvlm-compact")
plan.overrides()        # what `train.py` is given, as section.key=value
plan.config()           # the same checked, with the words of `affectvlm.config` where something is wrong
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import yaml

from affectvlm.config import METHODS, PATHS, TrainConfig, load

SOURCES = ("procedural", "ict", "makehuman", "folder")
MODELS = {"ict": ("data.ict_path", "ICT-FaceKit"), "makehuman": ("data.makehuman_path", "MakeHuman")}
"""Sources that are a model of the face on the user's disk → the setting that names the place, and what it is called."""
CLASSES = ("ekman", "bp4d", "4dme")
"""Prompt sets that come with the package. Generated faces show the emotions of the first alone."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_LIKE_A_PATH = re.compile(r"[/\\~]|(?<!\w)\.(?!\d)")
_NEXT_SETTING = re.compile(r"\s+(?=[a-z_]+(?:\.[a-z_]+)*=)")


@dataclass(frozen=True)
class Preset:
    """How long a training is.

    Attributes:
        title, about: for people; `about` is what to expect on two CPU cores.
        faces: generated faces to train on. settings: of every such training.
        fresh, further: what is added where random weights, or those of a model, are the start.
    """

    title: str
    about: str
    faces: int
    settings: Mapping[str, Any]
    fresh: Mapping[str, Any]
    further: Mapping[str, Any]


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "quick": Preset(
            "Quick look",
            "a few minutes: shows that all works",
            512,
            {
                "data.validation_faces": 96, "data.test_faces": 128, "optim.steps": 40, "optim.batch": 32,
                "optim.warmup": 5, "optim.ema": 0.9, "run.every": 2, "run.validate": 20,
            },
            {"data.scans_first": 40},
            {"data.scans_first": 0, "optim.lr": 3e-4},
        ),
        "short": Preset(
            "Short",
            "longer: adapts a model",
            1024,
            {
                "data.validation_faces": 256, "data.test_faces": 256, "optim.steps": 300, "optim.warmup": 30,
                "optim.ema": 0.97, "run.every": 10, "run.validate": 100,
            },
            {"data.scans_first": 300},
            {"data.scans_first": 0, "optim.lr": 5e-4},
        ),
        "long": Preset(
            "Long",
            "hours on a laptop: for results",
            8192,
            {"optim.steps": 3000, "optim.warmup": 150, "optim.ema": 0.995, "run.validate": 250},
            {},
            {"data.scans_first": 0, "optim.lr": 8e-4},
        ),
    }
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A training as a person chose it.

    Attributes:
        name: of the run: letters, digits, ".", "_" and "-".
        method: one of `config.METHODS`. preset: a key of PRESETS.
        data: one of SOURCES; path: of the model of the face, or of a folder or table of one's own; layout: of that
            folder, a name of `datasets.INDEXERS`; mixed: whether bundled synthetic faces are added to it.
        start: folder of the checkpoint to begin from; "" begins from random weights.
        extra: further settings as text, `section.key=value` each; they count over all others.
        folder: of all runs.
        classes: of a folder of one's own: one of CLASSES, whose words come with it.
    """

    name: str
    method: str = "affectvlm"
    preset: str = "quick"
    data: str = "procedural"
    path: str = ""
    layout: str = "folder"
    mixed: bool = False
    start: str = ""
    extra: str = ""
    folder: str = "runs"
    classes: str = "ekman"

    def overrides(self) -> list[str]:
        """The settings that differ from the defaults, as `train.py` takes them.

        Raises:
            ValueError: a name, method, preset, source or set of classes that there is not or does not fit, a missing
                path, or a setting that belongs to another field.
        """
        values: dict[str, Any] = {"run.name": checked_name(self.name), "run.folder": self.folder}
        if self.method != METHODS[0]:
            values["method"] = _one_of("method", self.method, METHODS)
        preset = PRESETS[_one_of("preset", self.preset, tuple(PRESETS))]
        values |= self._data(preset) | preset.settings
        values |= {"model.start": self.start, **preset.further} if self.start else preset.fresh
        extra = settings_in(self.extra)
        for key in ("run.name", "run.folder"):
            if any(line.startswith(f"{key}=") for line in extra):
                raise ValueError(f"{key} is not a setting for here; the run's name has a field of its own")
        given = {line.partition("=")[0] for line in extra}
        plain = {key: value for key, value in values.items() if key not in given and not _is_default(key, value)}
        return [written(key, value) for key, value in plain.items()] + extra

    def _data(self, preset: Preset) -> dict[str, Any]:
        if _one_of("data", self.data, SOURCES) == "procedural":
            return {"data.sources": ["procedural"], "data.train_faces": [preset.faces]}
        generated = self.data in MODELS
        key, what = MODELS[self.data] if generated else ("data.folder", "your folder or table")
        if not self.path.strip():
            raise ValueError(f"the path of {what} is empty; where it lies on the server's machine is needed")
        layout = {} if generated or self.layout == "folder" else {"data.dataset": self.layout}
        classes = _one_of("classes", self.classes, CLASSES)
        if classes != CLASSES[0] and (generated or self.mixed):
            raise ValueError(f"classes is {classes!r}, but generated faces show those of {CLASSES[0]} alone")
        own = preset.faces if generated else 0  # 0 takes all of a folder
        sources, faces = [self.data], [own]
        if self.mixed:
            sources, faces = [*sources, "procedural"], [*faces, preset.faces]
        words = {"prompts.file": classes}
        return {"data.sources": sources, "data.train_faces": faces, key: self.path.strip(), **layout, **words}

    def config(self) -> TrainConfig:
        """The settings checked.

        Raises:
            ValueError: as `overrides`, or what `affectvlm.config` refuses.
        """
        return load(TrainConfig, None, self.overrides())


def settings_in(text: str) -> list[str]:
    """The settings of a text: one a line, or several in a line as a shell takes them; `#` begins a remark."""
    lines = (line.partition(" #")[0].strip() for line in text.splitlines())
    found = [part.strip() for line in lines if line and not line.startswith("#") for part in _NEXT_SETTING.split(line)]
    for setting in found:
        if "=" not in setting:
            raise ValueError(f"{setting!r} is not section.key=value")
    return found


def places_named(settings: list[str]) -> list[str]:
    """Those settings that name, or might name, a place on the machine."""

    def names_place(setting: str) -> bool:
        key, _, value = setting.partition("=")
        whole_section = key.strip() in {path.partition(".")[0] for path in PATHS}
        return key.strip() in PATHS or whole_section or _LIKE_A_PATH.search(value) is not None

    return [setting for setting in settings if names_place(setting)]


def written(key: str, value: Any) -> str:
    """`section.key=value` that gives the same value back, whatever the text in it."""
    if isinstance(value, str) and not _reads_as_itself(value):
        signs = {'"': '\\"', "\\": "\\\\"}
        return f'{key}="' + "".join(signs.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in value) + '"'
    if isinstance(value, list):
        return f"{key}=[{','.join(map(str, value))}]"
    return f"{key}={value}"


def _reads_as_itself(text: str) -> bool:
    try:
        return yaml.safe_load(text) == text
    except yaml.YAMLError:
        return False


def checked_name(name: str) -> str:
    """The name of a run.

    Raises:
        ValueError: it would make a folder that is hard to use.
    """
    if not _NAME.fullmatch(name.strip()):
        raise ValueError(
            f"the name is {name[:80]!r}; 1 to 80 letters, digits, '.', '_' and '-', with a letter or digit first, are "
            "needed"
        )
    return name.strip()


def _is_default(key: str, value: Any) -> bool:
    node: Any = TrainConfig()
    for part in key.split("."):
        node = getattr(node, part)
    return list(node) == value if isinstance(value, list) else node == value


def _one_of(what: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"{what} is {value!r}; one of {', '.join(known)} is needed")
    return value

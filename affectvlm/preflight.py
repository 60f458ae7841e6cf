"""What can be known of a training before it starts: can it work with these faces, weights and this disk?

    check = check_data(config)
    check.ok, check.findings, check.splits

A finding is "stop" (training could only fail or teach nothing), "warning" (it works, but look at this) or "fine". Each
says what was found, and the first two what to do about it. A few files of one's own are read and rendered for it, as
training will render them; nothing is kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from affectvlm.config import GENERATED, DataConfig, TrainConfig
from affectvlm.datasets import Index, Record, check_disjoint, index_dataset, parse_option, read_split, split_subjects
from affectvlm.datasets.records import listed
from affectvlm.datasets.splits import SPLITS

STOP, WARNING, FINE = "stop", "warning", "fine"
SAMPLED = 24
"""Files of one's own that are rendered for a check, spread over classes and people."""

FEW = 5
"""Fewer training faces of a class than this are said to be few."""

_GUESSING = ("multiviewvlm", "smilevlm")
_CHECKPOINT = ("card.json", "model.safetensors")
_RUN_BYTES = 400 << 20  # last.ckpt, the best weights, the exported model
_SPARE_BYTES = 200 << 20

_LEFT_OUT = {
    "view": (
        "pictures left out, since another view of their face is missing",
        "Each face needs three pictures, named front, left and right.",
    ),
    "copy": (
        "files left out, since they are copies and could leak into the test",
        "Look at those whose label or person contradicts the other's.",
    ),
    "other": ("left out for other reasons", "See everything that was found."),
}

Progress = Callable[[float, str], None]
"""Told how far a check is, 0 to 1, and what is being looked at."""


@dataclass(frozen=True)
class Finding:
    """level: STOP, WARNING or FINE; text: what was found; advice: what to do, "" where nothing is to be done."""

    level: str
    text: str
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        findings: the gravest first.
        splits: of one's own faces: split → class → number of faces; empty without any.
        subjects: split → number of people.
        summary: lines of text about one's own faces.
    """

    findings: tuple[Finding, ...]
    splits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    subjects: Mapping[str, int] = field(default_factory=dict)
    summary: str = ""

    @property
    def ok(self) -> bool:
        return all(finding.level != STOP for finding in self.findings)


def check_data(config: TrainConfig, home: str | Path = ".", progress: Progress = lambda share, text: None) -> Check:
    """Look at all that a training will need.

    Args:
        home: the folder that relative paths of the settings start from.
    """
    home, data = Path(home), config.data
    findings = _check_start(config, home)
    if all(finding.level != STOP for finding in findings):
        findings += _check_disk(config, home)
    own: Check | None = None
    for source in data.sources:
        if source == "procedural":
            count = data.train_faces[data.sources.index(source)]
            findings.append(Finding(FINE, f"{count:,} synthetic faces are made for training, others for the tests"))
        elif source == "ict":
            from affectvlm.synthesis.ict import ICTFace

            path, where = home / data.ict_path, "ICT-VGL/ICT-FaceKit"
            findings.append(_check_model(ICTFace.load, path, "ICT-FaceKit model", where, "ict_face.npz"))
        elif source == "makehuman":
            from affectvlm.synthesis.makehuman import MakeHumanFace

            path, where = home / data.makehuman_path, "makehumancommunity/makehuman"
            findings.append(_check_model(MakeHumanFace.load, path, "MakeHuman head", where, "makehuman_face.npz"))
        elif source == "folder":
            own = _check_own(data, home, progress)
            findings += own.findings
        else:
            advice = f"Use {', '.join(GENERATED)} or folder."
            findings.append(Finding(STOP, f"the source {source!r} is unknown", advice))
    ordered = tuple(sorted(findings, key=lambda finding: (STOP, WARNING, FINE).index(finding.level)))
    return Check(ordered, own.splits, own.subjects, own.summary) if own else Check(ordered)


def _check_start(config: TrainConfig, home: Path) -> list[Finding]:
    start = config.model.start
    if config.method in _GUESSING and not start and not config.model.pretrained:
        text = f"{config.method} learns from a model's own guesses, and random weights have none"
        return [Finding(WARNING, text, "Begin from a trained model.")]
    if not start:
        few = config.optim.steps < 500 and not config.model.pretrained
        advice = "Begin from a trained model, or take more steps." if few else ""
        text = f"{config.optim.steps} steps from random weights learn next to nothing"
        return [Finding(WARNING, text, advice)] if few else []
    missing = [name for name in _CHECKPOINT if not (home / start / name).is_file()]
    if not missing:
        return []
    advice = "Choose another model to begin from, or random weights."
    return [Finding(STOP, f"there is no model in {Path(start).name} ({' and '.join(missing)} missing)", advice)]


def _check_disk(config: TrainConfig, home: Path) -> list[Finding]:
    """Room for rendered faces that are not in the cache yet, and for what a run leaves."""
    from affectvlm.methods.building import picture_size

    start = str(home / config.model.start) if config.model.start else ""
    try:
        size = picture_size(replace(config, model=replace(config.model, start=start)))
    except ValueError as error:
        return [Finding(STOP, str(error), "Choose another model to begin from, or random weights.")]
    wanted = {_existing(home / config.data.cache): _missing_bytes(config.data, home, size)}
    place = _existing(home / config.run.folder)
    shared = next((other for other in wanted if other.stat().st_dev == place.stat().st_dev), place)
    wanted[shared] = wanted.get(shared, 0) + _RUN_BYTES
    short = [
        f"{(needed + _SPARE_BYTES) / 1e9:.1f} GB are needed and {shutil.disk_usage(place).free / 1e9:.1f} GB are free"
        for place, needed in wanted.items()
        if shutil.disk_usage(place).free < needed + _SPARE_BYTES
    ]
    advice = "Delete old runs or old faces in the cache, or train with fewer faces."
    return [Finding(STOP, f"too little room on the disk: {'; '.join(short)}", advice)] if short else []


def _missing_bytes(data: DataConfig, home: Path, size: int) -> int:
    from affectvlm.augmentation.views import CHANNELS, stored_side
    from affectvlm.data import SHARD
    from affectvlm.methods.building import face_sets
    from affectvlm.rendering import DEFAULT_YAWS

    shards = 0
    for source in set(data.sources) & set(GENERATED):
        for faces in (one for split in SPLITS for one in face_sets(data, source, split, size)):
            folder = home / data.cache / faces.key()
            wanted = {f"shard_{number:04d}.json" for number in range(-(-faces.count // SHARD))}
            shards += len(wanted - {file.name for file in folder.glob("shard_*.json")})
    return shards * SHARD * len(DEFAULT_YAWS) * stored_side(size) ** 2 * CHANNELS


def _existing(path: Path) -> Path:
    return next(place for place in (path.resolve(), *path.resolve().parents) if place.exists())


def _check_model(load: Callable[[Path], object], path: Path, name: str, repository: str, packed: str) -> Finding:
    try:
        load(path)
    except (ValueError, OSError) as error:  # ScanError is a ValueError
        advice = (
            f"Get it with “git clone --depth 1 https://github.com/{repository}” and give that folder, or a packed "
            f"{packed}."
        )
        return Finding(STOP, f"the {name} cannot be used: {error}", advice)
    return Finding(FINE, f"the {name} is there and complete")


def _check_own(data: DataConfig, home: Path, progress: Progress) -> Check:
    """Faces of one's own: what is there, who is trained on, what is missing, and whether files can be read."""
    progress(0.0, "looking through the folder")
    try:
        index = index_dataset(data.dataset, home / data.folder, **dict(map(parse_option, data.options)))
    except (ValueError, OSError) as error:
        return Check((Finding(STOP, _sentence(error)),))
    findings = _check_records(index)
    try:
        parts = read_split(index, home / data.split) if data.split else split_subjects(index, seed=data.split_seed)
        check_disjoint(parts)
    except (ValueError, OSError) as error:
        advice = "Add faces of other people, or say who is who: each folder below a class is one person."
        return Check((*findings, Finding(STOP, _sentence(error), advice)), summary=index.summary())
    findings += [*_check_parts(parts), *_check_files(index, progress)]
    return Check(
        tuple(findings),
        {name: part.counts for name, part in parts.items()},
        {name: len(part.subjects) for name, part in parts.items()},
        index.summary(),
    )


def _check_records(index: Index) -> list[Finding]:
    findings = [Finding(FINE, f"{len(index):,} faces of {len(index.subjects)} people")]
    emotional = [name for name, count in index.counts.items() if count and name != "neutral"]
    missing = [name for name, count in index.counts.items() if not count and name != "neutral"]
    if len(emotional) < 2:
        advice = "Faces of at least two emotions are needed to tell them apart."
        findings.append(Finding(STOP, f"the only emotion is {emotional[0] if emotional else 'none'}", advice))
    elif missing:
        advice = "Add faces of these, or add the bundled synthetic faces, which show every emotion."
        findings.append(Finding(WARNING, f"no face shows {_and(missing)}: the model cannot learn it", advice))
    reasons: dict[str, dict[str, str]] = {"view": {}, "copy": {}, "other": {}}
    for what, why in index.excluded.items():
        view = why.startswith("no ") and " picture" in why
        reasons["view" if view else "copy" if why.startswith("a copy of") else "other"][what] = why
    for kind, (text, advice) in _LEFT_OUT.items():
        if reasons[kind]:
            named = listed(f"{what}: {why}" for what, why in reasons[kind].items())
            findings.append(Finding(WARNING, f"{text}: {len(reasons[kind])} ({named})", advice))
    return findings


def _check_parts(parts: Mapping[str, Index]) -> list[Finding]:
    """Whether each part can do its job. The parts have no subject and no file in common: `check_disjoint` saw to it."""
    people = ", ".join(f"{len(part.subjects)} for {name}" for name, part in parts.items())
    findings = [Finding(FINE, f"no person and no file is in two parts (people: {people})")]
    counts = parts["train"].counts
    few = [f"{name} ({count})" for name, count in counts.items() if 0 < count < FEW]
    if few:
        advice = "Add faces, or begin from a trained model and add the bundled synthetic faces."
        findings.append(Finding(WARNING, f"few faces to learn from: {', '.join(few)}", advice))
    for name in ("validation", "test"):
        lacking = [label for label, count in parts[name].counts.items() if counts[label] and not count]
        if lacking:
            text = f"the {name} part has no face that shows {_and(lacking)}: its score will not tell about that"
            findings.append(
                Finding(WARNING, text, "More people make this less likely; or try another data.split_seed.")
            )
    return findings


def _check_files(index: Index, progress: Progress) -> list[Finding]:
    """Some files, read and rendered as training will do it."""
    chosen = _sample(index)
    broken: dict[str, str] = {}
    doubtful: dict[str, str] = {}
    for number, record in enumerate(chosen):
        progress(number / len(chosen), f"reading {Path(record.files[0]).name}")
        why, doubt = _rendered(index.root, record)
        broken |= {record.id: why} if why else {}
        doubtful |= {record.id: doubt} if doubt else {}
    advice = "Look at these files in the app's first page; training leaves out what it cannot read."
    findings = []
    if len(broken) == len(chosen):
        findings.append(Finding(STOP, f"none of {len(chosen)} sampled files can be used ({_examples(broken)})", advice))
    elif broken:
        text = f"{len(broken)} of {len(chosen)} sampled files cannot be used ({_examples(broken)})"
        findings.append(Finding(WARNING, text, advice))
    else:
        findings.append(Finding(FINE, f"{len(chosen)} sampled files were read and rendered"))
    if doubtful:
        text = f"{len(doubtful)} of {len(chosen)} sampled files are doubtful ({_examples(doubtful)})"
        findings.append(Finding(WARNING, text, "See on the first page whether the face is found."))
    return findings


def _rendered(root: Path, record: Record) -> tuple[str, str]:
    """Why a record cannot be rendered, and what is doubtful about it; "" each where there is nothing."""
    from affectvlm.datasets.rendered import picture_views, scan_views

    try:
        if record.is_pictures:
            _, facts = picture_views([root / file for file in record.files])
        else:
            _, facts = scan_views(root / record.files[0], root / record.landmarks if record.landmarks else None)
    except (ValueError, OSError) as error:  # ScanError and PhotoError are ValueErrors
        return _sentence(error), ""
    except Exception as error:  # noqa: BLE001  training names such a file and leaves it out, too
        return f"damaged in a way we did not foresee ({type(error).__name__})", ""
    return "", facts["doubt"]


def _sample(index: Index) -> list[Record]:
    """Up to SAMPLED records, of every class in turn; the same each time."""
    rng = np.random.default_rng(0)
    of_class = {name: [r for r in index.records if r.label == name] for name in index.classes}
    for records in of_class.values():
        rng.shuffle(records)
    rounds = max(map(len, of_class.values()), default=0)
    in_turn = [records[i] for i in range(rounds) for records in of_class.values() if i < len(records)]
    return in_turn[:SAMPLED]


def _examples(found: Mapping[str, str]) -> str:
    return listed(f"{name}: {why}" for name, why in found.items())


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{Path(error.filename).name if error.filename else 'the folder'} cannot be read: {error.strerror}"
    return str(error)

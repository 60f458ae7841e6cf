"""What runs left behind, read for people: curves, scores, what they cost, how their settings differ, one file to take.

Everything here writes nothing, may be called while a training writes, and takes a file that is missing, cut or of
another version for one that says nothing.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affectvlm.runs import CONFIG, METRICS, MODEL, STARTED, Status, events, holder, settings_of, status

Curve = list[tuple[int, float]]
"""Points (step, value), steps rising."""

TAKEN = (CONFIG, METRICS, "command.txt", "environment.json", "data.json", "events.jsonl", "predictions.json")
"""Files that a download holds beside the model, where they are there."""

LARGEST_PACK = 2 << 30
"""Bytes: a larger model is told by its folder, since a download is put together in memory."""


@dataclass(frozen=True)
class Row:
    """One run in a table.

    Attributes:
        name, method, data: the last in words, such as "procedural" or "folder my_scans".
        state: see `runs.Status`. steps: done. planned: steps.
        best: validation UAR; accuracy, uar: on the test faces, over the classes; None where not known.
        started: seconds since 1970.
        usable: whether there is a model to use.
    """

    name: str
    method: str
    data: str
    state: str
    steps: int
    planned: int
    best: float | None
    accuracy: float | None
    uar: float | None
    started: float
    usable: bool


def row(folder: Path) -> Row:
    """The run in a table.

    Raises:
        RunError: there is no run in the folder.
    """
    now, settings, scores = status(folder), settings_of(folder), main_scores(folder)
    return Row(
        folder.name,
        str(settings.get("method", "affectvlm")),
        data_in_words(settings),
        now.state,
        now.step,
        now.steps or int(_section(settings, "optim").get("steps") or 0),
        now.best,
        _number(scores.get("accuracy")),
        _number(scores.get("uar")),
        _started(folder),
        model_of(folder) is not None,
    )


def curves(folder: str | Path) -> dict[str, Curve]:
    """Name → curve of every number a training tells: "loss", its terms, "validation, averaged", ...

    Where a run went on from an earlier step, what came after that step before is left out.
    """
    found: dict[str, Curve] = {}
    for event in events(folder):
        step = event.get("step")
        if not isinstance(step, int):
            continue
        if event["kind"] == "start":
            found = {name: [point for point in curve if point[0] <= step] for name, curve in found.items()}
        elif event["kind"] == "progress":
            told = {key.partition("/")[2]: value for key, value in event.items() if key.startswith("train/")}
            _add(found, step, told | {"views/s": event.get("views_per_s"), "loader wait": event.get("loader_wait")})
        elif event["kind"] == "validation" and isinstance(event.get("uar"), dict):
            _add(found, step, {f"validation, {name}": value for name, value in event["uar"].items()})
    return {name: curve for name, curve in found.items() if curve}


def latest(folder: str | Path) -> dict[str, Any]:
    """The last event about progress; empty before there is one."""
    return next((event for event in reversed(list(events(folder))) if event["kind"] == "progress"), {})


def scores(folder: str | Path) -> dict[str, dict[str, Any]]:
    """Name of a test → its scores; the main test first, empty before a run is finished."""
    found = _read(Path(folder) / METRICS)
    return {name: part for name, part in found.items() if isinstance(part, dict)}


def main_scores(folder: str | Path) -> dict[str, Any]:
    """Accuracy, UAR and more over the classes, of the main test; empty before there is one."""
    found = next(iter(scores(folder).values()), {}).get("emotions")
    return found if isinstance(found, dict) else {}


def confusion(folder: str | Path) -> tuple[list[str], list[list[int]]] | None:
    """Classes, and counts with true classes in rows, of the main test; None where there is none."""
    main = next(iter(scores(folder).values()), {})
    table, classes = main.get("confusion"), list(main.get("by_class") or ())
    if not table or len(table) != len(classes) or any(len(line) != len(classes) for line in table):
        return None
    return classes, table


def model_of(folder: str | Path) -> Path | None:
    """Folder of the model that a run exported; None before it did."""
    model = Path(folder) / MODEL
    return model if (model / "card.json").is_file() else None


def data_in_words(settings: Mapping[str, Any]) -> str:
    """Such as "procedural", "ict + procedural" or "folder my_scans"."""
    data = _section(settings, "data")
    sources = data.get("sources") or ()
    folder = Path(str(data.get("folder") or "")).name
    return " + ".join(f"folder {folder}" if source == "folder" else str(source) for source in sources)


def differences(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Setting → its value in each run, of those settings that are not the same in all; "–" where a run lacks it."""
    flat = [_flat(settings_of(folder)) for folder in folders]
    keys = {key: None for settings in flat for key in settings if not key.startswith(("run.name", "run.folder"))}
    values = {key: [_shown(settings.get(key)) for settings in flat] for key in keys}
    return {key: found for key, found in values.items() if len(set(found)) > 1}


def packed(folder: str | Path) -> bytes:
    """A zip of the model, its scores and settings, under the run's name.

    Raises:
        ValueError: there is no model, or it is too large for one download.
    """
    folder = Path(folder)
    if model_of(folder) is None:
        raise ValueError(f"{folder.name} has no model yet; a finished run is needed")
    if packed_size(folder) > LARGEST_PACK:
        raise ValueError(f"the model is too large for one download; copy its folder {folder / MODEL} instead")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for file in _taken(folder):
            squeezed = (
                zipfile.ZIP_STORED if file.suffix == ".safetensors" else zipfile.ZIP_DEFLATED
            )  # noise stays noise
            archive.write(file, f"{folder.name}/{file.relative_to(folder)}", squeezed)
    return stream.getvalue()


def packed_size(folder: str | Path) -> int:
    """Bytes that a download holds at most."""
    return sum(file.stat().st_size for file in _taken(Path(folder)))


def _taken(folder: Path) -> list[Path]:
    model = model_of(folder)
    files = [*(sorted(model.iterdir()) if model else ()), *(folder / name for name in TAKEN)]
    return [file for file in files if file.is_file()]


def device(folder: str | Path) -> str:
    """What a run is trained on, such as "cpu" or "2 × NVIDIA H200"; "" before it says so."""
    names = _read(Path(folder) / "environment.json").get("devices") or []
    kinds = {name: names.count(name) for name in names}
    return ", ".join(name if count == 1 else f"{count} × {name}" for name, count in kinds.items())


def memory(folder: str | Path) -> int | None:
    """Bytes of main memory held by a running training and the processes it started; None where that is not known.

    Pages that they share are counted once, with each its share, where the system tells it.
    """
    process = holder(folder)
    if process is None:
        return None
    found = [_resident(other) for other in _group(process)]
    known = [size for size in found if size is not None]
    return sum(known) if known else None


def gpu_memory(folder: str | Path) -> int | None:
    """Bytes of GPU memory held by a running training, as nvidia-smi tells; None where it does not."""
    process = holder(folder)
    if process is None or shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    group = set(_group(process))
    lines = [line.split(",") for line in answer.splitlines() if line.count(",") == 1]
    used = [int(size) for number, size in lines if number.strip().isdigit() and size.strip().isdigit()
            and int(number) in group]  # fmt: skip
    return sum(used) << 20 if used else None


def in_words(now: Status) -> str:
    """How a run stands, as a person would say it."""
    if now.state == "running":
        if now.stopping:
            return "stopping: it saves after its present step"
        return {
            "preparing": "getting ready: starting, and making the faces that are not there yet",
            "training": "training",
            "finishing": "all steps are done; it is being calibrated and tested",
        }[now.phase]
    return {
        "finished": "finished",
        "stopped": "stopped; it can go on from where it was",
        "failed": "failed",
        "died": "ended without a word: it was killed, or the machine was switched off",
    }.get(now.state, now.state)


def _group(process: int) -> list[int]:
    """The processes of its session: those it started, unless they left it."""
    found = [process]
    try:
        numbers = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    except OSError:
        return found
    for number in numbers:
        try:
            if number != process and os.getsid(number) == process:
                found.append(number)
        except OSError:  # ended meanwhile
            continue
    return found


def _resident(process: int) -> int | None:
    for file, field in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))
        except (OSError, StopIteration, ValueError):
            continue
    return None


def _add(found: dict[str, Curve], step: int, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, int | float) and math.isfinite(value):
            found.setdefault(name, []).append((step, float(value)))


def _started(folder: Path) -> float:
    told = _read(folder / STARTED).get("time")
    first = next((event.get("time") for event in events(folder)), None)
    return next((float(t) for t in (first, told) if isinstance(t, int | float)), _changed(folder))


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = settings.get(name)
    return found if isinstance(found, dict) else {}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _shown(value: Any) -> str:
    return "–" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

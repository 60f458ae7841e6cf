"""The shell's way in: `python -m affectvlm predict | render | sample | ablation | runs`.

Data goes to stdout, everything said to a person to stderr. Exit status: 0 all went well, 1 some file could not be used
(it is named), 2 the command line is wrong, 130 interrupted. Heavy packages are imported inside the commands, so that
help is quick.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from affectvlm.emotions import EKMAN

if TYPE_CHECKING:
    from affectvlm.predictor import Prediction, Predictor

logger = logging.getLogger(__name__)

AXES = ("yaw", "pitch", "roll")
KINDS = ("shaded", "textured", "depth", "normals")  # rendering.KINDS, named here so that help needs no compiler
JSON_KEYS = ("file", "ok", "error", "emotion", "confidence", "probabilities", "pose", "warnings", "timings_ms")
"""Of a line of `predict --json`, in order; what a file that failed has none of is null."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of stdout has seen enough (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 1


def predict(options: argparse.Namespace) -> int:
    """Answer each file and report; a file that cannot be used is reported too, and the rest still answered."""
    if not options.files and not options.views:
        print("error: name a file or folder, or three photos after --views", file=sys.stderr)
        return 2
    from affectvlm.predictor import Predictor

    predictor = Predictor.from_checkpoint(options.checkpoint)
    classes = predictor.card.classes
    rows, failed = [], []
    try:
        for row in _answers(predictor, options):
            rows.append(row)
            if not row["ok"]:
                failed.append(row)
            _report(row, classes, options.json, first=len(rows) == 1)
    finally:  # also when interrupted: what was answered is kept
        if options.csv:
            _write_csv(options.csv, rows, classes)
        if options.output:
            options.output.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if failed:
        print(f"{len(failed)} of {len(rows)} could not be answered:", file=sys.stderr)
        for row in failed:
            print(f"  {row['file']}: {row['error']}", file=sys.stderr)
    return 1 if failed else 0


def render(options: argparse.Namespace) -> int:
    """Write the three views of a scan as PNG files."""
    from PIL import Image

    from affectvlm.pose import frontalize
    from affectvlm.rendering import VIEW_NAMES, render_views
    from affectvlm.scan_io import read_scan

    frontal = frontalize(read_scan(options.file), _correction(options))
    _say_all(frontal.scan.warnings)
    options.output.mkdir(parents=True, exist_ok=True)
    views = render_views(frontal.scan, options.kind, options.size)
    for name, view in zip(VIEW_NAMES, views, strict=True):
        file = options.output / f"{options.file.stem}_{name}.png"
        Image.fromarray(view).save(file)
        print(file)
    return 0


def sample(options: argparse.Namespace) -> int:
    """Write a face of our own making as a coloured PLY file."""
    import numpy as np

    from affectvlm.synthesis.expressions import prototype
    from affectvlm.synthesis.procedural import ProceduralFace

    if options.output.suffix.lower() != ".ply":
        print(f"error: {options.output.name} is not a .ply file", file=sys.stderr)
        return 2
    if not 0 <= options.intensity <= 1:
        print(f"error: intensity is {options.intensity}; 0 to 1 is needed", file=sys.stderr)
        return 2
    model = ProceduralFace()
    person = model.sample_identity(np.random.default_rng(options.seed))
    scan = model.generate(person, prototype(options.emotion, options.intensity))
    options.output.write_bytes(_ply(scan))
    print(options.output)
    return 0


def scan_files(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those of known extensions in the folders named (recursively, sorted); each once."""
    from affectvlm.scan_io import EXTENSIONS

    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = (file for file in sorted(path.rglob("*")) if file.suffix.lower() in EXTENSIONS and file.is_file())
            found |= dict.fromkeys(inside)
        else:
            found[path] = None  # also where it does not exist: reading it says so
    return list(found)


def _answers(predictor: Predictor, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for the photos, if any, and one for each scan."""
    if options.views:
        views = dict(zip(("front", "left", "right"), map(_photo, options.views), strict=True))
        name = " ".join(options.views)
        yield _row(name, lambda: predictor.predict_photos(**views))
    files = scan_files(options.files)
    if options.files and not files:
        raise ValueError("no scan in " + ", ".join(str(path) for path in options.files))
    progress = _Progress(len(files))
    for file in files:
        progress.show(file.name)
        row = _row(str(file), lambda file=file: predictor.predict(file, _correction(options)))
        progress.clear()
        yield row


def _photo(name: str) -> Path | None:
    return None if name == "-" else Path(name)


def _row(name: str, answer: Any) -> dict[str, Any]:
    try:
        prediction: Prediction = answer()
    except ValueError as error:  # ScanError and PhotoError among them
        said = _one_line(error)
    except Exception as error:  # noqa: BLE001  one file must not end the run of a thousand
        logger.debug("unexpected %s", type(error).__name__, exc_info=True)
        said = f"unexpected {type(error).__name__}: {_one_line(error)}"
    else:
        return {"file": name, "ok": True, "error": None, **prediction.to_dict()}
    return {**dict.fromkeys(JSON_KEYS), "file": name, "ok": False, "error": said, "warnings": []}


def _report(row: dict[str, Any], classes: Sequence[str], as_json: bool, first: bool) -> None:
    if as_json:
        print(json.dumps({key: row[key] for key in JSON_KEYS}, ensure_ascii=False), flush=True)
        return
    if first:
        heads = [f"{name:>9}" for name in classes]
        print(f"{'file':<36} {'emotion':<9} {'confidence':>10}  {'':<9}", *heads, sep="", flush=True)
    if row["ok"]:
        shares = [f"{100 * row['probabilities'][name]:>8.1f}%" for name in classes]
        said = f"{row['emotion']:<9} {100 * row['confidence']:>9.1f}%  {row['certainty']:<9}"
        print(f"{_shortened(row['file']):<36} {said}", *shares, sep="", flush=True)
        _say_all(row["warnings"], row["file"])
    else:
        print(f"{_shortened(row['file']):<36} failed", flush=True)


def _write_csv(file: Path, rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> None:
    heads = ["file", "ok", "error", "emotion", "confidence", "certainty", *classes]
    heads += [*AXES, "pose_certainty", "warnings", "ms"]
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(heads)
        for row in rows:
            shares, pose = row["probabilities"] or {}, row["pose"] or {}
            writer.writerow(
                [row["file"], row["ok"], row["error"], row["emotion"], row["confidence"], row.get("certainty")]
                + [shares.get(name) for name in classes]
                + [pose.get(axis) for axis in (*AXES, "certainty")]
                + ["; ".join(row["warnings"]), (row["timings_ms"] or {}).get("total")]
            )


def _ply(scan: Any) -> bytes:
    """A coloured mesh as a binary little-endian PLY file."""
    import numpy as np

    has_colors = scan.colors is not None
    fields = [(axis, "<f4") for axis in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")] * has_colors
    vertices = np.empty(len(scan.vertices), fields)
    for axis, values in zip("xyz", scan.vertices.T, strict=True):
        vertices[axis] = values
    if has_colors:
        for channel, values in zip(("red", "green", "blue"), scan.colors.T, strict=True):
            vertices[channel] = values
    faces = np.empty(len(scan.faces), [("count", "u1"), ("index", "<i4", 3)])
    faces["count"], faces["index"] = 3, scan.faces
    types = {"<f4": "float", "u1": "uchar"}
    header = ["ply", "format binary_little_endian 1.0", "comment unit mm", f"element vertex {len(vertices)}"]
    header += [f"property {types[kind]} {name}" for name, kind in fields]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()


def ablation(options: argparse.Namespace) -> int:
    """Train the rows of the paper's ablation over several seeds; print the table."""
    from affectvlm.evaluation import ROWS, markdown
    from affectvlm.evaluation import ablation as train_rows

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    report = train_rows(options.output, options.seeds, options.settings, options.rows or tuple(ROWS))
    print(markdown(report))
    return 0


def runs(options: argparse.Namespace) -> int:
    """List trainings and how they stand; or ask one to stop."""
    from affectvlm.fitting import duration
    from affectvlm.runs import list_runs, request_stop, status

    if options.stop:
        if status(options.folder / options.stop).state != "running":
            print(f"error: {options.stop} is not running", file=sys.stderr)
            return 1
        request_stop(options.folder / options.stop)
        print(f"{options.stop} will save and stop after its present step")
        return 0
    for folder in list_runs(options.folder):
        now = status(folder)
        left = "" if now.eta_s is None else f"  {duration(now.eta_s)} left"
        best = "" if now.best is None else f"  validation UAR {100 * now.best:.1f} %"
        print(f"{folder.name:30s} {now.state:9s} step {now.step}/{now.steps}{left}{best}  {now.message}".rstrip())
    return 0


class _Progress:
    """A counter on stderr: in place on a terminal, else a line a file where there are several."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._total, self._done = total, 0

    def show(self, name: str) -> None:
        self._done += 1
        if self._stream.isatty():
            print(f"\r\033[K{self._done}/{self._total} {_shortened(name)}", end="", file=self._stream, flush=True)
        elif self._total > 1:
            print(f"{self._done}/{self._total} {name}", file=self._stream, flush=True)

    def clear(self) -> None:
        if self._stream.isatty():
            print("\r\033[K", end="", file=self._stream, flush=True)


def _say_all(warnings: Sequence[str], file: str = "") -> None:
    for warning in warnings:
        print(f"{file}: {warning}" if file else warning, file=sys.stderr)


def _shortened(text: str, length: int = 36) -> str:
    return text if len(text) <= length else "…" + text[1 - length :]


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def _correction(options: argparse.Namespace) -> tuple[float, float, float]:
    return options.yaw, options.pitch, options.roll


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m affectvlm", description="Reads the posed emotion of a face.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("predict", help="name the emotion of scans, or of three photos")
    command.set_defaults(command=predict)
    command.add_argument("files", nargs="*", type=Path, metavar="FILE_OR_FOLDER", help="scans; folders are searched")
    command.add_argument(
        "--views", nargs=3, metavar=("FRONT", "LEFT", "RIGHT"),
        help="three photos of one face; LEFT shows its left cheek; - where there is none",
    )  # fmt: skip
    command.add_argument("--checkpoint", type=Path, metavar="DIR", help="model to ask (default: the shipped one)")
    command.add_argument("--json", action="store_true", help="print one JSON object a line instead of a table")
    command.add_argument("--csv", type=Path, metavar="FILE", help="also write a table here")
    command.add_argument("--output", type=Path, metavar="FILE", help="also write all details here, as JSON")
    _add_correction(command)

    command = commands.add_parser("render", help="write the three views of a scan as pictures")
    command.set_defaults(command=render)
    command.add_argument("file", type=Path, metavar="FILE", help="a scan")
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    command.add_argument("--kind", choices=KINDS, default="textured", help="what they show (default: %(default)s)")
    command.add_argument("--size", type=int, default=224, help="pixels a side (default: %(default)s)")
    _add_correction(command)

    command = commands.add_parser("sample", help="write a made-up face, to have a file to try")
    command.set_defaults(command=sample)
    command.add_argument("output", type=Path, metavar="OUT.ply")
    command.add_argument("--emotion", choices=(*EKMAN, "neutral"), default="happy", help="(default: %(default)s)")
    command.add_argument("--intensity", type=float, default=1.0, help="0 to 1 (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="another number, another person (default: %(default)s)")

    command = commands.add_parser("ablation", help="train AffectVLM with each of its parts left out, and compare")
    command.set_defaults(command=ablation)
    command.add_argument("settings", nargs="*", help="section.key=value, as for train.py, for all trainings alike")
    command.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="(default: 0 1 2)")
    command.add_argument("--rows", nargs="+", metavar="ROW", help="some rows only, by name (default: all)")
    command.add_argument("--output", type=Path, default=Path("runs/ablation"), help="(default: %(default)s)")

    command = commands.add_parser("runs", help="list trainings and how they stand, or stop one")
    command.set_defaults(command=runs)
    command.add_argument("--folder", type=Path, default=Path("runs"), help="(default: %(default)s)")
    command.add_argument("--stop", metavar="NAME", help="ask this one to save and stop")
    return parser


def _add_correction(command: argparse.ArgumentParser) -> None:
    meanings = ("nose toward image right", "nose down", "top of the head to image left")
    for axis, meaning in zip(AXES, meanings, strict=True):
        words = f"turn the face that was found further; above 0: {meaning}"
        command.add_argument(f"--{axis}", type=float, default=0.0, metavar="DEG", help=words)

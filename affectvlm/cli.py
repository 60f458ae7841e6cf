"""The shell's way in: `python -m affectvlm predict | render | sample | ablation | evaluate | make-benchmark | runs`.

Data goes to stdout, everything said to a person to stderr. Exit status: 0 all went well, 1 some file could not be used
(it is named), 2 the command line is wrong, 130 interrupted. Heavy packages are imported inside the commands, so that
help is quick.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from affectvlm.emotions import EKMAN
from affectvlm.tables import AXES, JSON_KEYS, csv_text, json_text, one_line, row_of

if TYPE_CHECKING:
    from affectvlm.predictor import Prediction, Predictor
    from affectvlm.scan import Scan

KINDS = ("shaded", "textured", "depth", "normals")  # rendering.KINDS, named here so that help needs no compiler
ODD_BYTES = "backslashreplace"
"""What becomes of a file name that is no text: `\\udcff` for the byte 255, in JSON too, which has the same escape; none
may end a run."""
DATASETS = "bu3dfe, bu4dfe, bosphorus, bp4d, bp4dplus, 4dme, facescape or coma"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=ODD_BYTES)
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not (hasattr(options, "settings") and all("=" in one and not one.startswith("-") for one in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.settings = [*options.settings, *rest]  # settings may stand on both sides of options
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of stdout has seen enough (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1


def predict(options: argparse.Namespace) -> int:
    """Answer each file and report; a file that cannot be used is reported too, and the rest still answered."""
    if not options.files and not options.views:
        print("error: name a file or folder, or three photos after --views", file=sys.stderr)
        return 2
    for file in filter(None, (options.csv, options.output)):
        with file.open("a"):  # what cannot be written is said before the work, not after it
            pass
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
            with options.csv.open("w", newline="", encoding="utf-8", errors=ODD_BYTES) as stream:
                stream.write(csv_text(rows, classes))
        if options.output:
            options.output.write_text(json_text(rows), encoding="utf-8", errors=ODD_BYTES)
    if failed:
        print(f"{len(failed)} of {len(rows)} could not be answered:", file=sys.stderr)
        for row in failed:
            print(f"  {_printable(row['file'])}: {row['error']}", file=sys.stderr)
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
    """The files named, and those of known extensions in the folders named (recursively, sorted); each once.

    What file managers leave in folders (`._face.ply`) is passed over. Nothing raises: what cannot be looked at counts
    as a file, and reading it says why it cannot be read.
    """
    from affectvlm.scan_io import EXTENSIONS
    from affectvlm.scan_io.source import is_litter

    found: dict[Path, None] = {}
    for path in paths:
        if os.path.isdir(path):  # unlike `Path.is_dir` it raises for no name
            inside = (file for file in sorted(path.rglob("*")) if file.suffix.lower() in EXTENSIONS)
            own = (file for file in inside if not is_litter(file.relative_to(path).as_posix()) and os.path.isfile(file))
            found |= dict.fromkeys(own)
        else:
            found[path] = None  # also where it does not exist: reading it says so
    return list(found)


def _answers(predictor: Predictor, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for the photos, if any, and one for each scan or sequence."""
    if options.views:
        views = dict(zip(("front", "left", "right"), map(_photo, options.views), strict=True))
        name = " ".join(options.views)
        yield row_of(name, lambda: predictor.predict_photos(**views))
    files = list(dict.fromkeys(options.files)) if options.sequence else scan_files(options.files)
    if options.files and not files:
        raise ValueError("no scan in " + ", ".join(str(path) for path in options.files))
    progress = _Progress(len(files))
    for file in files:
        progress.show(file.name)
        row = row_of(str(file), lambda file=file: _predict_file(predictor, file, options))
        progress.clear()
        yield row


def _predict_file(predictor: Predictor, file: Path, options: argparse.Namespace) -> Prediction:
    if options.sequence:
        return predictor.predict_sequence(file, _correction(options), options.frames or None, options.fps)
    return predictor.predict(file, _correction(options))


def _photo(name: str) -> Path | None:
    return None if name == "-" else Path(name)


def _report(row: dict[str, Any], classes: Sequence[str], as_json: bool, first: bool) -> None:
    if as_json:
        keys = (*JSON_KEYS, "curve") if row.get("curve") else JSON_KEYS
        plain = "utf" not in (getattr(sys.stdout, "encoding", None) or "utf").lower()
        print(json.dumps({key: row[key] for key in keys}, ensure_ascii=plain), flush=True)
        return
    if first:
        heads = [f"{name:>9}" for name in classes]
        print(f"{'file':<36} {'emotion':<9} {'confidence':>10}  {'':<9}", *heads, sep="", flush=True)
    if row["ok"]:
        shares = [f"{100 * row['probabilities'][name]:>8.1f}%" for name in classes]
        said = f"{row['emotion']:<9} {100 * row['confidence']:>9.1f}%  {row['certainty']:<9}"
        print(f"{_shortened(row['file']):<36} {said}", *shares, sep="", flush=True)
        _say_all(row["warnings"], row["file"])
        if row["curve"]:
            _say_all([_phases(row["curve"])], row["file"])
    else:
        print(f"{_shortened(row['file']):<36} failed", flush=True)


def _phases(curve: dict[str, Any]) -> str:
    """Onset, apex and offset of a sequence in words."""
    if curve["apex"] is None:
        return "no expression stands out in the sequence"
    names = [name for name in ("onset", "apex", "offset") if curve[name] is not None]
    return ", ".join(f"{name} at frame {curve['frames'][curve[name]]}" for name in names)


def _ply(scan: Scan) -> bytes:
    from affectvlm.mesh_files import scan_ply

    return scan_ply(scan)


def ablation(options: argparse.Namespace) -> int:
    """Train the rows of the paper's ablation over several seeds; print the table."""
    from affectvlm.evaluation import ablation as train_rows
    from affectvlm.evaluation import markdown

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    report = train_rows(options.output, options.seeds, options.settings, options.rows, options.method)
    print(markdown(report))
    return 0


def adapt(options: argparse.Namespace) -> int:
    """Adapt a checkpoint to a folder of faces without labels; print the folder of the new one."""
    from affectvlm.adaptation import adapt as train_on

    people = ["pseudo.people=folders"] if options.people else []
    found = train_on(options.folder, options.start, [*people, *options.settings], options.method)
    if found is None:
        print("stopped before its end; the same command with its run.name=... goes on", file=sys.stderr)
        return 1
    print(found)
    return 0


def adaptation(options: argparse.Namespace) -> int:
    """Adapt by several methods and seeds to faces whose labels are known, and print what it brought."""
    from affectvlm.adaptation import compare, markdown
    from affectvlm.config import METHODS

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    methods = options.methods or METHODS
    print(markdown(compare(options.output, options.start, options.settings, options.seeds, methods, options.jobs)))
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Cross-validate by a protocol: train what is left, write the report, print it."""
    from affectvlm.evaluation import Request
    from affectvlm.evaluation import evaluate as run

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    given = {key: value for key, value in vars(options).items() if key != "command"}
    given["output"] = options.output or Path("runs") / ("evaluate-" + options.protocol.replace(":", "-"))
    report = run(Request(**given))
    if report:
        print(report.markdown())
        print(f"the report: {given['output'] / 'report.md'}", file=sys.stderr)
    return 0


def make_benchmark(options: argparse.Namespace) -> int:
    """Write the synthetic benchmarks."""
    from affectvlm.datasets.benchmark import SUBJECTS, Benchmark
    from affectvlm.datasets.benchmark import make_benchmark as make

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for kind in options.kind:
        wanted = Benchmark(kind, options.subjects or SUBJECTS[kind], options.frames, options.ict)
        print(make(options.folder, wanted, options.workers))
    return 0


def make_micro(options: argparse.Namespace) -> int:
    """Write the synthetic micro-expressions."""
    from affectvlm.datasets.micro import make_micro as make

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    print(make(options.folder, options.subjects, options.clips))
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


def make_fixture(options: argparse.Namespace) -> int:
    """Write a small tree in the format of a published data set."""
    from affectvlm.datasets import fixtures

    folder = fixtures.make_fixture(
        options.name, options.folder, options.subjects, options.frames, options.seed, not options.whole
    )
    files = [file for file in folder.rglob("*") if file.is_file()]
    print(f"{folder}: {len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")
    return 0


def check(options: argparse.Namespace) -> int:
    """Report whether a copy of a data set is what it should be; 1 where something is not."""
    from affectvlm.datasets import conformance

    known = dict(options.set) | ({"exclude": options.exclude} if options.exclude else {})
    report = conformance.check(options.name, options.folder, options.sample, **known)
    print(report.text())
    if options.json:
        text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False)
        options.json.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    if options.sheet:
        conformance.contact_sheet(report, options.sheet)
    return 1 if report.surprises else 0


def _setting(text: str) -> tuple[str, Any]:
    """ "trim=true" → ("trim", True)."""
    from affectvlm.datasets import parse_option

    try:
        return parse_option(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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
            print(f"{self._done}/{self._total} {_printable(name)}", file=self._stream, flush=True)

    def clear(self) -> None:
        if self._stream.isatty():
            print("\r\033[K", end="", file=self._stream, flush=True)


def _say_all(warnings: Sequence[str], file: str = "") -> None:
    for warning in warnings:
        print(f"{_printable(file)}: {warning}" if file else warning, file=sys.stderr)


def _printable(text: str) -> str:
    """On one line, and without what a terminal would take for a command."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _shortened(text: str, length: int = 36) -> str:
    text = _printable(text)
    return text if len(text) <= length else "…" + text[1 - length :]


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
    command.add_argument("--sequence", action="store_true",
                         help="each folder, zip or animated glTF is one face over time")  # fmt: skip
    command.add_argument("--frames", type=int, default=32, metavar="N",
                         help="frames of a sequence to look at; 0 = all (default: %(default)s)")  # fmt: skip
    command.add_argument("--fps", type=float, help="frames a second of a sequence, where known")
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
    command.add_argument("--method", default="affectvlm", help="affectvlm, multiviewvlm or smilevlm")
    command.add_argument("--rows", nargs="+", metavar="ROW", help="some rows only, by name (default: all)")
    command.add_argument("--output", type=Path, default=Path("runs/ablation"), help="(default: %(default)s)")

    command = commands.add_parser("adapt", help="adapt a checkpoint to a folder of faces that nobody has labelled")
    command.set_defaults(command=adapt)
    command.add_argument("folder", type=Path, metavar="DIR", help="scans or view triples, in any folders below it")
    command.add_argument("settings", nargs="*", help="section.key=value, as for train.py")
    command.add_argument("--from", dest="start", type=Path, required=True, metavar="CHECKPOINT")
    command.add_argument("--method", default="multiviewvlm", help="multiviewvlm, smilevlm or mifar")
    command.add_argument(
        "--people", action="store_true", help="each folder holds the faces of one person: names are then found better"
    )

    command = commands.add_parser("adaptation", help="what each method gains from faces of another source, measured")
    command.set_defaults(command=adaptation)
    command.add_argument("settings", nargs="*", help="section.key=value: the source, with labels to score by")
    command.add_argument("--from", dest="start", type=Path, required=True, metavar="CHECKPOINT")
    command.add_argument("--methods", nargs="+", metavar="METHOD", help="(default: all)")
    command.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="(default: 0 1 2)")
    command.add_argument("--jobs", type=int, default=1, help="trainings at a time (default: %(default)s)")
    command.add_argument("--output", type=Path, default=Path("runs/adaptation"), help="(default: %(default)s)")

    _add_evaluate(commands.add_parser("evaluate", help="cross-validate by a published protocol, and write a report"))

    command = commands.add_parser("make-benchmark", help="write made-up people, laid out as BU-3DFE and BU-4DFE are")
    command.set_defaults(command=make_benchmark)
    command.add_argument("folder", type=Path, metavar="DIR", help="the benchmarks become folders in there")
    command.add_argument("--kind", nargs="+", choices=("3d", "4d"), default=["3d", "4d"], help="(default: both)")
    command.add_argument("--subjects", type=int, metavar="N", help="people, 3 to 100 (default: 100 in 3D, 20 in 4D)")
    command.add_argument("--frames", type=int, default=10, help="of each sequence (default: %(default)s)")
    command.add_argument("--ict", default="", metavar="PATH", help="ICT-FaceKit (default: procedural faces)")
    command.add_argument("--workers", type=int, default=0, help="processes (default: one per core)")

    command = commands.add_parser("make-micro", help="write made-up micro-expressions, laid out as 4DME is")
    command.set_defaults(command=make_micro)
    command.add_argument("folder", type=Path, metavar="DIR", help="the set becomes a folder in there")
    command.add_argument("--subjects", type=int, default=6, help="people (default: %(default)s)")
    command.add_argument("--clips", type=int, default=5, help="of each, about 15 MB a clip (default: %(default)s)")

    command = commands.add_parser("runs", help="list trainings and how they stand, or stop one")
    command.set_defaults(command=runs)
    command.add_argument("--folder", type=Path, default=Path("runs"), help="(default: %(default)s)")
    command.add_argument("--stop", metavar="NAME", help="ask this one to save and stop")

    command = commands.add_parser("make-fixture", help="write a small made-up tree in the format of a data set")
    command.set_defaults(command=make_fixture)
    command.add_argument("name", metavar="NAME", help=DATASETS)
    command.add_argument("folder", type=Path, metavar="DIR", help="where to write it; empty or not there yet")
    command.add_argument("--subjects", type=int, default=2, help="people (default: %(default)s)")
    command.add_argument("--frames", type=int, default=6, help="of each sequence (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="another number, other people (default: %(default)s)")
    command.add_argument("--whole", action="store_true", help="without the gaps and faults of real copies")

    command = commands.add_parser("check", help="look whether a copy of a data set is what it should be")
    command.set_defaults(command=check)
    command.add_argument("name", metavar="NAME", help=f"{DATASETS}, or folder")
    command.add_argument("folder", type=Path, metavar="DIR", help="of the data set")
    command.add_argument("--sample", type=int, default=12, help="scans to read and measure (default: %(default)s)")
    command.add_argument("--json", type=Path, metavar="FILE", help="also write all details here")
    command.add_argument("--sheet", type=Path, metavar="FILE.png", help="also draw the sample here")
    command.add_argument("--exclude", type=Path, metavar="FILE", help="known faults: ids of samples, a line each")
    command.add_argument(
        "--set", type=_setting, nargs="+", default=[], metavar="NAME=VALUE",
        help="options of the data set: landmarks=DIR (bu4dfe), coded_only=true (bp4d), sheet=FILE pattern=... (4dme)",
    )  # fmt: skip
    return parser


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=evaluate)
    command.add_argument("protocol", help="bu3dfe-subset1, bu3dfe-subset2, bosphorus, bu4dfe, bp4d, bp4d-six, "
                         "bu4dfe-to-bp4d, 4dme, 4dme-single, 4dme-first, or kfold:N")  # fmt: skip
    command.add_argument("folder", type=Path, metavar="DIR", help="the data set")
    command.add_argument("settings", nargs="*", help="section.key=value, as for train.py, for all folds alike")
    command.add_argument("--dataset", default="", metavar="NAME", help="layout of DIR (default: the protocol's)")
    command.add_argument("--target", type=Path, metavar="DIR", help="what is tested on, where it is another data set")
    command.add_argument("--exclude", type=Path, metavar="FILE", help="known faults to leave out, a line each")
    command.add_argument("--seed", type=int, default=0, help="of the folds (default: %(default)s)")
    command.add_argument("--repeats", type=int, default=0, help="runs (default: as many as the literature)")
    command.add_argument("--reading", choices=("A", "B"), default="B", help="draw people once (A) or in each run (B)")
    command.add_argument("--everyone", action="store_true", help="take all people where the protocol draws some")
    command.add_argument("--partial", action="store_true", help="go on with fewer people, samples or finished folds")
    command.add_argument("--jobs", type=int, default=1, help="trainings at a time (default: %(default)s)")
    command.add_argument("--fold", type=int, metavar="K", help="this one alone, from 0: for an array of SLURM jobs")
    command.add_argument("--collect", action="store_true", help="train nothing, write the report of what is there")
    command.add_argument(
        "--checkpoint", metavar="DIR", help="train nothing, ask this model (default = the shipped one)"
    )
    command.add_argument("--keep-models", action="store_true", help="leave the weights of finished folds")
    command.add_argument("--threshold", type=float, default=0.5, help="of a class among several (default: %(default)s)")
    command.add_argument("--output", type=Path, metavar="DIR", help="(default: runs/evaluate-PROTOCOL)")


def _add_correction(command: argparse.ArgumentParser) -> None:
    meanings = ("nose toward image right", "nose down", "top of the head to image left")
    for axis, meaning in zip(AXES, meanings, strict=True):
        words = f"turn the face that was found further; above 0: {meaning}"
        command.add_argument(f"--{axis}", type=float, default=0.0, metavar="DEG", help=words)

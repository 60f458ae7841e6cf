"""What the facts about a copy of a data set mean: nominal figures, and the findings that `conformance.check` reports.

Each look takes the report so far, the nominal figures and the index, and yields findings. Figures are those of the data
sets' pages and public readers; what is not known is not held against a copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from affectvlm.datasets.records import Index, listed

if TYPE_CHECKING:
    from affectvlm.datasets.conformance import ConformanceReport

FINE, REMARK, SURPRISE = "fine", "remark", "surprise"
BOX_MM = (120.0, 250.0)
"""Width and height of a face as it is cut out in these sets, mm."""
HEAD_MM = (80.0, 500.0)
"""Beyond that, no head is in the scan or the unit is another one."""
ON_VERTEX_MM = 0.1
"""A landmark that names a vertex lies no further from it."""
ON_SURFACE_MM = 3.0
UPRIGHT_DEG = 35.0
"""A head turned further, in the median of a sample, speaks for other axes."""
SURE_SHARE = 0.8
MANY_EXCLUDED = 0.1
MOSAIC_RATIO = 1.2
OFF_PICTURE = 0.05
"""Of the height of a picture; landmarks further off do not belong to it."""


@dataclass(frozen=True)
class Nominal:
    """What a whole data set has; None where it is not known.

    Attributes:
        subjects; per_subject: class → samples of one person, 1 where not listed (None: it varies); samples: in all.
        frames, vertices: usual range of a sequence's median length, and of a scan.
        textured: with pictures; landmarks: with landmark files; mosaic: two views in one picture.
        note: what to know of it.
    """

    subjects: int | None = None
    per_subject: dict[str, int] | None = None
    samples: int | None = None
    frames: tuple[int, int] | None = None
    vertices: tuple[int, int] | None = None
    textured: bool = True
    landmarks: bool = False
    mosaic: bool = False
    note: str = ""


FOUR = dict.fromkeys(("happy", "angry", "disgust", "fear", "sad", "surprise"), 4)
NOMINAL: dict[str, Nominal] = {
    "folder": Nominal(),
    "bu3dfe": Nominal(100, FOUR, 2500, None, (4_000, 15_000), landmarks=True, mosaic=True),
    "bu4dfe": Nominal(101, {}, 606, (60, 200), (20_000, 50_000), landmarks=True),
    "bosphorus": Nominal(105, None, None, None, (10_000, 60_000), landmarks=True),
    "bp4d": Nominal(41, {}, 328, (300, 4_000), (20_000, 80_000)),
    "bp4dplus": Nominal(140, {}, None, (180, 4_000), (20_000, 80_000)),
    "4dme": Nominal(None, None, 267, None, None),
    "facescape": Nominal(847, {}, None, None, None,
                         note="only the people of its publishable list may be shown in publications"),
    "coma": Nominal(12, {}, None, None, (5_023, 5_023), textured=False),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """kind: FINE, REMARK or SURPRISE; what was found; advice, "" where none is needed."""

    kind: str
    what: str
    advice: str = ""


def _subjects(report: ConformanceReport, nominal: Nominal, index: Index) -> Iterator[Finding]:
    wanted = nominal.subjects
    if wanted is None:
        yield Finding(FINE, f"{report.subjects} subjects")
    elif report.subjects > wanted:
        yield Finding(SURPRISE, f"{report.subjects} subjects, the data set has {wanted}",
                      "another release, or two copies in one folder? Look at the names of the folders")  # fmt: skip
    else:
        part = report.subjects < wanted
        yield Finding(REMARK if part else FINE, f"{report.subjects} of {wanted} subjects" + ": a part" * part)


def _samples(report: ConformanceReport, nominal: Nominal, index: Index) -> Iterator[Finding]:
    if nominal.samples is not None and report.samples > nominal.samples:
        yield Finding(SURPRISE, f"{report.samples} samples, the data set has {nominal.samples}",
                      "look for copies under other names")  # fmt: skip
    if nominal.per_subject is not None and nominal.subjects:
        have = {name: count for name, count in report.counts.items() if count}
        wanted = {name: report.subjects * nominal.per_subject.get(name, 1) for name in have}
        off = [f"{name} {have[name]} of {wanted[name]}" for name in have if have[name] < wanted[name]]
        yield Finding(REMARK if off else FINE, f"missing samples: {', '.join(off)}" if off else "no sample is missing")
    absent = [name for name, count in report.counts.items() if not count]
    if absent and report.name not in ("facescape", "coma"):
        yield Finding(REMARK, f"no sample of {', '.join(absent)}", "check the folder names of these classes")
    if report.name == "bosphorus":
        from affectvlm.datasets.bosphorus import complete_subjects

        whole = len(complete_subjects(index))
        odd = report.subjects == nominal.subjects and whole != 65
        yield Finding(SURPRISE if odd else FINE, f"{whole} subjects have all six emotions (65 in the whole set)",
                      "the protocol takes 60 of 65; look which scans are missing" if odd else "")  # fmt: skip
    if report.name == "bp4dplus" and any("these labels are wrong" in remark for remark in report.remarks):
        yield Finding(SURPRISE, "no subject has a task 9 or 10", "if this is BP4D, check it as bp4d: the tasks differ")


def _left_out(report: ConformanceReport, nominal: Nominal, index: Index) -> Iterator[Finding]:
    count = len(report.excluded)
    many = count >= 5 and count > MANY_EXCLUDED * (report.samples + count)
    if count:
        yield Finding(SURPRISE if many else REMARK, f"{count} files or folders were left out",
                      "see the reasons below; names may be other than expected" if many else "")  # fmt: skip
    if report.empty:
        yield Finding(SURPRISE, f"{len(report.empty)} files are empty or cannot be opened: {listed(report.empty)}",
                      "copy them again, or list their samples in an exclusion file")  # fmt: skip


def _sequences(report: ConformanceReport, nominal: Nominal, index: Index) -> Iterator[Finding]:
    if not report.lengths:
        return
    middle = int(np.median(report.lengths))
    words = f"sequences of {min(report.lengths)} to {max(report.lengths)} frames, {middle} in the median"
    usual = nominal.frames is None or nominal.frames[0] <= middle <= nominal.frames[1]
    wanted = "" if usual else "; {} to {} are usual".format(*nominal.frames)
    yield Finding(FINE if usual else REMARK, words + wanted)
    if report.shared:
        yield Finding(SURPRISE, f"{len(report.shared)} frames are those of several people: {listed(report.shared)}",
                      "folders were mixed up, so people are not apart: copy them again, or exclude both")  # fmt: skip
    if report.uncompared:
        yield Finding(REMARK, f"{report.uncompared:,} frames of equal size were not compared between people")
    if report.gaps:
        yield Finding(REMARK, f"{report.gaps} of {len(report.lengths)} sequences have gaps")


def _reading(report: ConformanceReport, nominal: Nominal, index: Index) -> Iterator[Finding]:
    broken = [one for one in report.measures if one.error]
    if broken:
        yield Finding(SURPRISE, f"{len(broken)} of {len(report.measures)} scans cannot be read: "
                      + listed(f"{one.id} ({one.error})" for one in broken),
                      "copy them again; those that stay broken go into an exclusion file")  # fmt: skip
    else:
        yield Finding(FINE, f"all {len(report.measures)} scans of the sample can be read")
    counts = [one.vertices for one in report.measures if one.vertices]
    if counts:
        words = f"{min(counts):,} to {max(counts):,} vertices"
        low, high = nominal.vertices or (0, max(counts))
        usual = low <= np.median(counts) <= high
        yield Finding(FINE if usual else REMARK, words + ("" if usual else f"; {low:,} to {high:,} are usual"))


def _boxes(report: ConformanceReport, nominal: Nominal, index: Index) -> Iterator[Finding]:
    boxes = np.array([one.box for one in report.measures if one.box is not None])
    if not len(boxes):
        return
    width, height, depth = np.median(boxes, axis=0)
    units = ", ".join(sorted({one.unit for one in report.measures if one.unit}))
    words = f"boxes of {width:.0f} x {height:.0f} x {depth:.0f} mm in the median (unit of the files: {units})"
    if all(BOX_MM[0] <= side <= BOX_MM[1] for side in (width, height)):
        yield Finding(FINE, words)
    elif all(HEAD_MM[0] <= side <= HEAD_MM[1] for side in (width, height)):
        yield Finding(REMARK, f"{words}; {BOX_MM[0]:.0f} to {BOX_MM[1]:.0f} in x and y are usual",
                      "more or less than the face may be in the scans; the contact sheet shows it")  # fmt: skip
    else:
        yield Finding(SURPRISE, f"{words}; {BOX_MM[0]:.0f} to {BOX_MM[1]:.0f} in x and y are expected",
                      "are these the cropped scans, and in millimetres?")  # fmt: skip
    z = [one.centre[2] for one in report.measures if one.centre is not None]
    yield Finding(FINE, f"the boxes' centres lie at z = {min(z):.0f} to {max(z):.0f} mm")


def _grids(report: ConformanceReport, nominal: Nominal, index: Index) -> Iterator[Finding]:
    shares = [one.invalid for one in report.measures if one.invalid is not None]
    if not shares:
        return
    odd = max(shares) > 0.9
    words = f"{100 * min(shares):.0f} to {100 * max(shares):.0f} % of the grid points hold no data"
    advice = "next to nothing is in some scans; look at the contact sheet" if odd else ""
    yield Finding(SURPRISE if odd else FINE, words, advice)
    other = [one.id for one in report.measures if one.grid and one.grid[0] * one.grid[1] != one.grid[2]]
    if other:
        yield Finding(REMARK, f"the declared grid does not fit the points of {listed(other)}; they are read as points")


def _landmarks(report: ConformanceReport, nominal: Nominal, index: Index) -> Iterator[Finding]:
    faulty = [one for one in report.measures if one.landmark_fault]
    if faulty:
        yield Finding(SURPRISE, f"{len(faulty)} files of landmarks cannot be used: "
                      + listed(f"{one.id} ({one.landmark_fault})" for one in faulty), "copy them again")  # fmt: skip
    known = [one for one in report.measures if one.surface_error is not None]
    readable = [one for one in report.measures if not one.error]
    if not known:
        if nominal.landmarks and readable:
            yield Finding(REMARK, "no scan of the sample has landmarks", "poses are found without them")
        return
    lacking = len(readable) - len(known)
    errors = [one.index_error for one in known if one.index_error is not None]
    if errors:
        zero, one = np.median(np.array(errors), axis=0)
        words = f"landmarks lie {zero:.3g} mm from the vertices they name counted from 0, {one:.3g} counted from 1"
        if min(zero, one) <= ON_VERTEX_MM:
            yield Finding(FINE, f"{words}: they count from {int(one < zero)}")
        else:
            yield Finding(REMARK, f"{words}: their numbers fit neither; positions are used")
    surface = float(np.median([one.surface_error for one in known]))
    off = surface > ON_SURFACE_MM
    yield Finding(SURPRISE if off else FINE, f"landmarks lie {surface:.2g} mm from the surface in the median",
                  "they belong to other scans (RAW instead of F3D, or another frame)" if off else "")  # fmt: skip
    sides = Counter(one.left for one in known if one.left)
    if sides:
        said = {"+x": "the subject's left", "-x": "the viewer's left"}
        yield Finding(FINE if len(sides) == 1 else REMARK, "landmarks called left lie on "
                      + " and ".join(f"{said[side]} ({count})" for side, count in sides.items()))  # fmt: skip
    if lacking:
        yield Finding(REMARK, f"{lacking} of {len(readable)} scans of the sample have no landmarks")


def _pictures(report: ConformanceReport, nominal: Nominal, index: Index) -> Iterator[Finding]:
    readable = [one for one in report.measures if not one.error]
    textured = [one for one in readable if one.textured]
    if nominal.textured and readable:
        words = f"{len(textured)} of {len(readable)} scans of the sample have their texture"
        kind = FINE if len(textured) == len(readable) else REMARK if textured else SURPRISE
        yield Finding(kind, words, "" if textured else "pictures have to lie beside the scans under the same names")
    sizes = Counter(one.texture for one in textured)
    if sizes:
        yield Finding(FINE, "textures of " + listed(f"{w} x {h} ({count})" for (w, h), count in sizes.most_common()))
    if nominal.mosaic and textured:
        halves = [one.id for one in textured if one.texture[0] < MOSAIC_RATIO * one.texture[1]]
        if halves:
            yield Finding(SURPRISE, f"{len(halves)} textures are not two views side by side",
                          "coordinates refer to the whole picture: use the pictures before they were cut")  # fmt: skip
    pairs = [(one.picture_error, one.picture_height) for one in readable if one.picture_error is not None]
    if pairs:
        top, bottom = np.median(np.array([np.array(error) / height for error, height in pairs]), axis=0)
        words = (
            f"landmarks of pictures are {top:.1%} of the height off with v from the top, {bottom:.1%} from the bottom"
        )
        if top <= OFF_PICTURE and top < bottom:
            yield Finding(FINE, words)
        else:
            advice = (
                "textures would be upside down: tell us" if bottom <= OFF_PICTURE else "they belong to other pictures"
            )
            yield Finding(SURPRISE, words, advice)


def _poses(report: ConformanceReport, nominal: Nominal, index: Index) -> Iterator[Finding]:
    from affectvlm.pose.frontal import SURE

    known = [one for one in report.measures if one.certainty is not None]
    if not known:
        return
    sure = [one for one in known if one.certainty >= SURE]
    share = len(sure) / len(known)
    doubtful = listed(f"{one.id} ({one.certainty:.2f})" for one in known if one.certainty < SURE)
    words = f"a face was found in {len(sure)} of {len(known)} scans" + (f"; doubtful: {doubtful}" if doubtful else "")
    kind = FINE if not doubtful else REMARK if share >= SURE_SHARE else SURPRISE
    yield Finding(kind, words, "look at the contact sheet" if doubtful else "")
    if sure:
        turns = np.median(np.abs([one.turn for one in sure]), axis=0)
        words = "heads are turned by {:.0f}, {:.0f} and {:.0f} degrees (yaw, pitch, roll) in the median".format(*turns)
        odd = turns.max() > UPRIGHT_DEG
        advice = "the axes are not x right, y up, z to the viewer; poses are found all the same" if odd else ""
        yield Finding(SURPRISE if odd else FINE, words, advice)


def _note(report: ConformanceReport, nominal: Nominal, index: Index) -> Iterator[Finding]:
    if nominal.note:
        yield Finding(REMARK, nominal.note)


LOOKS: Sequence[Callable[[ConformanceReport, Nominal, Index], Iterator[Finding]]] = (
    _subjects, _samples, _left_out, _sequences, _reading, _boxes, _grids, _landmarks, _pictures, _poses, _note,
)  # fmt: skip

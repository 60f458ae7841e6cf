"""Is this copy of a data set what its papers and readers say? A report for the day somebody first points us at one.

    report = check("bu4dfe", "BU_4DFE")
    print(report.text())
    contact_sheet(report, "sheet.png")

Everything there is gets counted; a sample of the scans is read and measured (`measures`). Findings are "fine", a
"remark" (good to know: a part of the set, a few gaps), or a "surprise" with advice: results would be wrong, or
something is not as documented (`findings`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from affectvlm.datasets import index_dataset
from affectvlm.datasets.content import shared_files
from affectvlm.datasets.findings import FINE, LOOKS, NOMINAL, REMARK, SURPRISE, Finding, Nominal
from affectvlm.datasets.measures import VIEW_PIXELS, Measure, measure
from affectvlm.datasets.records import Index, Record


@dataclass(frozen=True)
class ConformanceReport:
    """What `check` found.

    Attributes:
        name: of the data set; folder: name of its folder.
        subjects, samples: their numbers; counts: class → samples; lengths: of the sequences, in the order of records.
        gaps: sequences with missing frames; empty: files of no bytes.
        shared: frames that several people have alike, "FILE (SUBJECT) and FILE (SUBJECT)"; uncompared: frames that were
            too many to be compared in this way.
        excluded, remarks: of the index.
        measures: of the sample; findings: in the order of `check`.
    """

    name: str
    folder: str
    subjects: int
    samples: int
    counts: dict[str, int]
    lengths: tuple[int, ...]
    gaps: int
    empty: tuple[str, ...]
    excluded: dict[str, str]
    remarks: tuple[str, ...]
    measures: tuple[Measure, ...]
    shared: tuple[str, ...] = ()
    uncompared: int = 0
    findings: tuple[Finding, ...] = field(default=())

    @property
    def surprises(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.kind == SURPRISE)

    @property
    def histogram(self) -> dict[str, int]:
        """Lengths of the sequences in at most about ten bins, "100-119" → how many."""
        if not self.lengths:
            return {}
        span = max(self.lengths) - min(self.lengths) + 1
        width = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if span / step <= 10)
        bins = Counter(length // width * width for length in self.lengths)
        return {f"{low}-{low + width - 1}" if width > 1 else str(low): bins[low] for low in sorted(bins)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            **{name: value for name, value in vars(self).items() if name not in ("measures", "findings")},
            "lengths": list(self.lengths),
            "empty": list(self.empty),
            "shared": list(self.shared),
            "remarks": list(self.remarks),
            "histogram": self.histogram,
            "measures": [one.to_dict() for one in self.measures],
            "findings": [vars(finding) for finding in self.findings],
            "surprises": len(self.surprises),
        }

    def text(self) -> str:
        """The report in lines; all exclusions are in `to_dict`, here the first few."""
        marks = {FINE: "ok  ", REMARK: "note", SURPRISE: "!!! "}
        lines = [f"{self.name}: {self.samples} samples of {self.subjects} subjects in {self.folder}"]
        lines.append("  " + ", ".join(f"{label} {count}" for label, count in self.counts.items()))
        if self.lengths:
            shown = ", ".join(f"{span}: {count}" for span, count in self.histogram.items())
            lines.append(f"  frames a sequence: {shown}")
        for finding in self.findings:
            lines.append(f"{marks[finding.kind]} {finding.what}")
            if finding.advice:
                lines.append(f"     -> {finding.advice}")
        lines += [f"     {remark}" for remark in self.remarks[:20]]
        if len(self.remarks) > 20:
            lines.append(f"     and {len(self.remarks) - 20} more remarks")
        lines += [f"     left out {what}: {why}" for what, why in list(self.excluded.items())[:20]]
        if len(self.excluded) > 20:
            lines.append(f"     and {len(self.excluded) - 20} more left out")
        count = len(self.surprises)
        lines.append(f"{count} surprises: settle them before you use this copy" if count else "no surprises")
        return "\n".join(lines)


def check(
    name: str, path: str | Path, sample: int = 12, pose: bool = True, seed: int = 0, **options: Any
) -> ConformanceReport:
    """Look whether a copy of a data set is what it should be.

    Args:
        name: one of `INDEXERS`.
        path: its folder.
        sample: how many samples are read and measured, drawn by `seed`.
        pose: also find the faces of the sample and draw them (most of the time goes there).
        options: of the indexer (exclude, landmarks, sheet, pattern, ...).

    Raises:
        ValueError: the indexer refuses the folder, or `sample` is below 1.
    """
    if sample < 1:
        raise ValueError(f"sample is {sample}; at least 1 is needed")
    index = index_dataset(name, path, **options)
    shared, uncompared = shared_files(index.root, [record for record in index.records if record.is_sequence])
    report = ConformanceReport(
        name=name,
        folder=Path(path).name,
        subjects=len(index.subjects),
        samples=len(index),
        counts=index.counts,
        lengths=tuple(len(record.files) for record in index.records if record.is_sequence),
        gaps=sum(_has_gap(record) for record in index.records),
        empty=tuple(_empty_files(index)),
        excluded=dict(index.excluded),
        remarks=index.remarks,
        measures=tuple(measure(index, record, pose) for record in _drawn(index, sample, seed)),
        shared=tuple(" and ".join(f"{file} ({record.subject})" for record, file in places) for places in shared),
        uncompared=uncompared,
    )
    found = [finding for look in LOOKS for finding in look(report, NOMINAL.get(name, Nominal()), index)]
    return ConformanceReport(**{**vars(report), "findings": tuple(found)})


def contact_sheet(report: ConformanceReport, file: str | Path, columns: int = 6) -> None:
    """The front views of the sample as one PNG, each with its id and label.

    Raises:
        ValueError: there is no view, as `check` was asked for no poses or could read nothing.
    """
    from PIL import Image, ImageDraw

    shown = [one for one in report.measures if one.view is not None]
    if not shown:
        raise ValueError("no sample was drawn; a contact sheet needs check(..., pose=True) and a scan that can be read")
    caption = 30
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    sheet = Image.new("RGB", (columns * VIEW_PIXELS, rows * (VIEW_PIXELS + caption)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, one in enumerate(shown):
        x, y = number % columns * VIEW_PIXELS, number // columns * (VIEW_PIXELS + caption)
        sheet.paste(Image.fromarray(one.view), (x, y))
        said = one.id.encode("ascii", "replace").decode()
        draw.text((x + 2, y + VIEW_PIXELS + 2), said[-26:], fill="black")
        draw.text((x + 2, y + VIEW_PIXELS + 15), f"{one.label}  {one.certainty:.2f}", fill="black")
    sheet.save(file, "PNG")


def _drawn(index: Index, sample: int, seed: int) -> list[Record]:
    chosen = np.random.default_rng(seed).permutation(len(index))[:sample]
    return [index.records[place] for place in sorted(chosen)]


def _has_gap(record: Record) -> bool:
    return record.frames is not None and record.frames[-1] - record.frames[0] + 1 > len(record.frames)


def _empty_files(index: Index) -> Iterator[str]:
    for record in index.records:
        for file in record.files:
            try:
                if (index.root / file).stat().st_size == 0:
                    yield file
            except OSError:
                yield file

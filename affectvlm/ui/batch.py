"""Many files at once: a table that fills row by row, bad files named in their row, and the table to take along."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import streamlit as st

from affectvlm.tables import Row, csv_text, json_text, row_of
from affectvlm.ui import engine, state, words
from affectvlm.ui.inputs import MAX_MB, PHOTO_TYPES
from affectvlm.ui.work import Desk, Work

if TYPE_CHECKING:
    from affectvlm.predictor import Prediction, Predictor

EVERY_S = 0.7  # how often the page looks at a table that grows
MAX_FILES = 300
MAX_TOTAL_MB = 1000
THUMBNAIL = 64  # pixels a side
NO_PICTURE = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E"
_ROLE = re.compile(r"(?:^|[ _.\-])(front|left|right)$", re.IGNORECASE)


@dataclass
class Task:
    """One row to come: a scan, or up to three photos by role. The bytes go once the row is there."""

    name: str
    files: list[tuple[str, bytes]]
    photos: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Table:
    """The rows so far, in the order of the tasks, and a small front view of each face (data URI, "" where none)."""

    model: str
    classes: tuple[str, ...]
    total: int
    rows: list[Row] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)


def tasks(files: Sequence[tuple[str, bytes]]) -> list[Task]:
    """Files (name, bytes) as tasks: each scan one, photos by the part of their names before front, left or right.

    "anna_front.jpg", "anna_left.jpg" and "anna_right.jpg" are one face; a photo without such a word is a front view.
    Sorted by name.
    """
    found: dict[str, Task] = {}
    for number, (name, data) in enumerate(files):
        path = PurePath(name)
        if path.suffix.lower().lstrip(".") not in PHOTO_TYPES:
            found[f"{name}\0{number}"] = Task(name, [(name, data)])
            continue
        role = _ROLE.search(path.stem)
        stem = path.stem[: role.start()] if role else path.stem
        word = role.group(1).lower() if role else "front"
        task = found.setdefault(f"{stem}\0photos", Task(stem or "photos", []))
        if word in task.photos:  # a second face of that name
            task = found[f"{name}\0{number}"] = Task(name, [])
        task.photos[word] = data
    return sorted(found.values(), key=lambda task: task.name.lower())


def answer_all(todo: list[Task], predictor: Predictor, table: Table, desk: Desk) -> Table:
    """Fills the table, whatever is wrong with a file; tasks are taken off the list as they are done."""
    while todo:
        task = todo[0]
        desk.tell(len(table.rows) / table.total, f"{task.name}: {len(table.rows) + 1} of {table.total}")
        seen: list[Prediction] = []

        def ask(task: Task = task, seen: list[Prediction] = seen) -> Prediction:
            photos = task.photos
            seen.append(predictor.predict_photos(**photos) if photos else predictor.predict(task.files[0][::-1]))
            return seen[0]

        row = row_of(task.name, ask)
        table.pictures.append(_thumbnail(seen[0]) if seen else "")
        table.rows.append(row)
        todo.pop(0)
    return table


def show(folder: Path) -> None:
    """The page: an input, and under it the table of the visit."""
    _upload(folder)
    work: Work[Table] | None = st.session_state.get("batch_work")
    if work is None:
        st.caption(
            f"Up to {MAX_FILES} files. Photos of one face belong together by their names: anna_front.jpg, "
            "anna_left.jpg, anna_right.jpg; a photo without such a word is taken as a front view."
        )
    elif work.running:
        _growing()
    else:
        _finished(work)


def start(files: list[tuple[str, bytes]], folder: Path) -> None:
    """Begins a new table in place of the old one."""
    todo = tasks(files)
    classes = tuple(engine.read_card(folder)["classes"])
    table = Table(folder.name, classes, len(todo))

    def do(desk: Desk) -> Table:
        return answer_all(todo, engine.predictor(folder), table, desk)

    st.session_state["batch_table"] = table
    st.session_state["batch_work"] = Work("batch", do)
    st.session_state["batch_visit"] = st.session_state.get("batch_visit", 0) + 1  # empties the input
    st.session_state["batch_problem"] = None


def _upload(folder: Path) -> None:
    from affectvlm.scan_io import EXTENSIONS

    key = f"batch_{st.session_state.get('batch_visit', 0)}"

    def brought() -> None:
        uploads = st.session_state[key]
        if not uploads:
            return
        megabytes = sum(upload.size for upload in uploads) / 2**20
        if len(uploads) > MAX_FILES:
            st.session_state["batch_problem"] = f"{len(uploads)} files; at most {MAX_FILES} are taken at once."
        elif megabytes > MAX_TOTAL_MB:
            said = f"{len(uploads)} files have {megabytes:,.0f} MB; at most {MAX_TOTAL_MB:,} MB together are taken."
            st.session_state["batch_problem"] = said
        else:
            start([(upload.name, upload.getvalue()) for upload in uploads], folder)
            state.let_go(uploads)  # the rows hold the bytes now, each until it is done

    st.file_uploader(
        "Scans or photos, as many as you like",
        type=sorted({extension.lstrip(".") for extension in EXTENSIONS} | set(PHOTO_TYPES)),
        accept_multiple_files=True,
        key=key,
        max_upload_size=MAX_MB,
        on_change=brought,
    )
    if said := st.session_state.get("batch_problem"):
        st.error(said, icon=":material/error:")


@st.fragment(run_every=EVERY_S)
def _growing() -> None:
    work, table = st.session_state.get("batch_work"), st.session_state.get("batch_table")
    if work is None or not work.running:
        st.rerun()
    st.progress(work.share, work.words or "Starting …")
    st.button("Stop", key="batch_stop", icon=":material/stop:", on_click=work.stop)
    _table(table)


def _finished(work: Work[Table]) -> None:
    table: Table = st.session_state["batch_table"]
    if work.problem is not None:  # the model itself
        st.error(work.problem, icon=":material/error:")
    st.markdown(summary(table))
    _table(table)
    _unanswered(table)
    with st.container(horizontal=True, vertical_alignment="center"):
        for kind, mime, make in (("CSV", "text/csv", csv_of), ("JSON", "application/json", json_of)):
            st.download_button(
                f"Table ({kind})", lambda make=make: make(table), f"affectvlm-table.{kind.lower()}", mime,
                on_click="ignore", icon=":material/download:", disabled=not table.rows,
            )  # fmt: skip
        st.button("Clear the table", type="tertiary", icon=":material/close:", on_click=_clear)
    st.caption("The files have the columns of `python -m affectvlm predict --csv` and `--output`.")


def csv_of(table: Table) -> str:
    return csv_text(table.rows, table.classes)


def json_of(table: Table) -> str:
    return json_text(table.rows)


def summary(table: Table) -> str:
    """How many were answered, and what became of the others."""
    bad = sum(not row["ok"] for row in table.rows)
    good, missing = len(table.rows) - bad, table.total - len(table.rows)
    said = [f"**{good} of {table.total}** answered by {table.model}"]
    said += [f"{bad} could not be used (see below)"] if bad else []
    said += [f"stopped before the other {missing}"] if missing else []
    return ", ".join(said) + "."


def _table(table: Table) -> None:
    count = min(len(table.rows), len(table.pictures))
    if not count:
        return
    shares = {
        name: st.column_config.NumberColumn(name.capitalize(), format="%.1f %%", width=70) for name in table.classes
    }
    st.dataframe(
        list(shown(table, count)),
        hide_index=True,
        row_height=44,
        height=min(2 + 36 + 44 * count, 560),
        placeholder="–",
        column_config={
            "picture": st.column_config.ImageColumn("", width=52),
            "file": st.column_config.TextColumn("File", width=150),
            "answer": st.column_config.TextColumn("Answer", width=136),
            **shares,
            "remarks": st.column_config.TextColumn("Remarks", width="large"),
        },
        column_order=["picture", "file", "answer", *table.classes, "remarks"],
        key="batch_rows",
    )


def _unanswered(table: Table) -> None:
    """Every file that could not be used, with the whole reason: in the table it is cut off."""
    bad = [row for row in table.rows if not row["ok"]]
    if bad:
        with st.expander(f"Why {len(bad)} {'was' if len(bad) == 1 else 'were'} not answered"):
            st.markdown("\n".join(f"- {words.plain(row['error'])}" for row in bad))


def shown(table: Table, count: int) -> Iterator[dict[str, Any]]:
    """The first rows as the page shows them."""
    for row, picture in zip(table.rows[:count], table.pictures[:count], strict=True):
        said = f"{row['emotion']} · {row['certainty']}" if row["ok"] else "not answered"
        remarks = "; ".join(row["warnings"]) if row["ok"] else row["error"]
        shares = row["probabilities"] or {}
        yield {
            "picture": picture or NO_PICTURE, "file": row["file"], "answer": said,
            **{name: 100 * shares[name] if shares else None for name in table.classes}, "remarks": remarks,
        }  # fmt: skip


def _clear() -> None:
    for name in ("batch_work", "batch_table", "batch_problem"):
        st.session_state.pop(name, None)


def _thumbnail(prediction: Prediction) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(prediction.views[0]).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).save(stream, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()

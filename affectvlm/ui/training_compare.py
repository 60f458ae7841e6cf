"""Trainings side by side: a table of all, curves over each other, what was taken for what, how settings differ."""

from __future__ import annotations

import datetime
from pathlib import Path

import streamlit as st

from affectvlm import histories
from affectvlm.histories import Row
from affectvlm.runs import RunError, list_runs
from affectvlm.ui import training_figures

FIRST = 3
"""Runs that are compared before somebody chooses."""

MOST = len(training_figures.RUN_COLORS)


def show(root: Path) -> None:
    """All runs in a table, and those chosen in pictures."""
    rows = _rows(root)
    if not rows:
        st.info("There is no training yet. Start one under “New training”.", icon=":material/info:")
        return
    _table(rows)
    names = [row.name for row in rows]
    kept = [name for name in st.session_state.get("training_compared", names[:FIRST]) if name in names]
    st.session_state["training_compared"] = kept
    chosen = st.multiselect(
        "Compare", names, key="training_compared", max_selections=MOST, persist_state="session",
        placeholder="Choose trainings",
    )  # fmt: skip
    if not chosen:
        return
    folders = [root / name for name in chosen]
    _overlays(folders)
    _settings(folders)
    _confusions(folders)


def _rows(root: Path) -> list[Row]:
    rows = []
    for folder in list_runs(root):
        try:
            rows.append(histories.row(folder))
        except RunError:  # deleted while we look
            continue
    return rows


def _table(rows: list[Row]) -> None:
    share = {"format": "%.1f %%", "width": "small"}
    st.dataframe(
        [
            {
                "name": row.name, "state": row.state, "method": row.method, "data": row.data,
                "steps": f"{row.steps:,} / {row.planned:,}", "best": _hundredths(row.best),
                "accuracy": _hundredths(row.accuracy), "uar": _hundredths(row.uar),
                "date": datetime.datetime.fromtimestamp(row.started),
            }
            for row in rows
        ],
        hide_index=True,
        column_config={
            "name": "Training", "state": "State", "method": "Method", "data": "Faces", "steps": "Steps",
            "best": st.column_config.NumberColumn(
                "Best on validation", help="UAR, the mean over the classes", format="%.1f %%", width=140
            ),
            "accuracy": st.column_config.NumberColumn("Test, right", **share),
            "uar": st.column_config.NumberColumn("Test, UAR", help="the mean over the classes", **share),
            "date": st.column_config.DatetimeColumn("Started", format="D MMM YYYY, HH:mm"),
        },
        alt="all trainings with their state and scores",
    )  # fmt: skip
    st.caption("Scores can be compared where the trainings were tested on the same faces.")


def _hundredths(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _overlays(folders: list[Path]) -> None:
    curves = {folder.name: histories.curves(folder) for folder in folders}
    best = {name: training_figures.best_so_far(found) for name, found in curves.items()}
    losses = {name: found.get("loss", []) for name, found in curves.items()}
    left, right = st.columns(2, gap="medium")
    for column, title, found, share in (
        (left, "Best validation UAR so far", best, True), (right, "Loss", losses, False),
    ):  # fmt: skip
        found = {name: curve for name, curve in found.items() if curve}
        with column:
            st.markdown(f"**{title}**")
            if not found:
                st.caption("None of these has come that far.")
                continue
            st.plotly_chart(
                training_figures.overlaid(found, title, share), key=f"training_overlay_{share}",
                config=training_figures.CONFIG, alt=f"{title} over the steps, a line for each training",
            )  # fmt: skip


def _settings(folders: list[Path]) -> None:
    if len(folders) < 2:
        return
    st.markdown("**Where their settings differ**")
    found = histories.differences(folders)
    if not found:
        st.caption("Nowhere: these are repetitions of one training.")
        return
    names = [folder.name for folder in folders]
    st.dataframe([{"setting": key, **dict(zip(names, values, strict=True))} for key, values in found.items()],
                 hide_index=True, column_config={"setting": "Setting"})  # fmt: skip


def _confusions(folders: list[Path]) -> None:
    tables = {folder.name: found for folder in folders if (found := histories.confusion(folder))}
    if not tables:
        return
    st.markdown("**Who was taken for whom, on people never seen**")
    per_row = 2 if len(tables) > 1 else 1
    names = list(tables)
    for start in range(0, len(names), per_row):
        for column, name in zip(st.columns(2, gap="medium"), names[start : start + per_row], strict=False):
            with column:
                st.caption(name)
                st.plotly_chart(
                    training_figures.confusion_table(*tables[name]), key=f"training_confusion_{name}",
                    config=training_figures.CONFIG, alt=f"{name}: how often each emotion was taken for which",
                )  # fmt: skip

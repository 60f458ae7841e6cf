"""One training: how it stands, its curves while they grow, what it says, its result, and what can be done with it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from affectvlm import histories
from affectvlm.runs import RunError, Status, duration, last_words, status
from affectvlm.starting import delete, resume, resume_command
from affectvlm.ui import engine, training_figures, training_state, visitors
from affectvlm.ui.words import percent

LOG_LINES = 200
STYLE = """<style>
.told { display: flex; flex-wrap: wrap; gap: 0.7rem 2.4rem; margin: 0.2rem 0 0.4rem !important;
        padding: 0 !important; }
.told dt { font-size: 0.8rem; opacity: 0.66; }
.told dd { font-size: 1.3rem; margin: 0; font-variant-numeric: tabular-nums; }
</style>"""
STATE_ICONS = {
    "running": ":blue[:material/sync:]", "finished": ":green[:material/check_circle:]",
    "stopped": ":orange[:material/pause_circle:]", "failed": ":red[:material/error:]",
    "died": ":red[:material/error:]",
}  # fmt: skip


def show(root: Path, names: list[str], every_s: float) -> None:
    """The run that was chosen among `names`, drawn again by itself while it runs."""
    if not names:
        st.info("There is no training yet. Start one under “New training”.", icon=":material/info:")
        return
    name = st.selectbox("Training", names, key="training_watched", persist_state="session")
    folder = root / name
    try:
        now = status(folder)
    except RunError as error:
        st.error(training_state.sentence(str(error)), icon=":material/error:")
        return
    st.fragment(_live, run_every=every_s if now.state == "running" else None)(folder, now.state)
    if now.state != "running":
        _result(folder)
    _ways_on(folder, root, now)


def _live(folder: Path, state: str) -> None:
    try:
        now = status(folder)
    except RunError:  # deleted by somebody else
        st.rerun()
    if now.state != state:
        st.rerun()  # result and buttons belong to another state now
    _standing(folder, now)
    curves = histories.curves(folder)
    if curves:
        _curves(curves, now.steps)
    _log(folder, now)


def _standing(folder: Path, now: Status) -> None:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        words = histories.in_words(now)
        st.markdown(f"{STATE_ICONS.get(now.state, '')} **{words[:1].upper()}{words[1:]}.**", width="content")
        if now.state == "running":
            training_state.stop_button(folder, now, "watch")
    if now.message and now.state in ("failed", "died"):
        st.error(training_state.sentence(now.message), icon=":material/error:")
    if now.steps:
        st.progress(min(now.step / now.steps, 1.0), f"Step {now.step:,} of {now.steps:,}")
    figures = _figures(folder, now)
    if figures:
        parts = (f"<div><dt>{escape(title)}</dt><dd>{escape(value)}</dd></div>" for title, value in figures.items())
        st.html(f'{STYLE}<dl class="told">{"".join(parts)}</dl>')


def _figures(folder: Path, now: Status) -> dict[str, str]:
    """Title → value of the numbers under the state, as far as they are known."""
    said: dict[str, str] = {}
    if now.eta_s is not None and now.phase == "training":
        said["Time left"] = duration(now.eta_s)
    if now.best is not None:
        said["Best validation UAR"] = percent(now.best)
    latest = histories.latest(folder)
    if now.state == "running" and latest and now.phase == "training":
        said |= _speed(latest)
    if device := histories.device(folder):
        said["Device"] = "CPU" if device == "cpu" else device
    if now.state == "running":
        held, on_gpu = histories.memory(folder), histories.gpu_memory(folder)
        said |= {"Memory": f"{held / 1e9:.1f} GB"} if held else {}
        said |= {"GPU memory": f"{on_gpu / 1e9:.1f} GB"} if on_gpu else {}
    return said


def _speed(latest: Mapping[str, Any]) -> dict[str, str]:
    said = {}
    if isinstance(speed := latest.get("views_per_s"), int | float):
        said["Views a second"] = f"{speed:,.0f}"
    if isinstance(waiting := latest.get("loader_wait"), int | float):
        said["Waiting for data"] = percent(waiting)
    return said


def _curves(curves: dict[str, histories.Curve], steps: int) -> None:
    losses, scores = st.columns(2, gap="medium")
    with losses:
        st.markdown("**Losses**")
        st.plotly_chart(
            training_figures.loss_curves(curves, steps), key="training_losses", config=training_figures.CONFIG,
            alt="losses over the steps of the training",
        )  # fmt: skip
    with scores:
        st.markdown("**Right on people kept for validation** (UAR, the mean over the classes)")
        if any(name.startswith("validation, ") for name in curves):
            st.plotly_chart(
                training_figures.score_curves(curves, steps), key="training_scores", config=training_figures.CONFIG,
                alt="validation UAR over the steps of the training",
            )  # fmt: skip
        else:
            st.caption("The first score comes with the first validation (run.validate).")


def _log(folder: Path, now: Status) -> None:
    text = last_words(folder, LOG_LINES)
    if text:
        with st.expander("What it says", expanded=now.state in ("failed", "died")):
            st.code("\n".join(text.splitlines()[-40:]), language=None, height=260)


def _result(folder: Path) -> None:
    """Scores on people it has never seen, and who was taken for whom."""
    scores = histories.scores(folder)
    if not scores:
        return
    st.subheader("On people it has never seen", anchor=False)
    table, taken = st.columns(2, gap="medium")
    with table:
        st.dataframe(
            [
                {
                    "test": name,
                    "right": _hundredths(found, "accuracy"),
                    "UAR": _hundredths(found, "uar"),
                    "ECE": found.get("ece"),
                }
                for name, found in ((name, part.get("emotions") or {}) for name, part in scores.items())
            ],
            hide_index=True,
            column_config={
                "test": st.column_config.TextColumn("Shown", width="medium"),
                "right": st.column_config.NumberColumn("Right", format="%.1f %%"),
                "UAR": st.column_config.NumberColumn("UAR", format="%.1f %%", help="mean over the classes"),
                "ECE": st.column_config.NumberColumn("ECE", format="%.3f", help="how far certainty and truth differ"),
            },
        )
        count = histories.main_scores(folder).get("n")
        if count:
            st.caption(f"{count:,} faces. With few faces, a difference of some percent may be chance.")
    found = histories.confusion(folder)
    if found:
        with taken:
            st.plotly_chart(
                training_figures.confusion_table(*found), key="training_confusion", config=training_figures.CONFIG,
                alt="how often each emotion was taken for which",
            )  # fmt: skip


def _hundredths(found: Mapping[str, Any], name: str) -> float | None:
    value = found.get(name)
    return 100 * value if isinstance(value, int | float) else None


def _ways_on(folder: Path, root: Path, now: Status) -> None:
    """Use, download, go on, delete; and the command."""
    name = folder.name
    has_model = histories.model_of(folder) is not None and now.state != "running"
    with st.container(horizontal=True):
        if has_model:
            used = st.session_state.get("model") == engine.run_model(name)
            usable = engine.run_model(name) in engine.checkpoints()
            st.button(
                "This model answers now" if used else "Use this model", key="training_use", type="primary",
                icon=":material/check:" if used else ":material/swap_horiz:", disabled=used or not usable,
                help="On every page; the sidebar shows it, and takes you back to another." if usable
                else "Its card cannot be read.",
                on_click=training_state.use_model, args=(name,),
            )  # fmt: skip
            _download(folder)
        if now.state in ("stopped", "failed", "died"):
            if st.button(
                "Go on", key="training_resume", icon=":material/play_arrow:",
                help="From its last save; from the start where there is none.",
            ):  # fmt: skip
                training_state.attempt(resume, folder)
                st.rerun()
        if now.state != "running" and visitors.may_name_paths():
            _delete(folder, root)
    with st.expander("Commands and dates"):
        st.code(_commands(folder, now), language="bash", wrap_lines=True)
        started = histories.row(folder).started
        st.caption(f"Started {time.strftime('%d %B %Y, %H:%M', time.localtime(started))} · kept in {folder}")


def _download(folder: Path) -> None:
    if histories.packed_size(folder) > histories.LARGEST_PACK:
        st.caption(f"Too large for one download: copy the folder {folder / 'model'}.")
        return
    st.download_button(
        "Download", lambda: histories.packed(folder), file_name=f"{folder.name}.zip", mime="application/zip",
        icon=":material/download:", key="training_download", on_click="ignore",
        help="The model, its scores and settings, as a zip",
    )  # fmt: skip


def _delete(folder: Path, root: Path) -> None:
    with st.popover("Delete", icon=":material/delete:", key="training_delete"):
        st.markdown(f"Delete **{training_state.plain(folder.name)}** with its model and curves? It cannot be undone.")
        if st.button("Delete it for good", key="training_delete_sure"):
            training_state.attempt(delete, folder, root)
            st.rerun()


def _commands(folder: Path, now: Status) -> str:
    try:
        lines = [(folder / "command.txt").read_text("utf-8").strip()]
    except OSError:
        lines = []
    if now.state in ("stopped", "failed", "died"):
        lines.append(f"{resume_command(folder)}  # goes on")
    if histories.model_of(folder):
        lines.append(f"python -m affectvlm predict SCAN --checkpoint {folder / 'model'}")
    return "\n".join(lines) or "# the command stands here once the training has begun"

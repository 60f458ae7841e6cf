"""The page of a sequence: bring one, watch the work, play it, and see the emotions come and go."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from affectvlm.emotions import EKMAN
from affectvlm.ui import engine, figures, look, player, results, sequence_figures, sequence_state, state, words
from affectvlm.ui.clips import Clip, SeenClip
from affectvlm.ui.inputs import MAX_MB
from affectvlm.ui.work import Work

EVERY_S = 0.5  # how often the page looks at work in progress
READS_ALL = (
    "The chosen model reads the motion of all frames at once, from the dynamic images below, so there is no curve over "
    "single frames."
)
TEXTURES = (".mtl", ".jpg", ".jpeg", ".png", ".bmp")
_QUIET = {"displayModeBar": False}


def introduction(folder: Path | None) -> str:
    """What is to be brought, and what the model makes of it."""
    if engine.reads_motion(folder):
        return "Bring a sequence of 3D scans. The chosen model reads the motion of all of it, and gives one answer."
    return "Bring a sequence of 3D scans. You get one answer for all of it, and see the emotions come and go."


def bring() -> None:
    """The ways to bring a sequence, folded away once there is one."""
    there = sequence_state.clip() is not None
    with st.expander("Bring another sequence" if there else "Bring a sequence", expanded=not there):
        _upload()
        if there:
            st.button("Take a sample", type="tertiary", on_click=sequence_state.set_clip, args=(None,))
    if not there:
        _samples()


def show(folder: Path) -> None:
    """The answer to the sequence of the visit, or how far the work on it is, or why there is none."""
    work = sequence_state.work(folder)
    if work.running:
        _wait()
    elif (problem := work.problem) is not None:
        sequence_state.set_clip(None, problem)
        st.rerun()
    elif work.result is None:
        _stopped()
    else:
        _answer(work.result, work.key, folder)


def _upload() -> None:
    from affectvlm.scan_io import EXTENSIONS

    key = f"clip_{sequence_state.uploads()}"

    def brought() -> None:
        uploads = st.session_state[key]
        if not uploads:
            return
        size = sum(upload.size for upload in uploads)
        if size > MAX_MB * 2**20:
            said = f"{len(uploads)} files have {size / 2**20:.0f} MB; at most {MAX_MB} MB together are taken."
            sequence_state.set_clip(None, said)
        else:
            sequence_state.bring([(upload.name, upload.getvalue()) for upload in uploads])
        state.let_go(uploads)  # the input is empty again, and the clip holds the bytes

    st.file_uploader(
        "A zip of scans, an animated GLB, or the scans themselves, numbered in the order of time",
        type=sorted({extension.lstrip(".") for extension in (*EXTENSIONS, *TEXTURES)}),
        accept_multiple_files=True,
        key=key,
        max_upload_size=MAX_MB,
        on_change=brought,
    )
    with st.container(horizontal=True):
        st.selectbox(
            "Look at up to", list(sequence_state.MOST), list(sequence_state.MOST).index(sequence_state.most()),
            format_func=lambda count: f"{count} frames", key="clip_most", width=170, persist_state="session",
            help="Spread evenly over the sequence. Each takes a moment.",
        )  # fmt: skip
        st.number_input(
            "Frames a second", 0.1, 1000.0, None, key="clip_fps", width=170, placeholder="not known",
            persist_state="session", help="As it was filmed. With it, the curve is told in seconds.",
        )  # fmt: skip


def _samples() -> None:
    st.markdown("**No sequence at hand?** Take one of ours: a face goes from neutral to an emotion and back.")
    frames = []
    for column, emotion in zip(st.container(key="samples").columns(len(EKMAN)), EKMAN, strict=True):
        with column:
            frames.append(st.empty())
            frames[-1].html('<div class="coming"></div>')  # keeps the picture's place
            st.button(
                emotion, key=f"clip_sample_{emotion}", width="stretch",
                on_click=sequence_state.set_clip, args=(Clip.sample(emotion),),
            )  # fmt: skip
    for frame, emotion in zip(frames, EKMAN, strict=True):
        frame.image(engine.sample_picture(emotion), width="stretch", alt=f"a modelled face posing {emotion}")


@st.fragment(run_every=EVERY_S)
def _wait() -> None:
    work: Work[SeenClip] | None = st.session_state.get("clip_work")
    if work is None or not work.running:
        st.rerun()
    st.markdown(f"**{sequence_state.clip().title}**")
    st.progress(work.share, work.words or "Starting …")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("Stop", key="clip_stop", icon=":material/stop:", on_click=sequence_state.stop)
        st.caption("It goes on while you look at other pages.")


def _stopped() -> None:
    st.info(f"You stopped the work on {sequence_state.clip().title}.", icon=":material/info:")
    with st.container(horizontal=True):
        st.button("Start again", type="primary", on_click=sequence_state.restart)
        st.button("Another sequence", on_click=sequence_state.set_clip, args=(None,))


def _answer(seen: SeenClip, key: str, folder: Path) -> None:
    prediction, clip = seen.prediction, sequence_state.clip()
    st.header(words.plain(words.headline(prediction)), anchor=False)
    st.caption(f"{clip.title} · {_counted(seen)}")
    moving, said = st.columns([7, 4], gap="large")
    with moving:
        _player(seen, key)
    with said:
        _verdict(seen)
        results.show_sequence(prediction, clip.title, clip.digest, folder)
    if prediction.curve is not None:
        _over_time(seen)
    _moved(seen)


def _counted(seen: SeenClip) -> str:
    looked = len(seen.frames)
    return f"{looked} frames" if looked == seen.total else f"{looked} of {seen.total} frames"


def _player(seen: SeenClip, key: str) -> None:
    curve = seen.prediction.curve
    times = None if curve is None else curve.times
    start = _start(seen)
    name = f"player_{key}"

    def moved() -> None:
        left = st.session_state[name]
        sequence_state.leave_at(left["frame"])

    at = player.show(key, seen.frames, curve and curve.classes, times, start, moved)
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Use this frame", icon=":material/check:"):
            _use(seen, at)
        if st.session_state.get("clip_used") == (key, at):
            st.caption("It is the current face on all pages now.")
        else:
            st.caption("Makes it the current face, which the other pages then show.")


def _use(seen: SeenClip, at: int) -> None:
    try:
        with st.spinner("Taking the frame …"):
            sequence_state.use_frame(seen.frames[at].index)
    except ValueError as error:
        st.error(str(error), icon=":material/error:")
    else:
        st.session_state["clip_used"] = (st.session_state["clip_work"].key, at)
        st.rerun()


def _start(seen: SeenClip) -> int:
    """Where the player stands: where it was left, else at the apex, else in the middle."""
    left, curve = sequence_state.frame(), seen.prediction.curve
    if left is not None and 0 <= left < len(seen.frames):
        return left
    if curve is not None and curve.apex is not None:
        return curve.apex
    return len(seen.frames) // 2


def _verdict(seen: SeenClip) -> None:
    prediction = seen.prediction
    st.markdown(f"**All frames together**  \n{words.plain(words.confidence(prediction))}")
    st.plotly_chart(
        figures.probability_bars(prediction.probabilities), key="clip_probabilities", config=_QUIET,
        alt="probability of each class over all frames",
    )  # fmt: skip
    look.remarks(prediction.warnings)
    seconds = prediction.timings_ms["total"] / 1000
    weighed = "Frames with more expression count for more." if prediction.rejection else "All frames count the same."
    how = READS_ALL if prediction.curve is None else weighed
    st.caption(f"Answered in {seconds:.1f} s. {how}")


def _over_time(seen: SeenClip) -> None:
    curve = seen.prediction.curve
    st.subheader("The emotions over time", anchor=False)
    st.markdown(words.plain(sequence_figures.phases_in_words(curve)))
    st.plotly_chart(
        sequence_figures.curve_figure(curve, _start(seen)), key="clip_curve", config=_QUIET,
        alt="probability of each emotion over the frames; onset, apex and offset are marked",
    )  # fmt: skip
    st.caption("Thin: each frame by itself. Thick: smoothed over time. The grey bar is the frame shown above.")


def _moved(seen: SeenClip) -> None:
    prediction = seen.prediction
    st.subheader("What moved", anchor=False)
    st.markdown(
        "The whole sequence in one picture a view (a *dynamic image*, by rank pooling). Plain grey did not move; "
        "colour shows where the surface turned, and which way, from the beginning to the end."
    )
    for column, name, image in zip(
        st.container(key="views").columns(3), prediction.view_names, prediction.dynamic_images, strict=True
    ):
        title = words.VIEW_TITLES[name]
        column.image(image, width="stretch", alt=f"dynamic image of the {title.lower()} view")
        column.markdown(f"**{title}**")
    strongest = float(abs(prediction.dynamic_images.astype(int) - 128).max())
    if strongest < 12 and len(seen.frames) > 1:
        st.info("Hardly anything moved in this sequence.", icon=":material/info:")

"""The page of maps: what is asked, the views with their evidence, how far to trust it, and what each part gave."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from affectvlm.ui import engine, evidence, evidence_figures, evidence_words, state
from affectvlm.ui.evidence import CONTRAST, EMOTION, WAYS, WORDS, Case, Question
from affectvlm.ui.words import VIEW_TITLES, unbroken

EXAMPLE = "a person with raised brows and an open mouth"
OWN_ANSWER = "each face's own answer"
MAX_WORDS = 200
MAX_FACES = 12


def show(face: state.Face, folder: Path) -> None:
    """The whole page for the current face, or why there is nothing to show."""
    case = Case(face, state.correction(), folder)
    try:
        question = ask(case)
        known = evidence.methods(folder)
        method = st.session_state.get("evidence_method")
        method = method if method in known else known[0]
        found = evidence.maps(case, question, method)
    except ValueError as error:  # ScanError, CheckpointError, no words: made to be read
        st.error(str(error), icon=":material/error:")
        return
    _views(case, found)
    if case.prediction.kind == "sequence":
        st.caption(
            "Shown on the most expressive frame. The model saw the motion of all frames, and what counts is there."
        )
    if empty := evidence_words.nothing_found(found):
        st.info(empty, icon=":material/info:")
    else:
        left, right = st.columns(2, gap="large")
        with left:
            _contributions(case, question)
        with right:
            _trust(case, question, method)
    _downloads(case, question, found)
    _method(case)


def ask(case: Case) -> Question:
    """The controls for what to explain; the answer's own emotion to begin with. Stops where words are missing."""
    names = evidence.emotions(case.folder)
    ways = WAYS if len(names) > 1 else (EMOTION, WORDS)
    _forget_unknown("evidence_way", ways)
    way = st.segmented_control(
        "Explain", ways, default=EMOTION, required=True, key="evidence_way", persist_state="session"
    )
    if way == WORDS:
        words = st.text_input(
            "In words", EXAMPLE, max_chars=MAX_WORDS, key="evidence_words", persist_state="session",
            help="Any English description; the map shows what makes the face like it.",
        )  # fmt: skip
        if not words.strip():
            st.info("Write a few words, such as “a frightened person”.", icon=":material/info:")
            st.stop()
        return Question(WORDS, words)
    if way == EMOTION:
        return Question(EMOTION, emotion(case))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        ranked = sorted(names, key=case.prediction.probabilities.__getitem__, reverse=True)
        first = _select("Why", names, ranked[0], f"evidence_why_{case.face.digest}")
        rest = tuple(name for name in names if name != first)
        second = _select("and not", rest, next(name for name in ranked if name != first), f"evidence_not_{first}")
    return Question(CONTRAST, first, second)


def emotion(case: Case) -> str:
    """The choice of an emotion; each face begins with its own answer."""
    names, key = evidence.emotions(case.folder), f"evidence_emotion_{case.face.digest}"
    _forget_unknown(key, names)
    return st.segmented_control(
        "Emotion", names, default=case.prediction.emotion, required=True, format_func=str.capitalize, key=key,
        persist_state="session",
    )  # fmt: skip


def _forget_unknown(key: str, options: tuple[str, ...]) -> None:
    """Drops a choice that was made under a model with other classes."""
    if st.session_state.get(key, options[0]) not in options:
        del st.session_state[key]


def _select(label: str, names: tuple[str, ...], default: str, key: str) -> str:
    _forget_unknown(key, names)
    return st.selectbox(
        label, names, names.index(default), format_func=str.capitalize, key=key, width=200, persist_state="session"
    )


def _views(case: Case, found) -> None:
    from affectvlm.gradcam import overlay

    prediction, present = case.prediction, case.present
    place = st.container(key="views")
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.html(evidence_figures.scale_bar(), width="content")
        opacity = st.slider(
            "Strength of the colours", 0, 100, 85, step=5, format="%d %%", key="evidence_opacity", width=280,
            persist_state="session",
        )  # fmt: skip
    pictures = overlay(prediction.views, found.maps, opacity / 100)
    for column, name, picture, share, there in zip(
        place.columns(len(pictures)), prediction.view_names, pictures, found.shares, present, strict=True
    ):
        title = VIEW_TITLES[name]
        column.image(picture, width="stretch", alt=f"{title} view with what speaks for {found.target}")
        said = f"{round(100 * share)} % of the evidence" if there else "no photo"
        column.markdown(f"**{title}**  \n:small[{said}]")


def _contributions(case: Case, question: Question) -> None:
    target, parts = evidence.target(question, case.folder), evidence.parts(case, question)
    st.subheader("What each part gives", anchor=False)
    told = evidence_words.strength(target, parts.whole.value) + ". " + (evidence_words.most(parts) or "")
    st.markdown(unbroken(told))
    titles = evidence_words.REGIONS | VIEW_TITLES
    groups = (parts.without_region, parts.without_view)
    st.html(evidence_figures.parts_table(parts.whole, groups, titles, target.is_share))
    st.caption(
        "With each part → without it: a region is smoothed in all views, a view is not shown. "
        "▲ marks what speaks against it."
    )


def _trust(case: Case, question: Question, method: str) -> None:
    from affectvlm.gradcam.trust import FRACTIONS

    st.subheader("How far to trust the map", anchor=False)
    place = st.empty()
    target, trust = evidence.target(question, case.folder), evidence.trusted(case, question, method)
    with place.container():
        tested = evidence_words.tested(trust, target, FRACTIONS)
        st.markdown(unbroken(f"**{evidence_words.TRUST_TITLES[trust.word]}** {tested}"))
        st.plotly_chart(
            evidence_figures.trust_curves(trust, target, FRACTIONS),
            key="trust_curves",
            config={"displayModeBar": False},
            alt="what is left of the answer as bright or random places are smoothed",
        )
        st.caption(f"Deletion and insertion together lie {trust.sigmas:.1f} standard deviations from random maps.")
        if st.toggle("Check with shuffled weights", key="evidence_shuffled"):
            st.markdown(evidence_words.likeness(evidence.likeness_to_shuffled(case, question, method)))


def _downloads(case: Case, question: Question, found) -> None:
    from affectvlm.gradcam import maps_npz, strip_png

    prediction, name = case.prediction, _file_name(found.target)
    opacity = st.session_state.get("evidence_opacity", 85) / 100
    with st.container(horizontal=True):
        st.download_button(
            "Pictures (PNG)", lambda: strip_png(prediction.views, found.maps, opacity), f"{name}.png", "image/png",
            on_click="ignore", icon=":material/download:",
        )  # fmt: skip
        st.download_button(
            "Maps (NPZ)", lambda: maps_npz(found, prediction.views, prediction.view_names), f"{name}.npz",
            "application/octet-stream", on_click="ignore", icon=":material/download:",
        )  # fmt: skip


def mesh_legend(case: Case, question: Question) -> None:
    """Under the painted mesh: the scale, whether there is anything to see, and the whole scan so painted to keep."""
    found, scan = evidence.maps(case, question), case.prediction.scan
    st.html(evidence_figures.scale_bar())
    if empty := evidence_words.nothing_found(found):
        st.info(empty, icon=":material/info:")
    values, name = evidence.scan_values(case, question), _file_name(found.target)
    with st.container(horizontal=True):
        for kind, mime in (("PLY", "application/octet-stream"), ("GLB", "model/gltf-binary")):
            st.download_button(
                f"Mesh with evidence ({kind})",
                lambda kind=kind: evidence.mesh_file(scan, values, kind, found.target),
                f"{name}.{kind.lower()}",
                mime,
                on_click="ignore",
                icon=":material/download:",
            )


def _method(case: Case) -> None:
    with st.expander("Method"):
        known = evidence.methods(case.folder)
        st.selectbox(
            "How the maps are made", known, format_func=evidence_words.METHODS.__getitem__, key="evidence_method",
            persist_state="session",
        )  # fmt: skip
        st.caption(
            "All look at what flows through one layer of the image tower and at its gradient for the joint answer of "
            "all views. On our model plain Grad-CAM at its usual layer does worse than random places; the first in "
            "the list measured best by deletion and insertion."
        )


def show_grid(folder: Path) -> None:
    """Many faces at once, as in the papers' figures."""
    with st.expander("Many faces in one figure"):
        files = st.file_uploader(
            f"Up to {MAX_FACES} scans", accept_multiple_files=True, key=f"evidence_grid_{state.visit()}",
            type=_scan_types(), max_upload_size=50,
        )  # fmt: skip
        choices = (OWN_ANSWER, *evidence.emotions(folder))
        _forget_unknown("evidence_grid_emotion", choices)
        one = st.selectbox("Evidence for", choices, key="evidence_grid_emotion")
        chosen = None if one == OWN_ANSWER else one
        with st.container(horizontal=True):
            own = st.button("Make the figure", disabled=not files, type="primary")
            samples = st.button("Make it of our six samples")
        if own or samples:
            _make_grid(files if own else None, folder, chosen)
        if (made := st.session_state.get("evidence_grid")) is not None:
            picture, problems = made
            for problem in problems:
                st.warning(problem, icon=":material/warning:")
            st.image(picture, width="stretch", alt="faces by views, with what speaks for the answer")
            st.download_button(
                "Figure (PNG)", picture, "evidence.png", "image/png", on_click="ignore", icon=":material/download:"
            )


def _make_grid(files, folder: Path, emotion: str | None) -> None:
    if files is None:
        faces = [state.Face.from_sample(name) for name in engine.EKMAN]
    else:
        faces = [state.Face.from_scan(file.name, file.getvalue()) for file in files[:MAX_FACES]]
    try:
        made = evidence.grid(faces, folder, emotion, st.session_state.get("evidence_opacity", 85) / 100)
    except ValueError as error:
        st.session_state["evidence_grid"] = None
        st.error(str(error), icon=":material/error:")
        return
    too_many = len(files or ()) - MAX_FACES
    more = (f"{too_many} more files were left out; {MAX_FACES} fit into one figure",) if too_many > 0 else ()
    st.session_state["evidence_grid"] = (made[0], made[1] + more)


def _scan_types() -> list[str]:
    from affectvlm.scan_io import EXTENSIONS

    return [extension.lstrip(".") for extension in EXTENSIONS]


def _file_name(target: str) -> str:
    words = "".join(letter if letter.isalnum() else "-" for letter in target.lower())
    return "evidence-" + "-".join(filter(None, words.split("-")))[:60]

"""The page of prompts: how well every sentence fits the face, the answer that follows, and the sentences to change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from affectvlm.emotions import ADJECTIVES, class_colors
from affectvlm.ui import engine, figures, prompt_figures, prompt_state, state, words
from affectvlm.ui.prompt_figures import Group
from affectvlm.wording import MAX_FILE_BYTES, Wording, new_words, to_yaml, training_words
from affectvlm.zero_shot import Answer, FaceFeatures, ZeroShot, similarities

ALL_VIEWS = "All views"
FILE_NAME = "prompts.yaml"
_QUIET = {"displayModeBar": False}


@st.fragment
def show(face: state.Face, folder: Path) -> None:
    """Everything below the page's title; it runs by itself when a sentence changes."""
    try:
        prediction = engine.answer(face, state.correction(), folder)
        features = engine.face_features(face, state.correction(), folder)
    except ValueError as error:  # ScanError, CheckpointError: made to be read
        st.error(str(error), icon=":material/error:")
        return
    zero_shot, wording = engine.zero_shot(folder), prompt_state.current(folder)
    seen = _view(prediction, features)
    doubt = _doubt(prediction)
    found = groups(seen, wording, folder)
    answer = zero_shot.answer(seen, wording.prompt_set(), prompt_state.texts(folder), doubt)
    own = None if prompt_state.is_own(folder) else zero_shot.answer(seen, zero_shot.card.prompts, doubt=doubt)
    if prediction.kind == "sequence":
        st.caption(words.plain(f"The model compares the motion of all frames of {face.title} with the sentences."))
    left, right = st.columns([6, 4], gap="large")
    with left:
        st.subheader("Every sentence, by class", anchor=False)
        st.plotly_chart(
            prompt_figures.sentence_bars(found), key="sentence_bars", config=_QUIET,
            alt="similarity of the face to every sentence, grouped by class",
        )  # fmt: skip
        st.caption(
            "Each thin bar is one sentence; point at it to read it. The dotted line is the mean of a class, ± says how "
            "far its sentences spread. What counts for the answer is which group reaches furthest."
        )
    with right:
        _answer(answer, own, found, zero_shot.card.classes)
    _editor(found, answer.emotion, wording, zero_shot, folder)
    _files(wording, folder)


def _view(prediction, features: FaceFeatures) -> FaceFeatures:
    """The face as all views show it, or one of them, as the visitor chooses."""
    names = [name for name in prediction.view_names if name in prediction.view_probabilities]
    if st.session_state.get("prompt_view") not in names:
        st.session_state["prompt_view"] = ALL_VIEWS
    chosen = st.segmented_control(
        "Look at",
        (ALL_VIEWS, *names),
        format_func=lambda name: words.VIEW_TITLES.get(name, name),
        required=True,
        key="prompt_view",
        persist_state="session",
    )
    return features if chosen == ALL_VIEWS else features.only(prediction.view_names.index(chosen))


def _doubt(prediction) -> float:
    """What `answer` held back because the pose was doubtful; of motion nothing is."""
    from affectvlm.predictor import pose_doubt

    return pose_doubt(prediction.pose, state.correction()) if prediction.kind == "scan" else 0.0


def _is_pretrained(training: Mapping[str, Any]) -> bool:
    """Whether the text tower came with words of its own: from weights trained on other pictures and texts."""
    settings = training.get("settings")
    model = settings.get("model") if isinstance(settings, Mapping) else None
    return bool(isinstance(model, Mapping) and model.get("pretrained"))


def groups(features: FaceFeatures, wording: Wording, folder: Path) -> list[Group]:
    """Every row's sentences with their similarity to the face."""
    import numpy as np

    paint = class_colors(wording.base.classes, wording.base.rejection)
    texts = prompt_state.texts(folder)
    found = []
    for row, sentences in wording.rows.items():
        written = tuple(sentence.text for sentence in sentences)
        cosines = similarities(features.fused, texts(written)) if written else np.zeros(0)
        used = np.array([sentence.used for sentence in sentences], bool)
        found.append(Group(row, paint[row], written, cosines, used))
    return found


def _answer(answer: Answer, own: Answer | None, groups: list[Group], classes: tuple[str, ...]) -> None:
    st.subheader(headline(answer, classes), anchor=False)
    st.markdown(words.plain(words.confidence(answer)))
    paint = {group.row: group.color for group in groups}
    before = None if own is None else own.probabilities
    st.plotly_chart(
        figures.probability_bars(answer.probabilities, paint, before), key="prompt_probabilities", config=_QUIET,
        alt="probability of each class in these words",
    )  # fmt: skip
    rejected = " · ".join(f"{name} {words.percent(share)}" for name, share in answer.rejection.items())
    if rejected:
        st.caption(
            f"Beside the classes: {words.plain(rejected)}. What these take is shared out evenly among those above."
        )
    if own is not None:
        st.caption(
            "Asked in your words. The thin marks show the model's own: "
            f"{words.plain(own.emotion)} {words.percent(own.confidence)}. "
            "The other pages keep to the model's own words; the explorer takes yours."
        )


def headline(answer: Answer, classes: tuple[str, ...]) -> str:
    """The answer in one sentence; more careful where it is none of `classes`, which the model was trained on."""
    known = answer.emotion in classes or answer.emotion in ADJECTIVES
    if known or answer.certainty == "not sure" or max(answer.rejection.values(), default=0) >= 0.5:
        return words.plain(words.headline(answer))
    return f"Of these words, “{words.plain(answer.emotion)}” fits best."


def _editor(groups: list[Group], winner: str, wording: Wording, zero_shot: ZeroShot, folder: Path) -> None:
    st.subheader("Change the sentences", anchor=False)
    if prompt_state.problem():
        st.error(prompt_state.problem(), icon=":material/error:")
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        rows = list(wording.rows)
        if st.session_state.get("prompt_row") not in rows:
            st.session_state["prompt_row"] = winner if winner in rows else rows[0]
        chosen = st.pills(
            "Sentences for", rows, format_func=str.capitalize, required=True, key="prompt_row", persist_state="session",
        )  # fmt: skip
        # another key once a class was added: that closes it
        with st.popover("Add a class", icon=":material/add:", key=f"new_class_{prompt_state.generation()}_open"):
            _new_class(folder)
    group = next(group for group in groups if group.row == chosen)
    known = training_words(zero_shot.card.prompts)
    _strange_words(groups, known, zero_shot)
    span = max(0.2, *(float(each.cosines.max(initial=0.0)) for each in groups))
    _sentences(group, span, known, zero_shot, folder)
    _add_sentence(group, wording, folder)


def _strange_words(groups: list[Group], known: frozenset[str], zero_shot: ZeroShot) -> None:
    """What is to be said of words that training did not hold, once for the page."""
    used = [text for group in groups for text, on in zip(group.texts, group.used, strict=True) if on]
    strange = dict.fromkeys(word for text in used for word in new_words(text, known))
    if not strange:
        return
    listed = ", ".join(f"“{word}”" for word in list(strange)[:8]) + (" and more" if len(strange) > 8 else "")
    if _is_pretrained(zero_shot.card.training_data):
        rest = "Its text tower may know them from the texts it was first trained on, but not with faces of this kind."
    else:
        rest = "Training never showed it these words, so it guesses: take sentences with them as a try, no more."
    st.warning(f"New to this model: {listed}. {rest}", icon=":material/new_releases:")


def _sentences(group: Group, span: float, known: frozenset[str], zero_shot: ZeroShot, folder: Path) -> None:
    """One line a sentence, in two columns: switch, text, similarity, and what is strange in it."""
    half = -(-len(group.texts) // 2)
    columns = st.container(key="sentences").columns(2, gap="large")
    for start, column in zip((0, half), columns, strict=True):
        with column:
            for place in range(start, min(start + half, len(group.texts))):
                _sentence(group, place, span, known, zero_shot, folder)


def _sentence(group: Group, place: int, span: float, known: frozenset[str], zero_shot: ZeroShot, folder: Path) -> None:
    text, used = group.texts[place], bool(group.used[place])
    keys = {what: f"{what}_{prompt_state.generation()}_{group.row}_{place}" for what in ("use", "text")}

    def changed() -> None:
        typed, on = (st.session_state.get(keys[what]) for what in ("text", "use"))
        prompt_state.edit(folder, group.row, place, typed or "", bool(on))

    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        number = f"sentence {place + 1} of {group.row}"
        st.checkbox(f"Use {number}", used, key=keys["use"], on_change=changed, label_visibility="collapsed")
        st.text_input(
            number.capitalize(),
            text,
            key=keys["text"],
            on_change=changed,
            label_visibility="collapsed",
            width="stretch",
        )
        bar = prompt_figures.sentence_bar(float(group.cosines[place]), group.color, used, span)
        st.html(bar, width=130)
    notes = []
    if strange := new_words(text, known):
        notes.append("new to this model: " + ", ".join(strange))
    if not zero_shot.model.reads_whole(text):
        notes.append("too long: its end is not read")
    if notes:
        st.markdown(f":orange[:small[{' · '.join(notes)}]]")


def _add_sentence(group: Group, wording: Wording, folder: Path) -> None:
    key = f"add_{prompt_state.generation()}_{group.row}"
    is_on = bool(group.used.any())
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            f"Another sentence for {group.row}",
            key=key,
            placeholder="a face with …",
            on_change=lambda: prompt_state.add(folder, group.row, st.session_state[key]),
            width="stretch",
        )
        label = f"Switch {group.row} off" if is_on else f"Switch {group.row} on"
        st.button(label, on_click=prompt_state.switch_all, args=(folder, group.row, not is_on))
        if group.row not in prompt_state.own(folder).rows and group.row in wording.base.classes:
            st.button(f"Remove {group.row}", on_click=prompt_state.remove_class, args=(folder, group.row))


def _new_class(folder: Path) -> None:
    key = f"new_class_{prompt_state.generation()}"

    def added() -> None:
        name = prompt_state.add_class(folder, st.session_state[key])
        if name is not None:
            st.session_state["prompt_row"] = name

    st.text_input("Name of the class, as a noun", key=key, placeholder="contempt", max_chars=40)
    st.button("Add", on_click=added, key="add_class")
    st.caption("Its first sentences are made from the name. Then change them as you like.")


def _files(wording: Wording, folder: Path) -> None:
    st.divider()
    save, load, back = st.columns([3, 5, 3], gap="large", vertical_alignment="bottom")
    with save:
        st.download_button(
            "Save the sentences", to_yaml(wording.prompt_set()), FILE_NAME, "application/yaml", on_click="ignore",
            icon=":material/download:",
            help="A YAML file in the format of the prompt sets: load it here, or train with it.",
        )  # fmt: skip
    with load:
        _load(folder)
    with back:
        st.button(
            "Back to the model's own", on_click=prompt_state.reset, args=(folder,),
            disabled=prompt_state.is_own(folder), icon=":material/undo:",
        )  # fmt: skip


def _load(folder: Path) -> None:
    key = f"prompt_file_{state.visit()}"

    def brought() -> None:
        upload = st.session_state[key]
        if upload is not None:
            data = upload.getvalue() if upload.size <= MAX_FILE_BYTES else b" " * (MAX_FILE_BYTES + 1)
            prompt_state.load(folder, data, upload.name)

    st.file_uploader("Load a saved set", type=["yaml", "yml"], key=key, max_upload_size=1, on_change=brought)

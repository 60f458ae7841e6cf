"""The sentences of a visit: which words each model is asked in, kept from page to page, and the visitor's changes."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from affectvlm.ui import engine
from affectvlm.wording import Sentence, Wording, from_yaml
from affectvlm.zero_shot import TextFeatures


def current(folder: Path) -> Wording:
    """The sentences for the model in `folder`: its own until the visitor changes them."""
    kept = st.session_state.setdefault("wordings", {})
    key = engine.stamp(folder)
    if key not in kept:
        kept[key] = own(folder)
    return kept[key]


def own(folder: Path) -> Wording:
    """The sentences that the checkpoint brings."""
    kept = st.session_state.setdefault("own_wordings", {})
    key = engine.stamp(folder)
    if key not in kept:
        kept[key] = Wording.of(engine.zero_shot(folder).card.prompts)
    return kept[key]


def is_own(folder: Path) -> bool:
    """Whether the model is asked in its own words."""
    return current(folder).rows == own(folder).rows


def texts(folder: Path) -> TextFeatures:
    """The visit's memory of encoded sentences."""
    kept = st.session_state.setdefault("text_features", {})
    key = engine.stamp(folder)
    if key not in kept:
        kept[key] = engine.zero_shot(folder).text_features()
    return kept[key]


def generation() -> int:
    """Part of the key of every sentence's inputs: a new number shows what is kept, not what was typed."""
    return st.session_state.setdefault("wording_generation", 0)


def problem() -> str | None:
    """Why the last change was not taken."""
    return st.session_state.get("wording_problem")


def change(folder: Path, make, anew: bool = True) -> None:
    """Takes over `make(current wording)`, or says why not; `anew` shows all inputs afresh."""
    st.session_state["wording_problem"] = None
    try:
        wording = make(current(folder))
        wording.prompt_set()  # one class at least stays in use
    except ValueError as error:
        st.session_state["wording_problem"] = _sentence(str(error))
        anew = True
    else:
        st.session_state["wordings"][engine.stamp(folder)] = wording
    if anew:
        st.session_state["wording_generation"] = generation() + 1


def _sentence(said: str) -> str:
    """With a capital and a full stop, unless a file's name comes first."""
    is_file = "." in said.split(" ")[0]
    return (said if is_file else said[:1].upper() + said[1:]) + "."


def edit(folder: Path, row: str, place: int, text: str, used: bool) -> None:
    """One sentence typed over, or switched; an empty one goes."""

    def make(wording: Wording) -> Wording:
        sentences = list(wording.rows[row])
        sentences[place] = Sentence(text, used)
        return wording.with_sentences(row, sentences)

    before = len(current(folder).rows[row])
    change(folder, make, anew=False)
    if len(current(folder).rows[row]) != before:
        st.session_state["wording_generation"] = generation() + 1


def add(folder: Path, row: str, text: str) -> None:
    if text.strip():
        change(folder, lambda wording: wording.with_sentences(row, [*wording.rows[row], Sentence(text)]))


def switch_all(folder: Path, row: str, used: bool) -> None:
    change(
        folder,
        lambda wording: wording.with_sentences(row, [Sentence(each.text, used) for each in wording.rows[row]]),
    )


def add_class(folder: Path, name: str) -> str | None:
    """The name under which the class was taken, or None."""
    before = set(current(folder).rows)
    change(folder, lambda wording: wording.with_class(name))
    return next((row for row in current(folder).rows if row not in before), None)


def remove_class(folder: Path, name: str) -> None:
    change(folder, lambda wording: wording.without_class(name))


def load(folder: Path, data: bytes, name: str) -> None:
    change(folder, lambda _: Wording.of(from_yaml(data, name)))


def reset(folder: Path) -> None:
    change(folder, lambda _: own(folder))

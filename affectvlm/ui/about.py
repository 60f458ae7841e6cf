"""The page about: what the answer is and is not, the card of the model in plain words, privacy, licences, version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

import affectvlm
from affectvlm.ui import card_words, engine, figures, words

LICENCES = (
    "**This software** is under the MIT licence, and so is the model it comes with. A model of your own has the "
    "licence that its card names.",
    "**The faces** that the shipped model was trained on were made by ICT-FaceKit (MIT licence, USC Institute for "
    "Creative Technologies), by MakeHuman (assets in the public domain, CC0) and by our own formulas. No photo and no "
    "scan of a real person is in it. The template that finds the pose of a head comes from the mean face of "
    "ICT-FaceKit.",
    "**The parts it is built of** are free software under the MIT, BSD, Apache and similar licences, among them "
    "PyTorch, OpenCLIP, Streamlit, Plotly, VTK and PyVista. The optional viewer stpyvista is under the GPL, version 3, "
    "and the app runs without it.",
)
_QUIET = {"displayModeBar": False}


def show_use(folder: Path | None) -> None:
    """What the answer is, and what it is not; `folder` is that of the model."""
    try:
        card = {} if folder is None else engine.read_card(folder)
    except (OSError, ValueError):
        card = {}  # said where the model is shown
    yes, no = st.columns(2, gap="large")
    with yes:
        st.subheader("What the answer is", anchor=False)
        _points(card_words.what_it_is(card))
    with no:
        st.subheader("What it is not", anchor=False)
        _points(card_words.IS_NOT)


def show_model(folder: Path) -> None:
    """The card of the model in `folder`, or that it cannot be read."""
    try:
        card = engine.read_card(folder)
    except (OSError, ValueError):
        st.error("The card of this model cannot be read.", icon=":material/error:")
        return
    st.subheader(f"The model that answers: {card.get('name') or folder.name}", anchor=False)
    good = card_words.headline(card)
    if good:
        st.markdown(good)
    left, right = st.columns(2, gap="large")
    with left:
        for title, line in card_words.facts(card).items():
            st.markdown(f"**{title}**  \n{line}")
    tests = card_words.scores(card)
    with right:
        _scores(tests)
    if tests:
        _every_test(tests)
    for title, key in (("Made for", "intended_use"), ("Its limits", "limits")):
        if card.get(key):
            st.markdown(f"**{title}.** {card[key]}")
    _whole_card(card)


def _scores(tests: list[card_words.Scores]) -> None:
    """The first of the tests in pictures."""
    if not tests:
        st.caption("The card brings no figures of how good this model is.")
        return
    first = tests[0]
    if first.by_class:
        st.markdown(f"**Right in each class** · {first.title}")
        figure = figures.probability_bars(first.by_class)
        st.plotly_chart(figure, key="class_scores", config=_QUIET, alt="share that is right in each class")
    if first.by_strength:
        strong = " · ".join(f"{name} {words.percent(share)}" for name, share in first.by_strength.items())
        st.markdown(words.unbroken(f"**By how strong the expression is**  \n{strong}"))


def _every_test(tests: list[card_words.Scores]) -> None:
    """A table as wide as the page: beside the pictures its last columns would be hidden."""
    st.markdown("**Every test in its card**")
    st.dataframe(_table(tests), hide_index=True, width="stretch")
    st.caption(
        "Right: share of test faces named right. Balanced: the mean of that over the classes. Miscalibration: how far "
        "its certainty is from the truth (expected calibration error). Fooled: neutral faces that got a confident "
        "emotion. All test faces are of the same families as those it was trained on, of people it never met: on "
        "others, real ones above all, expect less."
    )


def _table(tests: list[card_words.Scores]) -> list[dict[str, Any]]:
    def said(share: float | None) -> str:
        return "–" if share is None else words.percent(share)

    return [
        {
            "Test faces": test.title,
            "Number": test.count,
            "Right": said(test.accuracy),
            "Balanced": said(test.balanced),
            "Miscalibration": "–" if test.calibration is None else f"{test.calibration:.3f}",
            "Fooled": said(test.neutral_fooled),
        }
        for test in tests
    ]


def _whole_card(card: Mapping[str, Any]) -> None:
    with st.expander("The whole card"):
        st.caption("All that is stored with the weights: settings of its training, sentences, figures.")
        text = json.dumps(card, indent=2, ensure_ascii=False)
        st.download_button("Download it", text, "card.json", "application/json", on_click="ignore")
        st.json(card, expanded=1)


def show_house_rules() -> None:
    """Privacy, licences and version."""
    private, free = st.columns(2, gap="large")
    with private:
        st.subheader("Privacy", anchor=False)
        st.markdown(
            f"{words.PRIVACY} Nothing that you bring is written to the disk, and nothing leaves this computer: the app "
            "asks nothing of the network and fetches nothing from it. Faces are biometric data; treat them so."
        )
        st.subheader("Version", anchor=False)
        st.markdown(f"AffectVLM {affectvlm.__version__}")
    with free:
        st.subheader("Licences", anchor=False)
        _points(LICENCES)


def _points(lines: tuple[str, ...]) -> None:
    st.markdown("\n".join(f"- {line}" for line in lines))

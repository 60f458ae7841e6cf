"""The page of the explorer: a face to be turned by its muscles, what the model says of it, and what it listens to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import streamlit as st

from affectvlm.emotions import ADJECTIVES, EKMAN, class_colors
from affectvlm.steering import STEP, Step, best_step, effects, look_around
from affectvlm.synthesis.action_units import REGIONS, UNITS
from affectvlm.synthesis.recipe import FaceRecipe
from affectvlm.ui import engine, explorer_state, figures, prompt_figures, prompt_lab, prompt_state, words
from affectvlm.zero_shot import FaceFeatures

FRONT_SIZE, SIDE_SIZE = 448, 224  # pixels
QUALITY = 90  # of the JPEGs; 45 kB for all three
SHOWN_HALF_WIDTH, LOWERED = 104.0, 14.0  # mm: more of the head, for people, than the model looks at
SHOWN_EFFECTS = 10
REGION_TITLES = {"brows": "Brows", "eyes": "Eyes", "nose": "Nose and cheeks", "mouth": "Mouth"}
_QUIET = {"displayModeBar": False}


@dataclass(frozen=True, eq=False)
class Seen:
    """A made face, drawn: views for people as data addresses (front large, left, right); its features under a model."""

    pictures: tuple[str, ...]
    features: FaceFeatures | None


@st.fragment
def show(folder: Path | None) -> None:
    """Everything below the page's title; it runs by itself when a slider moves."""
    here = explorer_state.now()
    with st.container(key="explorer_main"):
        controls, picture = st.columns([4, 6], gap="large")
    with controls:
        _poses(here)
        _muscles(here.recipe)
        _person(here.recipe)
    with picture:
        seen = look_at(here.recipe, folder)
        _views(seen)
        _use()
        if folder is not None:
            _said(seen, folder)
    if folder is not None:
        _steer(here.recipe, folder)


def look_at(recipe: FaceRecipe, folder: Path | None) -> Seen:
    """The face drawn for people and looked at by the model in `folder`."""
    return _look(f"{recipe.key}@{engine.stamp(folder) if folder else None}", recipe, folder)


@st.cache_resource(max_entries=6, show_spinner=False, scope="session")
def _look(key: str, _recipe: FaceRecipe, _folder: Path | None) -> Seen:
    return draw(_recipe, _folder)


engine.SESSION_CACHES.append(_look)


def draw(recipe: FaceRecipe, folder: Path | None) -> Seen:
    """As `look_at`, every time anew."""
    from affectvlm import rendering
    from affectvlm.predictor import VIEW_SIZE

    scan = recipe.scan(engine.face_model())
    lowered = replace(scan, vertices=scan.vertices - np.array([0, LOWERED, 0], np.float32))
    front = rendering.render_views(lowered, "textured", FRONT_SIZE, rendering.DEFAULT_YAWS[:1], SHOWN_HALF_WIDTH)[0]
    sides = rendering.render_views(lowered, "textured", SIDE_SIZE, rendering.DEFAULT_YAWS[1:], SHOWN_HALF_WIDTH)
    pictures = tuple(map(_data, (front, *sides)))
    if folder is None:
        return Seen(pictures, None)
    zero_shot = engine.zero_shot(folder)
    card = zero_shot.card
    inputs = rendering.render_views(scan, card.image_kind, VIEW_SIZE, card.yaws, card.half_width)
    return Seen(pictures, zero_shot.features(inputs))


def _data(picture: np.ndarray) -> str:
    """(H, W, 3) uint8 → a JPEG in a "data:" address."""
    import base64
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _poses(here: explorer_state.Exploring) -> None:
    st.session_state["explorer_pose"] = here.pose
    st.session_state["explorer_strength"] = here.strength

    def posed() -> None:
        explorer_state.pose(st.session_state["explorer_pose"], st.session_state["explorer_strength"])

    st.pills(
        "Pose an emotion",
        (explorer_state.NEUTRAL, *EKMAN),
        format_func=str.capitalize,
        key="explorer_pose",
        on_change=posed,
    )
    st.slider(
        "How strongly", 0.0, 1.0, step=0.05, key="explorer_strength", on_change=posed,
        disabled=here.pose in (None, explorer_state.NEUTRAL),
        help="Of the pose above. Once you move a single muscle, the face is your own.",
    )  # fmt: skip


def _muscles(recipe: FaceRecipe) -> None:
    """A slider for every action unit, region by region."""
    st.markdown("**Move single muscles** (action units of FACS)")
    for tab, region in zip(
        st.tabs([_tab(recipe, region) for region in REGIONS], key="explorer_tabs"), REGIONS, strict=True
    ):
        with tab:
            for unit in (unit for unit in UNITS.values() if unit.region == region):
                key = f"unit_{unit.code}"
                st.session_state[key] = recipe.units.get(unit.code, 0.0)
                st.slider(
                    f"{unit.code} {unit.name}", 0.0, 1.0, step=0.05, key=key, help=unit.does.capitalize() + ".",
                    on_change=lambda unit=unit.code, key=key: explorer_state.move(unit, st.session_state[key]),
                )  # fmt: skip


def _tab(recipe: FaceRecipe, region: str) -> str:
    return REGION_TITLES[region]


def _person(recipe: FaceRecipe) -> None:
    person = recipe.person()
    shown = {"sex": person.sex, "age": round(person.age), "build": round(float(np.clip(person.build, -2, 2)), 1)}
    for trait, value in shown.items():
        st.session_state[f"explorer_{trait}"] = value

    def changed(trait: str) -> None:
        explorer_state.person(**{trait: st.session_state[f"explorer_{trait}"]})

    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown("**The person**", width="content")
        st.button(
            "Another person", icon=":material/person:", on_click=lambda: explorer_state.person(seed=recipe.seed + 1)
        )
    st.segmented_control(
        "Sex",
        ("female", "male"),
        format_func=str.capitalize,
        required=True,
        key="explorer_sex",
        on_change=changed,
        args=("sex",),
    )
    age, build = st.columns(2)
    age.slider("Age", 16, 85, key="explorer_age", on_change=changed, args=("age",))
    build.slider(
        "Build", -2.0, 2.0, step=0.1, key="explorer_build", on_change=changed, args=("build",),
        help="From slim (below 0) to heavy (above 0).",
    )  # fmt: skip
    with st.container(horizontal=True):
        st.button("Relax the face", on_click=explorer_state.relax, type="tertiary", icon=":material/bedtime:")
        st.button("Reset", on_click=explorer_state.reset, type="tertiary", icon=":material/undo:")


def _views(seen: Seen) -> None:
    # in the page itself: a picture fetched by its address is gone from the server when the next slider has moved
    alts = ("the made face from the front", "its left cheek", "its right cheek")
    pictures = "".join(f'<img alt="{alt}" src="{src}">' for alt, src in zip(alts, seen.pictures, strict=True))
    st.html(f'<div class="made-face">{pictures}</div>')


def _use() -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Use this face", type="primary", icon=":material/check:"):
            explorer_state.use()
            st.session_state["explorer_used"] = explorer_state.now().recipe.key
            st.rerun()
        if st.session_state.get("explorer_used") == explorer_state.now().recipe.key:
            st.caption("It is the current face on all pages now.")
        else:
            st.caption("Makes it the current face, which the other pages then show.")


def _said(seen: Seen, folder: Path) -> None:
    wording = prompt_state.current(folder)
    zero_shot = engine.zero_shot(folder)
    answer = zero_shot.answer(seen.features, wording.prompt_set(), prompt_state.texts(folder))
    groups = prompt_lab.groups(seen.features, wording, folder)
    paint = {group.row: group.color for group in groups}
    st.subheader(prompt_lab.headline(answer, zero_shot.card.classes), anchor=False)
    st.markdown(words.plain(words.confidence(answer)))
    shares, fits = st.columns(2, gap="large")
    with shares:
        st.markdown("**Probability**")
        figure = figures.probability_bars(answer.probabilities, paint)
        st.plotly_chart(figure, key="explorer_probabilities", config=_QUIET, alt="probability of each class")
    with fits:
        st.markdown("**Fit to the sentences** (cosine)")
        figure = prompt_figures.class_bars(groups, figure.layout.height)
        st.plotly_chart(figure, key="explorer_fits", config=_QUIET, alt="similarity to each class's sentences")
    if not prompt_state.is_own(folder):
        st.caption("The model is asked in your sentences from the page “Prompts”.")


def _steer(recipe: FaceRecipe, folder: Path) -> None:
    """What the model listens to on the way to an emotion, and the best small step there."""
    st.divider()
    st.subheader("What does the model listen to?", anchor=False)
    prompts = prompt_state.current(folder).prompt_set()
    if st.session_state.get("explorer_target") not in (None, *prompts.classes):
        st.session_state["explorer_target"] = None
    target = st.pills(
        "Make it look more …",
        prompts.classes,
        format_func=lambda name: ADJECTIVES.get(name, name),
        key="explorer_target",
        persist_state="session",
    )
    if target is None:
        st.caption(
            "Choose a class. Every action unit is then moved a little, up and down, and the model looks at each of "
            "the faces: what makes the class more likely to it, and what less."
        )
        return
    changes = _effects(recipe, target, folder)
    paint = class_colors(prompts.classes, prompts.rejection)
    best = best_step(changes)
    bars, said = st.columns([6, 4], gap="large")
    with bars:
        figure = prompt_figures.effect_bars(_rows(changes), paint[target])
        st.plotly_chart(figure, key="explorer_effects", config=_QUIET, alt=f"what each action unit does to {target}")
    with said:
        _best(best, changes, recipe, target)


def _effects(recipe: FaceRecipe, target: str, folder: Path) -> dict[Step, float]:
    zero_shot, prompts = engine.zero_shot(folder), prompt_state.current(folder).prompt_set()
    key = f"{recipe.key}@{engine.stamp(folder)}"
    around = explorer_state.kept(key)
    if around is None:
        place = st.empty()

        def on_progress(share: float) -> None:
            place.progress(share, "Trying every muscle …")

        on_progress(0.0)
        around = look_around(recipe, engine.face_model(), zero_shot, STEP, on_progress)
        explorer_state.keep(key, around)
        place.empty()
    bank = zero_shot.bank(prompts, prompt_state.texts(folder))
    logs = zero_shot.log_probabilities(around.features, bank, len(prompts.classes))
    return effects(around, logs, prompts.classes.index(target))


def _rows(changes: dict[Step, float]) -> list[tuple[str, float | None, float | None]]:
    """The action units that matter most, the most helpful first: name, effect of more, effect of less."""
    table: dict[str, dict[bool, float]] = {}
    for step, change in changes.items():
        table.setdefault(step.unit, {})[step.more] = change
    strongest = sorted(table, key=lambda unit: -max(map(abs, table[unit].values())))[:SHOWN_EFFECTS]
    ordered = sorted(strongest, key=lambda unit: -max(table[unit].values()))
    return [(f"{unit} {UNITS[unit].name}", table[unit].get(True), table[unit].get(False)) for unit in ordered]


def _best(best: Step | None, changes: dict[Step, float], recipe: FaceRecipe, target: str) -> None:
    looks, target = words.plain(words.more(target)), words.plain(target)
    if best is None:
        st.markdown(f"No single small step makes it look more {looks} to the model. This is as far as small steps go.")
    else:
        unit, before = UNITS[best.unit], recipe.units.get(best.unit, 0.0)
        st.markdown(
            f"The best small step: **{'more' if best.more else 'less'} {best.unit} {unit.name}**, from {before:.2f} to "
            f"{best.value:.2f}. It {unit.does}, and makes “{target}” {_times(changes[best])} to the model."
        )
        st.button(
            f"Make it look more {looks}", type="primary", icon=":material/arrow_forward:",
            on_click=explorer_state.move, args=(best.unit, best.value),
        )  # fmt: skip
    st.caption(
        f"Each bar: the change of the log-probability of “{target}” when that unit alone moves by {STEP}. +0.7 doubles "
        f"the probability, −0.7 halves it. The {SHOWN_EFFECTS} units that matter most here are shown. This is what the "
        "model listens to, not what makes people look that way."
    )


def _times(change: float) -> str:
    factor = float(np.exp(change))
    return f"{factor:.1f} times as likely" if factor >= 1.1 else f"{100 * (factor - 1):.1g} % more likely"

"""Augmented textual prompts: templates x phrases of an emotion x what a record says of its subject.

The words are data: `prompt_sets/ekman.yaml` explains its own format, and a user's copy of it loads the same way. A
checkpoint stores the whole set as a plain dict, so that a trained model is always asked in the words it was trained on.

Three rules hold for every prompt:

* it says nothing of the subject that the record does not say (no metadata: "a person", no attributes);
* it never contradicts the record (a child is not "a woman", a slight expression is not "furious");
* every prompt of less metadata remains a prompt of more, as long as it does not contradict it: the number grows.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import yaml

KINDS = ("adjective", "noun", "action", "muscles", "thing")
"""The kinds of phrase a template can ask for."""

ATTRIBUTES = ("sex", "age_group", "ethnicity", "intensity")
"""The metadata that prompts understand."""

_BUNDLED = Path(__file__).parent / "prompt_sets"
_MAX_ENTRIES = 200  # of any list: prompts multiply, and a set may come from a stranger's checkpoint
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])(?!eu|uni[cfqtv]|one\b|use)", re.ASCII)


@dataclass(frozen=True)
class PromptSet:
    """The words of a model: its classes and rejection rows, and every way to say them.

    Attributes:
        name: of the set.
        classes: the K emotions, in the order of every probability vector.
        rejection: the R rows that are not an emotion ("neutral", "no face"); they follow the classes in the bank.
        phrases: row -> kind -> phrases; a row has at least one phrase that some template can hold.
        intense: row -> kind -> phrases of strong feeling, not said where a weaker expression is recorded.
        templates: each with exactly one slot of KINDS, and `{subject}` or not.
        held_out_templates: the same, never drawn in training: they measure robustness to wording.
        people: "any", "female", "male" -> nouns for a grown subject, or one of unknown age.
        age_group: name -> {"adjectives": words before the noun, "people": nouns instead of the general ones}.
        ethnicity: name -> words before the noun.
        intensity: name -> kind -> pattern with `{}` for the phrase; weakest first.
        bank_size: prompts a row in the text bank, at most; `bank_prompts` takes equally many for every row.
        bank: row -> the very sentences of its entry in the text bank, where they are chosen by hand.

    Raises:
        ValueError: contradictory content (a class twice, an unknown slot, a row that no template can say, ...).
    """

    name: str
    classes: tuple[str, ...]
    rejection: tuple[str, ...]
    phrases: Mapping[str, Mapping[str, tuple[str, ...]]]
    templates: tuple[str, ...]
    people: Mapping[str, tuple[str, ...]]
    held_out_templates: tuple[str, ...] = ()
    intense: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    age_group: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ethnicity: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    intensity: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    bank_size: int = 18
    bank: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, _frozen(value))
        _check_rows(self)
        _check_templates(self)
        _check_subjects(self)
        if type(self.bank_size) is not int or not 1 <= self.bank_size <= 1000:
            raise ValueError(f"bank_size is {self.bank_size!r}; a whole number from 1 to 1000 is needed")
        for row in self.rows:
            if not any(self._words(row, _slot(template), None) for template in self.templates):
                raise ValueError(f"no template can say {row!r}: its phrases are {sorted(self.phrases[row])}")

    @classmethod
    def load(cls, path: str | Path = "ekman") -> PromptSet:
        """The set in a YAML file, or one that comes with the package: "ekman" (the six emotions), "bp4d" (the eight
        tasks of BP4D), "4dme" (the five classes of 4DME).

        Raises:
            ValueError: no such file, not YAML, or not a prompt set; the message says what is wrong.
        """
        bundled = _BUNDLED / f"{path}.yaml"
        path = bundled if Path(path).name == str(path) and bundled.is_file() else Path(path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(f"{path.name} cannot be read as a YAML prompt set: {error}") from error
        return cls.from_dict(_on_base(content))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> PromptSet:
        """The set from plain data: the layout of the YAML file, and what `to_dict` gives.

        Raises:
            ValueError: unknown or missing keys, wrong types, or contradictory content.
        """
        content = _mapping(content, "a prompt set")
        fields = {"name", "classes", "rejection", "templates", "held_out_templates", "people", "age_group"}
        fields |= {"ethnicity", "intensity", "bank_size", "bank"}
        missing, unknown = {"classes", "templates", "people"} - set(content), set(content) - fields
        if missing or unknown:
            raise ValueError(f"a prompt set needs {sorted(missing)} and does not know {sorted(map(str, unknown))}")
        rows = {key: _mapping(content.get(key) or {}, key) for key in ("classes", "rejection")}
        phrases = {**rows["classes"], **rows["rejection"]}
        if len(phrases) < len(rows["classes"]) + len(rows["rejection"]):
            raise ValueError("a name stands both among the classes and among the rejection rows")
        phrases = {row: dict(_mapping(kinds, row)) for row, kinds in phrases.items()}
        intense = {row: _mapping(kinds.pop("intense", None) or {}, row) for row, kinds in phrases.items()}
        return cls(
            name=content.get("name", ""),
            classes=tuple(rows["classes"]),
            rejection=tuple(rows["rejection"]),
            phrases=phrases,
            intense={row: kinds for row, kinds in intense.items() if kinds},
            **{key: content[key] for key in fields - {"name", "classes", "rejection"} if content.get(key) is not None},
        )

    def plain(self) -> PromptSet:
        """One sentence a row and nothing said of the subject: what training without augmented prompts is compared
        with."""
        kinds = {row: next(k for k in KINDS if self._words(row, k, None)) for row in self.rows}
        templates = {kind: next(t for t in self.templates if _slot(t) == kind) for kind in sorted(set(kinds.values()))}
        phrases = {row: {kind: self._words(row, kind, None)[:1]} for row, kind in kinds.items()}
        held_out = tuple(t for t in self.held_out_templates if _slot(t) in templates)
        return replace(
            self, name=f"{self.name}-plain", phrases=phrases, intense={}, templates=tuple(templates.values()),
            held_out_templates=held_out, bank_size=1, bank={},
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers, ready for JSON or YAML; `from_dict` gives an equal set back."""

        def row(name: str) -> dict[str, Any]:
            words = _plain(self.phrases[name])
            return {**words, "intense": _plain(self.intense[name])} if name in self.intense else words

        plain = {key: _plain(value) for key, value in vars(self).items() if key not in ("phrases", "intense")}
        plain["classes"] = {name: row(name) for name in self.classes}
        plain["rejection"] = {name: row(name) for name in self.rejection}
        if not self.bank:
            del plain["bank"]  # the usual set has no such entry
        return plain

    def __reduce__(self) -> tuple[Any, ...]:
        # read-only mappings do not pickle by themselves; loader processes need it
        return PromptSet.from_dict, (self.to_dict(),)

    @property
    def rows(self) -> tuple[str, ...]:
        """Classes, then rejection rows: the order of the text bank."""
        return self.classes + self.rejection

    def prompts(self, row: str, metadata: Mapping[str, Any] | None = None, held_out: bool = False) -> tuple[str, ...]:
        """Every prompt of a class or rejection row, without repeats, in a fixed order.

        Args:
            row: a name of `rows`.
            metadata: any of "sex", "age_group", "ethnicity" (names of this set) and "intensity" (a name of this set, or
                a fraction from 0 to 1); None or a missing key = unknown.
            held_out: the held-out templates instead of the training ones.

        Raises:
            ValueError: an unknown row, attribute or value.
        """
        templates = self.held_out_templates if held_out else self.templates
        return tuple(dict.fromkeys(prompt for group in self._grouped(row, metadata, templates) for prompt in group))

    def draw(self, row: str, metadata: Mapping[str, Any] | None, rng: np.random.Generator) -> str:
        """One training prompt at random: a template first, then its phrase, then how much is said of the subject.

        Raises:
            ValueError: as `prompts`.
        """
        record = self._record(row, metadata)
        kinds = {kind: words for kind in KINDS if (words := self._words(row, kind, record["intensity"]))}
        template = _pick([t for t in self.templates if _slot(t) in kinds], rng)
        phrase = _pick(kinds[_slot(template)], rng)
        return _fill(template, phrase, _pick(self._subjects(record), rng))

    def bank_prompts(self, row: str) -> tuple[str, ...]:
        """The prompts of a row of the text bank: those of `bank`, else without metadata, equally many for each of those
        rows, every template in turn.

        Raises:
            ValueError: an unknown row.
        """
        if row in self.bank:
            return self.bank[row]
        count = min([self.bank_size, *(len(self.prompts(name)) for name in self.rows if name not in self.bank)])
        groups = self._grouped(row, None, self.templates)
        chosen: dict[str, None] = {}
        for step in range(count):
            # one template after the other, each time with the next phrase: few prompts hold many words
            group = groups[step % len(groups)]
            chosen[group[step % len(group)]] = None
        chosen.update(dict.fromkeys(self.prompts(row)))
        return tuple(chosen)[:count]

    def _grouped(
        self, row: str, metadata: Mapping[str, Any] | None, templates: tuple[str, ...]
    ) -> list[tuple[str, ...]]:
        """The prompts of each template that can say the row; templates without a prompt are left out."""
        record = self._record(row, metadata)
        subjects = self._subjects(record)
        groups = []
        for template in templates:
            words = self._words(row, _slot(template), record["intensity"])
            group = dict.fromkeys(_fill(template, word, subject) for word in words for subject in subjects)
            if group:
                groups.append(tuple(group))
        return groups

    def _record(self, row: str, metadata: Mapping[str, Any] | None) -> dict[str, str | None]:
        """The metadata checked, all four attributes present, the intensity as a name."""
        if row not in self.phrases:
            raise ValueError(f"no class or rejection row {row!r}; there are {', '.join(self.rows)}")
        record = {key: value for key, value in (metadata or {}).items() if value is not None}
        if unknown := set(record) - set(ATTRIBUTES):
            raise ValueError(f"unknown metadata {sorted(map(str, unknown))}; {', '.join(ATTRIBUTES)} are known")
        if "intensity" in record:
            record["intensity"] = self._intensity_name(record["intensity"])
        accepted = {"sex": [key for key in self.people if key != "any"]}
        for key, value in record.items():
            names = accepted.get(key) or list(getattr(self, key))
            if value not in names:
                raise ValueError(f"{key} is {value!r}; one of {', '.join(names) or 'none'} is needed")
        if row in self.rejection:
            record.pop("intensity", None)
        return {key: record.get(key) for key in ATTRIBUTES}

    def _intensity_name(self, value: Any) -> Any:
        # a whole number could be a level (1 to 4) or a fraction (0 or 1): not guessed
        if isinstance(value, Integral) or (isinstance(value, Real) and not 0 <= value <= 1):
            names = ", ".join(self.intensity)
            raise ValueError(f"intensity is {value!r}; one of {names} or a float from 0.0 to 1.0 is needed")
        if isinstance(value, Real) and self.intensity:
            names = list(self.intensity)
            return names[min(int(value * len(names)), len(names) - 1)]
        return value

    def _words(self, row: str, kind: str, intensity: str | None) -> tuple[str, ...]:
        """The phrases of a kind that fit the intensity: as they are, and with its degree said."""
        words = self.phrases[row].get(kind, ())
        intense = self.intense.get(row, {}).get(kind, ())
        if intensity is None:
            return words + intense
        pattern = self.intensity[intensity].get(kind)
        degrees = tuple(pattern.replace("{}", word) for word in words) if pattern else ()
        names = list(self.intensity)
        is_upper_half = 2 * names.index(intensity) >= len(names)
        return words + degrees + (intense if is_upper_half else ())

    def _subjects(self, record: Mapping[str, str | None]) -> tuple[str, ...]:
        """Every way to say the subject, from nothing but a noun to all that is known."""
        age = self.age_group.get(record["age_group"], {}) if record["age_group"] else {}
        people = age.get("people", self.people)
        nouns = people["any"] + (people.get(record["sex"], ()) if record["sex"] else ())
        ages = ("", *age.get("adjectives", ()))
        ethnicities = ("", *(self.ethnicity[record["ethnicity"]] if record["ethnicity"] else ()))
        return tuple(
            " ".join(filter(None, ("a", age_word, ethnic_word, noun)))
            for age_word in ages
            for ethnic_word in ethnicities
            for noun in nouns
        )


def _slot(template: str) -> str:
    """The kind of phrase a checked template asks for."""
    return next(name for name in _slots(template) if name != "subject")


def _slots(template: str) -> Iterator[str]:
    for _, name, spec, conversion in string.Formatter().parse(template):
        if spec or conversion:
            raise ValueError("a slot is a plain name in braces")
        if name is not None:
            yield name


def _fill(template: str, phrase: str, subject: str) -> str:
    text = template.replace("{subject}", subject).replace("{" + _slot(template) + "}", phrase)
    return _ARTICLE.sub(r"\1n ", text)


def _pick(items: Any, rng: np.random.Generator) -> Any:
    return items[int(rng.integers(len(items)))]


def _check_rows(prompts: PromptSet) -> None:
    if not isinstance(prompts.name, str):
        raise ValueError(f"the name of a prompt set is {prompts.name!r}; a string is needed")
    _strings(prompts.classes, "classes")
    _strings(prompts.rejection, "rejection rows", empty=True)
    if not prompts.classes or len(set(prompts.rows)) != len(prompts.rows):
        raise ValueError(f"classes {prompts.classes}, rejection {prompts.rejection}; a class at least, no name twice")
    for table in (prompts.phrases, prompts.intense):
        _mapping(table, "the table of phrases")
    if set(prompts.phrases) != set(prompts.rows) or not set(prompts.intense) <= set(prompts.rows):
        raise ValueError(f"phrases for {sorted(prompts.phrases)}; exactly {sorted(prompts.rows)} are needed")
    for table in (prompts.phrases, prompts.intense):
        for row, kinds in table.items():
            for kind, words in _mapping(kinds, row).items():
                if kind not in KINDS:
                    raise ValueError(f"{row!r} has phrases of kind {kind!r}; {', '.join(KINDS)} or intense are known")
                _strings(words, f"{kind} phrases of {row!r}")
    for row, sentences in _mapping(prompts.bank, "bank").items():
        if row not in prompts.phrases:
            raise ValueError(f"bank has sentences of {row!r}; there are {', '.join(prompts.rows)}")
        _strings(sentences, f"sentences of {row!r} in the bank")


def _check_templates(prompts: PromptSet) -> None:
    _strings(prompts.templates, "templates")
    _strings(prompts.held_out_templates, "held-out templates", empty=True)
    if both := set(prompts.templates) & set(prompts.held_out_templates):
        raise ValueError(f"templates both for training and held out: {sorted(both)}")
    for template in prompts.templates + prompts.held_out_templates:
        try:
            slots = list(_slots(template))
        except ValueError as error:
            raise ValueError(f"template {template!r}: {error}") from error
        others = [slot for slot in slots if slot != "subject"]
        if len(others) != 1 or others[0] not in KINDS:
            raise ValueError(f"template {template!r} has slots {slots}; exactly one of {', '.join(KINDS)} is needed")


def _check_subjects(prompts: PromptSet) -> None:
    _check_people(prompts.people, "people")
    for name, age in _mapping(prompts.age_group, "age_group").items():
        if unknown := set(_mapping(age, f"age group {name!r}")) - {"adjectives", "people"}:
            raise ValueError(f"age group {name!r} has {sorted(map(str, unknown))}; adjectives and people are known")
        _strings(age.get("adjectives", ()), f"adjectives of age group {name!r}", empty=True)
        if "people" in age:
            _check_people(age["people"], f"people of age group {name!r}")
    for name, words in _mapping(prompts.ethnicity, "ethnicity").items():
        _strings(words, f"words of ethnicity {name!r}")
    for name, patterns in _mapping(prompts.intensity, "intensity").items():
        for kind, pattern in _mapping(patterns, f"intensity {name!r}").items():
            if kind not in KINDS or not isinstance(pattern, str) or pattern.count("{}") != 1:
                raise ValueError(f"intensity {name!r}, {kind!r}: {pattern!r}; a pattern with one {{}} is needed")


def _check_people(people: Any, what: str) -> None:
    for sex, nouns in _mapping(people, what).items():
        _strings(nouns, f"{what}, {sex!r}")
    if "any" not in people:
        raise ValueError(f"{what} are {sorted(map(str, people))}; 'any' is needed")


def _on_base(content: Any) -> Any:
    """A set that names a bundled one as its `base` gives only what differs; a class without phrases is the base's."""
    if not isinstance(content, Mapping) or "base" not in content:
        return content
    file = _BUNDLED / f"{content['base']}.yaml"
    if Path(str(content["base"])).name != str(content["base"]) or not file.is_file():
        known = ", ".join(sorted(one.stem for one in _BUNDLED.glob("*.yaml")))
        raise ValueError(f"base is {content['base']!r}; one of {known} is needed")
    base = yaml.safe_load(file.read_text(encoding="utf-8"))
    merged = {**base, **{key: value for key, value in content.items() if key != "base"}}
    for section in ("classes", "rejection"):
        own = _mapping(merged[section], section)
        merged[section] = {name: base[section].get(name) if said is None else said for name, said in own.items()}
    return merged


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{what} is {type(value).__name__} {str(value)[:60]!r}; a mapping from names is needed")
    return value


def _strings(value: Any, what: str, empty: bool = False) -> None:
    if not isinstance(value, tuple) or not all(isinstance(item, str) and item.strip() for item in value):
        raise ValueError(f"{what}: {str(value)[:80]!r}; a list of non-empty strings is needed")
    if not value and not empty:
        raise ValueError(f"{what}: none; at least one is needed")
    if len(value) > _MAX_ENTRIES:
        raise ValueError(f"{what}: {len(value)}; at most {_MAX_ENTRIES} are accepted")


def _frozen(value: Any) -> Any:
    """Lists to tuples, mappings to read-only copies, all the way down."""
    if isinstance(value, Mapping):
        return MappingProxyType({key: _frozen(item) for key, item in value.items()})
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value

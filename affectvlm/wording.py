"""The words of a model, sentence by sentence: changed, added, switched off; which of them are new to it; YAML.

A `PromptSet` makes its sentences from templates and phrases. Here they are taken one by one, as a person edits them,
and become a `PromptSet` again whose `bank` holds the very sentences that were left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import yaml

from affectvlm.prompts import PromptSet

MAX_SENTENCES, MAX_LETTERS, MAX_ROWS = 200, 200, 40
"""Of a row, of a sentence, and of a whole set: what a page can show and a text tower encodes in good time."""

MAX_FILE_BYTES = 500_000
MAX_COMBINATIONS = 20_000  # templates x phrases of all rows x people of a loaded set: they multiply

# as CLIP's tokenizer cuts a text: contractions, runs of letters, single digits
_WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)\b|[^\W\d_]+|\d", re.IGNORECASE)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same, ten times as fast
_MAX_DEPTH = 10
_SLOT = re.compile(r"\{\w*\}")
_KINDS_OF_A_NAME = ("noun", "adjective", "action", "thing", "muscles")  # what the name of a new class most likely is

_HEADER = "# Prompts of AffectVLM, in the format that affectvlm/prompt_sets/ekman.yaml explains.\n"
_BANK_REMARK = "# `bank` holds the sentences of each row as they were chosen by hand.\n"


@dataclass(frozen=True)
class Sentence:
    """One prompt of a row; what is not `used` takes no part in an answer."""

    text: str
    used: bool = True


@dataclass(frozen=True)
class Wording:
    """A prompt set laid out for editing. Every change gives a new one.

    Attributes:
        base: templates, phrases and all else that is not edited here.
        rows: class or rejection row -> its sentences; in the order of the text bank.
        own: the rows as the first set brought them, to tell what was changed.
    """

    base: PromptSet
    rows: Mapping[str, tuple[Sentence, ...]]
    own: Mapping[str, tuple[Sentence, ...]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", MappingProxyType(dict(self.rows)))

    @property
    def is_changed(self) -> bool:
        return self.rows != self.own

    @classmethod
    def of(cls, prompts: PromptSet) -> Wording:
        """The sentences of the set's text bank, all of them in use."""
        rows = MappingProxyType({row: tuple(map(Sentence, prompts.bank_prompts(row))) for row in prompts.rows})
        return cls(prompts, rows, rows)

    def used(self, row: str) -> tuple[str, ...]:
        """The sentences of a row that take part; none = the row is switched off."""
        return tuple(sentence.text for sentence in self.rows[row] if sentence.used)

    def with_sentences(self, row: str, sentences: Iterable[Sentence]) -> Wording:
        """The row's sentences replaced: spaces tidied, empty ones and repeats left out.

        Raises:
            ValueError: an unknown row, too many sentences, or one that is too long.
        """
        if row not in self.rows:
            raise ValueError(f"no class or rejection row {row!r}; there are {', '.join(self.rows)}")
        tidy: dict[str, Sentence] = {}
        for sentence in sentences:
            text = " ".join(sentence.text.split())
            if len(text) > MAX_LETTERS:
                raise ValueError(f"a sentence of {len(text)} letters; at most {MAX_LETTERS} are taken")
            if text:
                tidy.setdefault(text, Sentence(text, sentence.used))
        if len(tidy) > MAX_SENTENCES:
            raise ValueError(f"{len(tidy)} sentences for {row!r}; at most {MAX_SENTENCES} are taken")
        return replace(self, rows={**self.rows, row: tuple(tidy.values())})

    def with_class(self, name: str) -> Wording:
        """A new class after the others, with the sentences that the set's templates make of its name.

        Raises:
            ValueError: no name, one that is taken or too long, or too many rows.
        """
        name = " ".join(name.lower().split())
        if not name or len(name) > 40:
            raise ValueError(f"the name of a class is {name!r}; 1 to 40 letters are needed")
        if name in self.rows:
            raise ValueError(f"there is a row {name!r} already")
        if len(self.rows) >= MAX_ROWS:
            raise ValueError(f"{len(self.rows)} rows are there; at most {MAX_ROWS} are taken")
        slots = " ".join(self.base.templates)
        kind = next(kind for kind in _KINDS_OF_A_NAME if f"{{{kind}}}" in slots)
        phrases = {**self.base.phrases, name: {kind: (name,)}}
        base = replace(self.base, classes=(*self.base.classes, name), phrases=phrases)
        rows = {row: self.rows[row] for row in self.base.classes}
        rows[name] = tuple(map(Sentence, base.prompts(name)[:MAX_SENTENCES]))
        return replace(self, base=base, rows={**rows, **{row: self.rows[row] for row in self.base.rejection}})

    def without_class(self, name: str) -> Wording:
        """A class taken out, and all that the set says of it.

        Raises:
            ValueError: not a class, or the last one.
        """
        if name not in self.base.classes or len(self.base.classes) == 1:
            raise ValueError(f"{name!r} cannot be taken out of the classes {', '.join(self.base.classes)}")
        rows = {row: kept for row, kept in self.rows.items() if row != name}
        return replace(self, base=_cut(self.base, [name]), rows=rows)

    def prompt_set(self) -> PromptSet:
        """What a model is asked with: the base itself where nothing was changed, else the base with a `bank`.

        Raises:
            ValueError: no class has a sentence in use.
        """
        if not self.is_changed:
            return self.base
        silent = [row for row in self.rows if not self.used(row)]
        if set(self.base.classes) <= set(silent):
            raise ValueError("every class is switched off; one sentence of one class at least is needed")
        bank = {row: self.used(row) for row in self.rows if row not in silent}
        return replace(_cut(self.base, silent), bank=bank)


def _cut(prompts: PromptSet, rows: Iterable[str]) -> PromptSet:
    gone = set(rows)

    def kept(table: Mapping) -> dict:
        return {row: value for row, value in table.items() if row not in gone}

    return replace(
        prompts,
        classes=tuple(row for row in prompts.classes if row not in gone),
        rejection=tuple(row for row in prompts.rejection if row not in gone),
        phrases=kept(prompts.phrases),
        intense=kept(prompts.intense),
        bank=kept(prompts.bank),
    )


def training_words(prompts: PromptSet) -> frozenset[str]:
    """Every word, in lower case, that a training prompt of the set can hold; held-out templates are no training."""
    return frozenset(word for text in _training_texts(prompts) for word in _words(text))


def new_words(text: str, known: frozenset[str]) -> tuple[str, ...]:
    """The words of a text that are not among the known ones: in order, each once, as written."""
    found = {match.group().lower(): match.group() for match in reversed(list(_WORD.finditer(text)))}
    return tuple(found[word] for word in dict.fromkeys(_words(text)) if word not in known)


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _training_texts(prompts: PromptSet) -> Iterator[str]:
    yield "a an"  # "a" becomes "an" before a vowel
    for template in prompts.templates:
        yield _SLOT.sub(" ", template)
    for table in (prompts.phrases, prompts.intense):
        for kinds in table.values():
            for phrases in kinds.values():
                yield from phrases
    for people in (prompts.people, *(age.get("people", {}) for age in prompts.age_group.values())):
        for nouns in people.values():
            yield from nouns
    for age in prompts.age_group.values():
        yield from age.get("adjectives", ())
    for words in prompts.ethnicity.values():
        yield from words
    for patterns in prompts.intensity.values():
        yield from patterns.values()


def to_yaml(prompts: PromptSet) -> str:
    """The set as the text of a YAML file that `PromptSet.load` and `from_yaml` read."""
    header = _HEADER + (_BANK_REMARK if prompts.bank else "")
    content = yaml.safe_dump(prompts.to_dict(), sort_keys=False, allow_unicode=True, width=118, default_flow_style=None)
    return f"{header}\n{content}"


def from_yaml(data: bytes, name: str = "the file") -> PromptSet:
    """A prompt set in the bytes of somebody's YAML file.

    Raises:
        ValueError: too large, not YAML, not a prompt set, or one that makes too many sentences; it says which.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{name} has {len(data):,} bytes; a prompt set of at most {MAX_FILE_BYTES:,} is taken")
    try:
        text = data.decode("utf-8-sig")
        _check_shape(text)
        prompts = PromptSet.from_dict(yaml.load(text, _LOADER))
        _check_size(prompts)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" in line {place.line + 1}" if place else ""
        raise ValueError(f"{name} is not YAML{where}; a prompt set as this page saves it is needed") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not a text in UTF-8; a prompt set as this page saves it is needed") from error
    except ValueError as error:
        raise ValueError(f"{name} is not a prompt set that can be used: {error}") from error
    return prompts


def _check_shape(text: str) -> None:
    """Before anything is built: a few anchors can stand for billions of entries, and deep nesting takes for ever."""
    depth = 0
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it uses YAML anchors; a prompt set without them is needed")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError(f"it is nested more than {_MAX_DEPTH} deep; a prompt set is not")


def _check_size(prompts: PromptSet) -> None:
    if len(prompts.rows) > MAX_ROWS:
        raise ValueError(f"it has {len(prompts.rows)} rows; at most {MAX_ROWS} are taken")
    phrases = sum(
        sum(map(len, kinds.values())) for table in (prompts.phrases, prompts.intense) for kinds in table.values()
    )
    combinations = len(prompts.templates) * phrases * len(prompts.people["any"])
    if combinations > MAX_COMBINATIONS:
        raise ValueError(f"it makes up to {combinations:,} sentences; at most {MAX_COMBINATIONS:,} are taken")
    longest = max(len(text) for row in prompts.rows for text in prompts.bank_prompts(row))
    if longest > MAX_LETTERS:
        raise ValueError(f"a sentence of {longest} letters; at most {MAX_LETTERS} are taken")

"""Text files of numbers as arrays: no Python loop over lines, and memory in proportion to the file."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

import numpy as np

from affectvlm.scan import ScanError
from affectvlm.scan_io.limits import MAX_LINE_BYTES, MAX_LINES, MAX_NUMBERS

NEWLINE, RETURN, SPACE = 10, 13, 32
BLOCK_BYTES = 4 * 1024 * 1024
BLOCK_LINES = 200_000
"""Work is done in blocks, so that scratch arrays stay small beside the text."""


def plain_text(data: bytes, what: str) -> bytes:
    """The text of a file without byte-order mark (UTF-16 turned to 8 bits); ScanError where it holds binary data."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16", "replace").encode("latin-1", "replace")
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\0" in data:
        raise ScanError(f"binary data (a zero byte at offset {data.index(0)}) in {what}; text is needed")
    if not data.strip():
        raise ScanError(f"nothing but blanks in {what}")
    return data


def numbers(text: bytes, what: str, dtype: type = np.float64) -> np.ndarray:
    """Every number of `text`, separated by white space, (n,) `dtype`; ScanError where anything else stands there."""
    if not text[:1000].strip() and not text.strip():  # NumPy answers blanks with one made-up number
        return np.zeros(0, dtype)
    if len(text) > 2 * MAX_NUMBERS and count_words(text) > MAX_NUMBERS:
        raise ScanError(f"more than {MAX_NUMBERS:,} numbers in {what}; at most so many are accepted")
    try:
        values = np.fromstring(text, dtype=dtype, sep=" ")
    except ValueError:
        raise ScanError(f"{_first_bad_word(text, dtype)} stands in {what} where a number is needed") from None
    return values


def _first_bad_word(text: bytes, dtype: type) -> str:
    """The first word that is no number, for a message; looks at the first thousand words and the last."""
    words = text[:20_000].split()[:1000] + text[-200:].split()[-1:]
    for word in words:
        try:
            dtype(word.decode("latin-1"))
        except (ValueError, OverflowError):
            return repr(word[:30].decode("latin-1"))
    return "something that is no number"


def count_words(text: bytes) -> int:
    """Words separated by white space."""
    codes, total = np.frombuffer(text, np.uint8), 0
    for start in range(0, len(codes), BLOCK_BYTES):
        blank = codes[start : start + BLOCK_BYTES + 1] <= SPACE  # one character on: words are counted at their ends
        total += int(np.count_nonzero(~blank[:-1] & blank[1:]))
    return total + int(len(codes) > 0 and codes[-1] > SPACE)


def strip_comments(text: bytes, mark: bytes = b"#") -> bytes:
    """`text` with everything from `mark` (one character) to the end of its line turned to blanks."""
    if mark not in text:
        return text
    codes = np.frombuffer(text, np.uint8).copy()
    for start, stop in _blocks(text):
        _blank_comments(codes[start:stop], ord(mark))
    return codes.tobytes()


def _blank_comments(codes: np.ndarray, mark: int) -> None:
    marks = np.flatnonzero(codes == mark)
    if not len(marks):
        return
    breaks = np.flatnonzero((codes == NEWLINE) | (codes == RETURN))
    line = np.searchsorted(breaks, marks)
    first = np.concatenate([[True], line[1:] != line[:-1]])
    step = np.zeros(len(codes) + 1, np.int8)
    step[marks[first]] += 1
    step[np.append(breaks, len(codes))[line[first]]] -= 1
    codes[np.cumsum(step[:-1], dtype=np.int8) > 0] = SPACE


class Lines:
    """An index over the lines of a text that hold at least one word (white space separates words).

    Attributes:
        words: (n,) int32 words in each line.
        first: (n,) int32 offset of each line's first word in `codes`.
        start, stop: (n,) int32 offsets of each line, line break excluded.
        codes: (bytes + 3,) uint8, the text and three blanks, so that `first + 2` is always inside.

    Raises ScanError where there are more or longer lines than are accepted.
    """

    def __init__(self, text: bytes) -> None:
        if max(text.count(b"\n"), text.count(b"\r")) > MAX_LINES:
            raise ScanError(f"more than {MAX_LINES:,} lines; at most so many are accepted")
        self.codes = np.frombuffer(text + b"   ", np.uint8)
        blocks = [self._index(start, stop) for start, stop in _blocks(text)]
        self.words, self.first, self.start, self.stop = (np.concatenate(parts) for parts in zip(*blocks, strict=True))

    def _index(self, block_start: int, block_stop: int) -> tuple[np.ndarray, ...]:
        """words, first, start and stop of the filled lines in one block."""
        codes = self.codes[block_start:block_stop]
        blank = codes <= SPACE
        opens = ~blank
        opens[1:] &= blank[:-1]
        word_at = np.flatnonzero(opens)
        breaks = np.flatnonzero((codes == NEWLINE) | (codes == RETURN))
        start = np.concatenate([[0], breaks + 1])
        stop = np.append(breaks, len(codes))
        word_index = np.searchsorted(word_at, np.append(start, len(codes)))
        words = np.diff(word_index)
        filled = words > 0
        first = word_at[word_index[:-1][filled]]
        result = (words[filled], first + block_start, start[filled] + block_start, stop[filled] + block_start)
        return tuple(values.astype(np.int32) for values in result)

    def __len__(self) -> int:
        return len(self.words)

    def begins_with(self, word: bytes) -> np.ndarray:
        """(n,) bool: the line's first word is `word` (at most two characters)."""
        match = np.ones(len(self), bool)
        for offset, code in enumerate(word):
            match &= self.codes[self.first + offset] == code
        return match & (self.codes[self.first + len(word)] <= SPACE)

    def text(self, chosen: np.ndarray, skip: int = 0) -> bytes:
        """The chosen lines (bool mask) as text, the first `skip` characters of each line's first word made blank."""
        index, pieces = np.flatnonzero(chosen), []
        for at in range(0, len(index), BLOCK_LINES):
            lines = index[at : at + BLOCK_LINES]
            low = int(self.start[lines[0]])
            codes = np.append(self.codes[low : self.stop[lines[-1]]], np.uint8(NEWLINE))
            for offset in range(skip):
                codes[self.first[lines] - low + offset] = SPACE
            step = np.zeros(len(codes) + 1, np.int8)
            step[self.start[lines] - low] += 1
            step[self.stop[lines] - low + 1] -= 1  # with the line break
            pieces.append(codes[np.cumsum(step[:-1], dtype=np.int8) > 0].tobytes())
        return b"".join(pieces)

    def line(self, index: int) -> str:
        """One line as a string, at most 2,000 characters."""
        return (
            self.codes[self.start[index] : min(self.stop[index], self.start[index] + 2000)]
            .tobytes()
            .decode("latin-1")
            .strip()
        )


def _blocks(text: bytes) -> Iterator[tuple[int, int]]:
    """(start, stop) of pieces of the text that end with a line break or the text."""
    start = 0
    while start < len(text):
        stop = start + BLOCK_BYTES
        if stop < len(text):
            ends = [text.find(mark, stop, stop + MAX_LINE_BYTES) for mark in (b"\n", b"\r")]
            ends = [end for end in ends if end >= 0]
            if not ends and stop + MAX_LINE_BYTES < len(text):
                raise ScanError(f"a line of more than {MAX_LINE_BYTES:,} bytes; shorter ones are accepted")
            stop = min(ends) + 1 if ends else len(text)
        yield start, min(stop, len(text))
        start = stop
    if not text:
        yield 0, 0


def columns(lines: Lines, chosen: np.ndarray, what: str, skip: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the chosen lines → (flat values, (n,) how many on each line); the keyword, if any, is not
    counted."""
    count = lines.words[chosen] - (1 if skip else 0)
    values = numbers(lines.text(chosen, skip), what)
    if len(values) != count.sum():
        raise ScanError(f"{len(values)} numbers in {count.sum()} words of {what}; one number a word is needed")
    return values, count


def table(values: np.ndarray, count: np.ndarray, width: int, what: str) -> np.ndarray:
    """The first `width` numbers of every line, (n, width); ScanError where a line has fewer."""
    if len(count) and count.min() < width:
        line = int(np.argmin(count))
        raise ScanError(f"{what} {line + 1} has {count[line]} numbers; {width} are needed")
    if len(count) and count.max() == width:
        return values.reshape(-1, width)
    start = np.cumsum(count) - count
    return values[start[:, None] + np.arange(width)]

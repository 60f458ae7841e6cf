"""The syntax of VRML 1 and 2: text → a tree of `Node`s, without knowing what any node means.

The long number lists are cut out first and parsed by NumPy; what is left, the skeleton, is a few hundred words that a
small parser turns into a tree. So quirks of line breaks, commas and blanks do not matter, and names are told apart as
whole words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import numpy as np

from affectvlm.scan import ScanError
from affectvlm.scan_io.limits import MAX_SCENE_DEPTH
from affectvlm.scan_io.raw import whole
from affectvlm.scan_io.text import numbers

MAX_STRINGS = 1_000_000
"""Most strings and comments."""
MAX_BRACKETS = 200_000
MAX_SKELETON_BYTES = 2_000_000
STRING_OR_COMMENT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|#[^\r\n]*+', re.DOTALL)
"""A string that does not end matches to the end of the file, so that nothing is looked at twice."""
TOKEN = re.compile(rb"[{}\[\]]|\x01\d+\x01|\x02\d+\x02|[^\s{}\[\],\x01\x02]+")
NUMBER = re.compile(rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$")


@dataclass
class Node:
    """A node of the scene: its fields' values (numbers, texts, arrays of text) and the nodes in it, in order of
    writing."""

    type: str
    field_name: str = ""
    values: dict[str, list] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)

    def child(self, field_name: str) -> Node | None:
        return next((node for node in self.nodes if node.field_name == field_name), None)

    def numbers(self, name: str, count: int, default: list[float]) -> np.ndarray:
        values = self.values.get(name, default)
        if len(values) != count or not all(isinstance(v, float) for v in values):
            raise ScanError(f"VRML {self.type}: {name!r} is not {count} numbers")
        return np.array(values)

    def array(self, name: str, dtype: type = np.float64) -> np.ndarray | None:
        """The numbers of a list field, (n,), or None where the node has no such field."""
        values = self.values.get(name)
        if values is None:
            return None
        if len(values) == 1 and isinstance(values[0], bytes):
            return numbers(values[0].replace(b",", b" "), f"the list {name!r}", dtype)
        if all(isinstance(v, float) for v in values):
            return np.array(values, np.float64)
        raise ScanError(f"VRML {self.type}: {name!r} is not a list of numbers")

    def indices(self, name: str) -> np.ndarray | None:
        """The whole numbers of a list field, (n,) int64; some writers put them as 3.0, which takes longer to read."""
        try:
            values = self.array(name, np.int64)
        except ScanError:
            values = self.array(name)
        return None if values is None else whole(values, f"{name} entries")

    def texts(self, *names: str) -> list[str]:
        return [v for name in names for v in self.values.get(name, []) if isinstance(v, str)]


def parse(text: bytes) -> Node:
    """The scene as a tree under a node of type "scene"; ScanError where brackets or strings do not close."""
    skeleton, strings, lists = _skeleton(text)
    root = Node("scene")
    stack: list[tuple[Node, str]] = [(root, "}")]  # node that is open, and what closes it
    open_list_field = [""]
    named: dict[str, Node] = {}
    last, before, define = "", "", ""
    tokens = iter(TOKEN.findall(skeleton))
    for token in tokens:
        node, closing = stack[-1]
        if token == b"{":
            child = Node(last, before if before else open_list_field[-1])
            if define:
                named[define] = child
            node.nodes.append(child)
            stack.append((child, "}"))
            open_list_field.append("")
            last = before = define = ""
        elif token == b"[":
            stack.append((node, "]"))
            open_list_field.append(last)
            before = ""
        elif token in (b"}", b"]"):
            if len(stack) == 1 or token.decode() != closing:
                raise ScanError(f"a VRML file with a {token.decode()!r} too many; it is damaged")
            stack.pop()
            open_list_field.pop()
            last = before = ""
        elif token[0] == 1:
            node.values.setdefault(last, []).append(strings[int(token[1:-1])])
        elif token[0] == 2:
            node.values[last] = [lists[int(token[1:-1])]]
        elif token in (b"DEF", b"USE"):
            name = next(tokens, b"").decode("latin-1")
            if token == b"DEF":
                define = name
            elif name in named:
                node.nodes.append(replace(named[name], field_name=last or open_list_field[-1]))
        elif token in (b"PROTO", b"EXTERNPROTO"):
            raise ScanError("a VRML file with prototypes (PROTO); plain nodes are accepted")
        elif token == b"ROUTE":
            for _ in range(3):
                next(tokens, None)
        elif NUMBER.match(token):
            node.values.setdefault(last, []).append(min(max(float(token), -1e300), 1e300))
        elif token in (b"TRUE", b"FALSE"):
            node.values.setdefault(last, []).append(token == b"TRUE")
        else:
            before, last = last, token.decode("latin-1")
            if before and before in node.values:
                before = ""  # that field has its value already: this word starts anew
        if len(stack) > MAX_SCENE_DEPTH:
            raise ScanError(f"a VRML file nested deeper than {MAX_SCENE_DEPTH} levels")
    if len(stack) > 1:
        raise ScanError(f"a VRML file that ends before its last {len(stack) - 1} brackets close; it is cut off")
    return root


def _skeleton(text: bytes) -> tuple[bytes, list[str], list[bytes]]:
    """(text with strings as \\x01n\\x01 and number lists as \\x02n\\x02 and without comments, strings, lists)."""
    if text.count(b'"') + text.count(b"#") > MAX_STRINGS:
        raise ScanError(f"a VRML file of more than {MAX_STRINGS:,} strings and comments")
    text = text.translate(bytes.maketrans(b"\x01\x02", b"  "))
    strings: list[str] = []

    def take(match: re.Match[bytes]) -> bytes:
        if match[0][:1] == b"#":
            return b""
        if len(match[0]) < 2 or match[0][-1:] != b'"':
            raise ScanError("a VRML file with a text that does not end; it is cut off")
        strings.append(match[0][1:-1].decode("latin-1"))
        return b" \x01%d\x01 " % (len(strings) - 1)

    text = STRING_OR_COMMENT.sub(take, text)
    codes = np.frombuffer(text, np.uint8)
    brackets = np.flatnonzero((codes == ord("[")) | (codes == ord("]")))
    if len(brackets) > MAX_BRACKETS:
        raise ScanError(f"a VRML file of {len(brackets):,} brackets; at most {MAX_BRACKETS:,} are accepted")
    pieces, lists, at = [], [], 0
    opens = codes[brackets] == ord("[")
    for i in np.flatnonzero(opens[:-1] & ~opens[1:]):
        start, stop = int(brackets[i]), int(brackets[i + 1])
        body = text[start + 1 : stop]
        if b"{" in body or b"\x01" in body or (len(body) < 4096 and b"USE" in body):
            continue  # a list of nodes or texts: part of the skeleton
        pieces += [text[at:start], b" \x02%d\x02 " % len(lists)]
        lists.append(body)
        at = stop + 1
    skeleton = b"".join([*pieces, text[at:]])
    if len(skeleton) > MAX_SKELETON_BYTES:
        raise ScanError(
            "a VRML file with megabytes outside of closed lists; it is cut off inside a list, damaged or no mesh"
        )
    return skeleton, strings, lists

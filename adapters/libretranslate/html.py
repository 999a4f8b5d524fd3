"""The texts of an HTML document, and the document with others in their places: of the markup no byte changes.

Tokens end where WHATWG's parsing rules have them end, in one pass. What is inside of scripts, of code and of what says
``translate="no"`` is nobody's text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape, unescape

_TAG = re.compile(
    r"""<(?P<end>/?)(?P<name>[A-Za-z][^\s/>]*+)"""
    r"""(?P<attributes>(?:[\s/]++|=?[^\s/>=]++(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s"'>][^\s>]*+)?)?|=)*+)>"""
)
_RAW = frozenset({"script", "style", "xmp", "iframe", "noembed", "noframes", "textarea", "plaintext"})
"""Elements that have no tags inside, and no text for people."""
_KEPT = _RAW | {"code", "kbd", "samp", "var", "pre", "svg", "math", "template"}
_VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]
)
_UNSAID = re.compile(
    r"""(?:\s|\A)translate\s*=\s*["']?no["'\s/]|(?:\s|\A)class\s*=\s*(?:["'](?:[^"']*\s)?|)notranslate(?=["'\s/])""",
    re.IGNORECASE,
)


class Document:
    """One document, taken apart."""

    def __init__(self, source: str) -> None:
        self._pieces: list[str | int] = []
        self.texts: list[str] = []
        """What stands between the tags, its entities resolved; what has no letters is not among them."""
        self._skipped, self._depth = "", 0
        self._read(source)

    def __str__(self) -> str:
        return self.with_texts(self.texts)

    def with_texts(self, texts: Sequence[str]) -> str:
        """The document with these in the places of ``texts``."""
        return "".join(piece if isinstance(piece, str) else escape(texts[piece], quote=False) for piece in self._pieces)

    def _read(self, source: str) -> None:
        place = 0
        while place < len(source):
            start = source.find("<", place)
            while start >= 0 and not _opens(source, start):
                start = source.find("<", start + 1)
            self._text(source[place : start if start >= 0 else len(source)])
            if start < 0:
                return
            place = self._markup(source, start)

    def _text(self, text: str) -> None:
        said = unescape(text) if "&" in text else text
        if self._depth or not any(map(str.isalpha, said)):
            self._pieces.append(text)
        else:
            self._pieces.append(len(self.texts))
            self.texts.append(said)

    def _markup(self, source: str, start: int) -> int:
        """Take what begins at ``start``; where it ends."""
        tag = _TAG.match(source, start)
        if tag is None:
            end = _end(source, start)
            self._pieces.append(source[start:end])
            return end
        name, end = tag["name"].lower(), tag.end()
        closing = bool(tag["end"])
        self._follow(name, closing=closing, attributes=tag["attributes"])
        if not closing and name in _RAW:
            found = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(source, end)
            end = found.start() if found is not None and name != "plaintext" else len(source)
        self._pieces.append(source[start:end])
        return end

    def _follow(self, name: str, *, closing: bool, attributes: str) -> None:
        """Note where what is not to be translated begins and ends."""
        if self._depth:
            if name == self._skipped:
                self._depth += -1 if closing else 1
        elif not closing and name not in _VOID and (name in _KEPT or _UNSAID.search(f"{attributes} ")):
            self._skipped, self._depth = name, 1


def _opens(source: str, start: int) -> bool:
    """Whether a ``<`` begins markup."""
    after = source[start + 1 : start + 3]
    return bool(after) and (
        after[0] in "!?" or (after[0] == "/" and len(after) > 1) or (after[0].isascii() and after[0].isalpha())
    )


def _end(source: str, start: int) -> int:
    """Where a comment and the like end; what does not is markup up to the end."""
    if source.startswith("<!--", start):
        if source.startswith((">", "->"), start + 4):
            return source.index(">", start) + 1
        mark, skip = "-->", start + 4
    elif source.startswith("<![CDATA[", start):
        mark, skip = "]]>", start + 9
    elif source[start + 1].isalpha() or (
        source[start + 1 : start + 2] == "/" and source[start + 2 : start + 3].isalpha()
    ):
        return len(source)  # a tag that is never closed
    else:
        mark, skip = ">", start + 1
    found = source.find(mark, skip)
    return found + len(mark) if found >= 0 else len(source)

"""LibreTranslate's routes: what is asked, and the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, convert

from adapters.libretranslate import wire
from adapters.libretranslate.bodies import refused
from adapters.libretranslate.html import Document
from canonical.errors import InvalidRequest
from canonical.languages import name_of
from canonical.translation import Guess, Translate, Translation

AUTO = "auto"
BEST = 3
"""Languages that ``/detect`` tells."""
MARKUP = 8
"""Times as many characters as may be translated an HTML document may have."""

_encode = msgspec.json.Encoder().encode


class Question(Struct, frozen=True, kw_only=True):
    """A request for translations, and how its answer is to look."""

    request: Translate
    """Its texts are those between the tags, where it is HTML."""
    many: bool
    ways: bool
    """Whether it is to have alternatives; of HTML there are none."""
    documents: tuple[Document, ...] = ()
    """What was sent, where that is HTML."""


def read_translate(fields: Mapping[str, Any], characters: int) -> Question:
    """``characters``: how many may be translated. Raises InvalidRequest."""
    asked = _converted(fields, wire.TranslateRequest)
    for name in ("q", "source", "target"):
        if not getattr(asked, name):
            raise _missing(name)
    texts = tuple(asked.q) if isinstance(asked.q, list) else (asked.q,)
    many = isinstance(asked.q, list)
    html, alternatives = asked.format == "html", max(0, asked.alternatives or 0)
    documents: tuple[Document, ...] = ()
    if html:
        if sum(map(len, texts)) > MARKUP * characters:
            raise InvalidRequest(f"an HTML document may have at most {MARKUP * characters} characters", param="q")
        documents = tuple(map(Document, texts))
        texts = tuple(text for document in documents for text in document.texts)
    request = Translate(
        texts=texts,
        source=asked.source,
        target=asked.target,
        alternatives=0 if html else alternatives,
    )
    return Question(request=request, many=many, ways=alternatives > 0, documents=documents)


def translated_reply(question: Question, answer: Translation) -> bytes:
    """The answer of ``/translate``."""
    texts, others = list(answer.texts), [list(ways) for ways in answer.alternatives]
    if question.documents:
        texts, others = _documents(question.documents, answer.texts), [[] for _ in question.documents]
    told = wire.Translated(translated_text=texts if question.many else texts[0])
    if question.request.source.strip().lower() == AUTO:
        found = wire.Detected(_percent(answer.sure), answer.source)
        told.detected_language = [found] * len(texts) if question.many else found
    if question.ways:
        told.alternatives = others if question.many else others[0]
    if answer.via:
        told.via = answer.via[0]
    return _encode(told)


def read_detect(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts. Raises InvalidRequest."""
    asked = _converted(fields, wire.DetectRequest)
    if not asked.q:
        raise _missing("q")
    return tuple(asked.q) if isinstance(asked.q, list) else (asked.q,)


def detected_reply(guesses: Sequence[Guess]) -> bytes:
    """The likeliest languages; where there is nothing to tell by, English, and that this is no more than a word."""
    told = [wire.Detected(_percent(guess.share), guess.language) for guess in guesses[:BEST]]
    return _encode([one for one in told if one.confidence] or [wire.Detected(0.0, "en")])


def languages_reply(ends: Mapping[str, Sequence[str]]) -> bytes:
    """``ends``: what each language is translated into. Each is told to be translated into itself, as clients know it."""
    return _encode([wire.Language(code, name_of(code), sorted({code, *targets})) for code, targets in ends.items()])


def settings_reply(ends: Mapping[str, Sequence[str]], *, characters: int, keys: bool) -> bytes:
    """What a page wants to know at first."""
    target = next((code for targets in ends.values() for code in targets), "en")
    between = wire.Between(wire.Named(AUTO, "Auto Detect"), wire.Named(target, name_of(target)))
    return _encode(wire.Settings(char_limit=characters, api_keys=keys, key_required=keys, language=between))


def health_reply() -> bytes:
    """All is well."""
    return _encode(wire.Health())


def _documents(documents: Sequence[Document], texts: Sequence[str]) -> list[str]:
    rest = iter(texts)
    return [document.with_texts([next(rest) for _ in document.texts]) for document in documents]


def _converted(fields: Mapping[str, Any], kind: Any) -> Any:
    try:
        return convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        raise refused(error) from error


def _missing(name: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid request: missing {name} parameter", param=name)


def _percent(share: float) -> float:
    return round(100 * share, 1)

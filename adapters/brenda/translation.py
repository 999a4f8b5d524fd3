"""``/v1/translation/languages`` and ``/v1/translation/translate``.

    {"text": "Hello!", "from_lang": "en", "to_lang": "fr"}  ->  {"translated_text": "Bonjour !", "from": "en", "to": "fr"}

Beyond its document: ``text`` may be a list, and then so is ``translated_text``; ``from_lang`` may be ``auto``; ``via`` names the
language between where no model knows both.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import UNSET, Struct

from adapters.brenda import translation_wire as wire
from adapters.reading import fault_of, read_body
from canonical.errors import InvalidRequest
from canonical.translation import Translate, Translation


class Question(Struct, frozen=True):
    """A request, and how its answer is to look."""

    request: Translate
    many: bool


_decoder = msgspec.json.Decoder(wire.TranslateRequest)
_encode = msgspec.json.Encoder().encode


def read_translate(body: bytes) -> Question:
    """Raises InvalidRequest where the body breaks the format."""
    asked = read_body(_decoder, body, _invalid)
    many = isinstance(asked.text, list)
    texts = tuple(asked.text) if isinstance(asked.text, list) else (asked.text,)
    for name in ("from_lang", "to_lang"):
        if not getattr(asked, name).strip():
            raise InvalidRequest(f"{name} is empty", param=name)
    request = Translate(texts=texts, source=asked.from_lang, target=asked.to_lang, model=asked.model)
    return Question(request, many)


def translated_reply(question: Question, answer: Translation) -> bytes:
    """Languages are named as they were asked for; one that was found out, by its code."""
    request = question.request
    found = request.source.strip().lower() == "auto"
    return _encode(
        wire.Translated(
            translated_text=list(answer.texts) if question.many else answer.texts[0],
            from_=answer.source if found else request.source,
            to=request.target,
            via=answer.via[0] if answer.via else UNSET,
        )
    )


def languages_reply(languages: Mapping[str, Mapping[str, str]]) -> bytes:
    """``languages``: what each is translated into, and by way of which; empty: at once."""
    between = {source: {end: via for end, via in ends.items() if via} for source, ends in languages.items()}
    return _encode(
        wire.Languages(
            languages={source: sorted(ends) for source, ends in languages.items()},
            via={source: ends for source, ends in between.items() if ends},
        )
    )


def _invalid(text: str) -> InvalidRequest:
    fault = fault_of(text)
    words = f"{fault.path} is needed" if fault.missing else f"{fault.path or 'the body'}: {fault.words}"
    return InvalidRequest(words, param=fault.path or None)

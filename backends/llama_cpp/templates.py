"""Chat templates out of GGUF files, for the engine that does not render them itself.

A template is somebody else's program: it runs in jinja2's immutable sandbox, in the worker, with an end to its time and
to its output.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 5.0
CHARACTERS = 64 * 1024 * 1024


class TemplateError(Exception):
    """The template refuses the conversation, or does not end."""


class _Generation(jinja2.ext.Extension):
    """``{% generation %}``, by which training marks the model's turns: passed through."""

    tags = {"generation"}  # noqa: RUF012  # jinja2's own way to declare it

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """One model's template. ``bos`` and ``eos`` are texts of tokens that templates like to write."""

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        """Compile it.

        Raises:
            TemplateError: it is not Jinja.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        # jinja2's own sorts the keys and escapes "<"; models were trained on neither.
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _now
        self._constants = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise TemplateError(f"the model's chat template cannot be read: {error}") from error

    def render(self, messages: list[dict[str, Any]], **values: Any) -> str:
        """The prompt of a conversation.

        Raises:
            TemplateError: see there.
        """
        deadline = time.monotonic() + SECONDS
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._template.generate(
                messages=messages, add_generation_prompt=True, **self._constants, **values
            ):
                pieces.append(piece)
                size += len(piece)
                if size > CHARACTERS or time.monotonic() > deadline:
                    raise TemplateError("the model's chat template does not end")
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
            raise TemplateError(f"the model's chat template refuses the conversation: {error}") from error
        return "".join(pieces)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateRuntimeError(str(message))


def _now(form: str) -> str:
    return dt.datetime.now().astimezone().strftime(form)

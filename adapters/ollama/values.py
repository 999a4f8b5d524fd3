"""The values that several of Ollama's routes share, read and written: ``options``, ``think``, ``format``.

``OPTIONS`` is read in both directions; an option that is in neither column of it travels as it came, but only to a
backend that speaks this dialect too.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from adapters.ollama.wire import NOTHING
from canonical.errors import InvalidRequest
from canonical.requests import AS_CONFIGURED, Generate, LoadOptions, Output, Sampling, Think

OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repeat_penalty": "repeat_penalty",
    "repeat_last_n": "repeat_last_n",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "seed": "seed",
    "num_predict": "max_tokens",
    "stop": "stop",
}
"""Ollama's name of an option -> that of ``Sampling``."""

CONTEXT = "num_ctx"
LOAD_OPTIONS = {
    CONTEXT: "context",
    "num_batch": "batch",
    "num_thread": "threads",
    "num_gpu": "gpu_layers",
    "main_gpu": "main_gpu",
    "use_mmap": "mmap",
}
"""Ollama's name of an option -> that of ``LoadOptions``."""
KNOWN_OPTIONS = frozenset({*OPTIONS, *LOAD_OPTIONS})

INTEGERS = frozenset(("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict")) | frozenset(
    ("num_keep", "seed", "num_predict", "top_k", "repeat_last_n")
)
FLOATS = frozenset(
    ("top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty", "frequency_penalty")
)
BOOLEANS = frozenset(("use_mmap",))
_POSITIVE = frozenset((CONTEXT, "num_batch", "num_thread"))
"""0 is Ollama's way to leave these to the server."""
_NEGATIVE_IS_AUTOMATIC = frozenset(("num_gpu", "main_gpu"))
_NEGATIVE_IS_UNSET = frozenset(("seed", "num_predict"))
_LEVELS: dict[str, Think] = {"low": "low", "medium": "medium", "high": "high", "max": "max"}
_THINK_WORDS: dict[Think, bool | str] = {"off": False, "on": True, "minimal": "low"}
_SCHEMA = msgspec.json.Decoder(dict[str, Raw])


RETIRED = frozenset(
    (
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
        "tfs_z",
        "penalize_newline",
        "numa",
        "low_vram",
        "f16_kv",
        "vocab_only",
    )
) | frozenset(("logits_all", "use_mlock", "embedding_only", "num_gqa", "rope_frequency_base", "rope_frequency_scale"))
"""Options of older releases: still sent, and without effect."""


def read_options(options: dict[str, Any] | None) -> tuple[Sampling, LoadOptions]:
    """The sampling that ``options`` asks for, and how the model is to be loaded.

    Unknown names are passed over, ``null`` is absent. Integers may come as floats and lose their fraction.

    Raises:
        InvalidRequest: a known option has the wrong type.
    """
    if not options:
        return Sampling(), AS_CONFIGURED
    found: dict[str, Any] = {}
    load: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        value = read_option(name, value)
        if name in OPTIONS and not (name in _NEGATIVE_IS_UNSET and value < 0):
            found[OPTIONS[name]] = value
        elif name in LOAD_OPTIONS and not (
            (name in _POSITIVE and value <= 0) or (name in _NEGATIVE_IS_AUTOMATIC and value < 0)
        ):
            load[LOAD_OPTIONS[name]] = value
    return Sampling(**found), LoadOptions(**load)


def write_options(request: Generate) -> dict[str, Any]:
    """``options`` for ``request``, with those that its client said and only this dialect knows."""
    options: dict[str, Any] = {}
    for name, ours in OPTIONS.items():
        value = getattr(request.sampling, ours)
        if value is not None and value != ():
            options[name] = value
    options.update(write_load_options(request.load))
    origin = request.origin
    if origin.dialect == "ollama" and "options" in origin.vocabulary.merged:
        options.update(origin.extras(KNOWN_OPTIONS, inside="options"))
    return options


def write_load_options(load: LoadOptions) -> dict[str, Any]:
    """``options`` for a load alone."""
    return {name: value for name, ours in LOAD_OPTIONS.items() if (value := getattr(load, ours)) is not None}


def read_think(value: Any) -> Think | None:
    """``think``: a boolean or a level. Raises InvalidRequest."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "on" if value else "off"
    if not isinstance(value, str):
        raise InvalidRequest(
            'think must be a boolean or string ("high", "medium", "low", "max", true, or false)', param="think"
        )
    if value not in _LEVELS:
        raise InvalidRequest(
            f'invalid think value: "{value}" (must be "high", "medium", "low", "max", true, or false)', param="think"
        )
    return _LEVELS[value]


def write_think(think: Think | None) -> bool | str | None:
    """``think`` as Ollama spells it; ``minimal`` is its ``low``."""
    return None if think is None else _THINK_WORDS.get(think, think)


def read_format(value: Raw) -> Output | None:
    """``format``: ``"json"``, a schema, or nothing. Raises InvalidRequest."""
    text = bytes(value).strip()
    if text in (b"", b"null", b'""'):
        return None
    if text == b'"json"':
        return Output("json")
    if text.startswith(b"{"):
        return Output("schema", schema=Raw(text))
    raise InvalidRequest(
        f'invalid format: {text[:100].decode(errors="replace")}; expected "json" or a valid JSON Schema object',
        param="format",
    )


def write_format(output: Output | None) -> Raw:
    """``format`` as Ollama spells it; ``NOTHING`` for none."""
    if output is None:
        return NOTHING
    return output.schema if output.schema is not None else Raw(b'"json"')


def arguments_object(arguments: bytes) -> bytes | None:
    """The compact JSON of a tool call's arguments if they are one object; None if not. Nothing at all is ``{}``.

    A function without parameters is called with empty text by many models, and that means the same.
    """
    if not arguments or arguments.isspace():
        return b"{}"
    try:
        _SCHEMA.decode(arguments)
        # Line breaks between the tokens, legal in JSON, would end an NDJSON line.
        return msgspec.json.format(arguments, indent=-1)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def read_option(name: str, value: Any) -> Any:
    """One option's value as its type has it; of an unknown name, as it came. Raises InvalidRequest."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in INTEGERS:
        if not number or not -(2**63) <= value < 2**63:
            raise _wrong(name, "integer")
        return int(value)
    if name in FLOATS:
        if not number:
            raise _wrong(name, "float32")
        return float(value)
    if name in BOOLEANS and not isinstance(value, bool):
        raise _wrong(name, "boolean")
    if name == "stop":
        return _stop(value)
    return value


def _stop(value: Any) -> tuple[str, ...]:
    # Ollama refuses a plain string; OpenAI's clients are used to it.
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        raise _wrong("stop", "array")
    if not all(isinstance(text, str) for text in texts):
        raise InvalidRequest('option "stop" must be of an array of strings', param="options.stop")
    return tuple(text for text in texts if text)


def _wrong(name: str, kind: str) -> InvalidRequest:
    return InvalidRequest(f'option "{name}" must be of type {kind}', param=f"options.{name}")

"""What one server's models were found to do: the file that ``dragoman probe --write`` makes and a backend can name.

    url: http://127.0.0.1:1234
    probed: "2026-11-21"
    openai:                       # by the dialect in which it was asked
      qwen3-8b:
        capabilities: {chat: true, tools: true, vision: false}
        inline_thinking: true     # its thoughts stand in the text
        features:
          temperature: honoured
          schema: dropped
          json: {fate: refused, note: "'response_format.type' must be 'json_schema' or 'text'"}

What is not in it is unknown, and stays as it is without the file. Nothing here asks a server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, field, structs

from backends.base import Section
from backends.strict_yaml import YamlError, read_yaml
from canonical.features import Feature
from canonical.models import Capability, ModelInfo, spelling
from canonical.report import DROPPED, HONOURED, IGNORED, Honours, Verdict, approximated
from canonical.requests import Sampling

SIZE_LIMIT = 8 * 1024 * 1024
"""Bytes of a file."""
VALUE_LIMIT = 400_000

Word = Literal["honoured", "approximated", "dropped", "refused", "unknown"]
Dialect = Literal["openai", "ollama", "anthropic"]
DIALECTS: tuple[Dialect, ...] = ("openai", "ollama", "anthropic")
Count = Annotated[int, Meta(ge=0)]


class AbilitiesError(ValueError):
    """The file cannot be used; the message names it and the place in it."""


class Found(Section, frozen=True, omit_defaults=True):
    """What one question showed. ``note``: the server's words of a refusal, or what is done instead."""

    fate: Word
    note: str = ""


class Able(Section, frozen=True, omit_defaults=True):
    """One model, in one dialect. Numbers and texts are what the server told, 0 and empty where it did not."""

    capabilities: dict[Capability, bool] = field(default_factory=dict)
    """What it can and cannot be asked for; one that is missing is unknown."""
    inline_thinking: bool | Literal["opened"] = False
    """It writes its thoughts into the text, between tags; ``opened``: without the first one, which its prompt has."""
    asked_with: dict[str, str] = field(default_factory=dict)
    """Keys of the backend's settings without which it was seen to refuse or ignore what the rest says it does."""
    context_length: Count = 0
    embedding_length: Count = 0
    family: str = ""
    parameter_size: str = ""
    quantization: str = ""
    features: dict[Feature, Word | Found] = field(default_factory=dict)
    also: dict[str, Word | Found] = field(default_factory=dict)
    """What no request's field asks for (streams, counts, the end of a request that is left): for people."""


class Abilities(Section, frozen=True, omit_defaults=True):
    """The whole file."""

    url: str = ""
    probed: str = ""
    """The day, or whatever a person writes there."""
    openai: dict[str, Able] = field(default_factory=dict)
    ollama: dict[str, Able] = field(default_factory=dict)
    anthropic: dict[str, Able] = field(default_factory=dict)

    def models(self) -> Iterator[tuple[Dialect, str, Able]]:
        """All that was found, one after the other."""
        for dialect in DIALECTS:
            for name, able in getattr(self, dialect).items():
                yield dialect, name, able


def read_abilities(path: Path) -> Abilities:
    """The file at ``path``, YAML or (``.json``) JSON.

    Raises:
        AbilitiesError: it is missing, or says something that cannot be.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise AbilitiesError(f"abilities {path.name!r}: {error.strerror}") from error
    try:
        if path.suffix == ".json":
            return msgspec.json.decode(text, type=Abilities)
        document = read_yaml(text, size=SIZE_LIMIT, values=VALUE_LIMIT)
        return msgspec.convert({} if document is None else document, Abilities)
    except (YamlError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise AbilitiesError(f"abilities {path.name!r}: {error}") from error


def write_abilities(abilities: Abilities, *, json: bool) -> bytes:
    """The file's bytes."""
    if json:
        return msgspec.json.format(msgspec.json.encode(abilities), indent=2) + b"\n"
    import yaml

    plain: Any = msgspec.to_builtins(abilities)
    head = "# What `dragoman probe` found. A backend of config.yaml uses it with `abilities: FILE`.\n"
    text: str = yaml.safe_dump(plain, sort_keys=False, width=110)
    return (head + text).encode()


class Corrected(Struct, frozen=True):
    """One model's row and its honours, as far as a file changes them."""

    able: Able
    honours: Honours

    def info(self, told: ModelInfo) -> ModelInfo:
        """The server's row with what was found: abilities found replace those told, numbers fill what is missing."""
        able = self.able
        can = {capability for capability, yes in able.capabilities.items() if yes}
        # Of what was not asked the server's word counts; without one, a model may try.
        rest = (told.capabilities or frozenset(Capability)) - able.capabilities.keys()
        capabilities = frozenset(can | rest) if able.capabilities else told.capabilities
        return structs.replace(filled(told, able), capabilities=capabilities, inline_thinking=able.inline_thinking)


class Known:
    """What a file says of the models of one backend; without a file, nothing."""

    def __init__(self, found: Mapping[str, Able], honours: Honours) -> None:
        self._honours = honours
        self._by_name = {name: Corrected(able, correct(honours, able)) for name, able in found.items()}
        self._by_spelling: dict[str, Corrected] = {}
        for name, corrected in self._by_name.items():
            self._by_spelling.setdefault(spelling(name), corrected)

    def find(self, name: str) -> Corrected | None:
        """What is said of the model that the server calls ``name``, in any spelling of it."""
        return self._by_name.get(name) or self._by_spelling.get(spelling(name))

    def info(self, told: ModelInfo) -> ModelInfo:
        """The server's row of a model, with what was found."""
        corrected = self.find(told.id)
        return told if corrected is None else corrected.info(told)

    def honours(self, name: str) -> Honours:
        """The backend's honours, corrected for one of its models."""
        corrected = self.find(name)
        return self._honours if corrected is None else corrected.honours


_FACTS = ("context_length", "embedding_length", "family", "parameter_size", "quantization")

F = TypeVar("F", Able, ModelInfo)


def filled(told: F, other: Able | ModelInfo) -> F:
    """``told`` with the numbers and texts of ``other`` where it has none."""
    missing = {name: getattr(other, name) for name in _FACTS if not getattr(told, name)}
    return structs.replace(told, **missing)


def known_models(file: str, base: Path, honours: Honours) -> Known:
    """What ``file`` (relative to ``base``; empty: none) says of a backend that has ``honours``.

    Raises:
        AbilitiesError: as for ``read_abilities``; or it has nothing in this backend's dialect.
    """
    if not file:
        return Known({}, honours)
    abilities = read_abilities(base / file)
    found: dict[str, Able] = {name: able for dialect, name, able in abilities.models() if dialect == honours.dialect}
    if not found:
        raise AbilitiesError(f"abilities {Path(file).name!r}: nothing in it was asked in {honours.dialect}'s dialect")
    return Known(found, honours)


_GRADUAL = frozenset(Sampling.__struct_fields__) - {"stop", "logit_bias", "seed", "max_tokens"}
"""Refused was the value that was tried; others may be welcome, so these go to the server, which has its own words."""


def correct(honours: Honours, able: Able) -> Honours:
    """``honours`` as they are for one model.

    What the backend's own words approximate stays so where the server takes it; what they cannot say stays unsaid.
    """
    verdicts: dict[Feature, Verdict] = dict(honours.verdicts)
    refuses: dict[Feature, str] = {}
    for feature, word in able.features.items():
        found = word if isinstance(word, Found) else Found(word)
        before = verdicts.get(feature, DROPPED)
        if before.fate in {"dropped", "refused"}:
            continue
        match found.fate:
            case "honoured" if before.fate == "honoured":
                verdicts[feature] = HONOURED
            case "approximated":
                verdicts[feature] = approximated(found.note or before.note)
            case "dropped":
                verdicts[feature] = IGNORED
            case "refused" if feature.value not in _GRADUAL:
                refuses[feature] = found.note or "no reason was given"
    return structs.replace(honours, verdicts=verdicts, refuses={**honours.refuses, **refuses})

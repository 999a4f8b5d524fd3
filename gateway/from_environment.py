"""A whole configuration out of the environment: the variables of the hybrid API, which is served with LM Studio behind it.

OPENAI_BASE_URL=http://localhost:1234/v1       where LM Studio is
OPENAI_API_KEY=lm-studio                       sent to it
HOST=127.0.0.1  PORT=8000  CORS_ORIGINS=*      where, and for whose pages; origins with commas between, or as a JSON list
DEFAULT_REGULAR_MODEL=...  DEFAULT_VISION_MODEL=...    empty: none
DRAGOMAN_KEY=                                  what clients must send; needed where other machines can reach it

They may stand in an env file; where the environment has one of them too, that one counts, as is usual with such files.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from backends.strict_yaml import YamlError
from gateway.config import ConfigError, settle
from gateway.settings import Settled, is_loopback

USUAL = {
    "OPENAI_BASE_URL": "http://localhost:1234/v1",
    "OPENAI_API_KEY": "lm-studio",
    "HOST": "127.0.0.1",
    "PORT": "8000",
    "CORS_ORIGINS": "*",
    "DEFAULT_REGULAR_MODEL": "qwen/qwen3-4b-2507",
    "DEFAULT_VISION_MODEL": "qwen3-vl-4b-instruct",
    "DRAGOMAN_KEY": "",
    "SERVE_THE_WHOLE_NETWORK_WITHOUT_KEYS": "",
}
"""Every variable that is read, and what it is where nobody sets it."""
EMPTY_IS_UNSET = frozenset({"OPENAI_BASE_URL", "HOST", "PORT"})
DIALECTS = ("hybrid", "openai", "anthropic", "lmstudio", "ollama")
_BACKEND = "lmstudio"
_PLACES = {
    "$.listeners[0].port": "PORT",
    "$.listeners[0].cors": "CORS_ORIGINS",
    "$.listeners[0]": "HOST",
    "$.backends": "OPENAI_BASE_URL, OPENAI_API_KEY",
    "$.models[0]": "DEFAULT_REGULAR_MODEL",
    "$.models": "DEFAULT_VISION_MODEL",
    "$.keys": "DRAGOMAN_KEY",
}
"""A place of the configuration -> the variables that decide it; the first that fits."""

logger = logging.getLogger("dragoman.config")


def load(path: Path | None, environ: Mapping[str, str] = os.environ) -> Settled:
    """The configuration of an env file and the environment, or (None) of the environment alone.

    Raises:
        ConfigError: the file cannot be read, or a variable says something that cannot be.
    """
    where = "the environment" if path is None else str(path)
    try:
        written = {} if path is None else read_env_file(path)
        every = {**written, **environ}
        said = {name: every.get(name, usual) for name, usual in USUAL.items()}
        for name in EMPTY_IS_UNSET:
            said[name] = said[name].strip() or USUAL[name]
        return settle(document(said), base=Path() if path is None else path.parent, environ=every)
    except (ConfigError, YamlError, msgspec.ValidationError) as error:
        raise ConfigError(f"{where}: {_in_variables(str(error))}") from error


def document(said: Mapping[str, str]) -> dict[str, Any]:
    """What config.yaml would say. Raises ConfigError."""
    host, key = said["HOST"], said["DRAGOMAN_KEY"]
    everybody = said["SERVE_THE_WHOLE_NETWORK_WITHOUT_KEYS"].strip().casefold() in {"1", "true", "yes", "on"}
    if not is_loopback(host) and not key and not everybody:
        raise ConfigError(
            f"HOST={host} can be reached from other machines: set DRAGOMAN_KEY to a key that clients must send, "
            "or HOST=127.0.0.1 (or SERVE_THE_WHOLE_NETWORK_WITHOUT_KEYS=true)"
        )
    regular, vision = said["DEFAULT_REGULAR_MODEL"].strip(), said["DEFAULT_VISION_MODEL"].strip()
    return {
        "listeners": [
            {
                "host": host,
                "port": _port(said["PORT"]),
                "dialects": list(DIALECTS),
                "cors": {"origins": _origins(said["CORS_ORIGINS"])},
            }
        ],
        "backends": {_BACKEND: {"type": "lmstudio", "url": said["OPENAI_BASE_URL"], "api_key": said["OPENAI_API_KEY"]}},
        "models": [{"id": name, "backend": _BACKEND} for name in dict.fromkeys((regular, vision)) if name],
        "defaults": {"chat": regular, "vision": vision},
        "keys": [key] if key else [],
        "serve_the_whole_network_without_keys": everybody,
    }


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of an env file; names in any case.

    Raises:
        ConfigError: it cannot be read, or a line is no ``NAME=value``.
    """
    from dotenv.parser import parse_stream

    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(error.strerror or "it cannot be read") from error
    except UnicodeDecodeError as error:
        raise ConfigError("the file is not UTF-8") from error
    found: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            line = binding.original.line + len(binding.original.string) - len(binding.original.string.lstrip("\n"))
            raise ConfigError(f"line {line} is no NAME=value")
        if binding.key is not None:
            name = binding.key.upper()
            if name not in USUAL:
                logger.warning("%s: %s is not a variable that is read", path, binding.key[:100])
            found[name] = binding.value or ""
    return found


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 <= int(text[:6]) <= 65535:
        raise ConfigError(f"PORT={text[:20]} is no port")
    return int(text)


def _origins(text: str) -> list[str]:
    """Origins as people write them: with a slash at the end, too."""
    text = text.strip()
    if text.startswith("["):
        try:
            listed = msgspec.json.decode(text, type=list[str])
        except msgspec.MsgspecError as error:
            raise ConfigError(f"CORS_ORIGINS is no JSON list of texts: {error}") from error
    else:
        listed = text.split(",")
    return [origin.strip().rstrip("/") for origin in listed if origin.strip()]


def _in_variables(text: str) -> str:
    """An error whose place in the configuration is said by the variables that decide it."""
    words, found, place = text.rpartition(" - at `")
    if not found:
        return text
    names = next((names for prefix, names in _PLACES.items() if place.startswith(prefix)), "")
    return f"{words} - in {names}" if names else text

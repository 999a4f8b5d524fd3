"""config.yaml -> frozen structs. Strict: a typo, a wrong type or a missing variable is one error that names its place.

``${NAME}`` in any text stands for an environment variable. YAML is read without tags, with few aliases and no name
twice in one mapping. Backends check their own sections: their ``Settings`` struct says which keys they have.
"""

from __future__ import annotations

import importlib
import ipaddress
import os
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import msgspec
import yaml
from msgspec import Struct, field

from backends.base import TYPES, Backend, Section

SIZE_LIMIT = 1024 * 1024
ALIAS_LIMIT = 100

T = TypeVar("T")

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class ConfigError(Exception):
    """The configuration cannot be used; the message names file and place and holds no secret."""


class Cors(Section, frozen=True):
    """Which web pages may call: exact origins, ``*`` as a wildcard inside one, or ``"*"`` for all."""

    origins: tuple[str, ...] = ()
    credentials: bool = False


class Listener(Section, frozen=True):
    """One port, and the dialects it speaks; the first words the errors of paths that belong to none."""

    port: int
    host: str = "127.0.0.1"
    dialects: tuple[Literal["ollama", "openai"], ...] = ("ollama", "openai")
    hosts: tuple[str, ...] = ()
    """Names besides loopback ones that ``Host`` may bear (against DNS rebinding)."""
    cors: Cors = Cors()

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class ModelEntry(Struct, frozen=True, kw_only=True):
    """One model's name and route; ``settings`` are the keys that its backend understands."""

    id: str
    backend: str
    name: str = ""
    """What the backend calls it; empty: the same as ``id``."""
    aliases: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    """Ids of models to try, in order, when this one's backend cannot be reached."""
    keep_alive: float | str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


class Defaults(Section, frozen=True):
    """Which model answers a request that names none."""

    chat: str = ""
    embed: str = ""


class Limits(Section, frozen=True):
    """Bounds on clients; seconds and bytes."""

    body: int = 32 * 1024 * 1024
    head_time: float = 10.0
    body_silence: float = 30.0
    waiting: int = 512
    """Requests that may wait for one model."""
    waiting_time: float = 60.0
    grace: float = 30.0
    """How long running answers may go on after SIGTERM."""


class Config(Section, frozen=True):
    """The whole file."""

    listeners: tuple[Listener, ...] = (Listener(port=11434),)
    backends: dict[str, dict[str, Any]] = field(default_factory=dict)
    models: tuple[dict[str, Any], ...] = ()
    defaults: Defaults = Defaults()
    limits: Limits = Limits()
    keep_alive: float | str = "5m"
    keys: tuple[str, ...] = ()
    serve_the_whole_network_without_keys: bool = False
    access_log: bool = True


class Settled(Struct, frozen=True, kw_only=True):
    """A configuration whose every part is checked, with its backends made (and nothing loaded or connected yet)."""

    config: Config
    models: tuple[ModelEntry, ...]
    backends: dict[str, Backend]


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Settled:
    """Read and check a configuration file.

    Raises:
        ConfigError: the file is missing, is not YAML, or says something that cannot be.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    try:
        return settle(_parse(text), base=path.parent, environ=environ)
    except (ConfigError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error


def settle(document: Any, *, base: Path, environ: Mapping[str, str]) -> Settled:
    """Check a parsed document. Relative paths in backends' settings count from ``base``."""
    config = msgspec.convert(_expand(document or {}, "$", environ), Config, strict=False)
    _check_listeners(config)
    backends = {name: _backend(name, section, base) for name, section in config.backends.items()}
    models = tuple(_model(index, entry, backends) for index, entry in enumerate(config.models))
    _check_names(config, models)
    _check_self_calls(config)
    return Settled(config=config, models=models, backends=backends)


class _Loader(yaml.SafeLoader):
    aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # type: ignore[no-untyped-call]  # untyped in its stubs
            self.aliases += 1
            if self.aliases > ALIAS_LIMIT:
                raise ConfigError(f"more than {ALIAS_LIMIT} aliases")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"{name!r} stands twice in one mapping, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def _parse(text: bytes) -> Any:
    if len(text) > SIZE_LIMIT:
        raise ConfigError(f"larger than {SIZE_LIMIT} bytes")
    try:
        return yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader, only stricter
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"not YAML: {error.problem}{where}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError("not YAML") from error


def _expand(value: Any, place: str, environ: Mapping[str, str]) -> Any:
    def variable(match: re.Match[str]) -> str:
        if match[1] not in environ:
            raise ConfigError(f"the environment variable {match[1]} is not set - at `{place}`")
        return environ[match[1]]

    match value:
        case str():
            return _VARIABLE.sub(variable, value)
        case dict():
            return {name: _expand(item, f"{place}.{name}", environ) for name, item in value.items()}
        case list():
            return [_expand(item, f"{place}[{index}]", environ) for index, item in enumerate(value)]
        case _:
            return value


def _backend(name: str, section: dict[str, Any], base: Path) -> Backend:
    place = f"$.backends.{name}"
    kind = section.get("type")
    if not isinstance(kind, str):
        raise ConfigError(f"missing `type` (one of {', '.join(sorted(TYPES))}) - at `{place}`")
    target = TYPES.get(kind, kind)
    if ":" not in target:
        raise ConfigError(f"unknown type {kind!r} (one of {', '.join(sorted(TYPES))}) - at `{place}.type`")
    module, _, attribute = target.partition(":")
    try:
        backend_class = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"cannot import {target}: {error} - at `{place}.type`") from error
    rest = {key: value for key, value in section.items() if key != "type"}
    settings = _convert(rest, backend_class.Settings, place)
    try:
        return cast("Backend", backend_class(name, settings, base))
    except ValueError as error:
        raise ConfigError(f"{error} - at `{place}`") from error


def _convert(value: Any, kind: type[T], place: str) -> T:
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        text = str(error)
        raise ConfigError(text.replace("`$", f"`{place}", 1) if "`$" in text else f"{text} - at `{place}`") from error


def _model(index: int, entry: dict[str, Any], backends: dict[str, Backend]) -> ModelEntry:
    place = f"$.models[{index}]"
    own = set(ModelEntry.__struct_fields__) - {"settings"}
    model = _convert({key: value for key, value in entry.items() if key in own}, ModelEntry, place)
    if model.backend not in backends:
        raise ConfigError(f"unknown backend {model.backend!r} - at `{place}.backend`")
    rest = {key: value for key, value in entry.items() if key not in own}
    backend = backends[model.backend]
    settings_class = getattr(backend, "ModelSettings", None)
    if settings_class is not None:
        try:
            backend.configure(model.name or model.id, _convert(rest, settings_class, place))  # type: ignore[attr-defined]  # only backends with ModelSettings have it
        except ValueError as error:
            raise ConfigError(f"{error} - at `{place}`") from error
    elif rest:
        raise ConfigError(f"Object contains unknown field `{next(iter(rest))}` - at `{place}`")
    return model


def _check_listeners(config: Config) -> None:
    if not config.listeners:
        raise ConfigError("no listener - at `$.listeners`")
    seen: set[tuple[str, int]] = set()
    for index, listener in enumerate(config.listeners):
        place = f"$.listeners[{index}]"
        if not 0 <= listener.port < 65536:
            raise ConfigError(f"port {listener.port} is none - at `{place}.port`")
        if not listener.dialects:
            raise ConfigError(f"no dialect - at `{place}.dialects`")
        if listener.port and (listener.host, listener.port) in seen:
            raise ConfigError(f"port {listener.port} stands twice - at `{place}.port`")
        seen.add((listener.host, listener.port))
        if listener.cors.credentials and "*" not in listener.cors.origins:
            raise ConfigError(f'`credentials` goes only with origins ["*"] - at `{place}.cors`')
        if not listener.loopback and not config.keys and not config.serve_the_whole_network_without_keys:
            raise ConfigError(
                f"{listener.host} can be reached from other machines and no `keys` are set; "
                f"set keys, or serve_the_whole_network_without_keys: true - at `{place}.host`"
            )
    if any(len(key) < 8 for key in config.keys):
        raise ConfigError("a key has at least 8 characters - at `$.keys`")


def _check_names(config: Config, models: tuple[ModelEntry, ...]) -> None:
    owners: dict[str, str] = {}
    for model in models:
        for name in (model.id, *model.aliases):
            if name in owners:
                raise ConfigError(f"the name {name!r} belongs to {owners[name]!r} already - at `$.models`")
            owners[name] = model.id
    for model in models:
        for name in model.fallbacks:
            if name not in owners:
                raise ConfigError(f"{model.id!r} falls back to {name!r}, which is no model here - at `$.models`")
    for capability in Defaults.__struct_fields__:
        name = getattr(config.defaults, capability)
        if name and models and name not in owners:
            raise ConfigError(f"no model {name!r} - at `$.defaults.{capability}`")


def _check_self_calls(config: Config) -> None:
    """A backend that is one of our own listeners would call itself for ever."""
    ports = {listener.port for listener in config.listeners}
    for name, section in config.backends.items():
        match = re.match(r"https?://(127\.[\d.]+|localhost|\[::1\]):(\d+)", str(section.get("url", "")))
        if match and int(match[2]) in ports:
            raise ConfigError(f"port {match[2]} is this gateway's own listener - at `$.backends.{name}.url`")

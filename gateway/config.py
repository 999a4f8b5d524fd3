"""config.yaml, read and checked. Strict: a typo, a wrong type or a missing variable is one error that names its place.

``${NAME}`` in any text stands for an environment variable. The keys themselves are ``settings``; backends check their own
sections: their ``Settings`` struct says which keys they have. How YAML is read is ``strict_yaml``'s business.
"""

from __future__ import annotations

import importlib
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import msgspec

from backends.base import TYPES, Backend, Isolates, Pulls, Relays
from backends.extras import have, missing
from backends.links import check_entry
from backends.strict_yaml import YamlError, read_yaml
from canonical.durations import seconds
from gateway.brought import brought_along, in_jinja
from gateway.memory import amount
from gateway.settings import ANY_ADDRESS, Config, Defaults, Images, Jobs, Memory, ModelEntry, Settled, is_loopback
from gateway.store.postgres import check_url

KEY_LENGTH = 8
"""Characters a key has at least."""

T = TypeVar("T")

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_BACKEND_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_KEY = re.compile(r"[!-~]+")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_ORIGIN = re.compile(r"\*|[a-z*][a-z0-9+.*-]*://[^/\s]+")


class ConfigError(Exception):
    """The configuration cannot be used; the message names file and place and holds no secret."""


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
        return settle(read_yaml(text), base=path.parent, environ=environ)
    except (ConfigError, YamlError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply") from error


def settle(document: Any, *, base: Path, environ: Mapping[str, str]) -> Settled:
    """Check a parsed document. Relative paths in backends' settings count from ``base``.

    Raises:
        ConfigError, msgspec.ValidationError: it says something that cannot be; the message names the place.
    """
    config = msgspec.convert(_expand({} if document is None else document, "$", environ), Config, strict=False)
    _check_listeners(config)
    _check_keys(config)
    _check_duration(config.keep_alive, "$.keep_alive")
    _check_memory(config.memory)
    _check_duration(config.responses.keep, "$.responses.keep")
    _check_duration(config.sessions.keep, "$.sessions.keep")
    _check_duration(config.conversations.keep, "$.conversations.keep")
    _check_duration(config.jobs.keep, "$.jobs.keep")
    _check_image_hosts(config.images)
    _check_database(config.database)
    _check_jobs(config.jobs)
    backends = {name: _backend(name, section, base) for name, section in config.backends.items()}
    if not all(listener.loopback for listener in config.listeners):
        for backend in backends.values():
            if isinstance(backend, Isolates):
                backend.expose()
    models = tuple(_model(index, entry, backends, base) for index, entry in enumerate(config.models))
    _check_names(config, models, backends)
    _check_company(models)
    _check_library(config, backends)
    _check_self_calls(config)
    return Settled(config=config, models=models, backends=backends, data_dir=base / config.data_dir, base=base)


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
        case float() if not math.isfinite(value):
            raise ConfigError(f"a finite number is needed - at `{place}`")
        case _:
            return value


def _backend(name: str, section: dict[str, Any], base: Path) -> Backend:
    place = f"$.backends.{name}"
    if not _BACKEND_NAME.fullmatch(name):
        raise ConfigError(f"a backend's name has letters, digits, `_`, `.` and `-` - at `{place}`")
    kind = section.get("type")
    if not isinstance(kind, str):
        raise ConfigError(f"missing `type` (one of {', '.join(sorted(TYPES))}) - at `{place}`")
    target = TYPES.get(kind, kind)
    if ":" not in target:
        raise ConfigError(f"unknown type {kind!r} (one of {', '.join(sorted(TYPES))}) - at `{place}.type`")
    module, _, attribute = target.partition(":")
    try:
        backend_class = getattr(importlib.import_module(module), attribute)
        settings_class = backend_class.Settings
    except Exception as error:  # a module may fail in any way while it is imported
        raise ConfigError(f"cannot use {target}: {error} - at `{place}.type`") from error
    rest = _usual({key: value for key, value in section.items() if key != "type"}, settings_class, place)
    settings = _convert(rest, settings_class, place)
    try:
        return cast("Backend", backend_class(name, settings, base))
    except ValueError as error:
        raise ConfigError(f"{error} - at `{place}`") from error


def _usual(section: dict[str, Any], kind: type, place: str) -> dict[str, Any]:
    """A section whose keys are called as ``kind`` calls them, where it knows other names for them."""
    others: dict[str, str] = getattr(kind, "OTHER_NAMES", {})
    named: dict[str, Any] = {}
    for key, value in section.items():
        name = others.get(key, key)
        if name in named:
            raise ConfigError(f"{name!r} stands twice, under two of its names - at `{place}.{key}`")
        named[name] = value
    return named


def _convert(value: Any, kind: type[T], place: str) -> T:
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        text = str(error)
        raise ConfigError(text.replace("`$", f"`{place}", 1) if "`$" in text else f"{text} - at `{place}`") from error


def _model(index: int, entry: dict[str, Any], backends: dict[str, Backend], base: Path) -> ModelEntry:
    place = f"$.models[{index}]"
    own = set(ModelEntry.__struct_fields__) - {"settings", "own"}
    model = _convert({key: value for key, value in entry.items() if key in own}, ModelEntry, place)
    if model.backend not in backends:
        raise ConfigError(f"unknown backend {model.backend!r} - at `{place}.backend`")
    if model.keep_alive is not None:
        _check_duration(model.keep_alive, f"{place}.keep_alive")
    if model.relay:
        _check_relay(model, backends[model.backend], place)
    if isinstance(model.inline_thinking, tuple) and not model.inline_thinking[1].strip():
        raise ConfigError(f"a thought needs a tag that ends it - at `{place}.inline_thinking`")
    rest = {key: value for key, value in entry.items() if key not in own}
    backend = backends[model.backend]
    settings_class = getattr(backend, "ModelSettings", None)
    try:
        model, template = brought_along(model, base)
        if template and "chat_template" in getattr(settings_class, "__struct_fields__", ()):
            rest.setdefault("chat_template", in_jinja(template))
    except ValueError as error:
        raise ConfigError(f"{error} - at `{place}`") from error
    if settings_class is not None:
        try:
            usual = _usual(rest, settings_class, place)
            if model.own.load.context and "context" in getattr(settings_class, "__struct_fields__", ()):
                usual.setdefault("context", model.own.load.context)  # what it brings along is what is configured
            backend.configure(model.name or model.id, _convert(usual, settings_class, place))  # type: ignore[attr-defined]  # only backends with ModelSettings have it
        except ValueError as error:
            raise ConfigError(f"{error} - at `{place}`") from error
    elif rest:
        raise ConfigError(f"Object contains unknown field `{next(iter(rest))}` - at `{place}`")
    return model


def _check_relay(model: ModelEntry, backend: Backend, place: str) -> None:
    if not isinstance(backend, Relays):
        raise ConfigError(f"{model.backend!r} is no server whose bytes could be relayed - at `{place}.relay`")
    if model.shims or model.inline_thinking:
        raise ConfigError(f"what is relayed unread can have neither shims nor inline_thinking - at `{place}.relay`")
    if model.system or model.parameters or model.messages or model.modelfile:
        raise ConfigError(f"to what is relayed unread nothing can be added - at `{place}.relay`")


def _check_duration(value: float | str, place: str) -> None:
    try:
        seconds(value)
    except ValueError as error:
        raise ConfigError(f"{error} - at `{place}`") from error


def _check_database(url: str) -> None:
    """The message never quotes it: a password may be in it."""
    if not url:
        return
    if not have("psycopg"):
        raise ConfigError(f"{missing('postgres').message} - at `$.database`")
    _check_url(check_url, url, "$.database")


def _check_jobs(jobs: Jobs) -> None:
    """The messages never quote a URL: keys and passwords may be in it."""
    if jobs.queue:
        if not have("redis"):
            raise ConfigError(f"{missing('redis').message} - at `$.jobs.queue`")
        from gateway.jobs.over_redis import queue

        _check_url(queue.check_url, jobs.queue, "$.jobs.queue")
    if jobs.results.startswith("s3:"):
        if not have("obstore"):
            raise ConfigError(f"{missing('s3').message} - at `$.jobs.results`")
        from gateway.jobs import s3

        _check_url(s3.check_url, jobs.results, "$.jobs.results")


def _check_url(check: Callable[[str], None], url: str, place: str) -> None:
    try:
        check(url)
    except ValueError as error:
        raise ConfigError(f"{error} - at `{place}`") from None


def _check_memory(memory: Memory) -> None:
    for name in ("ram", "vram"):
        try:
            amount(getattr(memory, name), math.inf)
        except ValueError as error:
            raise ConfigError(f"{error} - at `$.memory.{name}`") from error


def _check_company(models: tuple[ModelEntry, ...]) -> None:
    """What never goes and what must be alone cannot both be."""
    pinned = next((model.id for model in models if model.pinned), "")
    for index, model in enumerate(models):
        if model.exclusive and pinned and pinned != model.id:
            raise ConfigError(
                f"{pinned!r} is pinned, so {model.id!r} is never alone - at `$.models[{index}].exclusive`"
            )


def _check_image_hosts(images: Images) -> None:
    for index, host in enumerate(images.hosts):
        try:
            check_entry(host)
        except ValueError as error:
            raise ConfigError(f"{error} - at `$.images.hosts[{index}]`") from error


def _check_keys(config: Config) -> None:
    """A key that no header can carry would lock everybody out. The messages never quote one."""
    for index, secret in enumerate(config.secrets):
        if len(secret.key) < KEY_LENGTH or not _KEY.fullmatch(secret.key):
            raise ConfigError(
                f"a key has at least {KEY_LENGTH} characters, all of them ASCII and none blank - at `$.keys[{index}]`"
            )


def _check_listeners(config: Config) -> None:
    if not config.listeners:
        raise ConfigError("no listener - at `$.listeners`")
    seen: set[tuple[str, int]] = set()
    for index, listener in enumerate(config.listeners):
        place = f"$.listeners[{index}]"
        if not listener.dialects:
            raise ConfigError(f"no dialect - at `{place}.dialects`")
        names = [mounted.name for mounted in listener.mounts]
        if len(set(names)) < len(names):
            raise ConfigError(f"a dialect stands twice - at `{place}.dialects`")
        for number, mounted in enumerate(listener.mounts):
            if mounted.prefix and not _PREFIX.fullmatch(mounted.prefix):
                raise ConfigError(
                    f"a prefix is /name or /name/name, without a slash at its end - at `{place}.dialects[{number}].prefix`"
                )
        for origin in listener.cors.origins:
            if not _ORIGIN.fullmatch(origin):
                raise ConfigError(f"an origin is scheme://host, without a path - at `{place}.cors.origins`")
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


def _check_names(config: Config, models: tuple[ModelEntry, ...], backends: dict[str, Backend]) -> None:
    owners: dict[str, str] = {}
    targets: dict[tuple[str, str], str] = {}
    for index, model in enumerate(models):
        place = f"$.models[{index}]"
        for name in (model.id, *model.aliases):
            if not name or not name.isprintable() or name != name.strip():
                raise ConfigError(f"a name is printable and neither empty nor edged with blanks - at `{place}`")
            if name in owners:
                raise ConfigError(f"the name {name!r} belongs to {owners[name]!r} already - at `{place}`")
            owners[name] = model.id
        target = (model.backend, model.name or model.id)
        if target in targets and hasattr(backends[model.backend], "ModelSettings"):
            # One model has one group of settings there: the later would silently replace the earlier.
            raise ConfigError(
                f"{model.id!r} and {targets[target]!r} are one model of {model.backend!r}: use aliases - at `{place}`"
            )
        targets[target] = model.id

    def known(name: str) -> bool:
        return name in owners or name.partition("/")[0] in config.backends

    for index, model in enumerate(models):
        for name in model.fallbacks:
            if owners.get(name) == model.id:
                raise ConfigError(f"{model.id!r} falls back to itself - at `$.models[{index}].fallbacks`")
            if name not in owners:
                raise ConfigError(
                    f"{model.id!r} falls back to {name!r}, which is no model here - at `$.models[{index}].fallbacks`"
                )
    for capability in Defaults.__struct_fields__:
        name = getattr(config.defaults, capability)
        if name and models and not known(name):
            raise ConfigError(
                f"no model {name!r} (a backend's own model is written backend/name) - at `$.defaults.{capability}`"
            )


def _check_library(config: Config, backends: dict[str, Backend]) -> None:
    if config.library and config.library not in backends:
        raise ConfigError(f"unknown backend {config.library!r} - at `$.library`")
    if config.library and not isinstance(backends[config.library], Pulls):
        raise ConfigError(f"backend {config.library!r} cannot fetch models - at `$.library`")


def _check_self_calls(config: Config) -> None:
    """A backend that is one of our own listeners would call itself for ever."""
    for name, section in config.backends.items():
        try:
            url = urlsplit(str(section.get("url", "")))
            host, port = (url.hostname or "").rstrip("."), url.port or {"http": 80, "https": 443}.get(url.scheme)
        except ValueError:
            continue  # the backend has its own words for it
        for listener in config.listeners:
            if host and port == listener.port and _reaches(host, listener.host):
                raise ConfigError(f"port {port} is this gateway's own listener - at `$.backends.{name}.url`")


def _reaches(host: str, listening: str) -> bool:
    """Whether calling ``host`` on a port of ours can end at a socket on ``listening``, as far as names tell."""
    if host == listening.casefold():
        return True
    local = is_loopback(host) or host in ANY_ADDRESS
    return local and (is_loopback(listening) or listening in ANY_ADDRESS)

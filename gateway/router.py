"""A name -> where to send the request. Pure: the catalog is handed in.

In order: exact id, alias, ``backend/name``, another spelling (``name:latest``, letter case), a name of a backend's
catalog, and for no name at all the default of the capability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, structs

from canonical.errors import ModelNotFound, NoModelLoaded, Unsupported
from canonical.models import Capability, ModelInfo
from gateway.config import Defaults, ModelEntry


class Route(Struct, frozen=True):
    """Where a request goes: ``name`` is what the backend calls the model."""

    id: str
    backend: str
    name: str
    entry: ModelEntry | None = None
    info: ModelInfo | None = None
    """What the catalog knows; None while the backend has not told."""


class Directory(Struct, frozen=True):
    """All names that lead somewhere, made anew when the catalog changes."""

    by_id: dict[str, Route]
    by_spelling: dict[str, Route]
    rows: tuple[ModelInfo, ...]
    """What a model list shows: one row an id."""


def directory(models: Sequence[ModelEntry], catalog: Mapping[str, Sequence[ModelInfo]]) -> Directory:
    """Put configured models and the backends' catalogs together; what is configured wins a name.

    A catalog model whose name is taken is listed as ``backend/name``.
    """
    known = {backend: {spelling(info.id): info for info in infos} for backend, infos in catalog.items()}
    by_id: dict[str, Route] = {}
    rows: list[ModelInfo] = []
    for entry in models:
        name = entry.name or entry.id
        info = known.get(entry.backend, {}).get(spelling(name))
        by_id[entry.id] = Route(entry.id, entry.backend, name, entry, info)
        rows.append(structs.replace(info or ModelInfo(id=entry.id), id=entry.id, backend=entry.backend))
    for entry in models:
        for alias in entry.aliases:
            by_id[alias] = by_id[entry.id]
    configured = {(entry.backend, spelling(entry.name or entry.id)) for entry in models}
    for backend, infos in catalog.items():
        for info in infos:
            full = f"{backend}/{info.id}"
            if (backend, spelling(info.id)) not in configured:
                id = full if info.id in by_id else info.id
                by_id[id] = Route(id, backend, info.id, None, info)
                rows.append(structs.replace(info, id=id, backend=backend))
            by_id.setdefault(full, Route(full, backend, info.id, None, info))
    for entry in models:
        by_id.setdefault(f"{entry.backend}/{entry.name or entry.id}", by_id[entry.id])
    by_spelling: dict[str, Route] = {}
    for id, route in by_id.items():
        by_spelling.setdefault(spelling(id), route)
    return Directory(by_id, by_spelling, tuple(rows))


def spelling(name: str) -> str:
    """The form in which names that mean the same are equal: lower case, without ``:latest``."""
    return name.casefold().removesuffix(":latest")


def resolve(name: str, needs: frozenset[Capability], names: Directory, defaults: Defaults) -> Route:
    """The route of a requested name.

    Raises:
        ModelNotFound: nothing bears that name.
        NoModelLoaded: no name was given and no default is set.
        Unsupported: the model is known to lack what the request needs.
    """
    wanted = name
    if not wanted:
        wanted = defaults.embed if Capability.EMBED in needs else defaults.chat
        if not wanted:
            raise NoModelLoaded("model is required", param="model", code="missing_required_parameter")
    route = names.by_id.get(wanted) or names.by_spelling.get(spelling(wanted))
    if route is None:
        raise ModelNotFound(f"model '{name}' not found", param="model")
    if route.info is not None:
        check_needs(name, needs, route.info)
    return route


def check_needs(name: str, needs: frozenset[Capability], info: ModelInfo) -> None:
    """Refuse what the model is known not to do; a model of unknown capabilities may try all.

    Raises:
        Unsupported: in the words that clients match on.
    """
    if not info.capabilities or needs <= info.capabilities:
        return
    missing = min(needs - info.capabilities)
    match missing:
        case Capability.TOOLS:
            raise Unsupported(f"{name} does not support tools", param="tools")
        case Capability.VISION:
            raise Unsupported(f"{name} does not support images", param="messages")
        case Capability.COMPLETE:
            raise Unsupported(f'"{name}" does not support generate', param="model")
        case _:
            raise Unsupported(f'"{name}" does not support {missing}', param="model")

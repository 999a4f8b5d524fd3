"""A name -> where to send the request. Pure: the catalog is handed in.

In order: exact id, alias, ``backend/name``, another spelling of these (``name:latest``, letter case), a name of a
backend's catalog and its spellings, and for no name at all the default of the capability.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct, structs

from adapters.ollama.names import short
from canonical.errors import ModelNotFound, NoModelLoaded, NotImplementedHere, Unsupported
from canonical.models import Capability, ModelInfo, spelling
from gateway.settings import Defaults, ModelEntry
from gateway.shims import with_shims

_ALONE = frozenset({Capability.DETECT, Capability.MATCH, Capability.PAINT, Capability.READ, Capability.TRANSLATE})
"""What a model does that does nothing else."""
_VERBS = {
    Capability.DETECT: "tell a text's language",
    Capability.MATCH: "match labels to pictures",
    Capability.PAINT: "paint",
    Capability.READ: "read the text in pictures",
    Capability.TRANSLATE: "translate",
}
"""In words for who asks for it where nobody can."""
NAME = 200
"""Characters of a name that is told back: what nobody knows may have megabytes."""


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


def directory(
    models: Sequence[ModelEntry], catalog: Mapping[str, Sequence[ModelInfo]], *, silent: Collection[str] = ()
) -> Directory:
    """Put configured models and the backends' catalogs together; what is configured wins a name in any spelling.

    A catalog model whose name is taken is listed as ``backend/name``. The models of a ``silent`` backend, which cannot
    be reached now, are not listed and keep their names: whoever asks for one learns of the failure, and nobody gets
    another model under its name.
    """
    by_id: dict[str, Route] = {}
    rows: list[ModelInfo] = []
    listed: set[tuple[str, str]] = set()
    known = {backend: _Known(infos) for backend, infos in catalog.items()}
    for entry in models:
        name = entry.name or entry.id
        info = known[entry.backend].find(name) if entry.backend in known else None
        if info is not None:
            info = with_shims(info, entry)
        by_id[entry.id] = Route(entry.id, entry.backend, name, entry, info)
        rows.append(structs.replace(info or ModelInfo(id=entry.id), id=entry.id, backend=entry.backend))
        listed.add((entry.backend, info.id if info is not None else name))
    for entry in models:
        for alias in entry.aliases:
            by_id[alias] = by_id[entry.id]
    for entry in models:
        by_id.setdefault(f"{entry.backend}/{entry.name or entry.id}", by_id[entry.id])
    by_spelling: dict[str, Route] = {}
    for id, route in by_id.items():
        by_spelling.setdefault(spelling(id), route)
    owners = dict.fromkeys(by_spelling, "")  # spelling -> the backend that may use it in a list; none: configured
    for backend, infos in known.items():
        for info in infos.by_id.values():
            full = f"{backend}/{info.id}"
            if (backend, info.id) not in listed:
                owner = owners.setdefault(spelling(info.id), backend)
                id = full if info.id in by_id or owner != backend else info.id
                if id in by_id or not info.id:
                    continue  # even its long name means something else here
                by_id[id] = Route(id, backend, info.id, None, info)
                if backend not in silent:
                    rows.append(structs.replace(info, id=id, backend=backend))
            by_id.setdefault(full, Route(full, backend, info.id, None, info))
    for id, route in by_id.items():
        by_spelling.setdefault(spelling(id), route)
    return Directory(by_id, by_spelling, tuple(rows))


class _Known:
    """One backend's catalog, by name and by spelling."""

    def __init__(self, infos: Sequence[ModelInfo]) -> None:
        self.by_id = {info.id: info for info in reversed(infos)}
        self.by_id = dict(reversed(self.by_id.items()))
        self._by_spelling = {spelling(info.id): info for info in reversed(infos)}

    def find(self, name: str) -> ModelInfo | None:
        return self.by_id.get(name) or self._by_spelling.get(spelling(name))


def resolve(name: str, needs: frozenset[Capability], names: Directory, defaults: Defaults) -> Route:
    """The route of a requested name.

    Raises:
        ModelNotFound: nothing bears that name.
        NoModelLoaded: no name was given and no default is set.
        Unsupported: the model is known to lack what the request needs.
    """
    route = _find(name, needs, names, defaults)
    if route.info is not None:
        check_needs(name or route.id, needs, route.info)
    return route


def candidates(name: str, needs: frozenset[Capability], names: Directory, defaults: Defaults) -> list[Route]:
    """The route of a requested name and, in order, its fallbacks; none that is known to lack what the request needs.

    Raises:
        ModelNotFound, NoModelLoaded: as for ``resolve``.
        Unsupported: all are known to lack it; the words are about the model that was asked for.
    """
    first = _find(name, needs, names, defaults)
    entry = first.entry
    if entry is None or not entry.fallbacks:
        if first.info is not None:
            check_needs(name or first.id, needs, first.info)
        return [first]
    routes = [first, *(_find(other, needs, names, defaults) for other in entry.fallbacks)]
    found = [route for route in routes if route.info is None or not lacks(needs, route.info)]
    if not found and first.info is not None:
        check_needs(name or first.id, needs, first.info)
    return found


def _find(name: str, needs: frozenset[Capability], names: Directory, defaults: Defaults) -> Route:
    wanted = name
    if not wanted:
        wanted = default(needs, names, defaults)
        if not wanted and needs & _ALONE:
            raise NotImplementedHere(
                f"no model here can {_VERBS[min(needs & _ALONE)]}: its backend is to be configured"
            )
        if not wanted:
            raise NoModelLoaded("model is required", param="model", code="missing_required_parameter")
    route = known(wanted, names)
    if route is None:
        raise ModelNotFound(f"model '{wanted[:NAME]}' not found", param="model")
    return route


def known(name: str, names: Directory) -> Route | None:
    """The route of a name as it is, with another case or tag, or with Ollama's own registry before it."""
    return (
        names.by_id.get(name) or names.by_spelling.get(spelling(name)) or names.by_spelling.get(spelling(short(name)))
    )


def default(needs: frozenset[Capability], names: Directory, defaults: Defaults) -> str:
    """The model of a request that names none; empty: there is none."""
    match sorted(needs & _ALONE):
        case [alone]:
            # There is mostly one of these, and no dialect has a word for it.
            able = (row for row in names.rows if alone in row.capabilities)
            first = next((row.id for row in sorted(able, key=lambda row: bool(row.trouble))), "")
            return getattr(defaults, alone, "") or first
        case _ if Capability.EMBED in needs:
            return defaults.embed
        case _ if Capability.RERANK in needs:
            return defaults.rerank
        case _:
            return (defaults.vision if Capability.VISION in needs else "") or defaults.chat


def lacks(needs: frozenset[Capability], info: ModelInfo) -> bool:
    """Whether a model is known not to do something of ``needs``; one of unknown capabilities may try all."""
    return bool(info.capabilities) and not needs <= info.capabilities


def check_needs(name: str, needs: frozenset[Capability], info: ModelInfo) -> None:
    """Refuse what the model is known not to do; a model of unknown capabilities may try all.

    Raises:
        Unsupported: in the words that clients match on.
    """
    if not lacks(needs, info):
        return
    missing = min(needs - info.capabilities)
    match missing:
        case Capability.TOOLS:
            raise Unsupported(f"{name} does not support tools", param="tools")
        case Capability.VISION:
            raise Unsupported(f"{name} does not support images", param="messages")
        case Capability.COMPLETE:
            raise Unsupported(f'"{name}" does not support generate', param="model")
        case Capability.REASONING:
            raise Unsupported(f'"{name}" does not support thinking', param="think")
        case _:
            raise Unsupported(f'"{name}" does not support {missing}', param="model")

"""Names -> routes: in one order, and whatever is listed can be called by the name under which it is listed."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canonical.errors import BackendUnavailable, GatewayError, ModelNotFound, NoModelLoaded, Unsupported
from canonical.models import Capability, ModelInfo
from gateway.catalog import FRESH, PATIENCE, Catalog
from gateway.router import Directory, Route, directory, resolve
from gateway.settings import Defaults, ModelEntry
from tests.virtual_time import run

NOTHING: frozenset[Capability] = frozenset()


def entry(id: str, backend: str = "local", name: str = "", **more) -> ModelEntry:
    return ModelEntry(id=id, backend=backend, name=name, **more)


def infos(*names: str, **more) -> list[ModelInfo]:
    return [ModelInfo(id=name, **more) for name in names]


def where(names: Directory, name: str, defaults: Defaults | None = None) -> tuple[str, str]:
    route = resolve(name, NOTHING, names, defaults or Defaults())
    return route.backend, route.name


def listed(names: Directory) -> list[str]:
    return [row.id for row in names.rows]


def test_the_order_of_names():
    """Each step's name exists in all later steps as well, and loses there."""
    models = [
        entry("one", name="n1"),
        entry("two", name="n2", aliases=("Three", "studio/n5")),
        entry("n4-owner", backend="studio", name="n4"),
    ]
    catalog = {"studio": infos("one", "Three", "n4", "n5", "TWO", "free", "three:latest")}
    names = directory(models, catalog)
    assert where(names, "one") == ("local", "n1")  # exact id, before the catalog's
    assert where(names, "Three") == ("local", "n2")  # alias, before the catalog's
    assert where(names, "studio/n5") == ("local", "n2")  # alias, before backend/name
    assert where(names, "studio/one") == ("studio", "one")  # backend/name
    assert where(names, "studio/n4") == ("studio", "n4")
    assert where(names, "TWO") == ("local", "n2")  # another spelling of an id, before the catalog's exact one
    assert where(names, "two:latest") == ("local", "n2")
    assert where(names, "three:LATEST") == ("local", "n2")  # another spelling of an alias
    assert where(names, "STUDIO/ONE:latest") == ("studio", "one")
    assert where(names, "free") == ("studio", "free")  # the catalog
    assert where(names, "FREE:latest") == ("studio", "free")  # and its other spellings
    assert where(names, "", Defaults(chat="Two")) == ("local", "n2")  # no name: the default, found the same way
    with pytest.raises(ModelNotFound, match="model 'none' not found"):
        where(names, "none")


def test_clashes_are_listed_as_backend_and_name():
    models = [entry("foo"), entry("bar", aliases=("baz",))]
    names = directory(models, {"a": infos("foo", "FOO", "baz", "x"), "b": infos("x", "foo:latest")})
    assert listed(names) == ["foo", "bar", "a/foo", "a/FOO", "a/baz", "x", "b/x", "b/foo:latest"]
    assert where(names, "x") == ("a", "x")
    assert where(names, "b/x") == ("b", "x")


def test_m2_two_backends_spellings_of_one_name_are_two_rows():
    """A list of Ollama's shows every name with its tag: ``x`` and another backend's ``x:latest`` would be twins there."""
    names = directory([], {"a": infos("x"), "b": infos("x:latest", "X", "y"), "c": infos("Y:latest")})
    assert listed(names) == ["x", "b/x:latest", "b/X", "y", "c/Y:latest"]
    assert where(names, "X:latest") == ("a", "x")
    assert where(names, "b/X") == ("b", "X")


def test_a_configured_id_that_looks_like_backend_and_name_is_kept():
    names = directory([entry("a/x", backend="local", name="mine")], {"b": infos("x"), "a": infos("x")})
    assert where(names, "a/x") == ("local", "mine")
    assert listed(names) == ["a/x", "x"]  # a's x has no name left, and takes nobody else's


def test_a_configured_model_is_one_row_with_what_the_catalog_knows_of_it():
    models = [entry("public", backend="a", name="inner"), entry("llama3.2", backend="a")]
    names = directory(models, {"a": infos("inner", "llama3.2:latest", family="f", size=7)})
    assert listed(names) == ["public", "llama3.2"]
    assert [(row.backend, row.family, row.size) for row in names.rows] == [("a", "f", 7)] * 2
    assert where(names, "a/inner") == ("a", "inner")
    assert where(names, "llama3.2:latest") == ("a", "llama3.2")


def test_a_silent_backend_costs_only_its_own_rows_and_no_name_changes_its_meaning():
    catalog = {"a": infos("x", "y"), "b": infos("x", "z")}
    well, ill = directory([entry("own")], catalog), directory([entry("own")], catalog, silent={"a"})
    assert listed(well) == ["own", "x", "y", "b/x", "z"]
    assert listed(ill) == ["own", "b/x", "z"]
    for name in ("own", "x", "y", "b/x", "z", "a/x"):
        assert where(well, name) == where(ill, name)


def test_no_name_and_no_default():
    names = directory([entry("own")], {})
    with pytest.raises(NoModelLoaded, match="model is required"):
        resolve("", frozenset({Capability.CHAT}), names, Defaults(embed="own"))
    assert resolve("", frozenset({Capability.EMBED}), names, Defaults(embed="own")).id == "own"
    with pytest.raises(ModelNotFound, match="model 'gone' not found"):
        resolve("", NOTHING, names, Defaults(chat="gone"))


@pytest.mark.parametrize(
    ("needs", "able", "words"),
    [
        ({"tools", "chat"}, {"chat", "complete"}, "does not support tools"),
        ({"chat", "vision"}, {"chat"}, "does not support images"),
        ({"complete"}, {"embed"}, '"m" does not support generate'),
        ({"chat"}, {"embed"}, '"m" does not support chat'),
        ({"chat", "tools"}, {"embed"}, '"m" does not support chat'),
        ({"embed"}, {"chat"}, '"m" does not support embed'),
        ({"insert"}, {"chat", "complete"}, '"m" does not support insert'),
        ({"chat", "reasoning"}, {"chat"}, '"m" does not support thinking'),
    ],
)
def test_what_a_model_cannot_do_is_refused_in_the_contracts_words(needs, able, words):
    info = ModelInfo(id="m", capabilities=frozenset(map(Capability, able)))
    names = directory([], {"a": [info]})
    with pytest.raises(Unsupported, match=words):
        resolve("m", frozenset(map(Capability, needs)), names, Defaults())


def test_a_model_of_unknown_abilities_may_try_all():
    names = directory([entry("m")], {})
    assert resolve("m", frozenset(Capability), names, Defaults()).id == "m"


_names = st.sampled_from(["a", "A", "b", "a:latest", "x/a", "y/a", "x/x/a", "b:7b", "B:7B", ""])
_backends = st.sampled_from(["x", "y"])


@st.composite
def _worlds(draw) -> tuple[list[ModelEntry], dict[str, list[ModelInfo]]]:
    models = []
    used: set[str] = set()
    for _ in range(draw(st.integers(0, 3))):
        own = [
            name for name in draw(st.lists(_names, min_size=1, max_size=3, unique=True)) if name and name not in used
        ]
        if own:
            used.update(own)
            models.append(entry(own[0], draw(_backends), draw(_names), aliases=tuple(own[1:])))
    catalog = draw(st.dictionaries(_backends, st.lists(_names, max_size=4).map(lambda names: infos(*names))))
    return models, catalog


@given(_worlds())
def test_any_world_keeps_the_promises(world):
    models, catalog = world
    names = directory(models, catalog)
    ids = listed(names)
    assert len(ids) == len(set(ids))
    for row in names.rows:  # whatever is listed can be called, and is what the row says
        route = resolve(row.id, NOTHING, names, Defaults())
        assert (route.id, route.backend) == (row.id, row.backend)
    for model in models:  # what is configured wins
        for name in (model.id, *model.aliases):
            assert resolve(name, NOTHING, names, Defaults()).entry == model
    for backend, rows in catalog.items():
        for row in rows:
            route: Route | None = names.by_id.get(f"{backend}/{row.id}")
            assert route is not None or not row.id
    for silent in ("x", "y"):
        ill = directory(models, catalog, silent={silent})
        assert ill.by_id == names.by_id
        configured = [model.id for model in models]
        assert listed(ill) == [row.id for row in names.rows if row.id in configured or row.backend != silent]


# The catalog: lists over time


class Shelf:
    """A backend that lists, slowly or not, or fails."""

    def __init__(self, *names: str, time: float = 0.0) -> None:
        self.names, self.time, self.asked = names, time, 0
        self.failure: Exception | None = None

    async def models(self) -> list[ModelInfo]:
        self.asked += 1
        await asyncio.sleep(self.time)
        if self.failure is not None:
            raise self.failure
        return infos(*self.names)


def _catalog(**shelves: Shelf) -> Catalog:
    return Catalog(shelves, [], clock=lambda: asyncio.get_running_loop().time())


def test_a_list_is_asked_for_once_in_a_while_and_by_many_at_once():
    async def whole() -> None:
        shelf = Shelf("m", time=0.5)
        catalog = _catalog(a=shelf)
        answers = await asyncio.gather(*(catalog.refresh() for _ in range(50)))
        assert all(listed(answer) == ["m"] for answer in answers)
        assert shelf.asked == 1
        await catalog.refresh()
        assert shelf.asked == 1
        await asyncio.sleep(FRESH)
        shelf.names = ("m", "n")
        assert listed(await catalog.refresh()) == ["m", "n"]
        assert shelf.asked == 2

    run(whole())


@pytest.mark.parametrize("failure", [BackendUnavailable("down"), RuntimeError("a defect")])
def test_a_dead_backend_costs_only_its_own_models_and_is_back_soon(failure):
    async def whole() -> None:
        dead, well, strange = Shelf("d"), Shelf("w"), Shelf("s")
        catalog = _catalog(dead=dead, well=well)
        assert listed(await catalog.refresh()) == ["d", "w"]
        assert catalog.stranger is None
        dead.failure = failure
        await asyncio.sleep(FRESH)
        names = await catalog.refresh()
        assert listed(names) == ["w"]
        assert where(names, "d") == ("dead", "d")  # so that its caller hears "unavailable" and not "not found"
        assert set(catalog.failures) == {"dead"}
        assert catalog.stranger is None  # it is known what it has
        strange.failure = failure
        unknown = _catalog(strange=strange)
        await unknown.refresh()
        assert isinstance(unknown.stranger, GatewayError)
        dead.failure = None
        await asyncio.sleep(FRESH)
        assert listed(await catalog.refresh()) == ["d", "w"]

    run(whole())


def test_a_slow_backend_is_waited_for_once():
    async def whole() -> None:
        loop = asyncio.get_running_loop()
        slow = Shelf("s", time=1000)
        catalog = _catalog(slow=slow, well=Shelf("w"))
        assert listed(await catalog.refresh()) == ["w"]
        assert loop.time() == pytest.approx(PATIENCE)
        for _ in range(5):
            await asyncio.sleep(FRESH)
            began = loop.time()
            assert listed(await catalog.refresh()) == ["w"]
            assert loop.time() == pytest.approx(began)
        slow.time = 0
        await asyncio.sleep(1000)
        assert listed(await catalog.refresh()) == ["s", "w"]
        await catalog.close()

    run(whole())


def test_a_reader_that_leaves_stops_no_list():
    async def whole() -> None:
        shelf = Shelf("m", time=1)
        catalog = _catalog(a=shelf)
        leaver = asyncio.ensure_future(catalog.refresh())
        await asyncio.sleep(0)
        leaver.cancel()
        assert listed(await catalog.refresh()) == ["m"]
        assert shelf.asked == 1

    run(whole())

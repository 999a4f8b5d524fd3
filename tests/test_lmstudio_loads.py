"""Models in LM Studio's memory: loaded once, watched, stopped, shared with its user, and found again after a restart."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.lmstudio import package
from backends.lmstudio.settings import Loading
from canonical.errors import BackendError, BackendTimeout, BackendUnavailable, GatewayError, ModelNotFound, OutOfMemory
from canonical.progress import Progress
from canonical.requests import LoadOptions
from tests.calling import until
from tests.lmstudio.server import Running, running
from tests.lmstudio.studio import Fault, Studio
from tests.studios import TOKEN, answer, backend, opened, run


@pytest.fixture
def server() -> Iterator[Running]:
    with running() as (_, server):
        yield server


@pytest.fixture
def studio(server: Running) -> Studio:
    return server.studio


def loads(studio: Studio) -> int:
    return len(studio.asked("loadModel")) + len(studio.asked("POST /api/v1/models/load"))


def test_h6_a_model_is_loaded_with_progress_and_as_asked_and_unloaded_at_the_end(studio: Studio) -> None:
    async def scenario() -> None:
        home = backend(studio, load={"gpu": "max", "flash_attention": True, "context": 512}, ttl="10m")
        told: list[Progress] = []
        model = await opened(home, "pip", LoadOptions(context=2048, batch=64, mmap=False), told)
        (pip,) = studio.instances.values()
        assert (pip.id, pip.context, pip.ttl, pip.jit) == ("pip", 2048, 600.0, False)
        assert pip.config["llm.load.llama.flashAttention"] is True
        assert pip.config["llm.load.llama.acceleration.offloadRatio"] == "max"
        assert pip.config["llm.load.llama.evalBatchSize"] == 64
        assert pip.config["llm.load.llama.tryMmap"] is False
        shares = [progress.share for progress in told]
        assert (shares[0], shares[-1], shares) == (0.0, 1.0, sorted(shares))
        assert model.honours.load == LoadOptions(context=2048, batch=64)
        assert (await answer(model)).text == "Hello from the stand-in"
        assert model.loaded().context_length == 2048
        await model.close()
        assert not studio.instances
        await home.close()

    run(scenario())


def test_an_embedding_model_has_a_namespace_of_its_own(studio: Studio) -> None:
    async def scenario() -> None:
        home = backend(studio, load={"context": 1024, "flash_attention": True})
        model = await opened(home, "embed")
        assert [entry.where for entry in studio.log if entry.body.get("endpoint") == "loadModel"] == ["embedding"]
        assert studio.instances["embed"].context == 1024
        await model.close()
        assert not studio.instances

    run(scenario())


def test_who_come_at_once_share_one_load_and_the_last_to_leave_ends_it(studio: Studio) -> None:
    """By whatever name: LM Studio would make ``pip:2`` of every further load."""

    async def scenario() -> None:
        studio.load_time = 0.1
        home = backend(studio)
        names = ["pip", "pip@f16"] * 4
        models = await asyncio.gather(*(opened(home, name) for name in names))
        assert (loads(studio), list(studio.instances)) == (1, ["pip"])
        for model in models[1:]:
            await model.close()
        assert list(studio.instances) == ["pip"]
        await models[0].close()
        assert not studio.instances

    run(scenario())


def test_what_its_user_has_loaded_is_used_as_it_is_and_stays(studio: Studio) -> None:
    async def scenario() -> None:
        studio.keep(studio.rows["pip"], id="mine", context=1024)
        home = backend(studio)
        assert {info.id for info in await home.models()} == {"pip", "acme/big", "embed", "mine"}
        for name, context in (("pip", 512), ("mine", 1024), ("pip", 4096)):
            model = await opened(home, name, LoadOptions(context=context))
            assert model.honours.load == LoadOptions(context=1024)  # so that who wants more is told
            assert (await answer(model)).text
            assert studio.asked("POST /v1/chat/completions")[-1]["model"] == "mine"
            await model.close()
        assert (loads(studio), list(studio.instances)) == (0, ["mine"])

    run(scenario())


def test_ours_is_loaded_anew_for_a_longer_context_and_never_for_more_than_there_is(studio: Studio) -> None:
    async def scenario() -> None:
        home = backend(studio)
        for context, has in ((1024, 1024), (4096, 4096), (1_000_000, 8192)):
            model = await opened(home, "pip", LoadOptions(context=context))
            assert studio.instances["pip"].context == has
            await model.close()
        one = await opened(home, "pip", LoadOptions(context=1_000_000))
        before = loads(studio)
        two = await opened(home, "pip", LoadOptions(context=1_000_000))
        assert loads(studio) == before
        await one.close()
        await two.close()

    run(scenario())


def test_where_somebody_else_was_first_theirs_is_used(studio: Studio) -> None:
    async def scenario() -> None:
        studio.load_time = 0.2
        home = backend(studio)
        loading = asyncio.ensure_future(opened(home))
        await until(lambda: bool(studio.asked("loadModel")))
        studio.keep(studio.rows["pip"])
        model = await loading
        assert list(studio.instances) == ["pip"]  # the second one has gone again
        await model.close()
        assert list(studio.instances) == ["pip"]

    run(scenario())


def test_a_load_that_nobody_waits_for_is_cancelled_there(studio: Studio) -> None:
    async def scenario() -> None:
        studio.load_time = 60
        home = backend(studio)
        told: list[Progress] = []
        loading = asyncio.ensure_future(opened(home, told=told))
        await until(lambda: bool(told))
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        cancels = [entry.body for entry in studio.log if (entry.body.get("message") or {}).get("type") == "cancel"]
        assert (len(cancels), studio.instances) == (1, {})
        studio.load_time = 0
        await (await opened(home)).close()

    run(scenario())


FAULTS: dict[Fault, type[GatewayError]] = {
    "drop": BackendUnavailable,
    "close": BackendError,
    "load": OutOfMemory,
    "binary": BackendUnavailable,
    "stall": BackendTimeout,
    "refuse": BackendError,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_load_that_fails_says_so_and_leaves_nothing(
    studio: Studio, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "STOP_TIME", 0.1)

    async def scenario() -> None:
        home = backend(studio, load_time=0.3)
        studio.fault = fault
        with pytest.raises(GatewayError) as caught:
            await opened(home)
        assert type(caught.value) is FAULTS[fault]
        assert TOKEN not in caught.value.message
        studio.fault = ""
        assert not studio.instances
        await (await opened(home)).close()

    run(scenario())


def test_a_load_as_long_as_it_moves_may_take_longer_than_its_limit(studio: Studio) -> None:
    async def scenario() -> None:
        studio.load_time = 0.6
        await (await opened(backend(studio, load_time=0.3))).close()

    run(scenario())


def test_its_token_opens_both_its_ways(studio: Studio) -> None:
    async def scenario() -> None:
        studio.token = TOKEN
        with pytest.raises(BackendError) as caught:
            await opened(backend(studio))
        assert caught.value.code == "backend_credentials"
        model = await opened(backend(studio, api_key=TOKEN))
        assert (await answer(model)).text
        await model.close()
        assert not studio.instances

    run(scenario())


def test_a_restart_costs_a_load_and_no_answer(server: Running) -> None:
    async def scenario() -> None:
        studio = server.studio
        home = backend(studio)
        model = await opened(home, "pip", LoadOptions(context=2048))
        assert (await answer(model)).text
        await asyncio.to_thread(server.restart)
        assert not studio.instances
        model._hold.seen -= 60  # a while ago
        assert (await answer(model)).text
        assert (studio.instances["pip"].context, studio.instances["pip"].jit) == (2048, False)

        studio.jit = False
        await asyncio.to_thread(server.restart)  # a moment ago: the request finds out
        assert (await answer(model)).text
        assert studio.instances["pip"].context == 2048
        await model.close()
        assert not studio.instances

    run(scenario())


def test_a_restart_in_the_middle_of_a_load_is_a_load_from_the_start(server: Running) -> None:
    async def scenario() -> None:
        studio = server.studio
        studio.load_time = 60
        home = backend(studio)
        told: list[Progress] = []
        loading = asyncio.ensure_future(opened(home, told=told))
        await until(lambda: bool(told))
        server.stop()  # in this thread: the loop sees it when it is over
        studio.load_time = 0
        server.start()
        model = await loading
        assert (loads(studio), list(studio.instances)) == (2, ["pip"])
        await model.close()

    run(scenario())


def test_what_is_not_there_is_not_found_and_a_server_that_is_down_unavailable(server: Running) -> None:
    async def scenario() -> None:
        home = backend(server.studio)
        with pytest.raises(ModelNotFound):
            await opened(home, "nobody")
        model = await opened(home)
        await asyncio.to_thread(server.stop)
        with pytest.raises(BackendUnavailable):
            await answer(model)
        with pytest.raises(BackendUnavailable):
            await opened(home, "acme/big")
        await model.close()
        await asyncio.to_thread(server.start)

    run(scenario())


def test_another_that_came_to_its_name_is_not_unloaded(studio: Studio) -> None:
    async def scenario() -> None:
        home = backend(studio)
        model = await opened(home)
        studio.instances.clear()
        studio.keep(studio.rows["pip"])  # its user threw it out, and loaded it again
        await model.close()
        assert list(studio.instances) == ["pip"]

    run(scenario())


def test_an_lm_studio_that_hangs_keeps_nobody_from_closing(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "STOP_TIME", 0.1)
    monkeypatch.setattr("backends.lmstudio.residence.UNLOAD_TIME", 0.1)

    async def scenario() -> None:
        home = backend(server.studio)
        model = await opened(home)
        server.hang(1.0)
        async with asyncio.timeout(0.8):
            await model.close()
        await home.close()

    run(scenario())


def test_without_the_package_it_is_loaded_by_rest(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.lmstudio.backend.installed", lambda: False)

    async def scenario() -> None:
        home = backend(studio, load={"context": 2048, "gpu": "max", "batch": 32})
        model = await opened(home)
        assert studio.asked("POST /api/v1/models/load") == [
            {"model": "pip", "context_length": 2048, "eval_batch_size": 32}
        ]
        assert (await answer(model)).text
        await model.close()
        await (await opened(home, "embed")).close()  # which knows fewer settings
        assert studio.asked("POST /api/v1/models/load")[-1] == {"model": "embed", "context_length": 2048}
        assert (studio.instances, studio.asked("loadModel")) == ({}, [])

        studio.fault = "load"
        with pytest.raises(OutOfMemory):  # other models make room then
            await opened(home)
        studio.fault, studio.load_time = "", 60
        with pytest.raises(BackendTimeout):
            await opened(backend(studio, load_time=0.1))
        studio.load_time = 0
        studio.surfaces = frozenset({"sockets", "/v1", "/api/v0"})
        with pytest.raises(BackendError, match="pip install"):
            await opened(home)

    run(scenario())


def test_a_server_without_its_websockets_is_asked_by_rest(studio: Studio) -> None:
    async def scenario() -> None:
        studio.surfaces = frozenset({"/v1", "/api/v1"})
        model = await opened(backend(studio))
        assert list(studio.instances) == ["pip"]
        await model.close()
        assert not studio.instances

    run(scenario())


def test_a_version_that_tells_nothing_of_its_memory_is_only_asked(studio: Studio) -> None:
    async def scenario() -> None:
        studio.surfaces = frozenset({"/v1"})
        model = await opened(backend(studio))
        assert (await answer(model)).text
        await model.close()
        assert studio.instances["pip"].jit

    run(scenario())


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_of_the_environment_gets_nothing(studio: Studio, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)

    async def scenario() -> None:
        model = await opened(backend(studio))
        assert len(studio.asked("loadModel")) == 1
        assert (await answer(model)).text
        await model.close()

    run(scenario())


def test_the_package_is_imported_when_something_is_loaded_and_no_sooner() -> None:
    code = "import sys, backends.lmstudio; print([name for name in ('lmstudio', 'httpx') if name in sys.modules])"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent
    )
    assert told.stdout.strip() == "[]"


def test_a_request_wishes_over_an_entry_over_a_backend() -> None:
    from backends.lmstudio.settings import settled

    layers = Loading(context=1, gpu=0.5, batch=8), Loading(context=2)
    assert settled(*layers, options=LoadOptions()) == Loading(context=2, gpu=0.5, batch=8)
    asked = LoadOptions(context=3, gpu_layers=-1, batch=16)
    assert settled(*layers, options=asked) == Loading(context=3, gpu="max", batch=16)
    assert settled(*layers, options=LoadOptions(gpu_layers=0)).gpu == "off"
    assert settled(*layers, options=LoadOptions(gpu_layers=12)).gpu == 0.5  # it knows shares, no numbers

"""The stand-in LM Studio is one as far as the official package can tell: both of its clients drive all of it."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import lmstudio
import pytest

from tests.lmstudio.server import Running, running
from tests.lmstudio.studio import Fault, Row, Studio

TOKEN = "sk-lm-abcdefgh:ABCDEFGHIJ0123456789"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def studio() -> Iterator[Studio]:
    with running() as (studio, _):
        yield studio


@pytest.fixture
def server() -> Iterator[Running]:
    with running() as (_, server):
        yield server


def add(a: int, b: int) -> int:
    """The sum of two numbers."""
    return a + b


def test_the_sync_client_drives_its_whole_surface(studio: Studio) -> None:
    with lmstudio.Client(studio.host) as client:
        assert [model.model_key for model in client.list_downloaded_models()] == ["pip", "acme/big", "embed"]
        assert [model.model_key for model in client.list_downloaded_models("embedding")] == ["embed"]
        told: list[float] = []
        pip = client.llm.load_new_instance(
            "pip",
            "my-pip",
            ttl=30,
            config={"contextLength": 2048, "flashAttention": True},
            on_load_progress=told.append,
        )
        assert (told[0], told[-1], told) == (0.0, 1.0, sorted(told))
        assert (pip.get_info().context_length, pip.get_context_length()) == (2048, 2048)
        assert pip.get_load_config().flash_attention is True
        assert (list(pip.tokenize("one three")), pip.count_tokens("one three")) == ([3, 5], 2)
        assert pip.respond("hi").content == "Hello from the stand-in"
        assert pip.complete("hi", config={"maxTokens": 2}).stats.stop_reason == "maxPredictedTokensReached"
        thoughts = [part.content for part in pip.respond_stream("think") if part.reasoning_type == "reasoning"]
        assert thoughts == ["hmm"]
        assert pip.respond("x", response_format={"type": "object"}).parsed == {"ok": True}
        assert pip.act("sum", [add]).rounds == 2
        chat = lmstudio.Chat()
        chat.add_user_message("look", images=[client.prepare_image(PNG)])
        assert pip.respond(chat).content.startswith("Hello")
        assert "look" in pip.apply_prompt_template(chat)
        stream = pip.respond_stream("slow")
        for number, _ in enumerate(stream):
            if number == 2:
                stream.cancel()
        assert (stream.result().stats.stop_reason, studio.running) == ("userStopped", 0)

        embed = client.embedding.model("embed")
        assert embed.embed(["a", "bb"])[1][0] == 2.0
        assert [one.identifier for one in client.list_loaded_models()] == ["my-pip", "embed"]
        told.clear()
        assert client.llm.model("pip", on_load_progress=told.append).identifier == "my-pip"
        assert told == [1.0]
        assert [client.llm.load_new_instance("pip").identifier for _ in range(2)] == ["pip", "pip:2"]
        pip.unload()

        (found,) = client.repository.search_models("acme/new")
        (option,) = found.get_download_options()
        pieces: list[Any] = []
        assert option.download(on_progress=pieces.append) == "acme/new"
        assert (pieces[-1].downloaded_bytes, pieces[-1].total_bytes) == (1000, 1000)
        assert client.llm.model("acme/new").identifier == "acme/new"
        with pytest.raises(lmstudio.LMStudioServerError, match="Cannot find a model"):
            client.llm.load_new_instance("nobody")
        with pytest.raises(lmstudio.LMStudioModelNotFoundError):
            client.llm.get_model_info("nobody")


def test_the_async_client_does_it_side_by_side(studio: Studio) -> None:
    async def scenario() -> None:
        async with lmstudio.AsyncClient(studio.host) as client:
            pip = await client.llm.model("pip")
            answers = await asyncio.gather(*(pip.respond(f"hi {n}") for n in range(20)))
            assert {answer.content for answer in answers} == {"Hello from the stand-in"}
            assert len(await client.list_downloaded_models()) == 3
            stream = await pip.respond_stream("slow")
            async for _ in stream:
                await stream.cancel()
            assert stream.result().stats.stop_reason == "userStopped"
            embed = await client.embedding.model("embed")
            assert len(await embed.embed(["a", "b", "c"])) == 3
            (found,) = await client.repository.search_models("new")
            (option,) = await found.get_download_options()
            assert await option.download() == "acme/new"
            assert [one.identifier for one in await client.list_loaded_models()] == ["embed"]  # it took pip's place
            await embed.unload()
            assert await client.list_loaded_models() == []

    asyncio.run(scenario())


FAULTS: dict[Fault, Any] = {
    "drop": lmstudio.LMStudioWebsocketError,
    "close": lmstudio.LMStudioRuntimeError,
    "partial": lmstudio.LMStudioServerError,
    "old": lmstudio.LMStudioPredictionError,
    "binary": lmstudio.LMStudioWebsocketError,
    "uncalled": lmstudio.LMStudioWebsocketError,
    "novel": Exception,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_a_failure_of_its_own(studio: Studio, fault: Fault) -> None:
    async def scenario() -> None:
        async with lmstudio.AsyncClient(studio.host) as client:
            pip = await client.llm.model("pip")
            studio.fault = fault
            with pytest.raises(FAULTS[fault]):
                await asyncio.wait_for(pip.respond("hi"), 5)
            studio.fault = ""

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(scenario())


def test_what_it_does_not_understand_is_never_answered(studio: Studio) -> None:
    async def scenario() -> None:
        async with lmstudio.AsyncClient(studio.host) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.system.remote_call("inventGravity"), 0.2)
            assert await client.list_loaded_models() == []

    asyncio.run(scenario())


def test_a_restart_ends_sessions_for_good_and_empties_the_memory(server: Running) -> None:
    async def scenario() -> None:
        host = server.studio.host
        async with lmstudio.AsyncClient(host) as client:
            await client.llm.model("pip")
            await asyncio.to_thread(server.restart)
            with pytest.raises(lmstudio.LMStudioWebsocketError):
                await client.list_loaded_models()
        async with lmstudio.AsyncClient(host) as client:
            assert await client.list_loaded_models() == []

    asyncio.run(scenario())


def test_a_token_is_asked_for_everywhere(studio: Studio) -> None:
    class Known(lmstudio.Client):
        def _create_auth_message(self, *_: Any) -> dict[str, Any]:
            return dict(self._format_auth_message(TOKEN[6:14], TOKEN[15:]))

    studio.token = TOKEN
    with pytest.raises((ValueError, lmstudio.LMStudioServerError)), lmstudio.Client(studio.host) as client:
        client.list_loaded_models()
    with Known(studio.host) as client:
        assert list(client.list_loaded_models()) == []
    assert httpx.get(f"{studio.url}/v1/models").status_code == 401
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert httpx.get(f"{studio.url}/v1/models", headers=bearer).json()["object"] == "list"


def test_its_rest_has_the_oddities_of_the_real_one(studio: Studio) -> None:
    with httpx.Client(base_url=studio.url) as client:

        def post(path: str, **body: Any) -> httpx.Response:
            return client.post(path, json=body)

        unknown = client.get("/nowhere")
        assert (unknown.status_code, unknown.json()) == (
            200,
            {"error": "Unexpected endpoint or method. (GET /nowhere)"},
        )
        assert "created" not in client.get("/v1/models").json()["data"][0]
        assert client.get("/api/v0/models/pip").json()["state"] == "not-loaded"
        hi = {"model": "pip", "messages": [{"role": "user", "content": "hi"}]}
        refused = post("/v1/chat/completions", **hi, response_format={"type": "json_object"})
        assert (refused.status_code, refused.json()["error"]) == (
            400,
            "'response_format.type' must be 'json_schema' or 'text'",
        )
        assert post("/v1/chat/completions", **hi, tool_choice={"type": "function"}).status_code == 400
        assert post("/v1/embeddings", model="embed", input=[[1, 2]]).status_code == 400

        assert post("/v1/chat/completions", **hi, ttl=60).json()["usage"]["total_tokens"] == 15
        (pip,) = client.get("/api/v1/models").json()["models"][0]["loaded_instances"]
        assert (pip["id"], studio.instances["pip"].ttl) == ("pip", 60)
        post("/v1/chat/completions", **{**hi, "model": "acme/big"})
        assert list(studio.instances) == ["acme/big"]  # the other had only been set off by a request
        loads = [post("/api/v1/models/load", model="pip", echo_load_config=True).json() for _ in range(2)]
        assert [load["instance_id"] for load in loads] == ["pip", "pip:2"]
        assert loads[0]["load_config"] == {"context_length": 4096}
        assert post("/api/v1/models/unload", instance_id="pip:2").json() == {"instance_id": "pip:2"}
        assert post("/api/v1/models/unload", instance_id="pip:2").status_code == 404

        job = post("/api/v1/models/download", model="acme/new").json()
        looks = [client.get(f"/api/v1/models/download/status/{job['job_id']}").json() for _ in range(4)]
        assert [look["status"] for look in looks] == ["downloading"] * 3 + ["completed"]
        assert post("/api/v1/models/download", model="acme/new").json()["status"] == "already_downloaded"
        studio.jit = False
        studio.instances.clear()
        assert "No models loaded" in post("/v1/chat/completions", **hi).json()["error"]["message"]


def test_idle_models_go_when_their_time_is_over() -> None:
    now = [0.0]
    studio = Studio(Row(key="pip"), clock=lambda: now[0])
    studio.keep(studio.rows["pip"], ttl=60)
    now[0] = 59
    assert studio.loaded("pip") is not None
    now[0] = 60
    assert studio.loaded("pip") is None

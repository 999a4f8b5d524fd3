"""The stand-in's HTTP: OpenAI's routes, ``/api/v0`` and ``/api/v1``.

GET /nowhere        -> 200 {"error":"Unexpected endpoint or method. (GET /nowhere)"}
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx

from tests.lmstudio import script
from tests.lmstudio.studio import CONTEXT, JIT_TTL, Entry, Instance, Json, Row, Studio, Told

# fmt: off
DRAWN = frozenset((
    "model", "messages", "prompt", "input", "stream", "stream_options", "stop", "temperature", "top_p", "top_k",
    "max_tokens", "presence_penalty", "frequency_penalty", "logit_bias", "repeat_penalty",
    "seed", "tools", "tool_choice", "response_format", "reasoning_effort",
))
# fmt: on
"""The fields it heeds; others are passed over without a word."""


_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""The system's certificates take 30 ms to read each time, and serve nothing here."""


class Failure(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, error: Any) -> None:
        super().__init__(str(error))
        self.status, self.error = status, error


def _worded(status: int, message: str, code: str | None = None, param: str | None = None) -> Failure:
    return Failure(status, {"message": message, "type": "invalid_request_error", "param": param, "code": code})


class Exchange:
    """One request and its answer."""

    def __init__(self, studio: Studio, scope: Json, receive: Any, send: Any) -> None:
        self.studio, self.receive, self.send = studio, receive, send
        self.method, self.path = scope["method"], scope["path"]
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.body: Json = {}
        self.begun = False

    async def read(self) -> None:
        data, more = b"", True
        while more:
            event = await self.receive()
            data, more = data + event.get("body", b""), event.get("more_body", False)
        try:
            self.body = json.loads(data) if data else {}
        except ValueError:
            raise _worded(400, "the body is no JSON") from None

    async def reply(self, body: Any, status: int = 200) -> None:
        await self._head(status, b"application/json")
        await self.send({"type": "http.response.body", "body": json.dumps(body).encode()})

    async def _head(self, status: int, kind: bytes) -> None:
        self.begun = True
        await self.send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})

    async def stream(self, records: AsyncIterator[Json | str]) -> None:
        """Server-sent events, until they end or the client leaves: that ends the generation."""
        await self._head(200, b"text/event-stream")
        left = asyncio.ensure_future(self._gone())
        sending = asyncio.ensure_future(self._send_all(records))
        try:
            await asyncio.wait((left, sending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
            if not sending.done():
                sending.cancel()
            await asyncio.gather(left, sending, return_exceptions=True)
        with contextlib.suppress(asyncio.CancelledError):
            sending.result()

    async def _gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def _send_all(self, records: AsyncIterator[Json | str]) -> None:
        try:
            async for record in records:
                kind = b"event: error\n" if isinstance(record, dict) and "error" in record else b""
                text = record if isinstance(record, str) else json.dumps(record)
                data = kind + b"data: " + text.encode() + b"\n\n"
                await self.send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            await records.aclose()  # type: ignore[attr-defined]  # an async generator
        await self.send({"type": "http.response.body", "body": b""})


async def serve(studio: Studio, scope: Json, receive: Any, send: Any) -> None:
    """One request."""
    exchange = Exchange(studio, scope, receive, send)
    try:
        await exchange.read()
        studio.log.append(Entry(f"{exchange.method} {exchange.path}", exchange.body, exchange.headers))
        if exchange.path == "/lmstudio-greeting":
            await exchange.reply({"lmstudio": True})
            return
        _check_token(exchange)
        await _route(exchange)
    except Failure as failure:
        await exchange.reply({"error": failure.error}, failure.status)
    except Told as error:
        if not exchange.begun:
            words = ": ".join(filter(None, (error.wire["title"], error.wire.get("cause"))))
            await exchange.reply({"error": {"type": "internal_error", "message": words}}, 500)


def _check_token(exchange: Exchange) -> None:
    token, headers = exchange.studio.token, exchange.headers
    told = headers.get("authorization", "").removeprefix("Bearer ") or headers.get("x-api-key", "")
    if exchange.studio.fault == "refuse" or (token and told != token):
        error = {"type": "invalid_request", "code": "invalid_api_key", "message": f"Malformed API token {told!r}"}
        raise Failure(401, error)


async def _route(exchange: Exchange) -> None:
    studio, method, path = exchange.studio, exchange.method, exchange.path
    surface = next((one for one in studio.surfaces if path.startswith(one + "/")), None)
    found = None if surface is None else _ROUTES.get((method, path))
    if found is not None:
        await found(exchange)
    elif surface == "/api/v0" and method == "GET" and path.startswith("/api/v0/models/"):
        row = studio.downloaded(path.removeprefix("/api/v0/models/"))
        if row is None:
            raise _worded(404, "no such model", "model_not_found")
        await exchange.reply(_beta(studio, row))
    elif surface == "/api/v1" and method == "GET" and path.startswith("/api/v1/models/download/status/"):
        await _download_status(exchange)
    else:
        raise Failure(200, f"Unexpected endpoint or method. ({method} {path})")


# Lists


async def _openai_list(exchange: Exchange) -> None:
    studio = exchange.studio
    studio.expire()
    names = [*(studio.rows if studio.jit else ()), *studio.instances]
    rows = [{"id": name, "object": "model", "owned_by": "organization_owner"} for name in dict.fromkeys(names)]
    await exchange.reply({"object": "list", "data": rows})


async def _beta_list(exchange: Exchange) -> None:
    rows = [_beta(exchange.studio, row) for row in exchange.studio.rows.values()]
    await exchange.reply({"object": "list", "data": rows})


def _beta(studio: Studio, row: Row) -> Json:
    found = studio.loaded(row.key)
    kind = "embeddings" if row.type == "embedding" else "vlm" if row.vision else "llm"
    told: Json = {
        "id": row.key, "object": "model", "type": kind, "publisher": row.publisher, "arch": row.architecture,
        "compatibility_type": "gguf", "quantization": row.quantization,
        "state": "not-loaded" if found is None else "loaded", "max_context_length": row.max_context,
    }  # fmt: skip
    if row.tools and row.type == "llm":
        told["capabilities"] = ["tool_use"]
    if found is not None:
        told["loaded_context_length"] = found.context
    return told


async def _native_list(exchange: Exchange) -> None:
    exchange.studio.expire()
    await exchange.reply({"models": [_native(exchange.studio, row) for row in exchange.studio.rows.values()]})


def _native(studio: Studio, row: Row) -> Json:
    instances = [
        {"id": one.id, "config": {"context_length": one.context, "flash_attention": True}}
        for one in studio.instances.values()
        if one.row.key == row.key
    ]
    told: Json = {
        "type": row.type, "publisher": row.publisher, "key": row.key, "display_name": row.key.title(),
        "quantization": {"name": row.quantization, "bits_per_weight": row.bits}, "size_bytes": row.size,
        "params_string": row.params, "loaded_instances": instances, "max_context_length": row.max_context,
        "format": "gguf",
    }  # fmt: skip
    if row.type == "llm":
        can: Json = {"vision": row.vision, "trained_for_tool_use": row.tools}
        if row.reasoning:
            can["reasoning"] = {"allowed_options": list(row.reasoning), "default": row.reasoning[-1]}
        told |= {"architecture": row.architecture, "capabilities": can, "description": None,
                 "variants": [row.names[-1]], "selected_variant": row.names[-1]}  # fmt: skip
    return told


# A model's life


async def _load(exchange: Exchange) -> None:
    studio, asked = exchange.studio, exchange.body
    row = studio.downloaded(asked.get("model", ""))
    if row is None:
        raise Failure(404, {"type": "model_not_found", "message": f"Model {asked.get('model')} not found"})
    async for _ in studio.loading():
        pass
    context = min(asked.get("context_length") or CONTEXT, row.max_context)
    instance = studio.keep(row, context=context, config=asked)
    reply: Json = {"type": row.type, "instance_id": instance.id, "load_time_seconds": 0.1, "status": "loaded"}
    if asked.get("echo_load_config"):
        reply["load_config"] = {"context_length": context}
    await exchange.reply(reply)


async def _unload(exchange: Exchange) -> None:
    id = exchange.body.get("instance_id")
    if exchange.studio.instances.pop(id, None) is None:
        raise Failure(404, {"type": "model_not_found", "message": f"No loaded instance {id}"})
    await exchange.reply({"instance_id": id})


async def _download(exchange: Exchange) -> None:
    studio, name = exchange.studio, exchange.body.get("model", "")
    if name in studio.rows:
        await exchange.reply({"status": "already_downloaded"})
        return
    row = studio.catalog.get(name)
    if row is None:
        raise Failure(404, {"type": "model_not_found", "message": f"Model {name} not found"})
    running = next((job for job in studio.downloads.values() if job["model"] == name and job["left"] > 0), None)
    job = running or {"job_id": f"job_{len(studio.downloads)}", "model": name, "left": studio.download_pieces}
    studio.downloads[job["job_id"]] = job
    await exchange.reply({"job_id": job["job_id"], "status": "downloading", "total_size_bytes": row.size})


async def _download_status(exchange: Exchange) -> None:
    """Each look finds it one piece further."""
    studio = exchange.studio
    job = studio.downloads.get(exchange.path.rpartition("/")[2])
    if job is None:
        raise Failure(404, {"type": "job_not_found", "message": "no such job"})
    row = studio.catalog[job["model"]]
    told: Json = {"job_id": job["job_id"], "total_size_bytes": row.size, "status": "downloading"}
    if studio.fault == "load":
        await exchange.reply({**told, "status": "failed"})
        return
    job["left"] -= 1
    done = studio.download_pieces - job["left"]
    told["downloaded_bytes"] = row.size * done // studio.download_pieces
    if job["left"] <= 0:
        studio.rows[row.key] = row
        told["status"] = "completed"
    await exchange.reply(told)


# Answers


async def _instance(exchange: Exchange, type: str) -> Instance:
    """What answers; a model on the disk is loaded by the request. Two first requests at once load it twice."""
    studio, name = exchange.studio, exchange.body.get("model") or None
    found = studio.loaded(name, type)
    if found is None:
        row = studio.downloaded(name, type) if studio.jit and name else None
        if row is None:
            words = "No models loaded. Please load a model in the developer page or use the 'lms load' command."
            raise _worded(404, words, param="model")
        studio.evicted()
        async for _ in studio.loading():
            pass
        found = studio.keep(row, ttl=exchange.body.get("ttl") or JIT_TTL, jit=True)
    studio.use(found)
    return found


def _check(body: Json) -> None:
    form = body.get("response_format")
    if form is not None and form.get("type") not in {"json_schema", "text"}:
        raise Failure(400, "'response_format.type' must be 'json_schema' or 'text'")
    choice = body.get("tool_choice")
    if choice is not None and not isinstance(choice, str):
        words = "Invalid tool_choice type: 'object'. Supported string values: none, auto, required"
        raise _worded(400, words, param="tool_choice")
    if "prompt" in body and not isinstance(body["prompt"], str):
        raise Failure(400, "'prompt' must be a string")


async def _chat(exchange: Exchange) -> None:
    _check(exchange.body)
    instance = await _instance(exchange, "llm")
    chat = exchange.path.endswith("/chat/completions")
    if exchange.studio.mind:
        await _passed_on(exchange, instance)
    elif exchange.body.get("stream"):
        await exchange.stream(_chunks(exchange, instance, chat=chat))
    else:
        await exchange.reply(await _whole(exchange, instance, chat=chat))


async def _chunks(exchange: Exchange, instance: Instance, *, chat: bool) -> AsyncIterator[Json | str]:
    studio, asked = exchange.studio, script.from_rest(exchange.body)
    base: Json = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": instance.id,
                  "system_fingerprint": instance.id}  # fmt: skip

    def chunk(delta: Json, finish: str | None = None) -> Json:
        said: Json = {"delta": {"role": "assistant", **delta}} if chat else {"text": delta.get("content", "")}
        return {**base, "choices": [{"index": 0, **said, "logprobs": None, "finish_reason": finish}]}

    count, finish = 0, "stop"
    answer = script.say(studio, asked)
    try:
        async for piece in answer:
            count += 1
            finish = "tool_calls" if piece.kind == "call" else finish
            yield chunk(_said(studio, piece))
            if count == 1 and studio.fault == "drop":
                raise ConnectionResetError
    except Told as error:
        yield {"error": {"message": error.wire["title"]}, "message": error.wire["title"]}
        return
    finally:
        await answer.aclose()  # type: ignore[attr-defined]  # an async generator
    if studio.fault == "empty":
        return
    yield chunk({}, "length" if asked.limit == count else finish)
    if (exchange.body.get("stream_options") or {}).get("include_usage"):
        yield {**base, "choices": [], "usage": _usage(count)}
    yield "[DONE]"


def _said(studio: Studio, piece: script.Piece) -> Json:
    match piece.kind:
        case "call":
            function = {"name": piece.name, "arguments": piece.text}
            return {"tool_calls": [{"index": 0, "id": "1", "type": "function", "function": function}]}
        case "thought" if studio.reasoning_in != "text":
            return {studio.reasoning_in: piece.text}
        case "thought":
            return {"content": f"<think>{piece.text}</think>"}
    return {"content": piece.text}


def _usage(count: int) -> Json:
    return {"prompt_tokens": 10, "completion_tokens": count, "total_tokens": 10 + count}


async def _whole(exchange: Exchange, instance: Instance, *, chat: bool) -> Json:
    asked = script.from_rest(exchange.body)
    message: Json = {"role": "assistant", "content": ""}
    count, finish = 0, "stop"
    async for piece in script.say(exchange.studio, asked):
        count += 1
        for name, value in _said(exchange.studio, piece).items():
            message[name] = message.get(name, "") + value if isinstance(value, str) else value
        finish = "tool_calls" if piece.kind == "call" else finish
    said: Json = {"message": message} if chat else {"text": message["content"]}
    finish = "length" if asked.limit == count else finish
    told: Json = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": instance.id,
        "choices": [{"index": 0, **said, "logprobs": None, "finish_reason": finish}], "usage": _usage(count),
        "stats": {}, "system_fingerprint": instance.id,
    }  # fmt: skip
    if exchange.path.startswith("/api/v0/"):
        told["stats"] = {"tokens_per_second": 100.5, "time_to_first_token": 0.02, "generation_time": 0.1,
                         "stop_reason": "eosFound"}  # fmt: skip
        told["model_info"] = {"arch": instance.row.architecture, "quant": instance.row.quantization, "format": "gguf",
                              "context_length": instance.context}  # fmt: skip
        told["runtime"] = {"name": "stand-in", "version": "1", "supported_formats": ["gguf"]}
    return told


async def _embeddings(exchange: Exchange) -> None:
    given = exchange.body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Failure(400, "'input' field must be a string or an array of strings")
    instance = await _instance(exchange, "embedding")
    if exchange.studio.mind:
        await _passed_on(exchange, instance)
        return
    rows = [{"object": "embedding", "index": at, "embedding": script.vector(text)} for at, text in enumerate(texts)]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    model = f"{instance.row.key}@{instance.row.quantization.lower()}"
    await exchange.reply({"object": "list", "data": rows, "model": model, "usage": usage})


async def _passed_on(exchange: Exchange, instance: Instance) -> None:
    """The mind's own answer, to what this server heeds of the request."""
    body = {name: value for name, value in exchange.body.items() if name in DRAWN}
    body["model"] = instance.row.key
    async with (
        httpx.AsyncClient(trust_env=False, timeout=60, verify=_NO_TLS) as client,
        client.stream("POST", exchange.studio.mind + exchange.path, json=body) as answer,
    ):
        if answer.headers["content-type"].startswith("text/event-stream"):
            await exchange.stream(_lines(exchange.studio, answer))
        else:
            await answer.aread()
            await exchange.reply(answer.json(), answer.status_code)


async def _lines(studio: Studio, answer: httpx.Response) -> AsyncIterator[Json | str]:
    studio.running += 1
    rest = b""
    try:
        async for data in answer.aiter_raw():
            *records, rest = (rest + data).split(b"\n\n")
            for record in records:
                if record.startswith(b"data: "):
                    yield record.removeprefix(b"data: ").decode()
    finally:
        studio.running -= 1


_ROUTES = {
    ("GET", "/v1/models"): _openai_list,
    ("POST", "/v1/chat/completions"): _chat,
    ("POST", "/v1/completions"): _chat,
    ("POST", "/v1/embeddings"): _embeddings,
    ("GET", "/api/v0/models"): _beta_list,
    ("POST", "/api/v0/chat/completions"): _chat,
    ("POST", "/api/v0/completions"): _chat,
    ("POST", "/api/v0/embeddings"): _embeddings,
    ("GET", "/api/v1/models"): _native_list,
    ("POST", "/api/v1/models/load"): _load,
    ("POST", "/api/v1/models/unload"): _unload,
    ("POST", "/api/v1/models/download"): _download,
}

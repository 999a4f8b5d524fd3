"""The websocket namespaces: a handshake, then calls and channels side by side, each in a task of its own.

    {"type":"rpcCall","endpoint":"listLoaded","callId":1}       -> {"type":"rpcResult","callId":1,"result":[]}
    {"type":"channelCreate","endpoint":"loadModel","channelId":1,"creationParameter":{…}}
                                                                -> channelSend …, then channelClose or channelError

What it does not understand is never answered: the client gets a ``communicationWarning``, and waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

from tests.lmstudio import script
from tests.lmstudio.studio import CONTEXT, Entry, Instance, Json, Row, Studio, Told

NAMESPACES = ("llm", "embedding", "system", "files", "repository")
Channel = Callable[[int, Json, asyncio.Event], Awaitable[None]]


class Broken(Exception):
    """A fault has ended the connection, or the channel without a word."""


def model_info(row: Row) -> Json:
    """A model on the disk, with the keys that some client demands."""
    info: Json = {
        "type": row.type, "modelKey": row.key, "format": "gguf", "displayName": row.key.title(),
        "publisher": row.publisher, "path": row.path, "sizeBytes": row.size, "indexedModelIdentifier": row.path,
        "deviceIdentifier": None, "paramsString": row.params, "architecture": row.architecture,
        "maxContextLength": row.max_context, "quantization": {"name": row.quantization, "bits": row.bits},
    }  # fmt: skip
    if row.type == "llm":
        info |= {"vision": row.vision, "trainedForToolUse": row.tools}
    return info


def instance_info(instance: Instance) -> Json:
    """A model in memory."""
    return {
        **model_info(instance.row),
        "identifier": instance.id,
        "instanceReference": instance.reference,
        "contextLength": instance.context,
        "ttlMs": None if instance.ttl is None else int(instance.ttl * 1000),
        "lastUsedTime": None,
    }


def _fields(stack: Json) -> Json:
    return {field["key"]: field.get("value") for layer in stack["layers"] for field in layer["config"]["fields"]}


def _kv(config: Json) -> Json:
    return {"fields": [{"key": key, "value": value} for key, value in config.items()]}


class Connection:
    """One namespace of one client."""

    def __init__(self, studio: Studio, namespace: str, send: Any) -> None:
        self._studio, self._namespace, self._send = studio, namespace, send
        self._channels: dict[int, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        model = namespace in {"llm", "embedding"}
        self._calls: dict[str, Callable[[Any], Any]] = {}
        self._streams: dict[str, Channel] = {}
        if model:
            self._calls = {
                "listLoaded": lambda _: [instance_info(one) for one in self._mine()],
                "getModelInfo": self._info,
                "getLoadConfig": lambda asked: _kv(self._resolve(asked["specifier"]).config),
                "unloadModel": self._unload,
                "tokenize": lambda asked: {"tokens": script.tokens(self._text(asked))},
                "countTokens": lambda asked: {"tokenCount": len(script.tokens(self._text(asked)))},
            }
            self._streams = {"loadModel": self._load, "getOrLoad": self._get_or_load}
        if namespace == "llm":
            self._calls["applyPromptTemplate"] = lambda asked: {"formatted": json.dumps(asked["history"])}
            self._streams["predict"] = self._predict
        elif namespace == "embedding":
            self._calls["embedString"] = self._embed
        elif namespace == "system":
            self._calls["listDownloadedModels"] = self._downloaded
            self._calls["version"] = lambda _: {"version": "0.4.9", "build": 1}
        elif namespace == "files":
            self._calls["uploadFileBase64"] = lambda asked: {
                "identifier": f"1 - {asked['name']}",
                "fileType": "image",
                "sizeBytes": len(asked["contentBase64"]) * 3 // 4,
            }
        elif namespace == "repository":
            self._calls["searchModels"] = self._search
            self._calls["getModelDownloadOptions"] = self._options
            self._streams["downloadModel"] = self._download

    async def take(self, message: Json) -> None:
        """One message of the client's."""
        match message:
            case {"type": "rpcCall", "endpoint": endpoint} if endpoint in self._calls:
                self._spawn(self._answer(message))
            case {"type": "channelCreate", "endpoint": endpoint} if endpoint in self._streams:
                self._spawn(self._stream(message))
            case {"type": "channelSend", "channelId": id, "message": {"type": "cancel"}} if id in self._channels:
                self._channels[id].set()
            case {"type": "keepAlive"}:
                await self._tell({"type": "keepAliveAck"})
            case _:
                what = message.get("endpoint", message.get("type"))
                await self._tell({"type": "communicationWarning", "warning": f"Received an unknown message: {what}"})

    async def end(self) -> None:
        """The client has gone: whatever it asked for stops."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, message: Json) -> None:
        await self._send({"type": "websocket.send", "text": json.dumps(message)})

    async def _say(self, id: int, **message: Any) -> None:
        await self._tell({"type": "channelSend", "channelId": id, "message": message})

    async def _answer(self, call: Json) -> None:
        told: Json = {"type": "rpcResult", "callId": call["callId"]}
        try:
            result = self._calls[call["endpoint"]](call.get("parameter"))
        except Told as error:
            told = {"type": "rpcError", "callId": call["callId"], "error": error.wire}
        else:
            if result is not None:  # a void result has no key
                told["result"] = result
        if self._studio.fault == "stall":
            return
        if self._studio.fault == "drop":
            await self._send({"type": "websocket.close", "code": 1011})
            return
        await self._tell(told)

    async def _stream(self, create: Json) -> None:
        id = create["channelId"]
        self._channels[id] = cancelled = asyncio.Event()
        try:
            await self._streams[create["endpoint"]](id, create["creationParameter"], cancelled)
        except Told as error:
            await self._tell({"type": "channelError", "channelId": id, "error": error.wire})
        except Broken:
            pass
        else:
            await self._tell({"type": "channelClose", "channelId": id})
        finally:
            del self._channels[id]

    async def _fault(self, id: int) -> None:
        """What a switch does to a channel that has said something."""
        match self._studio.fault:
            case "drop":
                await self._send({"type": "websocket.close", "code": 1011})
                raise Broken
            case "stall":
                await asyncio.sleep(3600)
            case "close":
                await self._tell({"type": "channelClose", "channelId": id})
                raise Broken
            case "old":
                await self._say(id, type="error", error={"title": "an old error"})
                await self._tell({"type": "channelClose", "channelId": id})
                raise Broken
            case "text":
                await self._tell({"type": "channelError", "channelId": id, "error": "a bare string"})
                raise Broken
            case "binary":
                frame = json.dumps({"type": "channelClose", "channelId": id}).encode()
                await self._send({"type": "websocket.send", "bytes": frame})
                raise Broken
            case "uncalled":
                await self._tell({"type": "signalUpdate", "subscribeId": 1, "patches": [], "tags": []})

    # Calls

    def _mine(self) -> list[Instance]:
        self._studio.expire()
        return [one for one in self._studio.instances.values() if one.row.type == self._namespace]

    def _resolve(self, specifier: Json) -> Instance:
        if specifier["type"] == "instanceReference":
            found = next((one for one in self._mine() if one.reference == specifier["instanceReference"]), None)
            query: Json = {}
        else:
            query = specifier["query"]
            found = self._studio.loaded(query.get("identifier") or query.get("path"), self._namespace)
        if found is None:
            raise Told(
                "No model found that fits the query",
                displayData={
                    "code": "generic.noModelMatchingQuery", "query": query,
                    "loadedModelsSample": list(self._studio.instances)[:5],
                    "totalLoadedModels": len(self._studio.instances),
                },
            )  # fmt: skip
        return found

    def _info(self, asked: Json) -> Json | None:
        try:
            return instance_info(self._resolve(asked["specifier"]))
        except Told:
            if asked["throwIfNotFound"]:
                raise
            return None

    def _text(self, asked: Json) -> str:
        self._resolve(asked["specifier"])
        return str(asked["inputString"])

    def _unload(self, asked: Json) -> None:
        if self._studio.instances.pop(asked["identifier"], None) is None:
            raise Told("No such model", displayData={"code": "generic.identifierNotFound", **asked})

    def _embed(self, asked: Json) -> Json:
        self._studio.use(self._resolve(asked["modelSpecifier"]))
        return {"embedding": script.vector(asked["inputString"])}

    def _downloaded(self, _: Any) -> list[Json]:
        rows = [model_info(row) for row in self._studio.rows.values()]
        if self._studio.fault == "novel":
            rows.append({**rows[0], "modelKey": "painter", "type": "imageGen"})
        return rows

    def _search(self, asked: Json) -> Json:
        term = asked["opts"].get("searchTerm") or ""
        found = [key for key in self._studio.catalog if term in key]
        return {"results": [{"name": key, "identifier": {"type": "catalog", "identifier": key}, "exact": key == term}
                            for key in found]}  # fmt: skip

    def _options(self, asked: Json) -> Json:
        key = asked["modelSearchResultIdentifier"]["identifier"]
        row = self._studio.catalog[key]
        option = {
            "name": row.key, "quantization": row.quantization, "sizeBytes": row.size, "fitEstimation": "fullGPUOffload",
            "downloadIdentifier": key, "indexedModelIdentifier": row.path, "recommended": True,
        }  # fmt: skip
        return {"results": [option]}

    # Channels

    async def _load(self, id: int, asked: Json, cancelled: asyncio.Event) -> None:
        row = self._on_disk(asked["modelKey"])
        await self._say(id, type="resolved", info=model_info(row))
        await self._progress(id, "progress", cancelled)
        ttl = _seconds(asked.get("ttlMs"))
        instance = self._keep(row, asked.get("identifier") or "", asked["loadConfigStack"], ttl, jit=False)
        await self._say(id, type="success", info=instance_info(instance))

    async def _get_or_load(self, id: int, asked: Json, cancelled: asyncio.Event) -> None:
        found = self._studio.loaded(asked["identifier"], self._namespace)
        if found is not None:  # whatever its configuration is
            await self._say(id, type="alreadyLoaded", info=instance_info(found))
            return
        row = self._on_disk(asked["identifier"])
        await self._say(id, type="startLoading", identifier=asked["identifier"], info=model_info(row))
        for gone in self._studio.evicted():
            await self._say(id, type="unloadingOtherJITModel", info=instance_info(gone))
        await self._progress(id, "loadProgress", cancelled)
        ttl = _seconds(asked.get("loadTtlMs"))
        instance = self._keep(row, "", asked["loadConfigStack"], ttl, jit=True)
        await self._say(id, type="loadSuccess", info=instance_info(instance))

    def _on_disk(self, name: str) -> Row:
        row = self._studio.downloaded(name, self._namespace)
        if row is None:
            raise Told(
                "Cannot find a model of that path",
                displayData={
                    "code": "generic.pathNotFound", "path": name,
                    "availablePathsSample": list(self._studio.rows)[:5], "totalModels": len(self._studio.rows),
                },
            )  # fmt: skip
        return row

    async def _progress(self, id: int, type: str, cancelled: asyncio.Event) -> None:
        async for share in self._studio.loading():
            if cancelled.is_set():
                raise Told("Model loading was cancelled")
            await self._say(id, type=type, progress=share)
            if share > 0:
                await self._fault(id)

    def _keep(self, row: Row, id: str, stack: Json, ttl: float | None, *, jit: bool) -> Instance:
        config = _fields(stack)
        key = f"{self._namespace}.load.contextLength"
        context = min(config.setdefault(key, CONTEXT), row.max_context)
        return self._studio.keep(row, id=id, context=context, ttl=ttl, jit=jit, config=config)

    async def _predict(self, id: int, asked: Json, cancelled: asyncio.Event) -> None:
        instance = self._resolve(asked["modelSpecifier"])
        self._studio.use(instance)
        config = _fields(asked["predictionConfigStack"])
        for share in (0.5, 1.0):
            await self._say(id, type="promptProcessingProgress", progress=share)
        question = script.from_sdk(asked["history"], config)
        answer = script.say(self._studio, question)
        stop, count = "eosFound", 0
        try:
            async for piece in answer:
                if cancelled.is_set():
                    stop = "userStopped"
                    break
                count += 1
                stop = "toolCalls" if piece.kind == "call" else stop
                await self._piece(id, piece)
                if count == 1:
                    await self._fault(id)
        finally:
            await answer.aclose()  # type: ignore[attr-defined]  # an async generator
        if question.limit == count and stop == "eosFound":
            stop = "maxPredictedTokensReached"
        stats = {
            "stopReason": "brandNew" if self._studio.fault == "novel" else stop, "tokensPerSecond": 100.5,
            "numGpuLayers": -1, "timeToFirstTokenSec": 0.02, "totalTimeSec": 0.1, "promptTokensCount": 10,
            "predictedTokensCount": count, "totalTokensCount": 10 + count,
        }  # fmt: skip
        await self._say(
            id, type="success", stats=stats, modelInfo=instance_info(instance), loadModelConfig=_kv(instance.config),
            predictionConfig=_kv(config),
        )  # fmt: skip

    async def _piece(self, id: int, piece: script.Piece) -> None:
        async def fragment(text: str, kind: str = "none") -> None:
            told = {
                "content": text, "tokensCount": 1, "containsDrafted": False, "reasoningType": kind,
                "isStructural": kind.endswith("Tag"),
            }  # fmt: skip
            await self._say(id, type="fragment", fragment=told)

        match piece.kind:
            case "text":
                await fragment(piece.text)
            case "thought":
                await fragment("<think>", "reasoningStartTag")
                await fragment(piece.text, "reasoning")
                await fragment("</think>", "reasoningEndTag")
            case "call":
                request = {"id": "1", "type": "function", "name": piece.name, "arguments": json.loads(piece.text)}
                await self._say(id, type="toolCallGenerationStart", toolCallId="1")
                await self._say(id, type="toolCallGenerationNameReceived", name=piece.name)
                await self._say(id, type="toolCallGenerationArgumentFragmentGenerated", content=piece.text)
                await self._say(id, type="toolCallGenerationEnd", toolCallRequest=request, rawContent=piece.text)

    async def _download(self, id: int, asked: Json, cancelled: asyncio.Event) -> None:
        row = self._studio.catalog[asked["downloadIdentifier"]]
        pieces = self._studio.download_pieces
        for piece in range(1, pieces + 1):
            if cancelled.is_set():
                raise Told("The download was cancelled")
            update = {
                "downloadedBytes": row.size * piece // pieces,
                "totalBytes": row.size,
                "speedBytesPerSecond": 1e6,
            }
            await self._say(id, type="downloadProgress", update=update)
            await self._fault(id)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(cancelled.wait(), self._studio.load_time / pieces)
        await self._say(id, type="startFinalizing")
        self._studio.rows[row.key] = row
        await self._say(id, type="success", defaultIdentifier=row.key)


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


async def serve(studio: Studio, scope: Json, receive: Any, send: Any) -> None:
    """One websocket, from its handshake to its end."""
    assert (await receive())["type"] == "websocket.connect"
    namespace = scope["path"].strip("/")
    if namespace not in NAMESPACES or "sockets" not in studio.surfaces:
        await send({"type": "websocket.close", "code": 4404})
        return
    await send({"type": "websocket.accept"})
    first = await receive()
    if first["type"] != "websocket.receive":
        return
    hello = json.loads(first["text"])
    studio.log.append(Entry(namespace, hello))
    if studio.fault == "refuse" or not _welcome(studio, hello):
        refused = {"success": False, "error": "Invalid passkey for client"}
        await send({"type": "websocket.send", "text": json.dumps(refused)})
        await send({"type": "websocket.close", "code": 1000})
        return
    await send({"type": "websocket.send", "text": json.dumps({"success": True})})
    connection = Connection(studio, namespace, send)
    try:
        while (event := await receive())["type"] == "websocket.receive":
            message = json.loads(event["text"])
            studio.log.append(Entry(namespace, message))
            await connection.take(message)
    finally:
        await connection.end()


def _welcome(studio: Studio, hello: Json) -> bool:
    if hello.get("authVersion") != 1:
        return False
    return not studio.token or f"sk-lm-{hello['clientIdentifier']}:{hello['clientPasskey']}" == studio.token

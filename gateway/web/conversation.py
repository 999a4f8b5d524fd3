"""The URL map of the dialect ``conversation``."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from functools import partial

from adapters.conversation import serve
from canonical.errors import ModelNotFound, StorageFailed
from canonical.models import CHATS
from gateway.conversations import Conversing
from gateway.store import Turn
from gateway.web.answering import answer, completed
from gateway.web.exchange import Exchange, Handler
from gateway.web.voice import Voice

VOICE = Voice("conversation", b"application/json", serve.error_status, serve.error_body)
PREFIXES = ("/api/models", "/api/conversation/", "/generate")
LONG = 200
"""Turns of a conversation that is told by a thread of its own."""


async def _generate(exchange: Exchange) -> None:
    question = serve.read_query(await exchange.body())
    request = question.asked(await _model(exchange, question))
    await answer(exchange, serve.generate_ask(request, lines=serve.wants_lines(exchange.scope["headers"])))


async def _models(exchange: Exchange) -> None:
    await exchange.json(serve.models_reply(await exchange.engine.models(CHATS)))


async def _start(exchange: Exchange) -> None:
    id = serve.read_start(exchange.scope["query_string"])
    await _kept(exchange).start(id, owner=exchange.caller.owner)
    await exchange.json(serve.started_reply(id))


async def _message(exchange: Exchange) -> None:
    id = _id(exchange)
    question = serve.read_query(await exchange.body())
    await exchange.while_connected(_say(exchange, id, question))


async def _say(exchange: Exchange, id: str, question: serve.Question) -> None:
    conversations = _kept(exchange)
    model = await _model(exchange, question)
    await exchange.engine.model(model)  # a model that there is not leaves no mark in the conversation
    turns = await conversations.say(id, question, model, owner=exchange.caller.owner, ask=partial(completed, exchange))
    since = turns[-1].since
    left_out = sum(turn.state == "answered" and turn.number < since for turn in turns)
    await exchange.json(serve.answered_reply(_answer(turns[-1], 2 * left_out)))


async def _conversation(exchange: Exchange) -> None:
    await _tell(exchange, _id(exchange))


async def _called_start(exchange: Exchange) -> None:
    """A conversation may be called so; its path has a route of its own."""
    await _tell(exchange, "start")


async def _tell(exchange: Exchange, id: str) -> None:
    turns = await _kept(exchange).turns(id, owner=exchange.caller.owner)
    # What is long takes as long as a hundred requests: nobody else must wait for it.
    body = await asyncio.to_thread(_told, id, turns) if len(turns) > LONG else _told(id, turns)
    await exchange.json(body)


def _told(id: str, turns: Sequence[Turn]) -> bytes:
    return serve.conversation_reply(id, _messages(turns))


def _messages(turns: Sequence[Turn]) -> list[serve.UserMessage | serve.AssistantMessage]:
    """Each turn is what the user said and, where there is one, the answer."""
    messages: list[serve.UserMessage | serve.AssistantMessage] = []
    answered: list[int] = []
    for turn in turns:
        messages.append(
            serve.UserMessage(
                content=turn.prompt, timestamp=serve.rfc3339(turn.asked), state=turn.state, error=turn.error
            )
        )
        if turn.state == "answered":
            messages.append(_answer(turn, 2 * bisect_left(answered, turn.since)))
            answered.append(turn.number)
    return messages


def _answer(turn: Turn, left_out: int) -> serve.AssistantMessage:
    return serve.AssistantMessage(
        content=turn.answer,
        timestamp=serve.rfc3339(turn.answered),
        state="cut" if turn.cut else "complete",
        model=turn.model,
        left_out=left_out,
    )


async def _model(exchange: Exchange, question: serve.Question) -> str:
    """The name of who answers: as asked, else the usual one where it is here, else the default."""
    name = question.model
    if not name:
        try:
            await exchange.engine.model(serve.USUAL)
            name = serve.USUAL
        except ModelNotFound:
            name = (await exchange.engine.model("")).id
    exchange.model = name
    return name


def _id(exchange: Exchange) -> str:
    return serve.read_id(str(exchange.scope["path_params"]["conv_id"]))


def _kept(exchange: Exchange) -> Conversing:
    conversations = exchange.gateway.conversations
    if conversations is None:
        raise StorageFailed("this gateway keeps no conversations")
    return conversations


ROUTES: dict[str, dict[str, Handler]] = {
    "/generate": {"POST": _generate},
    "/api/models": {"GET": _models, "HEAD": _models},
    "/api/conversation/start": {"POST": _start, "GET": _called_start, "HEAD": _called_start},
    "/api/conversation/{conv_id:str}": {"GET": _conversation, "HEAD": _conversation},
    "/api/conversation/{conv_id:str}/message": {"POST": _message},
}

"""Pydantic AI: a tool loop, streamed text, and typed results by each of its ways, by chat completions and responses."""

from __future__ import annotations

import asyncio
from typing import Any

from common import ANNA, COLOR, FRANCE, WEATHER, Person, get_weather, red_png, tell
from pydantic_ai import Agent, BinaryContent, NativeOutput, ToolOutput
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

COLD: Any = {"temperature": 0, "max_tokens": 200}
LOOP = asyncio.Runner()
"""One for all: the providers keep their asynchronous clients."""


def of_openai(url: str, model: str) -> Model:
    return OpenAIChatModel(model, provider=OpenAIProvider(base_url=f"{url}/v1", api_key="none"))


async def talk(model: Model) -> list[Any]:
    agent = Agent(model, model_settings=COLD)
    async with agent.run_stream(FRANCE) as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
    whole = await agent.run(FRANCE)
    seen = await agent.run([COLOR, BinaryContent(red_png(), media_type="image/png")])
    return [whole.output, "".join(pieces), len(pieces) > 3, whole.usage.output_tokens > 3, seen.output]


async def tools(model: Model) -> list[Any]:
    agent = Agent(model, model_settings=COLD, tools=[get_weather])
    async with agent.run_stream(WEATHER) as stream:
        streamed = await stream.get_output()
    return [(await agent.run(WEATHER)).output, streamed]


async def typed(model: Model, kind: Any) -> Any:
    agent = Agent(model, model_settings=COLD, output_type=kind)
    async with agent.run_stream(ANNA) as stream:
        streamed = await stream.get_output()
    return [(await agent.run(ANNA)).output.model_dump(), streamed.model_dump()]


def openai_chat(url: str, model: str) -> Any:
    return LOOP.run(talk(of_openai(url, model)))


def openai_tools(url: str, model: str) -> Any:
    return LOOP.run(tools(of_openai(url, model)))


def openai_schema(url: str, model: str) -> Any:
    return LOOP.run(typed(of_openai(url, model), NativeOutput(Person)))


def openai_forced(url: str, model: str) -> Any:
    return LOOP.run(typed(of_openai(url, model), ToolOutput(Person)))


def responses(url: str, model: str) -> Any:
    asked = OpenAIResponsesModel(model, provider=OpenAIProvider(base_url=f"{url}/v1", api_key="none"))
    return [*LOOP.run(talk(asked)), *LOOP.run(tools(asked))]


tell(openai_chat, openai_tools, openai_schema, openai_forced, responses)

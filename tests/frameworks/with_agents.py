"""OpenAI's Agents SDK: a tool loop, an output type, a picture; by chat completions and by responses."""

from __future__ import annotations

import asyncio
from typing import Any

from agents import Agent, ModelSettings, Runner, function_tool, set_tracing_disabled
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
from agents.models.openai_responses import OpenAIResponsesModel
from common import ANNA, COLOR, FRANCE, RED_URL, WEATHER, Person, get_weather, tell
from openai import AsyncOpenAI

set_tracing_disabled(disabled=True)
COLD = ModelSettings(temperature=0)


async def used(url: str, name: str, kind: type[OpenAIChatCompletionsModel | OpenAIResponsesModel]) -> list[Any]:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        model = kind(name, client)
        plain = Agent("plain", model=model, model_settings=COLD)
        armed = Agent("armed", model=model, model_settings=COLD, tools=[function_tool(get_weather)])
        typed = Agent("typed", model=model, model_settings=COLD, output_type=Person)
        picture: Any = [
            {"type": "input_image", "image_url": RED_URL, "detail": "auto"},
            {"type": "input_text", "text": COLOR},
        ]
        stream = Runner.run_streamed(armed, WEATHER)
        deltas = [
            event.data.delta
            async for event in stream.stream_events()
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
        ]
        return [
            (await Runner.run(plain, FRANCE)).final_output,
            (await Runner.run(armed, WEATHER)).final_output,
            stream.final_output,
            "".join(deltas),
            (await Runner.run(typed, ANNA)).final_output.model_dump(),
            (await Runner.run(plain, [{"role": "user", "content": picture}])).final_output,
        ]


def chat(url: str, model: str) -> Any:
    return asyncio.run(used(url, model, OpenAIChatCompletionsModel))


def responses(url: str, model: str) -> Any:
    return asyncio.run(used(url, model, OpenAIResponsesModel))


tell(chat, responses)

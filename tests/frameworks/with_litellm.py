"""LiteLLM as a client, by each of the three dialects."""

from __future__ import annotations

import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it looks up prices on the Internet

import litellm
from common import ANNA, COLOR, FRANCE, RED_URL, WEATHER, Person, tell

litellm.suppress_debug_info = True

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": CITY}}


def through(kind: str, base: str, model: str) -> list[Any]:
    ask: Any = {"model": f"{kind}/{model}", "api_base": base, "api_key": "none", "temperature": 0, "max_tokens": 200}

    def said(content: Any, **more: Any) -> Any:
        return litellm.completion(messages=[{"role": "user", "content": content}], **ask, **more).choices[0].message

    pieces = litellm.completion(messages=[{"role": "user", "content": FRANCE}], stream=True, **ask)
    (call,) = said(WEATHER, tools=[TOOL]).tool_calls
    streamed = litellm.completion(messages=[{"role": "user", "content": WEATHER}], tools=[TOOL], stream=True, **ask)
    (again,) = litellm.stream_chunk_builder(list(streamed)).choices[0].message.tool_calls
    picture = [{"type": "text", "text": COLOR}, {"type": "image_url", "image_url": {"url": RED_URL}}]
    return [
        said(FRANCE).content,
        "".join(piece.choices[0].delta.content or "" for piece in pieces),
        [call.function.name, json.loads(call.function.arguments)],
        [again.function.name, json.loads(again.function.arguments)],
        json.loads(said(ANNA, response_format=Person).content),
        said(picture).content,
    ]


def openai(url: str, model: str) -> Any:
    return through("openai", f"{url}/v1", model)


def ollama(url: str, model: str) -> Any:
    return through("ollama_chat", url, model)


def anthropic(url: str, model: str) -> Any:
    return through("anthropic", url, model)


tell(openai, ollama, anthropic)

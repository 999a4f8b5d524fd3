"""Instructor: typed results by each of its ways, through OpenAI's and Anthropic's client."""

from __future__ import annotations

from typing import Any

import anthropic
import instructor
import openai
from common import ANNA, Person, tell

ASKED: Any = [{"role": "user", "content": ANNA}]


def of_openai(url: str, model: str, mode: instructor.Mode) -> list[Any]:
    client = instructor.from_openai(openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0), mode=mode)
    ask: Any = {"model": model, "messages": ASKED, "response_model": Person, "temperature": 0, "max_retries": 0}
    *_, last = client.chat.completions.create_partial(**ask)
    return [client.chat.completions.create(**ask).model_dump(), last.model_dump()]


def schema(url: str, model: str) -> Any:
    return of_openai(url, model, instructor.Mode.JSON_SCHEMA)


def json_object(url: str, model: str) -> Any:
    """It adds a long prompt, which is beyond the demo model: only that an object of the class comes is looked at."""
    return sorted(of_openai(url, model, instructor.Mode.JSON)[0])


def forced(url: str, model: str) -> Any:
    return of_openai(url, model, instructor.Mode.TOOLS)


def anthropic_forced(url: str, model: str) -> Any:
    client = instructor.from_anthropic(anthropic.Anthropic(base_url=url, api_key="none", max_retries=0))
    ask: Any = {"model": model, "messages": ASKED, "response_model": Person, "max_tokens": 200, "max_retries": 0}
    return client.messages.create(**ask, extra_body={"temperature": 0}).model_dump()


tell(schema, json_object, forced, anthropic_forced)

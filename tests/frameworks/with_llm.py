"""simonw's command line ``llm``: its own OpenAI models, named in a file of the user's, and llm-ollama's."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from common import ANNA, COLOR, FRANCE, SUM, WEATHER, Person, address, get_weather, red_png, tell

URL, MODELS = address()
_KEPT = tempfile.TemporaryDirectory(prefix="llm-")
FOLDER = Path(_KEPT.name)
PICTURE, TOOL = FOLDER / "red.png", FOLDER / "tool.py"
os.environ.update(LLM_USER_PATH=str(FOLDER), OLLAMA_HOST=URL)

import llm  # noqa: E402  it reads the environment
from click.testing import CliRunner  # noqa: E402
from llm.cli import cli  # noqa: E402


def settle() -> None:
    """What a user of the gateway writes into llm's folder."""
    abilities = "supports_schema: true, supports_tools: true, vision: true"
    lines = [
        f'- {{model_id: gw/{model}, model_name: {model}, api_base: "{URL}/v1", api_key_name: gw, {abilities}}}\n'
        for model in MODELS
    ]
    (FOLDER / "extra-openai-models.yaml").write_text("".join(lines))
    (FOLDER / "keys.json").write_text('{"gw": "none"}')
    PICTURE.write_bytes(red_png())
    TOOL.write_text(
        'def get_weather(city: str) -> str:\n    "Tell the weather"\n    return "sunny" if city == "Paris" else "?"\n'
    )


@functools.cache
def models() -> dict[str, llm.Model]:
    """All that llm knows; it builds them anew whenever it is asked."""
    return llm.get_model_aliases()


def through(model: llm.Model) -> list[Any]:
    """Whole, streamed, a schema, a picture, a tool, a conversation gone on with."""
    talk = model.conversation()
    return [
        model.prompt(FRANCE, stream=False, temperature=0).text(),
        "".join(model.prompt(FRANCE, temperature=0)),
        json.loads(model.prompt(ANNA, schema=Person, temperature=0).text()),
        model.prompt(COLOR, attachments=[llm.Attachment(path=str(PICTURE))], temperature=0).text(),
        model.chain(WEATHER, tools=[get_weather], options={"temperature": 0}).text(),
        [talk.prompt(question, temperature=0).text() for question in (FRANCE, SUM)],
    ]


def openai(url: str, model: str) -> Any:
    return through(models()[f"gw/{model}"])


def ollama(url: str, model: str) -> Any:
    return through(models()[f"{model}:latest"])


def ollama_thoughts(url: str, model: str) -> Any:
    """llm-ollama shows no thoughts; the answer must be free of them."""
    return models()[f"{model}:latest"].prompt(SUM, think=True, temperature=0).text()


def embeddings(url: str, model: str) -> Any:
    if "anthropic" in model:
        return None
    vector = llm.get_embedding_model(model.replace("pip", "embed") + ":latest").embed("a text")
    return [len(vector) > 1, round(sum(x * x for x in vector), 3)]


def command_line(url: str, model: str) -> Any:
    """As people type it."""
    if model != MODELS[0]:
        return None
    ask = ("-m", f"gw/{model}", "-o", "temperature", "0")
    typed = (
        (*ask, FRANCE),
        (*ask, "--no-stream", "--schema", "name, age int, city", ANNA),
        (*ask, "-a", str(PICTURE), COLOR),
        (*ask, "--functions", str(TOOL), WEATHER),
        ("-m", f"{model}:latest", "-o", "temperature", "0", FRANCE),
    )
    done = [CliRunner().invoke(cli, list(arguments), catch_exceptions=False) for arguments in typed]
    return [one.output.strip() for one in done]


settle()
tell(openai, ollama, ollama_thoughts, embeddings, command_line)

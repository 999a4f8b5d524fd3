"""LlamaIndex's models of OpenAI's and of Ollama's dialect, its function agent, and its embedders."""

from __future__ import annotations

import asyncio
from typing import Any

from common import ANNA, COLOR, FRANCE, RED_URL, SUM, WEATHER, Person, get_weather, red_png, tell
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.ollama import OllamaEmbedding
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.ollama import Ollama
from llama_index.llms.openai_like import OpenAILike


def of_openai(url: str, model: str, **settings: Any) -> OpenAILike:
    return OpenAILike(
        api_base=f"{url}/v1", api_key="none", model=model, temperature=0, max_retries=0,
        is_chat_model=True, is_function_calling_model=True, **settings,
    )  # fmt: skip


def of_ollama(url: str, model: str, **settings: Any) -> Ollama:
    return Ollama(base_url=url, model=model, temperature=0, **settings)


def talk(llm: FunctionCallingLLM) -> list[Any]:
    asked = [ChatMessage(role="user", content=FRANCE)]
    pieces = [piece.delta or "" for piece in llm.stream_chat(asked)]
    return [llm.chat(asked).message.content, "".join(pieces), len(pieces) > 3]


def tools(llm: FunctionCallingLLM) -> list[Any]:
    """The call itself, streamed and whole; then an agent that makes it and speaks of the result."""
    tool = FunctionTool.from_defaults(get_weather)
    whole = llm.get_tool_calls_from_response(llm.chat_with_tools([tool], user_msg=WEATHER))
    *_, last = llm.stream_chat_with_tools([tool], user_msg=WEATHER)
    streamed = llm.get_tool_calls_from_response(last)
    called = str(llm.predict_and_call([tool], user_msg=WEATHER).response)

    async def agent() -> str:
        return str(await FunctionAgent(tools=[tool], llm=llm, system_prompt="Be brief.").run(user_msg=WEATHER))

    ended = asyncio.run(agent())
    return [[call.tool_name, call.tool_kwargs] for call in (*whole, *streamed)] + [called, ended]


def picture(llm: FunctionCallingLLM, block: ImageBlock) -> str | None:
    return llm.chat([ChatMessage(role="user", blocks=[TextBlock(text=COLOR), block])]).message.content


def openai_chat(url: str, model: str) -> Any:
    return talk(of_openai(url, model))


def openai_tools(url: str, model: str) -> Any:
    return tools(of_openai(url, model))


def openai_schema(url: str, model: str) -> Any:
    llm = of_openai(url, model, should_use_structured_outputs=True)
    return llm.as_structured_llm(Person).complete(ANNA).raw.model_dump()


def openai_forced(url: str, model: str) -> Any:
    return of_openai(url, model).as_structured_llm(Person).complete(ANNA).raw.model_dump()


def openai_image(url: str, model: str) -> Any:
    return [
        picture(of_openai(url, model), block)
        for block in (ImageBlock(image=red_png(), image_mimetype="image/png"), ImageBlock(url=RED_URL))
    ]


def ollama_chat(url: str, model: str) -> Any:
    return talk(of_ollama(url, model))


def ollama_completion(url: str, model: str) -> Any:
    llm = of_ollama(url, model)
    return [llm.complete(FRANCE).text, "".join(piece.delta or "" for piece in llm.stream_complete(FRANCE))]


def ollama_tools(url: str, model: str) -> Any:
    return tools(of_ollama(url, model))


def ollama_schema(url: str, model: str) -> Any:
    return of_ollama(url, model).as_structured_llm(Person).complete(ANNA).raw.model_dump()


def ollama_image(url: str, model: str) -> Any:
    return picture(of_ollama(url, model), ImageBlock(image=red_png()))


def ollama_thoughts(url: str, model: str) -> Any:
    message = of_ollama(url, model, thinking=True).chat([ChatMessage(role="user", content=SUM)]).message
    return [getattr(block, "content", None) or getattr(block, "text", None) for block in message.blocks]


def embeddings(url: str, model: str) -> Any:
    if "anthropic" in model:
        return None
    texts = ["the cat sat", "on the mat"]
    name = model.replace("pip", "embed")
    one = OpenAILikeEmbedding(api_base=f"{url}/v1", api_key="none", model_name=name).get_text_embedding_batch(texts)
    two = OllamaEmbedding(base_url=url, model_name=name).get_text_embedding_batch(texts)
    return max(abs(x - y) for a, b in zip(one, two, strict=True) for x, y in zip(a, b, strict=True)) < 1e-5


tell(
    openai_chat, openai_tools, openai_schema, openai_forced, openai_image,
    ollama_chat, ollama_completion, ollama_tools, ollama_schema, ollama_image, ollama_thoughts, embeddings,
)  # fmt: skip

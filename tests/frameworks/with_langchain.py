"""LangChain's three chat models and two embedders."""

from __future__ import annotations

import asyncio
from typing import Any

from common import ANNA, COLOR, FRANCE, RED, RED_URL, SUM, WEATHER, Person, get_weather, tell
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

LOOP = asyncio.Runner()
"""One for all: LangChain keeps its asynchronous clients, which belong to the loop that they were first used in."""


def of_openai(url: str, model: str, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=f"{url}/v1", api_key="none", model=model, temperature=0, max_retries=0, **settings)


def of_ollama(url: str, model: str, **settings: Any) -> ChatOllama:
    return ChatOllama(base_url=url, model=model, temperature=0, **settings)


def of_anthropic(url: str, model: str, **settings: Any) -> ChatAnthropic:
    values = {"temperature": 0, "max_tokens": 200, **settings}
    return ChatAnthropic(base_url=url, api_key="none", model=model, max_retries=0, **values)


def talk(llm: BaseChatModel) -> list[Any]:
    """Whole, streamed, in asynchronous batches, and the usage of each."""
    whole = llm.invoke(FRANCE)
    pieces = list(llm.stream(FRANCE))
    total = pieces[0]
    for piece in pieces[1:]:
        total += piece
    several = LOOP.run(llm.abatch([FRANCE, SUM]))
    counted = [bool(answer.usage_metadata and answer.usage_metadata["output_tokens"] > 3) for answer in (whole, total)]
    return [whole.text, total.text, len(pieces) > 3, [answer.text for answer in several], counted]


def tools(llm: BaseChatModel) -> list[Any]:
    """A call and its result, whole; then the call streamed."""
    bound = llm.bind_tools([tool(get_weather)])
    asked: list[Any] = [HumanMessage(WEATHER)]
    answer = bound.invoke(asked)
    (call,) = answer.tool_calls
    result = tool(get_weather).invoke(call)
    assert isinstance(result, ToolMessage)
    end = bound.invoke([*asked, answer, result])
    total: Any = None
    for piece in bound.stream(asked):
        total = piece if total is None else total + piece
    (streamed,) = total.tool_calls
    return [call["name"], call["args"], end.text, streamed["name"], streamed["args"]]


def shaped(llm: BaseChatModel, *methods: str) -> list[Any]:
    """An object of a class, by each of LangChain's ways to ask for one; and streamed."""
    told = []
    for method in methods:
        asked = llm.with_structured_output(Person, method=method)
        told.append(asked.invoke(ANNA).model_dump())
        told.append(list(asked.stream(ANNA))[-1].model_dump())
    return told


def picture(llm: BaseChatModel, *parts: dict[str, Any]) -> list[str]:
    return [llm.invoke([HumanMessage([{"type": "text", "text": COLOR}, part])]).text for part in parts]


BY_LINK = {"type": "image_url", "image_url": {"url": RED_URL}}
BY_BLOCK = {"type": "image", "base64": RED, "mime_type": "image/png"}


def openai_chat(url: str, model: str) -> Any:
    return talk(of_openai(url, model, stream_usage=True))


def openai_tools(url: str, model: str) -> Any:
    return tools(of_openai(url, model))


def openai_schema(url: str, model: str) -> Any:
    return shaped(of_openai(url, model), "json_schema", "json_mode")


def openai_forced(url: str, model: str) -> Any:
    return shaped(of_openai(url, model), "function_calling")


def openai_image(url: str, model: str) -> Any:
    return picture(of_openai(url, model), BY_LINK, BY_BLOCK)


def openai_completion(url: str, model: str) -> Any:
    prompt = f"<|im_start|>user\n{FRANCE}<|im_end|>\n<|im_start|>assistant\n"
    return OpenAI(base_url=f"{url}/v1", api_key="none", model=model, temperature=0, max_retries=0).invoke(prompt)


def ollama_chat(url: str, model: str) -> Any:
    return talk(of_ollama(url, model))


def ollama_tools(url: str, model: str) -> Any:
    return tools(of_ollama(url, model))


def ollama_schema(url: str, model: str) -> Any:
    return shaped(of_ollama(url, model), "json_schema", "json_mode")


def ollama_image(url: str, model: str) -> Any:
    return picture(of_ollama(url, model), BY_LINK, BY_BLOCK)


def ollama_thoughts(url: str, model: str) -> Any:
    llm = of_ollama(url, model, reasoning=True)
    whole = llm.invoke(SUM)
    pieces = list(llm.stream(SUM))
    thought = "".join(piece.additional_kwargs.get("reasoning_content", "") for piece in pieces)
    return [whole.additional_kwargs["reasoning_content"], whole.text, thought, "".join(piece.text for piece in pieces)]


def anthropic_chat(url: str, model: str) -> Any:
    return talk(of_anthropic(url, model))


def anthropic_tools(url: str, model: str) -> Any:
    return tools(of_anthropic(url, model))


def anthropic_schema(url: str, model: str) -> Any:
    return shaped(of_anthropic(url, model), "json_schema")


def anthropic_forced(url: str, model: str) -> Any:
    return shaped(of_anthropic(url, model), "function_calling")


def anthropic_image(url: str, model: str) -> Any:
    return picture(of_anthropic(url, model), BY_LINK, BY_BLOCK)


def anthropic_thoughts(url: str, model: str) -> Any:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    llm = of_anthropic(url, model, temperature=1, top_k=1, max_tokens=1200, thinking=thinking)
    return [block.get("thinking") or block.get("text") for block in llm.invoke(SUM).content]


def anthropic_counted(url: str, model: str) -> Any:
    return of_anthropic(url, model).get_num_tokens_from_messages([HumanMessage(FRANCE)]) > 5


def embeddings(url: str, model: str) -> Any:
    """The same texts by both dialects: how far the vectors lie apart, and the length of each."""
    if "anthropic" in model:
        return None
    texts = ["the cat sat", "on the mat"]
    name = model.replace("pip", "embed")
    plain = OpenAIEmbeddings(base_url=f"{url}/v1", api_key="none", model=name, check_embedding_ctx_length=False)
    native = OllamaEmbeddings(base_url=url, model=name)
    one, two = plain.embed_documents(texts), native.embed_documents(texts)
    apart = max(abs(x - y) for a, b in zip(one, two, strict=True) for x, y in zip(a, b, strict=True))
    return [apart < 1e-5, len(plain.embed_query("a text")) == len(native.embed_query("a text")) == len(one[0])]


tell(
    openai_chat, openai_tools, openai_schema, openai_forced, openai_image, openai_completion,
    ollama_chat, ollama_tools, ollama_schema, ollama_image, ollama_thoughts,
    anthropic_chat, anthropic_tools, anthropic_schema, anthropic_forced, anthropic_image, anthropic_thoughts,
    anthropic_counted, embeddings,
)  # fmt: skip

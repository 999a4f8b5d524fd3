"""The column of the models inside, walked: what each says it makes of every feature is what its engine then gets to read.

Bodies are kept instead of answered; what only a template can tell is told by the count of the prompt's tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backends.llama_cpp import LlamaCppBackend
from backends.llama_cpp.engine import Kind
from backends.llama_cpp.model import TextModel
from canonical.errors import InvalidRequest
from canonical.features import LOADS, Feature
from canonical.media import Blob
from canonical.messages import Image
from canonical.models import Capability
from canonical.report import Verdict
from canonical.requests import Generate, needs
from gateway.fetch import _with_images
from gateway.router import check_needs
from tests.sayings import LINK, PNG, SAYINGS
from tests.test_llama_cpp import COMPILED, ROOT
from tests.test_llama_cpp_facts import EACH, with_template

PYTHON = {"engine": "llama-cpp-python"}
MODELS = [
    pytest.param({}, {"mmproj": "pip-mmproj.gguf"}, "", id="pip with eyes"),
    pytest.param({}, {}, "", id="pip"),
    pytest.param({}, {}, EACH, id="plain"),
    pytest.param(PYTHON, {}, "", id="pip, second engine", marks=COMPILED),
    pytest.param(PYTHON, {}, EACH, id="plain, second engine", marks=COMPILED),
]
ELSEWHERE = {
    Feature.KEEP_ALIVE: "the pool's",
    **dict.fromkeys(LOADS, "by the value: see the tests of loads"),
    Feature.STOP_TOLD: "asked for with every stop string",
    Feature.THINK_OFF: "where nothing is thought anyway, nothing is said",
    Feature.PARALLEL_TOOLS: "the second engine has its own field, the first is cut off",
}
"""Honoured without a word to the engine, or not in words alone."""
TEXT = [feature for feature, (asked, _) in SAYINGS.items() if isinstance(asked, Generate)]


class Kept(Exception):
    """A body that would have gone to the engine."""


class Ear:
    """Stands between a model and its engine: counts go through, other bodies are kept."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    async def stream(self, kind: Kind, body: bytes) -> AsyncGenerator[list[bytes], None]:
        if kind != "count":
            raise Kept(body)
        async for chunks in self._runner.stream(kind, body):
            yield chunks

    async def close(self) -> None:
        await self._runner.close()


def seen(request: Generate, model: TextModel) -> Generate:
    """As the gateway hands it over: links are followed for who can see."""
    assert isinstance(PNG.source, Blob)
    if any(isinstance(part, Image) for message in request.messages for part in message.parts):
        check_needs("pip", needs(request), model.info)
    return _with_images(request, {LINK: PNG.source})


async def body_of(model: TextModel, request: Generate) -> dict[str, Any]:
    """What the engine would get. Raises what the gateway and the model raise."""
    check_needs("pip", needs(request), model.info)
    try:
        async for _ in model.generate(seen(request, model)):
            pass
    except Kept as kept:
        found: dict[str, Any] = msgspec.json.decode(kept.args[0])
        return found
    raise AssertionError("nothing went to the engine")


async def check(model: TextModel, feature: Feature, verdict: Verdict) -> None:
    saying, without = SAYINGS[feature]
    assert isinstance(saying, Generate)
    assert isinstance(without, Generate)
    if verdict.fate == "refused":
        with pytest.raises(InvalidRequest):
            await body_of(model, saying)
        return
    if feature in ELSEWHERE:
        await body_of(model, saying)
        return
    try:
        bare = await body_of(model, without)
    except InvalidRequest:
        # What the feature belongs to (pictures, calls) is refused already.
        with pytest.raises(InvalidRequest):
            await body_of(model, saying)
        return
    body = await body_of(model, saying)
    if verdict.fate != "dropped":
        assert body != bare
        assert bool(verdict.note) == (verdict.fate == "approximated")
    elif feature is Feature.IMAGE_DETAIL:
        assert msgspec.json.encode(body).replace(b',"detail":"low"', b"") == msgspec.json.encode(bare)
    elif body != bare:  # it went to the template, which has no place for it
        assert await model.count(saying) == await model.count(without)


@pytest.mark.parametrize(("engine", "settings", "template"), MODELS)
def test_m5_a_model_inside_does_what_it_says(
    tmp_path: Path, engine: dict[str, Any], settings: dict[str, Any], template: str
) -> None:
    folder = with_template(tmp_path, template) if template else ROOT / "models"

    async def main() -> None:
        given = {"threads": 1, "models_dir": str(folder), **engine}
        backend = LlamaCppBackend("local", msgspec.convert(given, LlamaCppBackend.Settings), folder)
        backend.configure("pip", msgspec.convert({"thinking": "off", **settings}, LlamaCppBackend.ModelSettings))
        model = await backend.open("pip")
        assert isinstance(model, TextModel)
        model.runner = Ear(model.runner)  # type: ignore[assignment]  # a runner in all that is used
        assert set(model.honours.verdicts) == set(Feature)
        wrong = []
        for feature in TEXT:
            try:
                await check(model, feature, model.honours.verdicts[feature])
            except (AssertionError, InvalidRequest) as error:
                wrong.append(f"{feature}: {model.honours.verdicts[feature]} {error!r:.300}")
            except BaseException as error:
                if type(error).__name__ != "Failed":
                    raise
                wrong.append(f"{feature}: {model.honours.verdicts[feature]} was not refused")
        await model.close()
        assert wrong == []
        assert (Capability.VISION in model.info.capabilities) == bool(settings)

    asyncio.run(main())


def test_a_model_that_is_loaded_again_and_again_leaves_no_more_than_one_that_stays(tmp_path: Path) -> None:
    """Reports are remembered by a model's honours."""
    (tmp_path / "plain.gguf").write_bytes((ROOT / "models" / "pip.gguf").read_bytes())
    local = LlamaCppBackend("local", LlamaCppBackend.Settings(models_dir=".", threads=1), tmp_path)

    async def main() -> None:
        honours = []
        for name in ("plain", "plain"):
            model = await local.open(name)
            honours.append(model.honours)
            await model.close()
        assert honours[0] is honours[1]

    asyncio.run(main())

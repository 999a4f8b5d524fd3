"""Other programs' models, offered as they lie there: Ollama's store and LM Studio's folder; what each model brings along."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from adapters.ollama import names
from backends.llama_cpp import LlamaCppBackend, gguf
from backends.llama_cpp.settings import LlamaCppModelSettings, LlamaCppSettings
from backends.store import OllamaFolder, Store
from backends.store.manifests import Manifest, layer, write_manifest
from backends.store.studio import StudioFolder
from canonical.errors import BackendError, ModelNotFound
from canonical.messages import Message, Text
from canonical.models import Capability, ModelInfo
from canonical.own import applied
from canonical.requests import Generate, LoadOptions, Sampling
from tests.splitting import split
from tests.stores import named, put
from tests.test_llama_cpp import answer


def running(story: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """A test that awaits."""

    @functools.wraps(story)
    def told(*arguments: object, **named: object) -> None:
        asyncio.run(story(*arguments, **named))

    return told


MODELS = Path(__file__).parent.parent / "models"
PIP = (MODELS / "pip.gguf").read_bytes()
MMPROJ = (MODELS / "pip-mmproj.gguf").read_bytes()
EMBED = (MODELS / "embed.gguf").read_bytes()
ASKED = Generate(model="", messages=(Message("user", (Text("What is the capital of France?"),)),))


@pytest.fixture
def ollama(tmp_path: Path) -> Path:
    """A store as Ollama leaves it."""
    store = Store(tmp_path / "ollama")
    put(
        store,
        "Pip:7b",
        model=PIP,
        projector=MMPROJ,
        system=b"You are Pip.",
        params=json.dumps({"temperature": 0, "stop": ["<end>"], "num_ctx": 512, "num_thread": 1}).encode(),
        messages=b'[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello!"}]',
        license=b"MIT",
    )
    put(store, "acme/vectors", model=EMBED)
    put(store, "hf.co/acme/broken:Q4_K_M", model=b"no GGUF file")
    return store.folder


@pytest.fixture
def studio(tmp_path: Path) -> Path:
    """A models folder as LM Studio leaves it."""
    folder = tmp_path / "studio"
    seeing = folder / "acme" / "Pip-Chat-GGUF"
    seeing.mkdir(parents=True)
    (seeing / "Pip-Chat-Q8_0.gguf").write_bytes(PIP)
    (seeing / "mmproj-Pip-Chat-F16.gguf").write_bytes(MMPROJ)
    for publisher in ("one", "two"):
        (folder / publisher / "Vectors-GGUF").mkdir(parents=True)
        (folder / publisher / "Vectors-GGUF" / "vectors-Q4_K_M.gguf").write_bytes(EMBED)
    (folder / "one" / "Vectors-GGUF" / "vectors-Q8_0.gguf").write_bytes(EMBED)
    (folder / "one" / "Vectors-GGUF" / "big-00001-of-00002.gguf").write_bytes(EMBED)
    (folder / "one" / "Vectors-GGUF" / "downloading-Q8_0.gguf.part").write_bytes(EMBED)
    return folder


def backend(tmp_path: Path, *also_read: Path, **settings: object) -> LlamaCppBackend:
    paths = tuple(map(str, also_read))
    return LlamaCppBackend("local", LlamaCppSettings(models_dir="files", also_read=paths, **settings), tmp_path)  # type: ignore[arg-type]


def seen(folder: Path) -> list[tuple[str, int, int]]:
    """Everything in a folder that would tell of a change."""
    return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*"))


async def rows(local: LlamaCppBackend) -> dict[str, ModelInfo]:
    return {info.id: info for info in await local.models()}


@running
async def test_an_ollama_store_is_offered_under_ollamas_names(tmp_path: Path, ollama: Path) -> None:
    before = seen(ollama)
    local = backend(tmp_path, ollama)
    found = await rows(local)
    assert set(found) == {"Pip:7b", "acme/vectors:latest"}
    pip = found["Pip:7b"]
    stored = OllamaFolder(ollama).find(names.parse("pip:7b"))  # type: ignore[arg-type]
    assert stored is not None
    assert pip.digest == stored.digest
    assert pip.size == stored.size > len(PIP) + len(MMPROJ)
    assert pip.modified == stored.modified
    assert pip.context_length == 512
    assert (pip.owner, found["acme/vectors:latest"].owner) == ("library", "acme")
    assert (pip.family, pip.quantization, pip.parameter_count) == ("llama", "Q8_0", 1_312_384)
    assert {Capability.CHAT, Capability.VISION, Capability.TOOLS} <= pip.capabilities
    assert found["acme/vectors:latest"].capabilities == {Capability.EMBED}
    details = await local.details("PIP:7b")
    assert details.system == "You are Pip."
    assert details.license == "MIT"
    assert [message.text for message in details.messages] == ["Hi", "Hello!"]
    assert 'stop                           "<end>"' in details.parameters
    assert bytes(details.projector["general.architecture"]) == b'"clip"'
    assert int(bytes(details.projector["general.parameter_count"])) > 10_000
    assert seen(ollama) == before
    assert not (tmp_path / "data").exists()


@running
async def test_its_models_answer_with_what_they_bring_along(tmp_path: Path, ollama: Path) -> None:
    local = backend(tmp_path, ollama)
    model = await local.open("Pip:7b")
    try:
        assert model.loaded().context_length == 512
        own = model.own  # type: ignore[attr-defined]
        assert own.sampling == Sampling(temperature=0.0, stop=("<end>",))
        asked = applied(ASKED, own)
        assert [message.text for message in asked.messages][:3] == ["You are Pip.", "Hi", "Hello!"]
        assert "Paris" in (await answer(model, asked)).text  # type: ignore[arg-type]
    finally:
        await model.close()


def test_an_entry_of_the_configuration_comes_before_what_the_model_brings_along(tmp_path: Path, ollama: Path) -> None:
    local = backend(tmp_path, ollama)
    own = local._files.find("Pip:7b").own
    assert (own.sampling.temperature, own.load) == (0.0, LoadOptions(threads=1))
    local.configure("pip:7b", LlamaCppModelSettings(temperature=0.9, threads=2, context=128))
    offered = local._files.find("Pip:7b")
    assert offered.own.sampling == Sampling(stop=("<end>",))
    assert offered.own.load == LoadOptions()
    assert offered.info.context_length == 128


@running
async def test_a_lm_studio_folder_is_offered_under_its_names(tmp_path: Path, studio: Path) -> None:
    before = seen(studio)
    local = backend(tmp_path, studio)
    found = await rows(local)
    assert set(found) == {"pip-chat", "vectors@q8_0", "one/vectors@q4_k_m", "two/vectors@q4_k_m"}
    assert Capability.VISION in found["pip-chat"].capabilities
    assert found["pip-chat"].size == len(PIP) + len(MMPROJ)
    by_path = await local.details("acme/Pip-Chat-GGUF/Pip-Chat-Q8_0.gguf")
    assert by_path.info == found["pip-chat"]
    model = await local.open("pip-chat")
    try:
        assert "Paris" in (await answer(model, ASKED)).text  # type: ignore[arg-type]
    finally:
        await model.close()
    assert seen(studio) == before


@running
async def test_of_equal_names_files_come_first_then_the_store_then_the_others_in_order(
    tmp_path: Path, ollama: Path, studio: Path
) -> None:
    other = Store(tmp_path / "other")
    put(other, "pip-chat", model=EMBED)
    put(other, "pip:7b", model=EMBED)
    found = await rows(backend(tmp_path, studio, other.folder, ollama))
    assert Capability.CHAT in found["pip-chat"].capabilities
    assert found["pip:7b"].capabilities == {Capability.EMBED}
    put(Store(tmp_path / "data" / "models"), "PIP:7B", model=PIP)
    found = await rows(backend(tmp_path, studio, other.folder, ollama))
    assert Capability.CHAT in found["PIP:7B"].capabilities
    assert "pip:7b" not in found
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "pip-chat.gguf").write_bytes(EMBED)
    local = backend(tmp_path, studio, other.folder, ollama)
    assert (await rows(local))["pip-chat"].capabilities == {Capability.EMBED}
    local.configure("pip:7b", LlamaCppModelSettings(context=256))
    assert (await rows(local))["PIP:7B"].context_length == 256


@running
async def test_what_is_gone_or_half_there_is_not_found(tmp_path: Path, ollama: Path, studio: Path) -> None:
    local = backend(tmp_path, ollama, studio, tmp_path / "nowhere")
    for name in ("big", "big-00001-of-00002", "nothing", "../files", "acme/../acme/vectors", "x" * 5000, "\0"):
        with pytest.raises(ModelNotFound):
            await local.open(name)


TEMPLATE = b'{{ range .Messages }}{{ if eq .Role "user" }}[U]{{ .Content }}{{ end }}{{ end }}[A]'


@running
async def test_a_template_of_gos_is_rendered_and_one_that_cannot_be_is_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "data" / "models")
    put(store, "go", model=PIP, template=TEMPLATE)
    put(store, "jinja", model=PIP, template=b"{% for m in messages %}{{ m.content }}{% endfor %}")
    put(store, "odd", model=PIP, template=b"{{ nobody knows this }}")
    local = backend(tmp_path)
    assert (await local.details("go")).template == TEMPLATE.decode()
    assert (await local.details("jinja")).template.startswith("{% for m")
    offered = {name: local._files.find(name) for name in ("go", "jinja", "odd")}
    assert "[U]" in offered["go"].template
    assert offered["jinja"].template == "{% for m in messages %}{{ m.content }}{% endfor %}"
    with caplog.at_level(logging.WARNING, "dragoman.store"):
        plain = gguf.read_head(MODELS / "pip.gguf").template
        assert (await local.details("odd")).template == plain
    assert offered["odd"].template == ""
    assert "TEMPLATE of odd:latest is left out" in caplog.text


@running
async def test_a_split_model_is_one_wherever_it_lies(tmp_path: Path) -> None:
    first, second = split(PIP)
    store = Store(tmp_path / "data" / "models")
    layers = [
        layer("model", store.add(part), len(part), f"pip-0000{number}-of-00002.gguf")
        for number, part in ((2, second), (1, first))
    ]
    store.commit(named("kept"), write_manifest(Manifest(layers=tuple(layers))))
    studio = tmp_path / "studio" / "acme" / "Split-GGUF"
    for folder, name in ((studio, "Split-Q8_0"), (tmp_path / "files", "mine")):
        folder.mkdir(parents=True)
        (folder / f"{name}-00001-of-00002.gguf").write_bytes(first)
        (folder / f"{name}-00002-of-00002.gguf").write_bytes(second)
    local = backend(tmp_path, tmp_path / "studio")
    found = await rows(local)
    assert set(found) == {"mine", "kept:latest", "split"}
    for name, info in found.items():
        assert info.parameter_count == 1_312_384
        assert info.size == len(first) + len(second)
        model = await local.open(name)
        try:
            assert "Paris" in (await answer(model, ASKED)).text  # type: ignore[arg-type]
        finally:
            await model.close()
    (studio / "Split-Q8_0-00002-of-00002.gguf").unlink()
    store.delete(named("kept"))
    store.sweep()
    assert set(await rows(local)) == {"mine"}
    assert not list((store.folder / "parts").iterdir())


@running
async def test_a_model_that_cannot_be_read_costs_itself_alone_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "data" / "models")
    put(store, "good", model=PIP)
    put(store, "robot", model=PIP, messages=b'[{"role":"robot","content":""}]')
    put(store, "hot", model=PIP, params=b'{"temperature":"hot"}')
    put(store, "torn", model=PIP, params=b"[")
    put(store, "weightless", system=b"no weights")

    def unwritable(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("backends.store.store.locks.alone", unwritable)  # a store that may only be read
    local = backend(tmp_path)
    with caplog.at_level(logging.WARNING, "dragoman.store"):
        for _ in range(2):
            assert set(await rows(local)) == {"good:latest"}
    assert [record.args[0] for record in caplog.records if "offered" in record.msg] == [  # type: ignore[index]
        "hot:latest",
        "robot:latest",
        "torn:latest",
    ]
    assert "what was left in it stays" in caplog.text
    with pytest.raises(BackendError, match="cannot be read"):
        await local.details("robot")
    with pytest.raises(ModelNotFound):
        await local.details("weightless")


def test_lm_studios_names(tmp_path: Path) -> None:
    for path in (
        "a/r/Qwen2.5-7B-Instruct-Q4_K_M.gguf",
        "a/r/gemma-3-4b-it-UD-IQ2_XXS.gguf",
        "b/r/gpt-oss-20b-MXFP4.gguf",
        "b/r/plain.gguf",
        "b/r/llama-00001-of-00002.gguf",
        "b/r/llama-00002-of-00002.gguf",
        "b/r/mistral-BF16-00001-of-00001.gguf",
        "b/r/.hidden.gguf",
        "stray.gguf",
        "b/stray.gguf",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    found = {kept.id: len(kept.parts) for kept in StudioFolder(tmp_path).models()}
    assert found == {
        "qwen2.5-7b-instruct": 1,
        "gemma-3-4b-it": 1,
        "gpt-oss-20b": 1,
        "plain": 1,
        "llama": 2,
        "mistral": 1,
    }

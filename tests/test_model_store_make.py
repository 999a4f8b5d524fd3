"""Models made, copied and removed: of files, of other models, with what they bring along; and what must not be touched."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import resource
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.ollama import names
from backends.base import Manages
from backends.llama_cpp import LlamaCppBackend, gguf, quantizing
from backends.llama_cpp.inprocess import InProcess
from backends.llama_cpp.isolated import Isolated
from backends.llama_cpp.runners import has_gpu
from backends.llama_cpp.settings import LlamaCppSettings
from backends.store import Store, writing
from backends.store.manifests import write_manifest
from backends.store.writing import PIECE
from canonical.digests import digest_of
from canonical.errors import (
    Conflict,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    NotImplementedHere,
    StorageFailed,
)
from canonical.messages import Message, Text
from canonical.models import Capability, ModelInfo
from canonical.own import applied
from canonical.progress import Progress
from canonical.recipe import Recipe
from canonical.requests import Embed, Generate, LoadOptions, Sampling
from tests.splitting import split
from tests.stores import blobs, leftovers, named, put
from tests.test_gguf import head, pair, text
from tests.test_llama_cpp import answer

MODELS = Path(__file__).parent.parent / "models"
PIP = (MODELS / "pip.gguf").read_bytes()
MMPROJ = (MODELS / "pip-mmproj.gguf").read_bytes()
EMBED = (MODELS / "embed.gguf").read_bytes()
ADAPTER = head([pair("general.type", 8, text("adapter")), pair("general.architecture", 8, text("llama"))])


@pytest.fixture
def local(tmp_path: Path) -> LlamaCppBackend:
    """A backend with one model in its folder of files, and one in somebody else's store."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "mine.gguf").write_bytes(PIP)
    put(Store(tmp_path / "theirs"), "theirs", model=PIP, projector=MMPROJ, system=b"You are theirs.")
    settings = LlamaCppSettings(models_dir="files", also_read=(str(tmp_path / "theirs"),), threads=1)
    return LlamaCppBackend("local", settings, tmp_path)


async def bytes_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def upload(local: LlamaCppBackend, content: bytes) -> str:
    digest = digest_of(content)
    asyncio.run(local.put_blob(digest, bytes_of(content[:1000], content[1000:])))
    return digest


def steps(local: LlamaCppBackend, name: str, **recipe: Any) -> list[Progress]:
    """What is told of making a model."""

    async def main() -> list[Progress]:
        return [step async for step in local.create(name, Recipe(**recipe))]

    return asyncio.run(main())


def create(local: LlamaCppBackend, name: str, **recipe: Any) -> list[str]:
    """The statuses of making a model."""
    return [step.status for step in steps(local, name, **recipe)]


def rows(local: LlamaCppBackend) -> dict[str, ModelInfo]:
    return {info.id: info for info in asyncio.run(local.models())}


def said(local: LlamaCppBackend, name: str, question: str) -> str:
    async def main() -> str:
        model = await local.open(name, LoadOptions())
        try:
            asked = Generate(
                model=name, messages=(Message("user", (Text(question),)),), sampling=Sampling(temperature=0)
            )
            return (await answer(model, applied(asked, model.own))).text  # type: ignore[attr-defined, arg-type]
        finally:
            await model.close()

    return asyncio.run(main())


def test_lines_about_layers_bear_no_digest(local: LlamaCppBackend) -> None:
    """Ollama's command line would draw an empty bar for each."""
    told = steps(local, "bot", files={"pip.gguf": upload(local, PIP)}, system="You are Bot.")
    assert any(step.status.startswith("using existing layer sha256:") for step in told)
    assert [step.digest for step in told + steps(local, "two", source="mine") if step.digest] == []


@pytest.mark.parametrize("name", ["mine", "Mine:latest"])
def test_a_file_of_the_models_folder_is_there_already(local: LlamaCppBackend, name: str) -> None:
    """It hides every other model of its name, so that fetching one would be for nothing."""

    async def main() -> list[Progress]:
        return [step async for step in local.pull(name)]

    assert asyncio.run(main()) == []


def test_no_spelling_of_such_a_file_is_taken(local: LlamaCppBackend) -> None:
    with pytest.raises(Conflict, match="file of the models folder"):
        create(local, "MINE", source="theirs")
    with pytest.raises(Conflict, match="file of the models folder"):
        asyncio.run(local.copy("theirs", "Mine:latest"))


def test_a_license_comes_beside_those_of_the_source(local: LlamaCppBackend) -> None:
    """Whoever makes a model of another one does not take away its terms. What ``show`` tells of both is not a third."""
    create(local, "one", source="mine", licenses=("MIT", "and more"))
    create(local, "two", source="one", licenses=("mine", "MIT"))
    assert asyncio.run(local.details("two")).license == "MIT\nand more\nmine"
    create(local, "two", source="two", licenses=("MIT\nand more\nmine",))
    assert asyncio.run(local.details("two")).license == "MIT\nand more\nmine"


def test_it_manages_models(local: LlamaCppBackend) -> None:
    assert isinstance(local, Manages)


def test_a_model_of_files_answers_and_tells_what_it_brings_along(local: LlamaCppBackend, tmp_path: Path) -> None:
    told = create(
        local,
        "Bot:v1",
        files={"pip.gguf": upload(local, PIP), "mmproj.gguf": upload(local, MMPROJ)},
        system="You are Bot.",
        parameters={"num_ctx": 256, "stop": ["<x>"], "temperature": 0},
        licenses=("MIT", "and more"),
        messages=(Message("user", (Text("My name is Ada."),)), Message("assistant", (Text("Nice to meet you, Ada!"),))),
    )
    assert told[0] == "parsing GGUF"
    assert told[-1] == "writing manifest"
    assert f"using existing layer {digest_of(PIP)}" in told
    assert f"creating new layer {digest_of(b'You are Bot.')}" in told
    info = rows(local)["Bot:v1"]
    assert info.context_length == 256
    assert Capability.VISION in info.capabilities
    details = asyncio.run(local.details("Bot:v1"))
    assert (details.system, details.license) == ("You are Bot.", "MIT\nand more")
    assert said(local, "bot:V1", "What is my name?") == "Your name is Ada."
    config = Store(tmp_path / "data" / "models")
    stored = config.find(names.parse("bot:v1"))  # type: ignore[arg-type]
    assert stored is not None
    assert msgspec.json.decode(config.content(stored.manifest.config.digest))["model_type"] == "1.31M"


def test_a_model_of_another_is_that_one_but_for_what_is_said(local: LlamaCppBackend) -> None:
    create(
        local, "first", source="mine", system="One.", parameters={"temperature": 0.5, "top_k": 3}, template="{% x %}"
    )
    told = create(local, "second", source="FIRST", parameters={"top_k": 7}, system="")
    assert f"using existing layer {digest_of(PIP)}" in told
    details = asyncio.run(local.details("second"))
    assert details.system == ""
    assert details.source == "first:latest"
    assert asyncio.run(local.details("first")).source == "mine:latest"
    assert details.template == "{% x %}"
    assert details.parameters.split() == ["temperature", "0.5", "top_k", "7"]
    create(local, "first", source="first", system="Changed.")
    changed = asyncio.run(local.details("first"))
    assert (changed.system, changed.source) == ("Changed.", "mine:latest")
    assert rows(local)["first:latest"].digest != rows(local)["second:latest"].digest


def test_models_of_other_places_are_linked_and_stay_as_they_are(local: LlamaCppBackend, tmp_path: Path) -> None:
    mine, theirs = tmp_path / "files" / "mine.gguf", Store(tmp_path / "theirs")
    create(local, "a", source="mine")
    create(local, "b", source="theirs")
    store = tmp_path / "data" / "models" / "blobs" / digest_of(PIP).replace(":", "-")
    assert store.samefile(mine)
    assert Capability.VISION in rows(local)["b:latest"].capabilities
    assert asyncio.run(local.details("b")).system == "You are theirs."
    asyncio.run(local.copy("theirs", "theirs"))  # from now on it is ours, too
    for name in ("a", "b", "theirs"):
        asyncio.run(local.delete(name))
    for name in ("mine", "theirs", "MINE.gguf/../mine"):
        with pytest.raises((Conflict, ModelNotFound)):
            asyncio.run(local.delete(name))
    for name in ("mine", "mine:latest"):
        with pytest.raises(Conflict):
            create(local, name, source="theirs")
        with pytest.raises(Conflict):
            asyncio.run(local.copy("theirs", name))
    assert mine.read_bytes() == PIP
    assert [one.id for one in theirs.models()] == ["theirs:latest"]
    assert set(rows(local)) == {"mine", "theirs:latest"}
    assert blobs(tmp_path / "data" / "models") == set()


def test_copies_share_their_blobs_and_the_last_one_takes_them_along(local: LlamaCppBackend, tmp_path: Path) -> None:
    create(local, "a", files={"m.gguf": upload(local, PIP)})
    asyncio.run(local.copy("a", "gpt-4"))
    asyncio.run(local.delete("a"))
    assert said(local, "gpt-4", "Count to 3") == "1, 2, 3"
    asyncio.run(local.delete("gpt-4"))
    assert blobs(tmp_path / "data" / "models") == set()
    with pytest.raises(ModelNotFound):
        asyncio.run(local.copy("a", "b"))
    with pytest.raises(ModelNotFound):
        asyncio.run(local.delete("a"))


def test_split_files_become_one_model(local: LlamaCppBackend) -> None:
    first, second = split(PIP)
    parts = {"z-00001-of-00002.gguf": upload(local, first), "a-00002-of-00002.gguf": upload(local, second)}
    create(local, "whole", files=parts)
    create(local, "again", source="whole", system="Hi.")
    assert said(local, "again", "What is the capital of France?") == "The capital of France is Paris."
    with pytest.raises(InvalidRequest, match="all parts"):
        create(local, "half", files={"a.gguf": digest_of(first)})
    with pytest.raises(InvalidRequest, match="missing"):
        create(local, "twice", files={"a.gguf": digest_of(first), "b.gguf": digest_of(first)})


def test_adapters_and_drafts_are_named_by_the_manifest(local: LlamaCppBackend) -> None:
    create(
        local,
        "m",
        source="mine",
        adapters={"style.gguf": upload(local, ADAPTER)},
        drafts={"small.gguf": upload(local, PIP)},
    )
    offered = local._files.find("m")
    assert [Path(lora.path).read_bytes() for lora in offered.loras] == [ADAPTER]
    assert offered.draft is not None
    assert offered.draft.read_bytes() == PIP
    with pytest.raises(GatewayError) as failed:
        said(local, "m", "Hello")  # there is nothing in that adapter
    assert "/" not in failed.value.message
    with pytest.raises(InvalidRequest, match="no adapter"):
        create(local, "n", source="mine", adapters={"style.gguf": digest_of(PIP)})


NONE = "sha256:" + "0" * 64
WRONG = [
    ("m", {}, "neither 'from' or 'files' was specified"),
    ("../m", {"source": "mine"}, "invalid model name"),
    ("a/b/c/d", {"source": "mine"}, "invalid model name"),
    ("m", {"files": {"m.gguf": "sha256:12"}}, "invalid digest format"),
    ("m", {"files": {"m.gguf": NONE}}, "not found"),
    ("m", {"source": "mine", "template": "{{ if }}"}, "template"),
    ("m", {"source": "mine", "parameters": {"temperature": "hot"}}, "temperature"),
    ("m", {"source": "mine", "quantize": "Q9_9"}, "unsupported quantization"),
    ("m", {"source": "mine", "quantize": "Q4_K_M"}, "only supported for F16"),
    ("m", {"source": "nobody"}, "not found"),
]


@pytest.mark.parametrize(("name", "recipe", "words"), WRONG)
def test_a_recipe_that_makes_no_model_says_why_and_leaves_nothing(
    local: LlamaCppBackend, tmp_path: Path, name: str, recipe: dict[str, Any], words: str
) -> None:
    with pytest.raises(GatewayError, match=words) as failed:
        create(local, name, **recipe)
    assert failed.value.status in {400, 404}
    assert str(tmp_path) not in failed.value.message
    assert set(rows(local)) == {"mine", "theirs:latest"}
    store = Store(tmp_path / "data" / "models")
    store.sweep(older=-1)
    if store.folder.exists():
        assert blobs(store.folder) == set()
        assert store.claimed() == set()


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("m.gguf", b"GGUF\x03\0\0\0" + b"\xff" * 40, "not a GGUF file that can be served"),
        ("m.gguf", PIP[:100_000], "not a GGUF file that can be served"),
        ("m.gguf", b"MZ", "not a GGUF file"),
        ("model.safetensors", b"anything", "convert it to GGUF first"),
        ("m.gguf", MMPROJ, "none of the files is a model"),
        ("m.gguf", ADAPTER, "none of the files is a model"),
    ],
)
def test_files_are_looked_into_before_a_manifest_names_them(
    local: LlamaCppBackend, file: str, content: bytes, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words) as failed:
        create(local, "m", files={file: upload(local, content)})
    assert digest_of(content).removeprefix("sha256:") not in failed.value.message
    assert "m:latest" not in rows(local)


def test_a_blob_is_kept_under_its_own_digest_alone(local: LlamaCppBackend, tmp_path: Path) -> None:
    right = digest_of(b"content")

    async def story() -> None:
        assert not await local.has_blob(right)
        with pytest.raises(InvalidRequest, match="digest mismatch, expected") as failed:
            await local.put_blob(right, bytes_of(b"other"))
        assert digest_of(b"other") in failed.value.message
        assert await local.put_blob(right.replace(":", "-"), bytes_of(b"con", b"tent"))
        assert await local.has_blob(right)

        async def unread() -> AsyncIterator[bytes]:
            raise AssertionError("what is there is not read again")
            yield b""

        assert not await local.put_blob(right, unread())

        async def leaving() -> AsyncIterator[bytes]:
            yield b"half"
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await local.put_blob(NONE, leaving())
        for bad in ("", "sha256:../../x", "md5:" + "0" * 32, NONE + "0"):
            with pytest.raises(InvalidRequest, match="invalid digest format"):
                await local.put_blob(bad, bytes_of(b""))

    asyncio.run(story())
    assert blobs(tmp_path / "data" / "models") == {right}
    assert leftovers(tmp_path / "data" / "models") == []


def test_a_large_blob_goes_to_the_disk_in_pieces(local: LlamaCppBackend, tmp_path: Path) -> None:
    pieces = [bytes([number]) * 700_000 for number in range(14)]
    digest = digest_of(b"".join(pieces))
    tracemalloc.start()
    try:
        assert asyncio.run(local.put_blob(digest, bytes_of(*pieces)))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 2 * PIECE + 2_000_000
    assert Store(tmp_path / "data" / "models").size(digest) == 9_800_000


def test_a_blob_for_which_there_is_no_room_is_refused_before_it_is_read(local: LlamaCppBackend, tmp_path: Path) -> None:
    read: list[bytes] = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            read.append(bytes(PIECE))
            yield read[-1]

    with pytest.raises(StorageFailed):
        asyncio.run(local.put_blob(digest_of(b"x"), endless(), size=1 << 60))
    assert read == []
    assert leftovers(tmp_path / "data" / "models") == []


def test_a_blob_without_end_leaves_others_their_room(
    local: LlamaCppBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(PIECE)
            monkeypatch.setattr(writing, "RESERVE", 1 << 60)

    with pytest.raises(StorageFailed, match="no room"):
        asyncio.run(local.put_blob(digest_of(b"x"), endless()))
    assert leftovers(tmp_path / "data" / "models") == []


def test_without_a_store_nothing_is_made_and_all_else_goes_on(tmp_path: Path) -> None:
    (tmp_path / "pip.gguf").write_bytes(PIP)
    local = LlamaCppBackend("local", LlamaCppSettings(models_dir=".", store="", threads=1), tmp_path)
    with pytest.raises(NotImplementedHere):
        create(local, "m", source="pip")
    with pytest.raises(NotImplementedHere):
        asyncio.run(local.delete("pip"))
    assert set(rows(local)) == {"pip"}


def test_a_template_that_cannot_be_rendered_is_told_and_the_files_own_renders(local: LlamaCppBackend) -> None:
    told = create(local, "odd", source="mine", template="{{ html .Prompt }}")
    assert told[-1] == (
        "the template cannot be used here (template error: function 'html' is not supported); the file's own renders"
    )
    assert said(local, "odd", "Count to 3") == "1, 2, 3"
    told = create(local, "plain", source="odd", template="")
    assert told[-1] == "writing manifest"


def test_a_template_that_is_a_bomb_costs_its_own_model_alone(local: LlamaCppBackend) -> None:
    loop = "{% for i in range(5000) %}"
    create(local, "bomb", source="mine", template=f"{loop}{loop}{loop}{'{% endfor %}' * 3}")

    async def main() -> None:
        opening = asyncio.ensure_future(local.open("bomb"))
        for _ in range(10):  # everybody else is answered meanwhile
            await asyncio.wait((opening,), timeout=0.05)
        assert not opening.done()
        opening.cancel()  # whoever waits for it leaves, and its process ends
        with pytest.raises(asyncio.CancelledError):
            await opening

    asyncio.run(main())


def test_what_was_made_runs_behind_a_wall_with_a_limit_of_its_memory(local: LlamaCppBackend) -> None:
    create(local, "copy", source="mine")

    async def main(name: str) -> Any:
        model: Any = await local.open(name)
        await model.close()
        return model.runner

    assert isinstance(asyncio.run(main("mine")), InProcess)
    made = asyncio.run(main("copy"))
    assert isinstance(made, Isolated)
    assert has_gpu() or 0 < made.worker._job.memory < 2 * 1024**3


def test_a_manifest_that_names_one_blob_again_and_again_is_no_model(local: LlamaCppBackend, tmp_path: Path) -> None:
    store = Store(tmp_path / "data" / "models")
    license, turns = b"x" * 1024 * 1024, b"[" + b",".join([b'{"role":"user"}'] * 1000) + b"]"
    manifest = put(store, "whole", model=PIP, license=license, messages=turns)
    by_kind = {one.kind: one for one in manifest.layers}
    for kind, times in (("license", 17), ("messages", 11)):
        layers = (by_kind["model"], *[by_kind[kind]] * times)
        store.commit(named("m"), write_manifest(msgspec.structs.replace(manifest, layers=layers)))
        assert "m:latest" not in rows(local)
        store.commit(named("m"), write_manifest(msgspec.structs.replace(manifest, layers=layers[:2])))
        assert "m:latest" in rows(local)


def test_a_parameter_of_countless_values_makes_no_model(local: LlamaCppBackend, tmp_path: Path) -> None:
    store = Store(tmp_path / "data" / "models")
    for count in (1000, 1001):
        put(store, f"m{count}", model=PIP, params=msgspec.json.encode({"stop": ["x"] * count}))
    assert {"m1000:latest"} == {name for name in rows(local) if name.startswith("m1")}


def test_a_blob_that_is_named_a_thousand_times_is_read_once(
    local: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    real = gguf.read_head

    def counted(path: Path) -> gguf.Head:
        read.append(path)
        return real(path)

    digest = upload(local, PIP)
    monkeypatch.setattr(gguf, "read_head", counted)
    with pytest.raises(InvalidRequest, match="all parts"):
        create(local, "m", files={f"{number}.gguf": digest for number in range(1000)})
    assert len([path for path in read if path.name.startswith("sha256-")]) == 1


def test_a_recipe_brings_along_no_more_than_can_be_offered(local: LlamaCppBackend) -> None:
    for wrong in (
        {"licenses": ("x" * 9 * 1024 * 1024, "y" * 9 * 1024 * 1024)},
        {"messages": (Message("user", (Text("x"),)),) * 10_001},
    ):
        with pytest.raises(InvalidRequest):
            create(local, "m", source="mine", **wrong)
        assert set(rows(local)) == {"mine", "theirs:latest"}


def test_whoever_leaves_stops_the_making_and_nothing_is_listed(local: LlamaCppBackend, tmp_path: Path) -> None:
    async def story() -> None:
        steps = local.create("m", Recipe(source="mine", system="x"))
        assert isinstance(await anext(steps), Progress)
        await steps.aclose()

    asyncio.run(story())
    found = set(rows(local))
    assert found in ({"mine", "theirs:latest"}, {"mine", "theirs:latest", "m:latest"})
    store = Store(tmp_path / "data" / "models")
    assert store.claimed() == set()
    assert leftovers(store.folder) == []


def test_a_disk_that_is_full_is_told_and_nothing_is_left(local: LlamaCppBackend, tmp_path: Path) -> None:
    """A real limit on the size of files, which the system holds itself."""
    create(local, "before", source="mine")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            for attempt in (
                lambda: upload(local, MMPROJ),
                lambda: create(local, "big", source="before", system="x" * 30_000),
            ):
                with pytest.raises(StorageFailed, match="no room"):
                    attempt()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    store = Store(tmp_path / "data" / "models")
    assert leftovers(store.folder) == []
    assert "big:latest" not in rows(local)


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_a_model_is_quantized_where_the_engine_can(local: LlamaCppBackend, tmp_path: Path) -> None:
    told = steps(local, "small", files={"m.gguf": upload(local, EMBED)}, quantize="q8_0")
    barred = [step for step in told if step.digest]
    assert {step.status for step in barred} == {"quantizing F32 model to Q8_0"}
    assert {step.total for step in barred} == {len(EMBED)}
    info = rows(local)["small:latest"]
    assert info.quantization == "Q8_0"
    assert info.size < len(EMBED)
    store = Store(tmp_path / "data" / "models")
    store.sweep(older=-1)
    assert digest_of(EMBED) not in blobs(store.folder)
    vectors = asyncio.run(_embedded(local))
    assert len(vectors) == 64


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_quantizations_take_turns_and_who_leaves_stops_even_a_silent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Left(Exception):
        pass

    began: list[bool] = []
    seen: list[float] = []

    def tell(share: float) -> None:
        seen.append(share)
        if len(seen) == 3:
            raise Left

    def silent(*arguments: Any, **pipes: Any) -> subprocess.Popen[bytes]:
        began.append(quantizing._ALONE.locked())
        return real([sys.executable, "-c", "input()"], **pipes)

    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", silent)
    monkeypatch.setattr(quantizing, "GLANCE", 0.01)
    with quantizing._ALONE, pytest.raises(Left):
        quantizing.quantize(Path("a"), Path("b"), "Q8_0", tell)
    assert began == []
    seen.clear()
    with pytest.raises(Left):
        quantizing.quantize(Path("a"), Path("b"), "Q8_0", tell)
    assert began == [True]
    assert not quantizing._ALONE.locked()


async def _embedded(local: LlamaCppBackend) -> list[float]:
    model = await local.open("small")
    try:
        answered = await model.embed(Embed(model="small", inputs=("Hello",)))  # type: ignore[attr-defined]
        return list(answered.vectors[0])
    finally:
        await model.close()

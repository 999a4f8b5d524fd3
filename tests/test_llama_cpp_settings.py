"""llama.cpp's settings: each arrives at both engines, from the backend's section, from the model's and from a request.

Where the machine shows an effect, it is the effect that is looked at; where it has no GPU, what the engine was told.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backends.llama_cpp import LlamaCppBackend
from backends.llama_cpp.engine import Start
from backends.llama_cpp.inprocess import InProcess
from backends.llama_cpp.isolated import Isolated
from backends.llama_cpp.model import TextModel
from backends.llama_cpp.starting import start_of
from backends.workers.memory import memory_bytes
from canonical.errors import BackendError, InvalidRequest, OutOfMemory
from canonical.progress import Progress
from canonical.requests import AS_CONFIGURED, Embed, Generate, LoadOptions
from gateway.config import ConfigError, load
from tests.loras import write_lora
from tests.test_llama_cpp import COMPILED, ROOT, answer, ask

XLLAMACPP, PYTHON = "xllamacpp", "llama-cpp-python"
BOTH = [XLLAMACPP, pytest.param(PYTHON, marks=COMPILED)]
COUNT = ask("Count to 9")
COUNTED = "1, 2, 3, 4, 5, 6, 7, 8, 9"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    for name in ("pip.gguf", "embed.gguf"):
        (folder / name).write_bytes((ROOT / "models" / name).read_bytes())
    write_lora(folder / "wild.gguf", strength=0.5)
    write_lora(folder / "other.gguf", architecture="gemma")
    write_lora(folder / "large.gguf", rank=4096)
    return folder


def backend(folder: Path, common: dict[str, Any], own: dict[str, Any], name: str = "pip") -> LlamaCppBackend:
    given = {"models_dir": str(folder), "threads": 1, "slots": 2, **common}
    made = LlamaCppBackend("local", msgspec.convert(given, LlamaCppBackend.Settings), folder)
    made.configure(name, msgspec.convert({"thinking": "off", **own}, LlamaCppBackend.ModelSettings))
    return made


def start(folder: Path, engine: str, common: dict[str, Any], own: dict[str, Any], *, gpu: bool = True) -> Start:
    made = backend(folder, {"engine": engine, **common}, own)
    return start_of(made._files.openable("pip"), made._settings, AS_CONFIGURED, gpu=gpu)


def opened(
    folder: Path,
    engine: str,
    own: dict[str, Any],
    look: Callable[[Any], Any],
    *,
    common: dict[str, Any] | None = None,
    name: str = "pip",
    options: LoadOptions = AS_CONFIGURED,
    steps: list[Progress] | None = None,
) -> Any:
    """What ``look`` finds of a model that is loaded."""

    async def main() -> Any:
        made = backend(folder, {"engine": engine, **(common or {})}, own, name)
        model = await made.open(name, options, (steps if steps is not None else []).append)
        try:
            return await look(model)
        finally:
            await model.close()

    return asyncio.run(main())


def said(folder: Path, engine: str, request: Generate = COUNT, **own: Any) -> str:
    async def look(model: TextModel) -> str:
        return (await answer(model, request)).text

    found: str = opened(folder, engine, own, look)
    return found


ARRIVES: list[tuple[dict[str, Any], str, Any, Any]] = [
    # What is set; where xllamacpp has it, and where llama-cpp-python does ("m": of the model, "c": of the context)
    ({"gpu_layers": 7}, "n_gpu_layers=7", "m.n_gpu_layers", 7),
    ({"gpu_layers": -1}, "n_gpu_layers=-1", "m.n_gpu_layers", 9999),
    ({"main_gpu": 1}, "main_gpu=1", "m.main_gpu", 1),
    ({"split_mode": "row"}, "split_mode=2", "m.split_mode", 2),
    ({"split_mode": "none"}, "split_mode=0", "m.split_mode", 0),
    ({"check_tensors": True}, "check_tensors=True", "m.check_tensors", True),
    ({"mmap": True}, "load_mode=1", "m.load_mode", 1),
    ({"mmap": False}, "load_mode=0", "m.load_mode", 0),
    ({"mlock": True}, "load_mode=3", "m.load_mode", 3),
    ({"mmap": False, "mlock": True}, "load_mode=2", "m.load_mode", 2),
    ({}, "load_mode=-1", "m.load_mode", -1),
    ({"context": 512}, "n_ctx=1024", "c.n_ctx", 1024),
    ({"threads": 3}, "cpuparams.n_threads=3", "c.n_threads", 3),
    ({"threads": 3}, "cpuparams_batch.n_threads=3", "c.n_threads_batch", 3),
    ({"threads_batch": 5}, "cpuparams_batch.n_threads=5", "c.n_threads_batch", 5),
    ({"batch": 96}, "n_batch=96", "c.n_batch", 96),
    ({"batch": 96}, "n_ubatch=96", "c.n_ubatch", 96),
    ({"batch": 96, "ubatch": 32}, "n_ubatch=32", "c.n_ubatch", 32),
    ({"flash_attention": "on"}, "flash_attn_type=1", "c.flash_attn_type", 1),
    ({"flash_attention": False}, "flash_attn_type=0", "c.flash_attn_type", 0),
    ({"flash_attention": "auto"}, "flash_attn_type=-1", "c.flash_attn_type", -1),
    ({"cache_type_k": "q8_0"}, "cache_type_k=8", "c.type_k", 8),
    ({"cache_type_v": "q4_0"}, "cache_type_v=2", "c.type_v", 2),
    ({"cache_type_k": "bf16"}, "cache_type_k=30", "c.type_k", 30),
    ({"kv_offload": False}, "no_kv_offload=True", "c.offload_kqv", False),
    ({"swa_full": True}, "swa_full=True", "c.swa_full", True),
]
ARRIVES_OF_MODEL: list[tuple[dict[str, Any], str, Any, Any]] = [
    ({"pooling": "cls"}, "pooling_type=2", "c.pooling_type", 2),
    ({"rope_scaling": "yarn"}, "rope_scaling_type=2", "c.rope_scaling_type", 2),
    ({"rope_freq_base": 500.0}, "rope_freq_base=500.0", "c.rope_freq_base", 500.0),
    ({"rope_freq_scale": 0.5}, "rope_freq_scale=0.5", "c.rope_freq_scale", 0.5),
    ({"yarn_orig_ctx": 2048}, "yarn_orig_ctx=2048", "c.yarn_orig_ctx", 2048),
    ({"yarn_ext_factor": 0.5}, "yarn_ext_factor=0.5", "c.yarn_ext_factor", 0.5),
    ({"yarn_attn_factor": 2.0}, "yarn_attn_factor=2.0", "c.yarn_attn_factor", 2.0),
    ({"yarn_beta_slow": 2.0}, "yarn_beta_slow=2.0", "c.yarn_beta_slow", 2.0),
    ({"yarn_beta_fast": 16.0}, "yarn_beta_fast=16.0", "c.yarn_beta_fast", 16.0),
]


def read(thing: Any, path: str) -> Any:
    for name in path.split("."):
        thing = getattr(thing, name)
    return thing


@pytest.mark.parametrize("place", ["backend", "model"])
def test_each_setting_arrives_at_the_first_engine(folder: Path, place: str) -> None:
    from backends.llama_cpp.xllamacpp import params_of

    for given, expected, _, _ in ARRIVES if place == "backend" else ARRIVES + ARRIVES_OF_MODEL:
        common, own = (given, {}) if place == "backend" else ({}, given)
        path, _, value = expected.partition("=")
        found = read(params_of(start(folder, XLLAMACPP, common, own)), path)
        assert (str(found) if isinstance(found, bool | float) else str(int(found))) == value, given


@COMPILED
@pytest.mark.parametrize("place", ["backend", "model"])
def test_each_setting_arrives_at_the_second_engine(folder: Path, place: str) -> None:
    from backends.llama_cpp.native import Told, context_params

    for given, _, path, value in ARRIVES if place == "backend" else ARRIVES + ARRIVES_OF_MODEL:
        common, own = (given, {}) if place == "backend" else ({}, given)
        begun = start(folder, PYTHON, common, own)
        told = {"m": Told(begun).params, "c": context_params(begun, sequences=begun.slots)}
        assert getattr(told[path[0]], path[2:]) == value, given


def test_what_only_the_first_engine_can_show_without_a_gpu(folder: Path) -> None:
    from backends.llama_cpp.xllamacpp import params_of

    split = params_of(start(folder, XLLAMACPP, {}, {"tensor_split": [3, 1]})).tensor_split
    assert (split[0], split[1], sum(split)) == (3.0, 1.0, 4.0)
    for value, count in ((True, 1), (2, 2), (False, 0)):
        assert start(folder, XLLAMACPP, {"cpu_moe": value}, {}).cpu_moe == (-1 if value is True else count)
    moved = params_of(
        start(folder, XLLAMACPP, {}, {"cpu_moe": 2, "override_tensor": "blk.0=CPU"})
    ).tensor_buft_overrides
    assert "blk.0" in moved
    seen = start(folder, XLLAMACPP, {}, {"mmproj": "embed.gguf", "image_max_tokens": 99, "mmproj_offload": False})
    assert (params_of(seen).image_max_tokens, params_of(seen).mmproj_use_gpu) == (99, False)


def test_nothing_goes_to_a_gpu_that_is_not_there(folder: Path) -> None:
    own = {"gpu_layers": 20, "draft_model": "pip.gguf", "gpu_layers_draft": 5}
    found = start(folder, XLLAMACPP, {}, own, gpu=False)
    assert found.draft is not None
    assert (found.gpu_layers, found.draft.gpu_layers, found.projector_gpu) == (0, 0, False)


@pytest.mark.parametrize("engine", BOTH)
def test_an_adapter_changes_what_the_model_says_by_its_scale(folder: Path, engine: str) -> None:
    assert said(folder, engine, lora=["wild.gguf"]) != COUNTED
    assert said(folder, engine, lora=[{"file": "wild.gguf", "scale": 0.0}]) == COUNTED
    with pytest.raises(BackendError, match=r"could not be loaded.*adapter") as caught:
        said(folder, engine, lora=["other.gguf"])
    assert str(folder) not in caught.value.message


@pytest.mark.parametrize("engine", BOTH)
def test_keys_and_values_of_fewer_bits_do_for_an_answer(folder: Path, engine: str) -> None:
    assert said(folder, engine, cache_type_k="q8_0", cache_type_v="q8_0", flash_attention="on") == COUNTED


@pytest.mark.parametrize("engine", BOTH)
def test_positions_that_are_counted_otherwise_change_what_it_says(folder: Path, engine: str) -> None:
    assert said(folder, engine, rope_freq_base=100.0) != COUNTED


@pytest.mark.parametrize("engine", BOTH)
def test_another_template_makes_another_prompt(folder: Path, engine: str) -> None:
    template = "<|im_start|>user\nCount to 3<|im_end|>\n<|im_start|>assistant\n"
    assert said(folder, engine, chat_template=template) == "1, 2, 3"


@pytest.mark.parametrize("engine", BOTH)
def test_another_pooling_makes_another_vector(folder: Path, engine: str) -> None:
    async def look(model: Any) -> list[float]:
        vector: list[float] = (await model.embed(Embed(model="embed", inputs=("the red house",)))).vectors[0]
        return vector

    first, mean, last = (
        opened(folder, engine, own, look, name="embed") for own in ({}, {"pooling": "mean"}, {"pooling": "last"})
    )
    assert first == pytest.approx(mean, abs=1e-4)  # as the file says
    assert first != pytest.approx(last, abs=1e-2)


def test_a_small_model_guesses_ahead(folder: Path) -> None:
    async def look(model: TextModel) -> str:
        body = msgspec.json.encode({"messages": [{"role": "user", "content": "Count to 9"}], "temperature": 0})
        chunks = [chunk async for batch in model.runner.stream("chat", body) for chunk in batch]
        return chunks[-1].decode()

    own = {"draft_model": "pip.gguf", "draft_max": 8, "draft_p_min": 0.5}
    last = opened(folder, XLLAMACPP, own, look)
    assert COUNTED in last
    assert int(last.partition('"draft_n_accepted":')[2].partition("}")[0]) > 8


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's kernel")
@pytest.mark.parametrize("engine", BOTH)
def test_the_file_is_mapped_or_read_or_held(folder: Path, engine: str) -> None:
    async def look(model: TextModel) -> tuple[bool, int]:
        assert isinstance(model.runner, Isolated)
        process = Path(f"/proc/{model.runner.pid}")
        locked = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmLck"))
        return str(folder / "pip.gguf") in (process / "maps").read_text(), int(locked.split()[1])

    common = {"isolation": "process"}
    assert opened(folder, engine, {"mmap": True}, look, common=common) == (True, 0)
    assert opened(folder, engine, {"mmap": False}, look, common=common) == (False, 0)
    mapped, locked = opened(folder, engine, {"mlock": True}, look, common=common)
    assert mapped
    assert locked > 0


@pytest.mark.parametrize("engine", BOTH)
def test_numbers_that_are_none_are_found_while_loading(folder: Path, engine: str, tmp_path: Path) -> None:
    data = bytearray((folder / "pip.gguf").read_bytes())
    data[-34 * 64 : -34 * 63 + 2] = b"\xff\x7f" * 18  # scales of the last tensor
    (tmp_path / "pip.gguf").write_bytes(data)
    with pytest.raises(BackendError, match="could not be loaded"):
        said(tmp_path, engine, check_tensors=True)


@pytest.mark.parametrize("engine", BOTH)
def test_a_model_that_does_not_fit_its_limit_is_out_of_memory(folder: Path, engine: str) -> None:
    with pytest.raises(OutOfMemory, match="'pip' could not be loaded"):
        said(folder, engine, slots=256, memory_limit="400MiB", isolation="process", ubatch=512, batch=512)


@pytest.mark.parametrize("engine", BOTH)
def test_a_request_may_have_it_loaded_otherwise(folder: Path, engine: str) -> None:
    async def look(model: TextModel) -> tuple[LoadOptions | None, int]:
        with pytest.raises(InvalidRequest, match="maximum context length is 256"):
            await answer(model, ask("word " * 400))
        return model.honours.load, model.info.context_length

    options = LoadOptions(context=256, batch=32, threads=1, gpu_layers=0, mmap=False)
    loaded, told = opened(folder, engine, {"context": 128}, look, options=options)
    assert told == 256
    assert loaded == LoadOptions(context=256, batch=32, threads=1, gpu_layers=0, main_gpu=0, mmap=False)


def test_nobody_gets_less_context_than_was_configured(folder: Path) -> None:
    made = backend(folder, {}, {"context": 1024})
    offered = made._files.openable("pip")
    assert made._start(offered, LoadOptions(context=256)).context == 1024
    assert made._start(offered, LoadOptions(context=2048)).context == 2048


def test_a_wish_has_its_bounds(folder: Path) -> None:
    made = backend(folder, {}, {})
    offered = made._files.openable("pip")

    def wished(**options: Any) -> Start:
        return start_of(offered, made._settings, LoadOptions(**options), gpu=True)

    assert wished(context=10**9).context == 4096  # what it was made for
    assert wished(context=0).context == wished().context
    assert wished(threads=10**6).threads <= 512
    assert wished(batch=10**6).batch == 4096
    assert wished(gpu_layers=-7).gpu_layers == -1
    for wrong in ({"context": -1}, {"main_gpu": -1}, {"main_gpu": 1000}):
        with pytest.raises(InvalidRequest):
            wished(**wrong)


def test_a_stretched_model_has_the_longer_context(folder: Path) -> None:
    assert start(folder, XLLAMACPP, {}, {"context": 8192}).context == 4096
    assert start(folder, XLLAMACPP, {}, {"context": 8192, "rope_scaling": "yarn"}).context == 8192


@COMPILED
def test_a_load_tells_how_far_it_is(folder: Path) -> None:
    async def look(model: TextModel) -> int:
        return model.info.size

    steps: list[Progress] = []
    size = opened(folder, PYTHON, {}, look, steps=steps)
    assert len(steps) > 10
    assert [step.completed for step in steps] == sorted(step.completed for step in steps)
    assert (steps[-1].completed, {step.total for step in steps}, steps[0].status) == (size, {size}, "loading model")


@pytest.mark.parametrize(
    ("common", "own", "exposed", "kind"),
    [
        ({}, {}, False, InProcess),
        ({}, {}, True, Isolated),
        ({"isolation": "none"}, {}, True, InProcess),
        ({"isolation": "process"}, {}, False, Isolated),
        ({}, {"isolation": "process"}, False, Isolated),
        ({"isolation": "process"}, {"isolation": "none"}, True, InProcess),
        ({}, {"memory_limit": "2GiB"}, False, Isolated),
        ({}, {"lora": ["large.gguf"]}, False, Isolated),  # a load that takes long would hold up everybody else
        ({"isolation": "none"}, {"lora": ["large.gguf"]}, False, InProcess),
        pytest.param({"engine": PYTHON}, {}, False, Isolated, marks=COMPILED),
    ],
)
def test_where_an_engine_runs(folder: Path, common: Any, own: Any, exposed: bool, kind: type) -> None:
    async def main() -> None:
        made = backend(folder, common, own)
        if exposed:
            made.expose()
        model = await made.open("pip")
        assert type(model.runner) is kind  # type: ignore[attr-defined]
        await model.close()

    asyncio.run(main())


CONFIG = "backends:\n  local: {{type: llama_cpp, models_dir: {folder}, {common}}}\nmodels:\n  - {{id: pip, backend: local, {own}}}\n"


@pytest.mark.parametrize(
    ("common", "own", "words"),
    [
        ("", "cache_type_k: q9", r"Invalid enum value 'q9' - at `\$\.models\[0\]\.cache_type_k`"),
        ("cache_type_v: x", "", r"at `\$\.backends\.local\.cache_type_v`"),
        ("", "slots: 1000", r"`int` <= 256 - at `\$\.models\[0\]\.slots`"),
        ("", "split_mode: both", r"at `\$\.models\[0\]\.split_mode`"),
        ("", "tensor_split: [0, 0]", r"no GPU a share - at `\$\.models\[0\]`"),
        ("", "override_tensor: nothing", r"pattern=buffer.* - at `\$\.models\[0\]`"),
        ("", "override_tensor: '(=CPU'", "is not a pattern"),
        ("", "cache_type_v: q8_0, flash_attention: off", "needs flash_attention"),
        ("", "draft_min: 5, draft_max: 2", "draft_min is more"),
        ("", "draft_model: ../x.gguf", "not inside the models folder"),
        ("", "lora: [/etc/x.gguf]", "not inside the models folder"),
        ("", "lora: [{file: x.gguf, scale: .nan}]", "finite"),
        ("", "memory_limit: many", "memory_limit is a number"),
        ("isolation: none", "memory_limit: 1GiB", "isolation none has none"),
        ("engine: llama-cpp-python", "draft_model: pip.gguf", "llama-cpp-python has no draft_model"),
        ("engine: llama-cpp-python", "mmproj: pip.gguf", "llama-cpp-python has no mmproj"),
        ("engine: llama-cpp-python, isolation: none", "", "always runs in a worker"),
        ("", "n_ctx: 512, context: 512", r"'context' stands twice.* - at `\$\.models\[0\]\.context`"),
        ("", "ngl: 5", "unknown field `ngl`"),
    ],
)
def test_what_cannot_be_is_an_error_with_its_place(
    folder: Path, tmp_path: Path, common: str, own: str, words: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(folder=folder, common=common, own=own))
    with pytest.raises(ConfigError, match=words):
        load(path, {})


def test_the_names_that_others_use_do_too(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    own = "n_gpu_layers: 3, flash_attn: on, num_batch: 64, type_k: q8_0"
    path.write_text(CONFIG.format(folder=folder, common="ctx_size: 128, parallel: 3", own=own))
    made: Any = load(path, {}).backends["local"]
    found = start_of(made._files.openable("pip"), made._settings, AS_CONFIGURED, gpu=True)
    assert (found.context, found.slots, found.gpu_layers, found.batch) == (128, 3, 3, 64)
    assert (found.flash_attention, found.cache_type_k) == (True, "q8_0")


@pytest.mark.parametrize(
    ("written", "value"), [(None, 0), (5, 5), ("8GiB", 8 * 2**30), ("1.5 MB", 3 * 2**19), ("2t", 2**41)]
)
def test_memory_is_written_as_people_write_it(written: Any, value: int) -> None:
    assert memory_bytes(written) == value

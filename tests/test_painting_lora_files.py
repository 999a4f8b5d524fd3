"""What an adapter is, told by the head of its file and by what lies beside it; and files that lie."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest

from backends.diffusers.lora.files import LoraFile, lora_file
from backends.diffusers.lora.parts import Part, part_of
from canonical.painting import LoraInfo
from tests.serving import ROOT

LORAS = ROOT / "models" / "painting" / "loras"


def written(path: Path, head: dict[str, Any] | bytes, *, length: int | None = None, data: int = 0) -> Path:
    raw = head if isinstance(head, bytes) else json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + bytes(data))
    return path


def tensors(*named: tuple[str, list[int]], metadata: dict[str, str] | None = None) -> dict[str, Any]:
    """The head of a file in which these tensors have no numbers of their own."""
    found: dict[str, Any] = {name: {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]} for name, shape in named}
    return found | ({"__metadata__": metadata} if metadata else {})


def adapter(path: Path) -> LoraFile:
    found = lora_file(path)
    assert found is not None
    return found


def test_the_demo_adapters_are_what_they_are() -> None:
    found = {path.stem: adapter(path) for path in LORAS.glob("*.safetensors")}
    assert {id: (file.info.title, file.info.kind, file.info.default_weight) for id, file in found.items()} == {
        "night": ("Night", "lora", 0.6),
        "night-loha": ("Night (LoHa)", "loha", 0.6),
        "frame-kohya": ("White frame", "lora", 0.8),
        "frame-lokr": ("White frame (LoKr)", "lokr", 0.8),
    }
    assert found["frame-kohya"].family == "sdxl"
    assert not any(file.trouble for file in found.values())


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("lora_unet_mid_block_attn1_to_q.lora_down.weight", Part("unet", "mid_block_attn1_to_q", "down")),
        ("lora_unet_mid_block_attn1_to_q.alpha", Part("unet", "mid_block_attn1_to_q", "alpha")),
        ("unet.mid.attn1.to_q.lora_A.weight", Part("unet", "mid_attn1_to_q", "down")),
        ("base_model.model.mid.attn1.to_q.lora_B.default.weight", Part("unet", "mid_attn1_to_q", "up")),
        ("unet.mid.attn1.processor.to_q_lora.up.weight", Part("unet", "mid_attn1_to_q", "up")),
        ("unet.mid.attn1.to_k.lora.down.weight", Part("unet", "mid_attn1_to_k", "down")),
        (
            "text_encoder.text_model.layers.0.fc1.lora_linear_layer.up.weight",
            Part("text_encoder", "layers_0_fc1", "up"),
        ),
        ("text_encoder_2.layers.0.fc1.lora_magnitude_vector", Part("text_encoder_2", "layers_0_fc1", "dora")),
        ("lora_te2_text_model_layers_0_fc1.dora_scale", Part("text_encoder_2", "layers_0_fc1", "dora")),
        ("lora_te_text_model_layers_0_fc1.hada_w1_a", Part("only_text_encoder", "layers_0_fc1", "hada_w1_a")),
        ("diffusion_model.input_blocks.4.1.proj_in.lokr_w1", Part("unet", "input_blocks_4_1_proj_in", "lokr_w1")),
        ("emb_params", None),
        ("bundle_emb.word.string_to_param.*", None),
        ("", None),
    ],
)
def test_tensors_are_known_in_every_spelling(key: str, part: Part | None) -> None:
    assert part_of(key) == part


@pytest.mark.parametrize(
    ("width", "metadata", "family"),
    [
        (768, {}, "sd1"),
        (1024, {}, "sd2"),
        (2048, {"ss_base_model_version": "sd_v1"}, "sdxl"),
        (96, {}, ""),
        (96, {"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd1"),
    ],
)
def test_which_models_it_fits_is_read_off_its_shapes(
    tmp_path: Path, width: int, metadata: dict[str, str], family: str
) -> None:
    name = "lora_unet_down_blocks_1_attn2_to_k"
    head = tensors((f"{name}.lora_down.weight", [4, width]), (f"{name}.lora_up.weight", [64, 4]), metadata=metadata)
    assert adapter(written(tmp_path / "a.safetensors", head)).family == family


ONE = tensors(("lora_unet_a.lora_down.weight", [1, 1]), ("lora_unet_a.lora_up.weight", [1, 1]))
NOTHING = LoraInfo(id="a")


@pytest.mark.parametrize(
    ("beside", "info"),
    [
        (
            {".json": {"title": "Anime", "activation text": "anime, flat", "preferred weight": 0.75}},
            LoraInfo(id="a", title="Anime", default_weight=0.75, trigger_words=("anime", "flat")),
        ),
        ({".json": {"activation text": "", "preferred weight": 0}}, NOTHING),  # so A1111 writes what nobody said
        (
            {".civitai.info": {"model": {"name": "Anime XL"}, "trainedWords": ["anime", "flat, bold"]}},
            LoraInfo(id="a", title="Anime XL", trigger_words=("anime", "flat", "bold")),
        ),
        ({".json": {"title": 7, "activation text": [], "preferred weight": True}}, NOTHING),
        ({".json": {"preferred weight": 1e300}}, NOTHING),
        ({".civitai.info": {"model": "x", "trainedWords": {"a": 1}}}, NOTHING),
        ({".json": b"{"}, NOTHING),
        ({".json": b"[" * 100_000}, NOTHING),
        ({".json": b"\xff\xfe"}, NOTHING),
    ],
)
def test_what_lies_beside_it_says_how_to_use_it(tmp_path: Path, beside: dict[str, Any], info: LoraInfo) -> None:
    path = written(tmp_path / "a.safetensors", ONE)
    for end, content in beside.items():
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        path.with_suffix(end).write_bytes(raw)
    assert adapter(path).info == info


@pytest.mark.parametrize(
    "head",
    [
        pickle.dumps({"lora": 1}),
        b"",
        b"{",
        b'{"a": {"dtype": "F16", "shape": [9], "data_offsets": [0, 900]}}',
        b'{"a": {"dtype": "F16", "shape": [9], "data_offsets": [-1, 5]}}',
        b'{"a":' * 50_000,
    ],
)
def test_a_file_that_is_none_is_told_and_not_taken(tmp_path: Path, head: bytes) -> None:
    found = adapter(written(tmp_path / "a.safetensors", head))
    assert found.trouble in {"it is no safetensors file", "it is cut short"}


def test_the_length_of_a_head_is_not_believed(tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", b"{}", length=2**60)
    assert adapter(path).trouble == "it is no safetensors file"
    (tmp_path / "b.safetensors").write_bytes(pickle.dumps([1] * 100))
    assert adapter(tmp_path / "b.safetensors").trouble == "it is no safetensors file"


def test_a_whole_model_is_no_adapter() -> None:
    assert lora_file(ROOT / "models/painting/tiny-pony.safetensors") is None
    assert lora_file(ROOT / "models/painting/tiny-sdxl-base/unet/diffusion_pytorch_model.safetensors") is None

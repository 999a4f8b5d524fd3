"""Adapters over a real model, small as it is: what they do, that their order does not matter, and that nothing is left of them.

peft and lycoris-lora, which made most of the files that people have, are what the sums are held against.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from safetensors.torch import load_file, save_file

    from backends.diffusers import engine  # keeps the libraries from the network, and quiet
    from backends.diffusers.loading import pipeline
    from backends.diffusers.lora.deltas import Unfit, change
    from backends.diffusers.lora.modules import original
    from backends.diffusers.lora.parts import KINDS, kind_of, part_of
    from backends.diffusers.lora.stack import Stack
    from backends.diffusers.start import Laid, Start
from backends.seeing.serving import Wrong
from tests.serving import ROOT

assert engine
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of diffusers' schedulers
BASE = ROOT / "models" / "painting" / "tiny-sdxl-base"
LORAS = ROOT / "models" / "painting" / "loras"
ALL = ("night", "night-loha", "frame-kohya", "frame-lokr")


def laid(name: str | Path, weight: float = 1.0) -> Laid:
    path = name if isinstance(name, Path) else LORAS / f"{name}.safetensors"
    return Laid(name=path.stem, path=str(path), weight=weight)


class Bench:
    """A model and what lies over it."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.pipe = pipeline(Start(path=str(BASE)), torch.float32)
        self.pipe.set_progress_bar_config(disable=True)
        self.stack = Stack(self.pipe)
        self.bare = self.weights()

    def weights(self) -> str:
        """All numbers of the model."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.pipe.unet, self.pipe.text_encoder, self.pipe.text_encoder_2):
            for parameter in part.parameters():
                digest.update(parameter.detach().numpy().tobytes())
        return digest.hexdigest()

    def over(self, *loras: Laid) -> str:
        self.stack.lay(loras)
        return self.weights()

    def picture(self, steps: int = 8) -> torch.Tensor:
        told = self.pipe(
            "a red square",
            num_inference_steps=steps,
            guidance_scale=5.0,
            generator=torch.Generator().manual_seed(3),
            width=64,
            height=64,
            output_type="pt",
        )
        image: torch.Tensor = told.images[0] * 255
        return image


@pytest.fixture(scope="module")
def the_bench() -> Bench:
    return Bench()


@pytest.fixture
def bench(the_bench: Bench) -> Iterator[Bench]:
    yield the_bench
    the_bench.stack.lay([])
    assert the_bench.weights() == the_bench.bare


def edge(image: torch.Tensor) -> float:
    inner = torch.zeros(64, 64, dtype=torch.bool)
    inner[6:-6, 6:-6] = True
    return float(image[:, ~inner].mean())


def test_each_adapter_changes_the_picture_as_it_was_trained_to(bench: Bench) -> None:
    plain = edge(bench.picture())
    edges = {}
    for name in ALL:
        bench.stack.lay([laid(name)])
        edges[name] = edge(bench.picture())
    # On grey ground, night is darker and a frame is lighter.
    assert plain == pytest.approx(130, abs=15)
    assert edges["night"] < plain - 40
    assert edges["night-loha"] < plain - 25
    assert edges["frame-kohya"] > plain + 80
    assert edges["frame-lokr"] > plain + 40
    bench.stack.lay([laid("frame-kohya", 0.5)])
    assert plain + 20 < edge(bench.picture()) < edges["frame-kohya"] - 20


def test_the_order_of_a_stack_does_not_matter_to_the_last_bit_nor_what_lay_there_before(bench: Bench) -> None:
    stack = [laid("night", 0.6), laid("frame-kohya", 0.8), laid("night-loha", 0.3), laid("frame-lokr", 0.5)]
    at_once = bench.over(*stack)
    assert at_once != bench.bare
    assert bench.over(*reversed(stack)) == at_once
    bench.over()
    bench.over(stack[1])
    bench.over(stack[2], laid("night", 0.1))
    assert bench.over(*stack[2:], *stack[:2]) == at_once
    assert bench.over(*stack[1:]) != at_once


def test_equal_weights_in_any_order_give_the_same_picture(bench: Bench) -> None:
    three = [laid("night", 0.4), laid("frame-kohya", 0.4), laid("night-loha", 0.4)]
    bench.stack.lay(three)
    one = bench.picture(2)
    bench.stack.lay(list(reversed(three)))
    assert torch.equal(bench.picture(2), one)


@pytest.mark.parametrize("name", ALL)
def test_weight_0_is_as_if_it_were_not_there_and_nothing_is_left_when_it_goes(bench: Bench, name: str) -> None:
    assert bench.over(laid(name, 0.0)) == bench.bare
    assert bench.over(laid(name, 0.7)) != bench.bare
    assert bench.over() == bench.bare


def test_a_stack_that_is_asked_for_again_is_not_computed_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []
    own = bench.stack._change
    monkeypatch.setattr(bench.stack, "_change", lambda *args: (computed.append(args), own(*args))[1])
    bench.over(laid("night"), laid("frame-kohya"))
    first = len(computed)
    bench.over(laid("frame-kohya"), laid("night"))
    assert len(computed) == first > 0
    # night is of the UNet alone: the text encoders keep what they have
    bench.over(laid("frame-kohya"), laid("night", 0.5))
    assert first < len(computed) < 2 * first


def test_who_leaves_while_a_stack_is_laid_is_heard_between_two_modules_and_nothing_is_left(bench: Bench) -> None:
    """With a real model this takes longer than some have patience for."""
    looks = 0

    def gone() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        bench.stack.lay([laid("frame-kohya")], gone)
    assert looks == 3
    assert bench.weights() == bench.bare


def test_what_was_read_from_16_bits_is_kept_in_16(bench: Bench) -> None:
    """On processors models compute in 32: what an adapter covers of a real one would be kept as 12 GB, not 6."""
    bench.stack.lay([laid("frame-kohya")])
    assert {one.weight.dtype for one in bench.stack._kept.values()} == {torch.float16}
    odd = next(one for name, one in bench.pipe.unet.named_parameters() if name.endswith("to_q.weight"))
    assert odd.dtype == torch.float32
    bench.stack.lay([])
    before = odd.detach().clone()
    odd.data[0, 0] = 1 / 3  # more than 16 bits can say
    bare = bench.weights()
    bench.stack.lay([laid("frame-kohya")])
    assert {one.weight.dtype for one in bench.stack._kept.values()} == {torch.float16, torch.float32}
    bench.stack.lay([])
    assert bench.weights() == bare
    odd.data.copy_(before)


def test_a_file_that_is_written_anew_is_read_anew(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes((LORAS / "night.safetensors").read_bytes())
    before = bench.over(laid(path))
    path.unlink()
    save_file({key: tensor * 2 for key, tensor in load_file(LORAS / "night.safetensors").items()}, path)
    assert bench.over(laid(path)) != before


def kohya(key: str) -> str:
    """diffusers' name of a tensor as kohya's scripts write it."""
    module, _, part = key.removeprefix("unet.").rpartition(".lora_")
    flat = original(module, 2, {0, 1}).replace(".", "_")
    return f"lora_unet_{flat}.lora_{'down' if part.startswith('A') else 'up'}.weight"


SPELLINGS: dict[str, Callable[[str], str]] = {
    "kohya": kohya,
    "kohya with diffusers' modules": lambda key: (
        "lora_unet_"
        + key.removeprefix("unet.").rpartition(".lora_")[0].replace(".", "_")
        + (".lora_down.weight" if ".lora_A." in key else ".lora_up.weight")
    ),
    "peft": lambda key: key.replace("unet.", "base_model.model.").replace(".weight", ".default.weight"),
    "before peft": lambda key: key.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up."),
    "processors": lambda key: (
        key.replace(".to_", ".processor.to_").replace(".lora_A.", "_lora.down.").replace(".lora_B.", "_lora.up.")
        if ".to_" in key
        else key
    ).replace("to_out.0_lora", "to_out_lora"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_same_numbers_under_other_names_do_the_same(bench: Bench, tmp_path: Path, spelling: str) -> None:
    tensors = load_file(LORAS / "night.safetensors")
    renamed = {SPELLINGS[spelling](key): tensor for key, tensor in tensors.items()}
    assert len(renamed) == len(tensors)
    assert not set(renamed) & set(tensors) or spelling == "processors"
    path = tmp_path / "night.safetensors"
    save_file(renamed, path)
    assert bench.over(laid(path)) == bench.over(laid("night"))


def test_the_sums_are_pefts(bench: Bench) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = pipeline(Start(path=str(BASE)), torch.float32)
        for name in ("night", "frame-kohya"):
            other.load_lora_weights(str(LORAS / f"{name}.safetensors"), adapter_name=name.replace("-", "_"))
        other.set_adapters(["night", "frame_kohya"], [0.6, 0.8])
        other.fuse_lora(components=["unet", "text_encoder", "text_encoder_2"])
        other.unload_lora_weights()
    bench.over(laid("night", 0.6), laid("frame-kohya", 0.8))
    for part in ("unet", "text_encoder", "text_encoder_2"):
        theirs = getattr(other, part).state_dict()
        for name, tensor in getattr(bench.pipe, part).state_dict().items():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-6, msg=f"{part}.{name}")


def test_what_peft_writes_of_its_alphas_counts(bench: Bench, tmp_path: Path) -> None:
    tensors = load_file(LORAS / "night.safetensors")

    def over(weight: float = 1.0, **told: Any) -> str:
        path = tmp_path / "a.safetensors"
        metadata = {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in told.items()})}
        save_file(tensors, path, metadata=metadata)
        return bench.over(laid(path, weight))

    rank = 8
    plain = over(r=rank, lora_alpha=rank)
    assert plain == bench.over(laid("night"))
    assert over(r=rank, lora_alpha=rank / 2) == bench.over(laid("night", 0.5))
    assert over(r=rank, lora_alpha=rank, alpha_pattern={"to_q": 1}) != plain
    assert over(lora_alpha="much") == plain


LYCORIS = {
    # of lycoris-lora's modules: its class, and what it is made with
    "lora": ("LoConModule", {}),
    "lora with a middle": ("LoConModule", {"use_tucker": True}),
    "dora": ("LoConModule", {"weight_decompose": True}),
    "dora by inputs": ("LoConModule", {"weight_decompose": True, "wd_on_out": False}),
    "loha": ("LohaModule", {}),
    "loha with a middle": ("LohaModule", {"use_tucker": True}),
    "lokr": ("LokrModule", {"factor": 4}),
    "lokr, both in parts": ("LokrModule", {"factor": 6, "decompose_both": True, "lora_dim": 2}),
    "lokr with a middle": ("LokrModule", {"factor": 4, "use_tucker": True}),
    "lokr, whole": ("LokrModule", {"factor": 4, "full_matrix": True}),
    "oft": ("DiagOFTModule", {}),
    "oft within bounds": ("DiagOFTModule", {"constraint": 1e-3, "rescaled": True}),
    "boft": ("ButterflyOFTModule", {"lora_dim": 4}),
    "glora": ("GLoRAModule", {}),
    "ia3": ("IA3Module", {}),
    "ia3 of inputs": ("IA3Module", {"train_on_input": True}),
}
MODULES = {
    "linear": lambda: torch.nn.Linear(24, 32),
    "convolution": lambda: torch.nn.Conv2d(24, 32, 3),
}


@pytest.mark.parametrize("shape", MODULES)
@pytest.mark.parametrize("kind", LYCORIS)
def test_the_sums_are_those_of_lycoris(kind: str, shape: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lycoris.modules
    name, options = LYCORIS[kind]
    torch.manual_seed(5)
    module = MODULES[shape]()
    rank = options.get("lora_dim", 4)
    theirs = getattr(lycoris.modules, name, None) or vars(lycoris.modules)[name]
    made = theirs("x", module, 1.0, **{"lora_dim": rank, "alpha": rank, **options})
    with torch.no_grad():
        for own_name, parameter in made.named_parameters():
            if "dora" in own_name:
                parameter.mul_(torch.rand_like(parameter) + 0.5)
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
        state = {f"lora_unet_x.{key}": value.detach() for key, value in made.state_dict().items()}
        parts = {part.name: value.float() for key, value in state.items() if (part := part_of(key)) is not None}
        assert len(parts) == len(state)
        got, bias = change(kind_of(parts), parts, module.weight.data, module.bias.data)
        weight, theirs_bias = made.get_merged_weight(1.0, module.weight.shape, torch.device("cpu"))
    assert got is not None
    torch.testing.assert_close(module.weight.data + got, weight, rtol=1e-4, atol=1e-5)
    if bias is not None:
        torch.testing.assert_close(module.bias.data + bias, theirs_bias)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_alpha_scales_once_as_in_a1111(alpha: float) -> None:
    torch.manual_seed(5)
    parts = {f"hada_w{half}": torch.randn(8, 8) for half in ("1_a", "1_b", "2_a", "2_b")}
    weight = torch.zeros(8, 8)
    whole, _ = change("loha", parts, weight, None)
    scaled, _ = change("loha", {**parts, "alpha": torch.tensor(alpha)}, weight, None)
    assert whole is not None
    assert scaled is not None
    torch.testing.assert_close(scaled, whole * alpha / 8)


def test_norms_and_biases_are_changed_too(bench: Bench, tmp_path: Path) -> None:
    norm, out = bench.pipe.unet.conv_norm_out, bench.pipe.unet.conv_out
    path = tmp_path / "a.safetensors"
    save_file(
        {
            "lora_unet_out_0.w_norm": torch.ones_like(norm.weight),
            "lora_unet_out_0.b_norm": torch.ones_like(norm.bias),
            "lora_unet_out_2.diff": torch.ones_like(out.weight),
            "lora_unet_out_2.diff_b": torch.ones_like(out.bias),
        },
        path,
    )
    before = [parameter.detach().clone() for parameter in (norm.weight, norm.bias, out.weight, out.bias)]
    bench.over(laid(path, 0.5))
    for now, old in zip((norm.weight, norm.bias, out.weight, out.bias), before, strict=True):
        torch.testing.assert_close(now, old + 0.5)


def test_text_encoders_of_lycoris_are_changed_too(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {}
    for prefix, encoder in (("lora_te1_", bench.pipe.text_encoder), ("lora_te2_", bench.pipe.text_encoder_2)):
        wide = encoder.config.hidden_size
        module = f"{prefix}text_model_encoder_layers_0_self_attn_q_proj"
        tensors |= {f"{module}.lokr_w1": torch.ones(2, 2), f"{module}.lokr_w2": torch.ones(wide // 2, wide // 2)}
    save_file(tensors, path)
    first = [encoder.state_dict() for encoder in (bench.pipe.text_encoder, bench.pipe.text_encoder_2)]
    olds = [{key: value.clone() for key, value in state.items()} for state in first]
    bench.over(laid(path, 0.25))
    for encoder, old in zip((bench.pipe.text_encoder, bench.pipe.text_encoder_2), olds, strict=True):
        changed = {key for key, value in encoder.state_dict().items() if not torch.equal(value, old[key])}
        assert len(changed) == 1
        (key,) = changed
        assert key.endswith("layers.0.self_attn.q_proj.weight")
        torch.testing.assert_close(encoder.state_dict()[key], old[key] + 0.25)


def bad(tensors: dict[str, torch.Tensor]) -> Callable[[Path], Any]:
    return lambda path: save_file(tensors, path)


Q = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
WIDE = 48
GOOD = {f"{Q}.lora_down.weight": torch.ones(2, WIDE), f"{Q}.lora_up.weight": torch.ones(WIDE, 2)}

BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "of another model": (
        bad({"lora_unet_down_blocks_9_attn1_to_q.lora_down.weight": torch.ones(4, 320)} | GOOD),
        "is not for this model: 1 of its 3 tensors fit nothing in it, such as 'lora_unet_down_blocks_9",
    ),
    "of Stable Diffusion 1.5": (
        bad({f"{Q}.lora_down.weight": torch.ones(4, 320), f"{Q}.lora_up.weight": torch.ones(320, 4)}),
        "is not for this model: it does not fit",
    ),
    "with the text encoder of one that has but one": (
        bad({key.replace(Q, "lora_te_text_model_encoder_layers_0_mlp_fc1"): value for key, value in GOOD.items()}),
        "is not for this model: 2 of its 2 tensors fit nothing",
    ),
    "half of it": (bad({f"{Q}.lora_down.weight": torch.ones(2, WIDE)}), "is not for this model"),
    "no adapter": (bad({"emb_params": torch.ones(2, 3)}), "is not for this model"),
    "empty": (bad({}), "there is no LoRA in the file"),
    "of another rank on each side": (
        bad({f"{Q}.lora_down.weight": torch.ones(2, WIDE), f"{Q}.lora_up.weight": torch.ones(WIDE, 3)}),
        "it does not fit",
    ),
    "of no rank": (
        bad({f"{Q}.lora_down.weight": torch.ones(0, WIDE), f"{Q}.lora_up.weight": torch.ones(WIDE, 0)}),
        "it does not fit",
    ),
    "that would be huge": (
        bad({f"{Q}.hada_w{half}_a": torch.ones(400_000, 1) for half in "12"} | {f"{Q}.hada_w{half}_b": torch.ones(1, 400_000) for half in "12"}),
        "it does not fit",
    ),
    "huge by its middle": (
        bad({f"{Q}.lokr_w1": torch.ones(1, 1), f"{Q}.lokr_w2_a": torch.ones(1, 48), f"{Q}.lokr_w2_b": torch.ones(1, 48), f"{Q}.lokr_t2": torch.ones(1, 1, 3000, 3000)}),
        "it does not fit",
    ),
    "turning more than there is": (bad({f"{Q}.oft_blocks": torch.ones(7, 5, 5)}), "it does not fit"),
    "not numbers": (bad(GOOD | {f"{Q}.lora_up.weight": torch.full((WIDE, 2), torch.nan)}), "has numbers that are none"),
    "beyond numbers": (bad(GOOD | {f"{Q}.alpha": torch.tensor(torch.inf)}), "has numbers that are none"),
    "growing beyond bounds": (
        bad({key: value * 1e30 for key, value in GOOD.items()}),
        "grow beyond bounds",
    ),
    "twice the same": (
        bad(GOOD | {f"{Q}.lora_A.weight": torch.ones(2, WIDE)}),
        "twice",
    ),
    "no file of tensors": (lambda path: path.write_bytes(b"\x80\x04."), "it is no safetensors file"),
    "cut short": (
        lambda path: path.write_bytes((LORAS / "night.safetensors").read_bytes()[:-100]),
        "it is cut short",
    ),
    "gone": (lambda path: None, "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_in_words_and_leaves_nothing(bench: Bench, tmp_path: Path, case: str) -> None:
    make, words = BAD[case]
    path = tmp_path / "bad.safetensors"
    make(path)
    bench.over(laid("frame-kohya"))
    with pytest.raises(Wrong) as refused:
        bench.stack.lay([laid("night", 0.5), laid(path)])
    assert words in str(refused.value)
    assert str(tmp_path) not in str(refused.value)
    assert refused.value.param == "loras"
    with_night = bench.over(laid("night"))
    assert bench.over() == bench.bare
    assert bench.over(laid("night")) == with_night


def test_an_algorithm_has_words_of_its_own() -> None:
    assert {"lora", "loha", "lokr", "oft", "glora", "ia3", "full", "norm"} == KINDS
    with pytest.raises(Unfit):
        change("glora", {"a1": torch.ones(2, 2), "b1": torch.ones(2, 2)}, torch.ones(2, 2), None)

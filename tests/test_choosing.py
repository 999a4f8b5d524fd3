"""Which files of a repository a name means: names as they are found at Hugging Face."""

from __future__ import annotations

import pytest

from backends.fetching.choosing import Choice, File, choose, label
from canonical.errors import GatewayError, InvalidRequest, ModelNotFound, Unsupported

LLAMA = [
    "README.md",
    "Llama-3.2-3B-Instruct-IQ3_M.gguf",
    "Llama-3.2-3B-Instruct-Q4_0_4_4.gguf",
    "Llama-3.2-3B-Instruct-Q4_K_M.gguf",
    "Llama-3.2-3B-Instruct-Q8_0.gguf",
    "Llama-3.2-3B-Instruct-f16.gguf",
    "Llama-3.2-3B-Instruct.imatrix.gguf",
]
LARGE = [
    *(f"Q4_K_M/big-Q4_K_M-0000{n}-of-00003.gguf" for n in (1, 2, 3)),
    *(f"Q8_0/big-Q8_0-0000{n}-of-00004.gguf" for n in (1, 2, 4)),
    "UD-Q2_K_XL/big-UD-Q2_K_XL.gguf",
]
SEES = ["mmproj-model-f32.gguf", "mmproj-model-f16.gguf", "gemma-3-4b-it-q4_0.gguf", "gemma-3-4b-it-Q8_0.gguf"]


def files(paths: list[str]) -> list[File]:
    return [File(path, 1, "sha256:" + "0" * 64) for path in paths]


def chosen(paths: list[str], tag: str = "latest") -> tuple[list[str], str]:
    choice, projector = choose(files(paths), tag, "acme/x")
    return [file.path for file in choice.files], projector.path if projector else ""


@pytest.mark.parametrize(
    ("paths", "tag", "expected"),
    [
        (LLAMA, "latest", ["Llama-3.2-3B-Instruct-Q4_K_M.gguf"]),
        (LLAMA, "Q8_0", ["Llama-3.2-3B-Instruct-Q8_0.gguf"]),
        (LLAMA, "q4_0_4_4", ["Llama-3.2-3B-Instruct-Q4_0_4_4.gguf"]),
        (LLAMA, "F16", ["Llama-3.2-3B-Instruct-f16.gguf"]),
        (LLAMA, "Llama-3.2-3B-Instruct-IQ3_M.gguf", ["Llama-3.2-3B-Instruct-IQ3_M.gguf"]),
        (LLAMA, "llama-3.2-3b-instruct-iq3_m", ["Llama-3.2-3B-Instruct-IQ3_M.gguf"]),
        (LARGE, "latest", LARGE[:3]),
        (LARGE, "Q2_K_XL", ["UD-Q2_K_XL/big-UD-Q2_K_XL.gguf"]),
        (LARGE, "ud-q2_k_xl", ["UD-Q2_K_XL/big-UD-Q2_K_XL.gguf"]),
        (["only-this.gguf"], "latest", ["only-this.gguf"]),
        (["x.Q8_0.gguf", "x.Q6_K.gguf"], "latest", ["x.Q6_K.gguf"]),
    ],
)
def test_a_tag_means_these_files(paths: list[str], tag: str, expected: list[str]) -> None:
    assert chosen(paths, tag)[0] == expected


def test_what_sees_comes_along_in_f16() -> None:
    assert chosen(SEES) == (["gemma-3-4b-it-q4_0.gguf"], "mmproj-model-f16.gguf")
    assert chosen(["a/x-Q4_K_M.gguf", "a/mmproj-BF16.gguf", "mmproj-F16.gguf"])[1] == "a/mmproj-BF16.gguf"
    assert chosen(["a/x-Q4_K_M.gguf", "b/mmproj-F16.gguf"])[1] == ""


@pytest.mark.parametrize(
    ("paths", "tag", "error", "said"),
    [
        (LLAMA, "Q5_K_M", ModelNotFound, "there are: F16, IQ3_M, Q4_0_4_4, Q4_K_M, Q8_0"),
        (LARGE, "Q8_0", ModelNotFound, "there are: Q4_K_M, UD-Q2_K_XL"),  # a part of it is missing
        (["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"], "latest", InvalidRequest, "a-Q4_K_M.gguf, b-Q4_K_M.gguf"),
        (["a.gguf", "b.gguf"], "latest", InvalidRequest, "a.gguf, b.gguf"),
        (["model.safetensors", "pytorch_model.bin"], "latest", Unsupported, "GGUF"),
        (["mmproj-F16.gguf"], "latest", Unsupported, "GGUF"),
        ([], "latest", Unsupported, "GGUF"),
    ],
)
def test_what_is_missing_or_ambiguous_says_what_there_is(
    paths: list[str], tag: str, error: type[GatewayError], said: str
) -> None:
    with pytest.raises(error) as caught:
        choose(files(paths), tag, "acme/x")
    assert said in caught.value.message


def test_labels() -> None:
    known = {"a/b-Q4_K_M": "Q4_K_M", "Q8_0/part": "Q8_0", "x.UD-IQ1_S": "UD-IQ1_S", "x-mxfp4": "MXFP4", "qwen-q": ""}
    assert {path: label(path) for path in known} == known


def test_a_thousand_models_make_no_endless_message() -> None:
    many = files([f"model-{n}.gguf" for n in range(1000)])
    with pytest.raises(InvalidRequest) as caught:
        choose(many, "latest", "acme/x")
    assert len(caught.value.message) < 1500
    assert Choice("", (many[0],)).name == "model-0.gguf"

"""Prompts as the vectors that a model paints from: runs in a worker process.

CLIP reads 75 tokens at once. A longer prompt is read piece by piece, as A1111 does it, and nothing of it is lost: a piece ends at
a comma where one is near, or at the word BREAK. A shorter one gives to the last bit what diffusers makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from msgspec import Struct

_NEAR = 20
"""Tokens before the end of a piece among which a comma is looked for."""
PIECES = 16
"""That are read of a prompt; what is behind them is left out, and told."""
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_EMPHASIS = re.compile(r"(?<!\\)\([^()]*:\s*\d*\.?\d+\s*\)")


class Encoded(Struct, frozen=True):
    """A prompt and its negative, read."""

    arguments: dict[str, Any]
    """For the call of the pipeline."""
    warnings: tuple[str, ...] = ()


def encoded(pipe: Any, prompt: str, negative: str, *, clip_skip: int | None, guided: bool) -> Encoded:
    """Read both. ``clip_skip`` counts as A1111's; ``guided``: whether the negative prompt matters."""
    readers = _readers(pipe)
    if not readers:
        return Encoded({"prompt": prompt, "negative_prompt": negative or None}, _plain(prompt, negative))
    warnings = list(_plain(prompt, negative if guided else ""))
    xl = readers[-1].projects
    least = 2 if xl else 1  # SDXL never takes the last layer
    skip = max(clip_skip or least, least) - 1
    deepest = min(reader.layers for reader in readers)
    if skip > deepest:
        skip = deepest
        warnings.append(
            f"clip_skip {clip_skip} goes beyond the text encoder's {deepest} layers: {deepest + 1} was taken"
        )
    zeros = guided and not negative and xl and bool(pipe.config.get("force_zeros_for_empty_prompt"))
    wanted = [prompt] if zeros or not guided else [prompt, negative]
    pieces = [[list(reader.pieces(text)) for reader in readers] for text in wanted]
    for said, parts in zip(("prompt", "negative prompt"), pieces, strict=False):
        if any(len(part) > PIECES for part in parts):
            warnings.append(
                f"the {said} is too long: what is behind its first {PIECES * readers[0].room} tokens is left out"
            )
    pieces = [[part[:PIECES] for part in parts] for parts in pieces]
    most = max(len(part) for parts in pieces for part in parts)
    read = [
        [reader.read(part + [[]] * (most - len(part)), skip) for reader, part in zip(readers, parts, strict=True)]
        for parts in pieces
    ]
    names = ("prompt_embeds", "negative_prompt_embeds"), ("pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    arguments: dict[str, Any] = {}
    for at, halves in enumerate(read):
        arguments[names[0][at]] = torch.cat([vectors for vectors, _ in halves], dim=-1)
        if xl:
            arguments[names[1][at]] = halves[-1][1]
    if zeros:
        for whole, none in (names[0], names[1]):
            arguments[none] = torch.zeros_like(arguments[whole])
    return Encoded(arguments, tuple(warnings))


def _plain(*texts: str) -> tuple[str, ...]:
    """What is told where A1111's way to stress a word is meant, which is read as it stands."""
    if any(_EMPHASIS.search(text) for text in texts):
        return ("emphasis such as (word:1.2) is read as plain text",)
    return ()


class _Reader:
    """A tokenizer and its text encoder. ``raw``: its inner layers are taken as they are, as SDXL does."""

    def __init__(self, tokenizer: Any, encoder: Any, *, raw: bool) -> None:
        self._raw = raw
        self._norm = getattr(encoder, "text_model", encoder).final_layer_norm
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._size = min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))
        self.room = self._size - 2
        self.layers = int(encoder.config.num_hidden_layers)
        self.projects = type(encoder).__name__ == "CLIPTextModelWithProjection"

    def pieces(self, text: str) -> Iterator[list[int]]:
        """Its tokens, in pieces that can be read at once; at least one, that may be empty."""
        room = self.room
        comma = self._tokenizer.convert_tokens_to_ids(",</w>")
        for part in _BREAK.split(text):
            tokens: list[int] = self._tokenizer(part, add_special_tokens=False, truncation=False, verbose=False)[
                "input_ids"
            ]
            while len(tokens) > room:
                near = [at for at in range(room - _NEAR, room) if at >= 0 and tokens[at] == comma]
                cut = near[-1] + 1 if near else room
                yield tokens[:cut]
                tokens = tokens[cut:]
            yield tokens

    def read(self, pieces: list[list[int]], skip: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The vectors of all, one behind the other, ``skip`` layers before the last; and what the first means as a whole."""
        tokenizer = self._tokenizer
        vectors, whole = [], None
        for tokens in pieces:
            ids = [tokenizer.bos_token_id, *tokens, tokenizer.eos_token_id]
            ids += [tokenizer.pad_token_id] * (self._size - len(ids))
            told = self._encoder(torch.tensor([ids], device=self._place()), output_hidden_states=True)
            whole = told[0] if whole is None else whole
            vectors.append(self._layer(told, skip))
        assert whole is not None
        return torch.cat(vectors, dim=1), whole

    def _place(self) -> Any:
        """Where it computes: with offload its weights are elsewhere until then."""
        hook = getattr(self._encoder, "_hf_hook", None)
        return getattr(hook, "execution_device", None) or self._encoder.device

    def _layer(self, told: Any, skip: int) -> torch.Tensor:
        if skip == 0 and not self.projects:
            last: torch.Tensor = told[0]
            return last
        layer: torch.Tensor = told.hidden_states[-(skip + 1)]
        return layer if self._raw else self._norm(layer)


def _readers(pipe: Any) -> list[_Reader]:
    """Of a pipeline whose prompts CLIP reads, and nothing else; otherwise none."""
    found = []
    for end in ("", "_2"):
        tokenizer, encoder = getattr(pipe, f"tokenizer{end}", None), getattr(pipe, f"text_encoder{end}", None)
        if tokenizer is not None and encoder is not None:
            found.append((tokenizer, encoder))
    clip = all(type(encoder).__name__.startswith("CLIPText") for _, encoder in found)
    odd = getattr(pipe, "text_encoder_3", None) is not None or not hasattr(pipe, "unet")
    if not found or not clip or odd:
        return []
    xl = type(found[-1][1]).__name__ == "CLIPTextModelWithProjection"
    return [_Reader(tokenizer, encoder, raw=xl) for tokenizer, encoder in found]

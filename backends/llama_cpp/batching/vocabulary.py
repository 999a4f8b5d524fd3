"""Text -> tokens -> text, by a model's own rules."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as native

from backends.llama_cpp.batching.refusal import Refused


class Vocabulary:
    """One model's. Reads only, so any thread may ask."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.native = native.llama_model_get_vocab(model)
        self.size: int = native.llama_vocab_n_tokens(self.native)
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}
        self.bos: int = native.llama_vocab_bos(self.native)
        self.eos: int = native.llama_vocab_eos(self.native)

    def tokens(self, pieces: Sequence[int | str], *, special: bool, written: bool = True) -> list[int]:
        """``special``: begin as texts begin; ``written``: what is written like a special token is that token.

        Raises:
            Refused: a text that cannot be cut, or a token that does not exist.
        """
        tokens: list[int] = []
        for index, piece in enumerate(pieces):
            if isinstance(piece, int):
                tokens += self.checked([piece])
                continue
            data = piece.encode()
            room = len(data) + 8
            array = (native.llama_token * room)()
            first = special and index == 0
            count = native.llama_tokenize(self.native, data, len(data), array, room, first, written)
            if count < 0:
                raise Refused(400, "the text cannot be tokenized")
            tokens += array[:count]
        return tokens

    def checked(self, tokens: Sequence[int]) -> list[int]:
        """The tokens, if there are such. Raises Refused."""
        if any(not 0 <= token < self.size for token in tokens):
            raise Refused(400, "Prompt contains invalid tokens")
        return list(tokens)

    def piece(self, token: int) -> bytes:
        """What a token writes, which may be half a character; nothing for a special one."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._written(token, special=False)
        return piece

    def ends(self, token: int) -> bool:
        """Whether an answer ends with it."""
        ends = self._ends.get(token)
        if ends is None:
            ends = self._ends[token] = bool(native.llama_vocab_is_eog(self.native, token))
        return ends

    def name(self, token: int) -> str:
        """How a special token is written."""
        return self._written(token, special=True).decode(errors="replace") if token >= 0 else ""

    def begins(self, text: str) -> bool:
        """Whether a template has already written the token that begins a text."""
        bos = self.name(self.bos)
        return bool(bos) and text.startswith(bos)

    def pair(self, query: str, document: str) -> list[int]:
        """A query and a document as models that rank were taught to read them, by llama.cpp's own rules."""
        vocab = self.native
        form = native.llama_model_chat_template(self._model, b"rerank")
        if form:
            before, _, rest = form.decode(errors="replace").partition("{query}")
            between, _, after = rest.partition("{document}")
            return self.tokens([before + query + between + document + after], special=False)
        begin = self.bos if native.llama_vocab_get_add_bos(vocab) else -1
        separator = native.llama_vocab_sep(vocab)
        end = (separator if self.eos < 0 else self.eos) if native.llama_vocab_get_add_eos(vocab) else -1
        if not native.llama_vocab_get_add_sep(vocab):
            separator = -1
        asked, told = (self.tokens([text], special=False, written=False) for text in (query, document))
        return [token for token in (begin, *asked, end, separator, *told, end) if token >= 0]

    def _written(self, token: int, *, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        count = native.llama_token_to_piece(self.native, token, buffer, 64, 0, special)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = native.llama_token_to_piece(self.native, token, buffer, -count, 0, special)
        return buffer.raw[:count]

"""llama.cpp's samplers through llama-cpp-python's low-level bindings: a request's fields become a chain."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp.llama_cpp as native
import numpy as np
from msgspec import Struct

_RANDOM = 0xFFFFFFFF
_BREAKERS = ("\n", ":", '"', "*")


class Draw(Struct, kw_only=True):
    """The fields of a body that say how tokens are drawn; defaults are llama.cpp's own."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    min_keep: int | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: list[str] | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    seed: int | None = None
    logit_bias: dict[str, float] | None = None


class BadSampling(ValueError):
    """The request's fields cannot be turned into samplers."""


class NoToken(Exception):
    """No token of the vocabulary can follow the grammar here."""


class Candidates:
    """Room for a whole vocabulary with its logits, which all requests of one context use in turn."""

    def __init__(self, size: int) -> None:
        self._rows = np.zeros(size, np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)]))
        self._ids = np.arange(size, dtype=np.int32)

    def of(self, logits: Any) -> Any:
        """llama.cpp's array of them."""
        rows = self._rows
        rows["id"] = self._ids
        rows["logit"] = logits
        data = ctypes.cast(rows.ctypes.data, native.llama_token_data_p)
        return native.llama_token_data_array(data, len(rows), -1, False)


class Chain:
    """A sampler chain and its grammar, to be freed after the answer."""

    def __init__(self, draw: Draw, vocab: Any, *, grammar: str = "") -> None:
        """Build it.

        Raises:
            BadSampling: the grammar cannot be parsed, or a biased token does not exist.
        """
        self._vocab = vocab
        self._size = native.llama_vocab_n_tokens(vocab)
        self._kept: list[Any] = []  # arrays that the samplers read while they are made
        bias = self._bias(draw)
        self._rules = self._grammar(grammar) if grammar else None
        params = native.llama_sampler_chain_default_params()
        params.no_perf = True
        self._chain = native.llama_sampler_chain_init(params)
        self._plain = True  # nothing but the choice itself looks at the logits
        if bias is not None:
            self._add(native.llama_sampler_init_logit_bias(self._size, len(bias), bias))
            self._plain = False
        self._penalties(draw)
        self._greedy = self._plain and _temperature(draw) <= 0
        self._choice(draw)

    def sample(self, context: Any, place: int, logits: Any, candidates: Candidates) -> int:
        """Draw the token that follows what stands at ``place`` of the batch, and remember it.

        A grammar is asked about the token that is drawn freely; only where it refuses that one, it is asked about the
        whole vocabulary, which takes a thousand times as long.

        Raises:
            NoToken: see there.
        """
        if self._rules is None:
            # The largest of 32,000 is found ten times as fast as they are copied for the samplers.
            if self._greedy:
                return int(logits.argmax())
            return int(native.llama_sampler_sample(self._chain, context, place))
        token, _ = self._drawn(candidates.of(logits))
        if not self._allows(token):
            array = candidates.of(logits)
            native.llama_sampler_apply(self._rules, ctypes.byref(array))
            token, logit = self._drawn(array)
            if logit == -np.inf:
                raise NoToken
        native.llama_sampler_accept(self._rules, token)
        native.llama_sampler_accept(self._chain, token)
        return token

    def free(self) -> None:
        """Give the memory back."""
        for sampler in (self._chain, self._rules):
            if sampler:
                native.llama_sampler_free(sampler)
        self._chain = self._rules = None

    def _drawn(self, array: Any) -> tuple[int, float]:
        native.llama_sampler_apply(self._chain, ctypes.byref(array))
        chosen = array.data[array.selected]
        return int(chosen.id), float(chosen.logit)

    def _allows(self, token: int) -> bool:
        one = (native.llama_token_data * 1)(native.llama_token_data(token, 1.0, 0.0))
        array = native.llama_token_data_array(one, 1, -1, False)
        native.llama_sampler_apply(self._rules, ctypes.byref(array))
        return bool(one[0].logit != -np.inf)

    def _add(self, sampler: Any) -> None:
        native.llama_sampler_chain_add(self._chain, sampler)

    def _grammar(self, grammar: str) -> Any:
        sampler = native.llama_sampler_init_grammar(self._vocab, grammar.encode(), b"root")
        if not sampler:
            raise BadSampling("failed to parse grammar")
        return sampler

    def _bias(self, draw: Draw) -> Any:
        rows = []
        for name, value in (draw.logit_bias or {}).items():
            if not name.isdigit() or len(name) > 9 or int(name) >= self._size:
                raise BadSampling(f"logit_bias names the token {name[:32]!r}, which does not exist")
            rows.append(native.llama_logit_bias(int(name), value))
        return (native.llama_logit_bias * len(rows))(*rows) if rows else None

    def _penalties(self, draw: Draw) -> None:
        repeat, frequency, presence = draw.repeat_penalty, draw.frequency_penalty, draw.presence_penalty
        last = 64 if draw.repeat_last_n is None else draw.repeat_last_n
        if last and (repeat not in {None, 1.0} or frequency or presence):
            self._plain = False
            penalties = native.llama_sampler_init_penalties
            self._add(penalties(self._size, last, repeat or 1.0, frequency or 0.0, presence or 0.0))
        if draw.dry_multiplier:
            self._plain = False
            words = [word.encode() for word in draw.dry_sequence_breakers or _BREAKERS]
            array = (ctypes.c_char_p * len(words))(*words)
            self._kept.append(array)
            base = 1.75 if draw.dry_base is None else draw.dry_base
            length = 2 if draw.dry_allowed_length is None else draw.dry_allowed_length
            window = 64 if draw.dry_penalty_last_n is None else draw.dry_penalty_last_n
            dry = native.llama_sampler_init_dry
            self._add(dry(self._vocab, draw.dry_multiplier, base, length, window, array, len(words)))

    def _choice(self, draw: Draw) -> None:
        temperature = _temperature(draw)
        seed = _RANDOM if draw.seed is None else draw.seed
        if temperature <= 0:
            self._add(native.llama_sampler_init_greedy())
            return
        if draw.mirostat in {1, 2}:
            tau = 5.0 if draw.mirostat_tau is None else draw.mirostat_tau
            eta = 0.1 if draw.mirostat_eta is None else draw.mirostat_eta
            self._add(native.llama_sampler_init_temp(temperature))
            if draw.mirostat == 1:
                self._add(native.llama_sampler_init_mirostat(self._size, seed, tau, eta, 100))
            else:
                self._add(native.llama_sampler_init_mirostat_v2(seed, tau, eta))
            return
        self._narrow(draw)
        if draw.xtc_probability:
            threshold = 0.1 if draw.xtc_threshold is None else draw.xtc_threshold
            self._add(native.llama_sampler_init_xtc(draw.xtc_probability, threshold, _keep(draw), seed))
        if draw.dynatemp_range:
            exponent = 1.0 if draw.dynatemp_exponent is None else draw.dynatemp_exponent
            self._add(native.llama_sampler_init_temp_ext(temperature, draw.dynatemp_range, exponent))
        else:
            self._add(native.llama_sampler_init_temp(temperature))
        self._add(native.llama_sampler_init_dist(seed))

    def _narrow(self, draw: Draw) -> None:
        keep = _keep(draw)
        top_k = 40 if draw.top_k is None else draw.top_k
        top_p = 0.95 if draw.top_p is None else draw.top_p
        min_p = 0.05 if draw.min_p is None else draw.min_p
        if draw.top_n_sigma is not None and draw.top_n_sigma > 0:
            self._add(native.llama_sampler_init_top_n_sigma(draw.top_n_sigma))
        if top_k > 0:
            self._add(native.llama_sampler_init_top_k(top_k))
        if draw.typical_p is not None and draw.typical_p < 1:
            self._add(native.llama_sampler_init_typical(draw.typical_p, keep))
        if top_p < 1:
            self._add(native.llama_sampler_init_top_p(top_p, keep))
        if min_p > 0:
            self._add(native.llama_sampler_init_min_p(min_p, keep))


def _keep(draw: Draw) -> int:
    return max(draw.min_keep or 1, 1)


def _temperature(draw: Draw) -> float:
    return 0.8 if draw.temperature is None else draw.temperature

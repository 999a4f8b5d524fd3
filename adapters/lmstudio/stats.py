"""What an answer took, in figures: of whatever was measured. What nobody counted is 0, as the vendor's own servers say it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET

from adapters.lmstudio import wire
from canonical.events import Completion, Finished, Reason, Timings, Usage

_STOPS: dict[Reason, str] = {
    "stop": "eosFound",
    "length": "maxPredictedTokensReached",
    "tool_calls": "toolCalls",
    "content_filter": "failed",
    "cancelled": "userStopped",
}

End = Finished | Completion
"""What knows how an answer ended."""


def stats(end: Finished | None, loaded: float | None) -> wire.Stats:
    """``stats`` of ``/api/v1/chat``. None: the answer broke off. ``loaded``: seconds that a load took, if there was one."""
    usage = (end.usage if end is not None else None) or Usage(0, 0)
    timings = (end.timings if end is not None else None) or Timings()
    return wire.Stats(
        input_tokens=usage.prompt,
        total_output_tokens=usage.completion,
        reasoning_output_tokens=usage.reasoning,
        tokens_per_second=_rate(usage.completion, _generation(timings)),
        time_to_first_token_seconds=_first(timings) / 1e9,
        model_load_time_seconds=UNSET if loaded is None else loaded,
    )


def old_stats(ends: Sequence[End], context: int) -> wire.OldStats:
    """``stats`` of ``/api/v0``, over all choices; ``context`` is the model's, 0 where it is not known."""
    timings = [end.timings or Timings() for end in ends]
    generation = sum(map(_generation, timings))
    tokens = sum(end.usage.completion for end in ends if end.usage is not None)
    return wire.OldStats(
        tokens_per_second=_rate(tokens, generation),
        time_to_first_token=_first(timings[0]) / 1e9,
        generation_time=generation / 1e9,
        stop_reason=stop_reason(ends[0], context),
    )


def stop_reason(end: End, context: int) -> str:
    """Why the model stopped, in the SDK's words."""
    if end.reason == "stop" and end.stop_sequence is not None:
        return "stopStringFound"
    if end.reason == "length" and context and end.usage and end.usage.prompt + end.usage.completion >= context:
        return "contextLengthReached"
    return _STOPS[end.reason]


def _generation(timings: Timings) -> int:
    """Nanoseconds of writing; of an answer that came whole, all of them but the load's."""
    return max((timings.total or 0) - (timings.load or 0), 0) if timings.eval is None else timings.eval


def _first(timings: Timings) -> int:
    """Nanoseconds until the first token; of an answer that came whole it came with all the others."""
    return _generation(timings) if timings.prompt is None else timings.prompt


def _rate(tokens: int, nanoseconds: int) -> float:
    return tokens / (nanoseconds / 1e9) if nanoseconds > 0 else 0.0

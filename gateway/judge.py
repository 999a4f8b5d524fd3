"""What becomes of a request's fields at the model that got it: one is refused, one is dropped that may not be, or all is told."""

from __future__ import annotations

from backends.base import Model
from canonical.errors import Unsupported
from canonical.report import Report, forbidden, refusal, report
from canonical.requests import Embed, Generate, Rerank
from gateway.router import Route
from gateway.shims import Shimmed


def judge(asked: Generate | Embed | Rerank | Shimmed, route: Route, model: Model, *, strict: bool) -> Report:
    """The report on ``asked``, which ``model`` got by ``route``.

    Raises:
        Unsupported: its server refuses a field; or one would be dropped, and ``strict`` or the model's entry forbids that.
    """
    request, honours = (asked.judged, asked.honours) if isinstance(asked, Shimmed) else (asked, model.honours)
    name = request.model or route.id
    if honours.refuses and (refused := refusal(request, honours)) is not None:
        field, words = refused
        raise Unsupported(
            f'"{name}" cannot honour {field!r}, its server refuses it: {words}',
            param=field,
            code="unsupported_parameter",
        )
    told = report(request, honours)
    if isinstance(asked, Shimmed):
        told = asked.told(told)
    if told.dropped and (strict or (route.entry is not None and route.entry.strict)):
        raise forbidden(told, name)
    return told

"""What the routes of the dialect ``images`` take and answer."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from adapters.images import wire
from gateway.web.described.operation import (
    ASKS,
    KEEPS,
    Form,
    Operation,
    Operations,
    Parameter,
    Reply,
    frames,
    json,
    ok,
    read,
)


class Error(Struct):
    """What failed."""

    status: str
    error: str
    detail: str


Id = Annotated[str, Meta(description="A UUID.")]
Seconds = Annotated[int, Meta(ge=0, lt=10**9)]

_INVALID = {422: Reply("A part of the request is missing, or is not what it should be.", (json(wire.Invalid),))}
_NAMED = Parameter("job_id", "path", Id, "As `POST /generate` told it.")
_WAIT = Parameter("wait", "query", Seconds, "Seconds to be held, until there is something else to tell.")
_PREFER = Parameter("Prefer", "header", str, "`wait=N`: as `?wait=N` (RFC 7240).")
_JOB = ok(json(wire.Job), headers=("X-Job-ID",))
_PNG = Form("image/png")
_UNCHANGED = {304: Reply("It is what the client has.")}

_STATUS = Operation(
    "How a job is",
    parameters=(_NAMED, _WAIT, _PREFER),
    replies={**_JOB, **_INVALID},
    errors=KEEPS,
)
_IMAGE = Operation(
    "The picture of a job",
    "Who asks to wait is held until there is a picture, or there will be none. curl is held without asking, as a loop of "
    "`curl -f` takes a 202 for its picture: with `?wait=0` it is not.",
    parameters=(
        _NAMED,
        Parameter("index", "query", Annotated[int, Meta(ge=0, le=10_000)], "Which of several; the first is 0."),
        _WAIT,
        _PREFER,
    ),
    replies={
        **ok(
            _PNG,
            words="The picture.",
            headers=("X-Job-ID", "X-Generation-Metadata", "ETag", "Cache-Control", "Content-Disposition"),
        ),
        202: Reply("It is being made.", (json(wire.Processing),), ("X-Job-ID", "Retry-After")),
        **_UNCHANGED,
        410: Reply("The job was cancelled.", (json(wire.Failed),), ("X-Job-ID",)),
        500: Reply("It failed, and says why.", (json(wire.Failed, wire.Refused),)),
        **_INVALID,
    },
    errors=KEEPS,
)

DESCRIBED: Operations = {
    "/generate": {
        "POST": Operation(
            "Have pictures made",
            "The answer comes at once. What `X-Generation-Metadata` says can be posted as it is, and gives the same picture.",
            body=wire.GenerateRequest,
            replies={**_JOB, **_INVALID},
            errors=(*ASKS, 507),
        )
    },
    "/status/{job_id:str}": read(_STATUS),
    "/image/{job_id:str}": read(_IMAGE),
    "/download/{filename:str}": read(
        Operation(
            "A picture, by the name of its file",
            replies={
                **ok(_PNG, words="The picture.", headers=("ETag", "Cache-Control", "Content-Disposition")),
                **_UNCHANGED,
            },
            errors=KEEPS,
        )
    ),
    "/models": read(Operation("List the models that paint", replies=ok(json(wire.ModelList)))),
    "/loras": read(Operation("List the LoRAs", replies=ok(json(wire.LoraList)), errors=(502, 504))),
    "/health": read(Operation("Tell how the gateway is, and what there is to do", replies=ok(json(wire.Health)))),
    "/jobs": read(
        Operation(
            "List the jobs, the newest first",
            parameters=(
                Parameter("limit", "query", Annotated[int, Meta(ge=1, le=1000)], "How many at most; 100."),
                Parameter("after", "query", str, "The job behind which to go on, as `next` of the page before."),
                Parameter("state", "query", str, "Only those of these states: `PENDING,PROGRESS`."),
            ),
            replies={**ok(json(wire.JobList)), **_INVALID},
            errors=KEEPS,
        )
    ),
    "/jobs/{job_id:str}": {
        **read(_STATUS),
        "DELETE": Operation(
            "Cancel a job, or forget one that is over, and its pictures",
            parameters=(_NAMED,),
            replies=ok(json(wire.Job, wire.Removed)),
            errors=KEEPS,
        ),
    },
    "/jobs/{job_id:str}/cancel": {
        "POST": Operation(
            "Cancel a job; one that is over stays as it is",
            parameters=(_NAMED,),
            replies=_JOB,
            errors=KEEPS,
        )
    },
    "/jobs/{job_id:str}/events": read(
        Operation(
            "Watch a job",
            "An event at each change, up to the end.",
            parameters=(
                _NAMED,
                Parameter("previews", "query", Annotated[int, Meta(ge=0, le=1)], "1: with half-finished pictures."),
            ),
            replies={
                **ok(frames(wire.Event), words="The job, as it goes on."),
                204: Reply("Whoever comes back has been told all."),
                **_INVALID,
            },
            errors=KEEPS,
        )
    ),
}

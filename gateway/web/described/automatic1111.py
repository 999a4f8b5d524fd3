"""What the routes of the dialect ``automatic1111`` take and answer."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from adapters.automatic1111 import wire
from gateway.web.described.operation import ASKS, LOOKS, Operation, Operations, Parameter, json, ok, read


class Failure(Struct):
    """What failed."""

    error: str
    detail: str
    body: str
    errors: str


_PAINTS = (*ASKS, 507)
_EMPTY_LISTS = {
    "extensions": "extensions",
    "face-restorers": "restorers of faces",
    "hypernetworks": "hypernetworks",
    "latent-upscale-modes": "ways to enlarge what is not yet a picture",
    "prompt-styles": "styles",
    "realesrgan-models": "RealESRGAN models",
    "script-info": "scripts",
    "sd-vae": "VAEs to choose from: each model has its own",
}
_NOT_HERE = {
    "extra-batch-images": "Enlarge pictures",
    "extra-single-image": "Enlarge a picture",
    "interrogate": "Describe a picture",
}
_NOTHING = "There is nothing to do: what there is is looked up anew each time."


def _paints(summary: str, body: Any) -> dict[str, Operation]:
    words = (
        "The picture is a job that this request waits for; it is cancelled when the client leaves. `<lora:name:weight>` in "
        "the prompt lays an adapter over the model. What would change the picture and cannot be done is told under "
        "`comments` of `info` and by `Dragoman-Report`, or refused under `Dragoman-Strict`."
    )
    return {"POST": Operation(summary, words, body=body, replies=ok(json(wire.Generated)), errors=_PAINTS)}


DESCRIBED: Operations = {
    "/sdapi/v1/txt2img": _paints("Make pictures of a prompt", wire.TextToImage),
    "/sdapi/v1/img2img": {
        "POST": Operation(
            "Make pictures of a picture and a prompt",
            "With a `mask`, only what is white in it is painted anew.",
            body=wire.ImageToImage,
            needs=("init_images",),
            replies=ok(json(wire.Generated)),
            errors=_PAINTS,
        )
    },
    "/sdapi/v1/progress": read(
        Operation(
            "Tell how far the caller's newest job is",
            parameters=(Parameter("skip_current_image", "query", str, "`true`: without the half-finished picture."),),
            replies=ok(json(wire.Progress)),
            errors=(507,),
        )
    ),
    "/sdapi/v1/interrupt": {
        "POST": Operation(
            "Stop the caller's newest job",
            "The request that waits for it is answered with the pictures that are done.",
            replies=ok(json(dict[str, Any])),
            errors=(507,),
        )
    },
    "/sdapi/v1/skip": {
        "POST": Operation(
            "Stop the caller's newest job, if it has one picture", replies=ok(json(dict[str, Any])), errors=(501, 507)
        )
    },
    "/sdapi/v1/sd-models": read(Operation("List the models", replies=ok(json(list[wire.Checkpoint])), errors=LOOKS)),
    "/sdapi/v1/samplers": read(
        Operation("List the samplers of the chosen model", replies=ok(json(list[wire.Sampler])), errors=LOOKS)
    ),
    "/sdapi/v1/schedulers": read(
        Operation("List the schedules of the chosen model", replies=ok(json(list[wire.Scheduler])), errors=LOOKS)
    ),
    "/sdapi/v1/loras": read(Operation("List the adapters", replies=ok(json(list[wire.Lora])), errors=LOOKS)),
    "/sdapi/v1/options": {
        **read(Operation("Tell what the caller has chosen", replies=ok(json(wire.Options)), errors=LOOKS)),
        "POST": Operation(
            "Choose a model, and the clip skip, for later requests of the same key",
            body=wire.Choice,
            replies=ok(json(None)),
            errors=LOOKS,
        ),
    },
    "/sdapi/v1/png-info": {
        "POST": Operation("Tell what stands in a picture", body=wire.PictureAsked, replies=ok(json(wire.PictureTold)))
    },
    "/sdapi/v1/memory": read(Operation("Tell how much memory there is", replies=ok(json(wire.Memory)))),
    "/sdapi/v1/unload-checkpoint": {
        "POST": Operation("Free the chosen model's memory", replies=ok(json(dict[str, Any])), errors=LOOKS)
    },
    "/sdapi/v1/upscalers": read(Operation("List the ways to enlarge pictures", replies=ok(json(list[wire.Upscaler])))),
    "/sdapi/v1/embeddings": read(Operation("List the embeddings: there are none", replies=ok(json(wire.Embeddings)))),
    "/sdapi/v1/scripts": read(Operation("List the scripts: there are none", replies=ok(json(wire.Scripts)))),
    "/sdapi/v1/cmd-flags": read(Operation("Tell the flags of A1111's command line", replies=ok(json(wire.Flags)))),
    **{
        f"/sdapi/v1/{name}": read(Operation(f"List {words}: there are none", replies=ok(json(list[Any]))))
        for name, words in _EMPTY_LISTS.items()
    },
    **{
        f"/sdapi/v1/{name}": {"POST": Operation(f"{words} anew", _NOTHING, replies=ok(json(None)))}
        for name, words in {
            "refresh-checkpoints": "List the models",
            "refresh-embeddings": "List the embeddings",
            "refresh-loras": "List the adapters",
            "refresh-vae": "List the VAEs",
            "reload-checkpoint": "Load the model",
        }.items()
    },
    **{
        f"/sdapi/v1/{name}": {"POST": Operation(words, "This gateway does not do that.", errors=(501,))}
        for name, words in _NOT_HERE.items()
    },
}

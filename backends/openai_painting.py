"""Pictures of a server that speaks OpenAI's API: another dragoman, LocalAI, vLLM-Omni, a cloud.

Which of its models paint, a list of OpenAI's form cannot tell: the configuration does, or another dragoman, whose rows have
capabilities. A model of which nothing is known may try.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing

from msgspec import structs

from adapters.openai import painting_call as call
from adapters.recipe import in_png
from backends.upstream import Upstream
from canonical.errors import BackendError, Unsupported
from canonical.media import IMAGE_LIMIT, Blob
from canonical.models import Capability, ModelInfo
from canonical.painting import Offer, Paint, Painted, Step, alone

STREAM = "text/event-stream"
REPLY_LIMIT = 2 * call.LIMIT
"""Bytes of an answer with one picture: some servers tell it twice."""


class Painting:
    """What one server is asked for, and how."""

    def __init__(self, upstream: Upstream, names: Collection[str], fields: call.Fields) -> None:
        """``names``: its models that are said to paint. Raises ValueError."""
        if not all(word.isidentifier() for word in fields.values()):
            raise ValueError("paint_fields: what a server calls a field has letters, digits and _")
        self._upstream = upstream
        self._names = names
        self._fields = fields
        self._boundary = f"dragoman-{secrets.token_hex(16)}"
        self._generations = upstream.head("POST", "/images/generations")
        self._edits = upstream.head("POST", "/images/edits", f"multipart/form-data; boundary={self._boundary}")

    def marked(self, info: ModelInfo) -> ModelInfo:
        """A row of the catalog, as one that paints where that is said."""
        paints = frozenset({Capability.PAINT})
        return structs.replace(info, capabilities=paints) if info.id in self._names else info

    def listed(self, rows: list[ModelInfo]) -> list[ModelInfo]:
        """The catalog with those that paint, also where the server does not list them."""
        if not self._names:
            return rows
        known = {info.id for info in rows}
        missing = [ModelInfo(id=name, backend=self._upstream.name) for name in self._names if name not in known]
        return [self.marked(info) for info in (*rows, *missing)]

    def offer(self, name: str) -> Offer:  # noqa: ARG002  the server tells of none
        """Nothing is known of presets, samplers and adapters there."""
        return Offer(preset=Paint(prompt=""), references=True)

    def prepared(self, name: str, request: Paint) -> Paint:
        """The request, where it can be said. Raises Unsupported."""
        if request.loras and "loras" not in self._fields:
            raise Unsupported(f'the server of "{name}" takes no LoRAs', param="loras")
        if request.reference is not None and request.image is None:
            raise Unsupported(
                f'the server of "{name}" takes a reference only beside an image to begin with', param="reference"
            )
        if request.mask_invert:
            raise Unsupported(f'the server of "{name}" takes masks one way round alone', param="mask")
        return request

    async def painted(self, name: str, request: Paint) -> AsyncGenerator[Step | Painted, None]:
        """Half-finished pictures as steps, where the server tells any, and each picture when it is there.

        Closing the generator closes the connection, by which servers know that nobody waits any more.
        """
        for index in range(request.n):
            asked, lost = call.said(alone(request, index), self._fields)
            asked = structs.replace(asked, previews=request.previews)
            total = max(request.steps or 0, min(asked.previews, call.PARTIALS) + 1)
            yield Step(done=0, total=total, index=index)
            seen = 0
            async with aclosing(self._asked(name, asked)) as events:
                async for event in events:
                    match event:
                        case call.Partial(image):
                            seen = min(seen + 1, call.PARTIALS)
                            done = total * seen // (min(asked.previews, call.PARTIALS) + 1)
                            yield Step(done=min(done, total - 1), total=total, index=index, preview=image)
                        case call.Picture():
                            picture = event
                            break
                else:
                    raise BackendError(f"backend {self._upstream.name!r} sent no picture")
            image = picture.image or await self._fetched(picture.url)
            made = call.made_of(asked, picture, image)
            warnings = (*picture.warnings, *(f"{field}: the model's server takes none" for field in lost))
            yield Step(done=total, total=total, index=index)
            yield Painted(
                image=structs.replace(image, data=in_png(image.data, made)), made=made, index=index, warnings=warnings
            )

    async def _asked(self, name: str, request: Paint) -> AsyncGenerator[call.Partial | call.Picture, None]:
        if request.image is None:
            head, body = self._generations, call.write_generation(request, name, self._fields)
        else:
            head, body = self._edits, call.write_edit(request, name, self._fields, self._boundary)
        whole: list[bytes] = []
        size = 0
        reader = call.PictureReader()
        async with aclosing(self._upstream.told(head, body)) as pieces:
            async for media_type, data in pieces:
                size += len(data)
                if media_type == STREAM:
                    for event in reader.feed(data):
                        yield event
                elif size > REPLY_LIMIT:
                    raise BackendError(f"backend {self._upstream.name!r} answered with more than {REPLY_LIMIT} bytes")
                else:
                    whole.append(data)
        if whole:
            yield call.read_pictures(b"".join(whole))

    async def _fetched(self, url: str) -> Blob:
        """The picture behind a link, which has to be the server's own: nothing else is ever asked."""
        head = self._upstream.linked(url)
        if head is None:
            raise BackendError(
                f"backend {self._upstream.name!r} answered with a link to another server, which is not followed"
            )
        found: list[bytes] = []
        size = 0
        async with aclosing(self._upstream.told(head)) as pieces:
            async for _, data in pieces:
                found.append(data)
                size += len(data)
                if size > IMAGE_LIMIT:
                    raise BackendError(
                        f"backend {self._upstream.name!r} sent a picture of more than {IMAGE_LIMIT} bytes"
                    )
        return call.picture_of(b"".join(found))

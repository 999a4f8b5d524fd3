"""The manifest of a model: which blobs it is made of, as Ollama's registry and store have it (docker manifest, version 2).

Pure: bytes in, structs out, and back.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field

from canonical.digests import is_digest, normal
from canonical.errors import BackendError

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
_KIND = "application/vnd.ollama.image."
SIZE_LIMIT = 4 * 1024 * 1024
"""Bytes of a manifest."""
LAYERS = 10_000


class Layer(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One blob, and what it is of the model."""

    media_type: str = ""
    digest: str = ""
    size: int = 0
    name: str = ""
    """The file that it was made of, where that matters."""
    source: str = field(default="", name="from")
    """The model that it was taken from."""

    @property
    def kind(self) -> str:
        """``model``, ``projector``, ``adapter``, ``template``, ``system``, ``params`` ...; empty: not one of Ollama's."""
        return self.media_type.removeprefix(_KIND) if self.media_type.startswith(_KIND) else ""


class Manifest(Struct, frozen=True, kw_only=True, rename="camel"):
    """All of a model."""

    schema_version: int = 2
    media_type: str = MANIFEST
    config: Layer = Layer()
    layers: tuple[Layer, ...] = ()

    @property
    def blobs(self) -> tuple[Layer, ...]:
        """The layers and the config, each once."""
        every = (self.config, *self.layers) if self.config.digest else self.layers
        return tuple({layer.digest: layer for layer in every}.values())

    @property
    def digests(self) -> frozenset[str]:
        """Of everything that it needs."""
        return frozenset(normal(layer.digest) for layer in self.blobs)

    def of(self, kind: str) -> tuple[Layer, ...]:
        """The layers of one kind, in their order."""
        return tuple(layer for layer in self.layers if layer.kind == kind)


class Config(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The config blob: what lists show without opening the model."""

    model_format: str = ""
    model_family: str = ""
    model_families: tuple[str, ...] | None = None
    model_type: str = ""
    """The number of parameters, in words."""
    file_type: str = ""
    """The quantization."""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    """The least version of Ollama that it says it needs."""
    architecture: str = ""
    os: str = ""
    rootfs: dict[str, Any] = field(default_factory=dict)


_manifest = msgspec.json.Decoder(Manifest)
_encode = msgspec.json.Encoder().encode


def layer(kind: str, digest: str, size: int, name: str = "") -> Layer:
    """A layer of one of Ollama's kinds."""
    return Layer(_KIND + kind, digest, size, name)


def read_manifest(content: bytes) -> Manifest:
    """Raises BackendError for anything that cannot be one."""
    if len(content) > SIZE_LIMIT:
        raise BackendError("the manifest is larger than any model's")
    try:
        found = _manifest.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BackendError(f"the manifest cannot be read: {error}") from error
    if len(found.layers) > LAYERS:
        raise BackendError(f"the manifest has more than {LAYERS} layers")
    for one in found.blobs:
        if one.size < 0 or not is_digest(one.digest):
            raise BackendError("the manifest names a blob that cannot be")
    return found


def write_manifest(manifest: Manifest) -> bytes:
    """The bytes whose SHA-256 is the model's digest."""
    return _encode(manifest)


def write_config(config: Config, layers: tuple[Layer, ...]) -> bytes:
    """The config blob of ``layers``, in a form that Ollama's own server and registries take."""
    rootfs = {"type": "layers", "diff_ids": [one.digest for one in layers]}
    # What platform: registries of containers demand one, and all models say this.
    return _encode(msgspec.structs.replace(config, architecture="amd64", os="linux", rootfs=rootfs))

"""A model of GGUF files that came without a manifest: what they say of themselves becomes one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct

from adapters.ollama.discovery import parameter_size
from adapters.ollama.names import Name
from backends.base import Tell
from backends.fetching.blobs import Blobs, Part
from backends.store import Store
from backends.store.manifests import CONFIG, Config, Layer, Manifest, layer, write_config, write_manifest
from canonical.digests import digest_of


class Weights(Struct, frozen=True):
    """A blob that is there, and what it is."""

    digest: str
    name: str
    """The file's."""
    kind: str = "model"


async def make(name: Name, weights: Sequence[Weights], blobs: Blobs, tell: Tell) -> None:
    """Give ``name`` to a model of these. Raises Unsupported: they are no GGUF files; StorageFailed."""
    await blobs.check_weights(one.digest for one in weights)
    config, layers = await asyncio.to_thread(_describe, weights, blobs.store)
    store = blobs.store
    async with blobs.claimed([Part(config.digest, config.size)]):
        await asyncio.to_thread(store.add, config.content)
        manifest = Manifest(config=Layer(CONFIG, config.digest, config.size), layers=layers)
        await blobs.commit(name, write_manifest(manifest), tell)


class _Config(Struct, frozen=True):
    content: bytes
    digest: str
    size: int


def _describe(weights: Sequence[Weights], store: Store) -> tuple[_Config, tuple[Layer, ...]]:
    from backends.llama_cpp import gguf

    layers = tuple(layer(one.kind, one.digest, store.size(one.digest), one.name) for one in weights)
    heads = [gguf.read_head(store.blob(one.digest)) for one in weights if one.kind == "model"]
    info = gguf.model_info("", heads[0])
    families = (info.family, "clip") if any(one.kind == "projector" for one in weights) else (info.family,)
    content = write_config(
        Config(
            model_format="gguf",
            model_family=info.family,
            model_families=families,
            model_type=parameter_size(sum(head.parameters for head in heads)),
            file_type=info.quantization,
        ),
        layers,
    )
    return _Config(content, digest_of(content), len(content)), layers

"""Stores in Ollama's layout, made for tests: small models of any content, without a server."""

from __future__ import annotations

from pathlib import Path

from adapters.ollama import names
from adapters.ollama.names import Name
from backends.store.manifests import Layer, Manifest, layer, write_manifest
from backends.store.store import Store
from canonical.digests import digest_of


def named(text: str) -> Name:
    """The parts of a name that is one."""
    name = names.parse(text)
    assert name is not None
    return name


def put(store: Store, name: str, **contents: bytes) -> Manifest:
    """A model of layers: their kinds, and what is in them."""
    config = b'{"model_format":"gguf"}'
    with store.claim(map(digest_of, (config, *contents.values()))):
        layers = tuple(layer(kind, store.add(content), len(content)) for kind, content in contents.items())
        manifest = Manifest(config=Layer("application/x", store.add(config), len(config)), layers=layers)
        store.commit(named(name), write_manifest(manifest))
    return manifest


def listed(store: Store) -> set[str]:
    """The names of a store's whole models."""
    return {model.id for model in store.models()}


def blobs(folder: Path) -> set[str]:
    """The digests of the blobs in a store's folder."""
    return {path.name.replace("-", ":", 1) for path in (folder / "blobs").iterdir() if len(path.name) == 71}


def leftovers(folder: Path) -> list[str]:
    """Files of a store that belong to nothing."""
    whole = {path.name for path in (folder / "blobs").iterdir()} - {name.replace(":", "-") for name in blobs(folder)}
    hidden = [path.name for path in (folder / "manifests").rglob(".*")] if (folder / "manifests").is_dir() else []
    return sorted([*whole, *hidden])

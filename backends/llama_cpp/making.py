"""Making a model: the layers of another one or of files, what a recipe changes of them, and a manifest that names it all.

It blocks for as long as it takes, in a thread of its own. Nothing is listed before the manifest is committed, and what was
made until then belongs to nobody if it never is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from adapters.ollama import names
from adapters.ollama.discovery import parameter_size
from adapters.ollama.go import is_jinja
from adapters.ollama.go.jinja import jinja_of
from adapters.ollama.go.parse import BadTemplate, parse
from adapters.ollama.names import Name
from adapters.ollama.turns import write_messages
from adapters.ollama.values import read_options
from backends.llama_cpp import gguf
from backends.llama_cpp.gguf import Head
from backends.llama_cpp.quantizing import quantize
from backends.store import Store
from backends.store.claims import Claim
from backends.store.kept import TEXT, Brought, Kept
from backends.store.manifests import (
    CONFIG,
    Config,
    Layer,
    Manifest,
    layer,
    write_config,
    write_manifest,
)
from backends.store.writing import PIECE
from canonical.digests import digest_of, is_blob, normal
from canonical.errors import BackendError, InvalidRequest
from canonical.limits import MESSAGES
from canonical.progress import Progress
from canonical.recipe import Recipe

Tell = Callable[[Progress], None]
"""Takes how far it is; raises where nobody wants it any more."""

QUANTIZING = "0" * 19
"""Stands for the digest that nobody knows yet: Ollama's command line draws a bar for what has one, and for nothing else."""

_SOURCES = frozenset({"F32", "F16", "BF16"})
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_encode = msgspec.json.Encoder(order="deterministic").encode


def make(store: Store, name: Name, recipe: Recipe, source: Kept | None, tell: Tell) -> None:
    """Make the model ``name``. ``source``: what ``recipe.source`` is.

    Raises:
        InvalidRequest: a recipe that makes no model.
        StorageFailed: no room; nothing has changed then.
    """
    _check(recipe)
    with store.claim([*recipe.files.values(), *recipe.adapters.values(), *recipe.drafts.values()]) as claim:
        work = _Work(store, claim, tell)
        if source is not None:
            again = names.same(source.id, names.written(name))  # a model that only changes stays of whom it was
            work.take(source, source.source if again else source.id)
        work.add_files(recipe)
        work.finish(name, recipe, source.brought if source is not None else Brought())


class _Work:
    """One model on its way."""

    def __init__(self, store: Store, claim: Claim, tell: Tell) -> None:
        self._store, self._claim, self._tell = store, claim, tell
        self._layers: dict[str, list[Layer]] = {"model": [], "projector": [], "adapter": [], "draft": []}
        self._heads: list[Head] = []
        self._known: dict[str, Head] = {}
        """By their digests: a recipe may name one blob a thousand times."""

    def take(self, source: Kept, parent: str) -> None:
        """The files of another model: its blobs, or links to what lies elsewhere."""
        called = source.names or tuple(path.name if len(source.parts) > 1 else "" for path in source.parts)
        for path, name in zip(source.parts, called, strict=True):
            found = self._adopted("model", path, name)
            self._layers["model"].append(structs.replace(found, source=parent))
        if source.projector is not None:
            self._layers["projector"].append(self._adopted("projector", source.projector))
        self._layers["adapter"] += [self._adopted("adapter", path) for path in source.adapters]
        if source.draft is not None:
            self._layers["draft"].append(self._adopted("draft", source.draft))
        self._heads = [gguf.read_head(self._store.blob(one.digest)) for one in self._layers["model"]]

    def add_files(self, recipe: Recipe) -> None:
        """The blobs that the recipe names, by what is in them."""
        if recipe.files or recipe.adapters or recipe.drafts:
            self._tell(Progress(status="parsing GGUF"))
        for name, digest in sorted(recipe.files.items()):
            head = self._read(name, digest)
            kind = "projector" if head.is_projector else "adapter" if head.is_adapter else "model"
            self._add(kind, name, digest)
            if kind == "model":
                self._heads.append(head)
        for name, digest in sorted(recipe.adapters.items()):
            if not self._read(name, digest).is_adapter:
                raise InvalidRequest(f"{name!r} is no adapter", param="adapters")
            self._add("adapter", name, digest)
        for name, digest in sorted(recipe.drafts.items()):
            if not self._read(name, digest).is_model:
                raise InvalidRequest(f"{name!r} is no model", param="draft_files")
            self._add("draft", name, digest)
        self._check_models()

    def finish(self, name: Name, recipe: Recipe, before: Brought) -> None:
        """What it brings along, and the manifest."""
        if recipe.quantize:
            self._quantize(recipe.quantize)
        brought = _changed(before, recipe)
        contents = _contents(brought)
        if sum(len(content) for _, content in contents) > TEXT:
            raise InvalidRequest(f"what a model brings along may have at most {TEXT} bytes")
        for kind, content in contents:
            self._layers.setdefault(kind, []).append(self._new(kind, content))
        layers = tuple(one for kind in self._layers.values() for one in kind)
        content = write_config(_config(self._heads, brought.requires), layers)
        digest = self._write(content)
        manifest = Manifest(config=Layer(CONFIG, digest, len(content)), layers=layers)
        self._tell(Progress(status="writing manifest"))
        self._store.commit(name, write_manifest(manifest))

    def _check_models(self) -> None:
        models = self._layers["model"]
        if not models:
            raise InvalidRequest("none of the files is a model", param="files")
        counts = {head.number("split.count") for head in self._heads}
        if counts != {len(models)} and (len(models) > 1 or counts - {0, 1}):
            raise InvalidRequest("a model is one file, or all parts of a split one", param="files")
        if len(models) > 1:
            order = sorted(range(len(models)), key=lambda at: self._heads[at].number("split.no"))
            if [self._heads[at].number("split.no") for at in order] != list(range(len(models))):
                raise InvalidRequest("a part of the split model is missing", param="files")
            # Their names put them in order for everybody who reads the manifest.
            self._layers["model"] = [
                structs.replace(models[at], name=f"model-{place:05}-of-{len(models):05}.gguf")
                for place, at in enumerate(order, 1)
            ]
            self._heads = [self._heads[at] for at in order]

    def _read(self, name: str, digest: str) -> Head:
        if name.lower().endswith(_WEIGHTS):
            raise InvalidRequest(f"{name!r} is not a GGUF file: convert it to GGUF first", param="files")
        digest = normal(digest)
        if digest in self._known:
            return self._known[digest]
        path = self._store.blob(digest)
        if not path.is_file():
            raise InvalidRequest(f"blob {digest!r} not found", param="files")
        try:
            self._known[digest] = gguf.read_head(path)
        except gguf.BadGguf as error:
            reason = error.message.replace(path.name, repr(name))
            raise InvalidRequest(f"{name!r} is not a GGUF file that can be served: {reason}", param="files") from error
        except OSError as error:
            raise BackendError(f"{name!r} cannot be read: {error.strerror}") from error
        return self._known[digest]

    def _add(self, kind: str, name: str, digest: str) -> None:
        self._layers[kind].append(layer(kind, normal(digest), self._store.size(digest), Path(name).name))
        self._tell(Progress(status=f"using existing layer {normal(digest)}"))

    def _adopted(self, kind: str, path: Path, name: str = "") -> Layer:
        """A file somewhere as a blob of ours."""
        digest = normal(path.name) if is_blob(path.name) else self._hashed(path)
        self._claim.add(digest)
        status = "using existing layer" if self._store.has(digest) else "creating new layer"
        self._store.link(
            digest,
            path,
            lambda done, total: self._tell(Progress(status="copying the model", total=total, completed=done)),
        )
        self._tell(Progress(status=f"{status} {digest}"))
        return layer(kind, digest, self._store.size(digest), name)

    def _hashed(self, path: Path) -> str:
        total, done = path.stat().st_size, 0
        found = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                found.update(piece)
                done += len(piece)
                self._tell(Progress(status="reading the model", total=total, completed=done))
        return f"sha256:{found.hexdigest()}"

    def _new(self, kind: str, content: bytes) -> Layer:
        return layer(kind, self._write(content), len(content))

    def _write(self, content: bytes) -> str:
        digest = digest_of(content)
        self._claim.add(digest)
        status = "using existing layer" if self._store.has(digest) else "creating new layer"
        self._store.add(content)
        self._tell(Progress(status=f"{status} {digest}"))
        return digest

    def _quantize(self, wanted: str) -> None:
        kind = wanted.upper()
        if kind not in gguf.FILE_TYPES.values():
            raise InvalidRequest(f"unsupported quantization type {wanted[:40]!r}", param="quantize")
        if len(self._heads) > 1:
            raise InvalidRequest("a split model cannot be quantized", param="quantize")
        head = self._heads[0]
        have = gguf.model_info("", head).quantization
        if have == kind:
            return
        if have not in _SOURCES:
            raise InvalidRequest(
                f"quantization is only supported for F16, BF16 and F32 models, and this one is {have}", param="quantize"
            )
        source = self._store.blob(self._layers["model"][0].digest)
        status = f"quantizing {have} model to {kind}"
        with self._store.draft() as draft:
            quantize(
                source,
                draft.path,
                kind,
                lambda share: self._tell(
                    Progress(status=status, digest=QUANTIZING, total=head.size, completed=int(head.size * share))
                ),
            )
            digest = self._hashed(draft.path)
            self._claim.add(digest)
            head = gguf.read_head(draft.path)
            draft.keep(self._store.blob(digest))
        whole = layer("model", digest, head.size)
        self._layers["model"] = [structs.replace(whole, source=self._layers["model"][0].source)]
        self._heads = [head]
        self._tell(Progress(status=f"creating new layer {digest}"))


def _check(recipe: Recipe) -> None:
    """Raises InvalidRequest for what can be told without looking at a file."""
    if not recipe.source and not recipe.files:
        raise InvalidRequest("neither 'from' or 'files' was specified", param="from")
    for digest in (*recipe.files.values(), *recipe.adapters.values(), *recipe.drafts.values()):
        normal(digest)
    if recipe.messages and len(recipe.messages) > MESSAGES:
        raise InvalidRequest(f"at most {MESSAGES} messages are accepted", param="messages")
    if recipe.template and not is_jinja(recipe.template):
        parse(recipe.template)
    read_options(recipe.parameters)


def _changed(before: Brought, recipe: Recipe) -> Brought:
    """What the source brings along, with what the recipe says; an empty text takes away, and licenses stay."""
    told = {*before.licenses, "\n".join(before.licenses)}  # together is how ``show`` has them
    return Brought(
        template=before.template if recipe.template is None else recipe.template,
        system=before.system if recipe.system is None else recipe.system,
        parameters={**before.parameters, **recipe.parameters},
        messages=before.messages if recipe.messages is None else recipe.messages,
        licenses=(*before.licenses, *(text for text in recipe.licenses or () if text not in told)),
        requires=recipe.requires or before.requires,
    )


def _contents(brought: Brought) -> list[tuple[str, bytes]]:
    """The small blobs: kind and content."""
    found: list[tuple[str, Any]] = [("license", text.encode()) for text in brought.licenses]
    if brought.template:
        found.append(("template", brought.template.encode()))
    if brought.system:
        found.append(("system", brought.system.encode()))
    if brought.parameters:
        found.append(("params", _encode(brought.parameters)))
    if brought.messages:
        found.append(("messages", _encode(write_messages(brought.messages))))
    return found


def _config(heads: list[Head], requires: str) -> Config:
    first = heads[0]
    return Config(
        model_format="gguf",
        model_family=first.family,
        model_families=(first.family,),
        model_type=parameter_size(sum(head.parameters for head in heads)),
        file_type=gguf.model_info("", first).quantization,
        requires=requires,
    )


def untranslated(template: str) -> str:
    """Why a TEMPLATE cannot be rendered here, though it is one; empty: it can be."""
    if not template or is_jinja(template):
        return ""
    try:
        jinja_of(template)
    except BadTemplate as error:
        return error.message
    return ""

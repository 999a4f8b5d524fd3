"""Two gateways on the demo models: the second serves them from inside, the first reaches it by every kind of backend."""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from tests.lmstudio.server import running
from tests.lmstudio.studio import Row
from tests.matrix.gap import write_filler
from tests.serving import serving

MODELS = "pip", "text", "fill", "embed", "rerank"


class Backend(Struct, frozen=True):
    """A column of the matrix."""

    name: str
    prefix: str
    """What the first gateway puts before the names of this column's models: ``openai-pip``."""
    kind: str
    """Its ``type`` in the configuration; ``echo`` repeats what it is told instead of knowing things."""
    remote: bool = False
    """Whether the same engine answers as in the first column, over one more hop: then it must say the very same."""
    relay: bool = False
    """Whether bytes pass unread between it and clients of its own dialect; there are no others in its column."""
    loads: bool = False
    """Whether the first gateway has its models loaded and unloaded, and so knows what is in memory."""

    def model(self, name: str) -> str:
        """What the first gateway calls a demo model behind this backend."""
        return self.prefix + name


RELAYED = "openai", "ollama", "anthropic"
INSIDE = Backend("llama_cpp", "", "llama_cpp")
SECOND_ENGINE = Backend("llama-cpp-python", "second-", "llama_cpp")
BACKENDS = (
    INSIDE,
    SECOND_ENGINE,
    Backend("openai", "openai-", "openai", remote=True),
    Backend("ollama", "ollama-", "ollama", remote=True),
    Backend("anthropic", "anthropic-", "anthropic", remote=True),
    Backend("lmstudio", "lmstudio-", "lmstudio", remote=True, loads=True),
    Backend("echo", "echo-", "echo"),
    *(Backend(f"{kind} relayed", f"relayed-{kind}-", kind, remote=True, relay=True) for kind in RELAYED),
)
"""The columns; the first is what remote ones are compared with."""


class World(Struct, frozen=True):
    """Two running gateways."""

    url: str
    """The one that is asked."""
    behind: str
    """The one that its remote backends reach."""
    log: str = ""


_HOME = "{type: llama_cpp, models_dir: ./models, threads: 1}"
_FILLING = "{type: llama_cpp, models_dir: FOLDER, threads: 1}"
_PIP = "file: pip.gguf, mmproj: pip-mmproj.gguf, slots: 8, thinking: off"
_TEXT = "file: pip.gguf, slots: 2, thinking: off"
"""The same without eyes: beside a projector the engine takes no token ids."""
_FILL = "file: fill.gguf, slots: 2, thinking: off"
"""The same with tokens for a gap between a prompt and a suffix; in a folder of its own, as it is made for the run."""
_HEAD = "listeners: [{port: 0}]\nbackends:\n"
_BEHIND = f"""{_HEAD}  local: {_HOME}
  filling: {_FILLING}
models:
  - {{id: pip, backend: local, {_PIP}}}
  - {{id: text, backend: local, {_TEXT}}}
  - {{id: fill, backend: filling, {_FILL}}}
  - {{id: embed, backend: local, file: embed.gguf}}
  - {{id: rerank, backend: local, file: rerank.gguf}}
"""


def columns() -> list[Backend]:
    """The backends that this machine has: the second engine is compiled on install, and an extra."""
    missing = set() if importlib.util.find_spec("llama_cpp") else {SECOND_ENGINE}
    return [backend for backend in BACKENDS if backend not in missing]


ROWS = (
    Row(key="pip", vision=True, reasoning=("off", "on")),
    Row(key="text", reasoning=("off", "on")),
    Row(key="fill", reasoning=("off", "on")),
    Row(key="embed", type="embedding"),
    Row(key="rerank", type="embedding"),
)
"""The same models, as LM Studio has them."""


def config(behind: str, studio: str) -> str:
    """The first gateway's, whose remote backends reach the gateway at ``behind`` and the LM Studio at ``studio``."""
    backends, models = [f"  local: {_HOME}", f"  filling: {_FILLING}"], []
    for backend in columns():
        if backend is SECOND_ENGINE:
            engine = "{type: llama_cpp, engine: llama-cpp-python, threads: 1, models_dir: "
            backends += [f"  second: {engine}./models}}", f"  second_filling: {engine}FOLDER}}"]
        elif backend.remote and not backend.relay:
            url = studio if backend.kind == "lmstudio" else behind
            backends.append(f'  behind_{backend.kind}: {{type: {backend.kind}, url: "{url}"}}')
        elif backend.kind == "echo":
            backends.append(f"  {backend.kind}: {{type: {backend.kind}}}")
        models += [f"  - {{id: {backend.model(name)}, {_entry(backend, name)}}}" for name in MODELS]
    return "\n".join([_HEAD.rstrip(), *backends, "models:", *models, "defaults: {chat: pip, embed: embed}", ""])


def _entry(backend: Backend, name: str) -> str:
    if backend.remote:
        return f"backend: behind_{backend.kind}, name: {name}, relay: {str(backend.relay).lower()}"
    if backend.kind == "echo":
        return "backend: echo, name: echo"
    second = backend is SECOND_ENGINE
    if name == "fill":
        return f"backend: {'second_filling' if second else 'filling'}, {_FILL}"
    files = {"pip": _TEXT if second else _PIP, "text": _TEXT}  # the second engine has no eyes
    return f"backend: {'second' if second else 'local'}, {files.get(name, f'file: {name}.gguf')}"


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Both gateways, until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        write_filler(Path(folder) / "fill.gguf")
        with (
            serving(_BEHIND.replace("FOLDER", folder)) as behind,
            running(*ROWS, mind=behind.url, auto_evict=False) as (studio, _),
            serving(config(behind.url, studio.url).replace("FOLDER", folder)) as front,
        ):
            urllib.request.urlopen(f"{front.url}/v1/models").close()  # what models can do is known from here on
            yield World(front.url, behind.url)

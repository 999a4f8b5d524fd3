"""What config.yaml can say, as frozen structs: every key, its default, and what it means. How it is read is ``config``'s business."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from backends.base import Backend, Section
from canonical.own import NOTHING, Own

Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]

ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  # recognised here, not bound
"""Hosts of a listener that stand for every address of the machine."""


class Cors(Section, frozen=True):
    """Which web pages may call: exact origins, ``*`` as a wildcard inside one, or ``"*"`` for all."""

    origins: tuple[str, ...] = ()
    credentials: bool = False


DialectName = Literal[
    "anthropic",
    "automatic1111",
    "brenda",
    "conversation",
    "hybrid",
    "images",
    "libretranslate",
    "lmstudio",
    "ollama",
    "openai",
]


class Mounted(Section, frozen=True):
    """A dialect all of whose paths begin with ``prefix``."""

    name: DialectName
    prefix: str = ""


class Listener(Section, frozen=True):
    """One port, and the dialects it speaks; the first words the errors of paths that belong to none."""

    port: Annotated[int, Meta(ge=0, le=65535)]
    host: str = "127.0.0.1"
    dialects: tuple[DialectName | Mounted, ...] = (
        "ollama",
        "openai",
        "anthropic",
        "hybrid",
        "images",
        "brenda",
        "conversation",
        "libretranslate",
        "automatic1111",
    )
    hosts: tuple[str, ...] = ()
    """Names besides loopback ones that ``Host`` may bear (against DNS rebinding)."""
    cors: Cors = Cors()

    @property
    def mounts(self) -> tuple[Mounted, ...]:
        """The dialects, each with its prefix."""
        return tuple(one if isinstance(one, Mounted) else Mounted(name=one) for one in self.dialects)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)


class Turn(Section, frozen=True):
    """One message of a conversation that is given."""

    role: Literal["system", "user", "assistant"]
    content: str


class ModelEntry(Struct, frozen=True, kw_only=True):
    """One model's name and route; ``settings`` are the keys that its backend understands."""

    id: str
    backend: str
    name: str = ""
    """What the backend calls it; empty: the same as ``id``."""
    aliases: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    """Ids of models to try, in order, when this one's backend cannot be reached."""
    keep_alive: float | str | None = None
    pinned: bool = False
    """Loaded when the gateway starts, and never closed for want of room or of requests."""
    exclusive: bool = False
    """In memory alone: every other model of this machine is closed before, and none is loaded beside it."""
    load_options: Literal["honour", "refuse", "ignore"] = "honour"
    """What becomes of a request that wants the model loaded differently (Ollama's ``num_ctx`` ...)."""
    strict: bool = False
    """Refuse a request with a field that would be dropped."""
    relay: bool = False
    """Between a client and a backend of one dialect, pass the bytes on as they are."""
    shims: tuple[Literal["system", "tools"], ...] = ()
    """What the gateway may do in the prompt for a model that has no word for it; the report tells each time."""
    inline_thinking: bool | Literal["opened"] | tuple[str, str] = False
    """The model writes its thoughts into the text, between ``<think>`` tags: tell them apart. ``opened``: its prompt has
    opened the first already. Two texts: these are its tags, an empty first one is opened already."""
    system: str = ""
    """Instructions for requests that bring none."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Ollama's options, for what requests leave open."""
    messages: tuple[Turn, ...] = ()
    """A conversation that stands before each of its own."""
    modelfile: str = ""
    """A Modelfile that says the three above, and the template; counts from the configuration."""
    own: Own = NOTHING
    """What all these come to."""
    settings: dict[str, Any] = field(default_factory=dict)


class Defaults(Section, frozen=True):
    """Which model answers a request that names none."""

    chat: str = ""
    vision: str = ""
    """Of a request with pictures; empty: the same as ``chat``."""
    embed: str = ""
    rerank: str = ""
    match: str = ""
    """Of pictures to labels; empty: the first model that can."""
    read: str = ""
    """Of text in pictures; likewise."""
    paint: str = ""
    """Of pictures to be made; likewise."""


class Limits(Section, frozen=True):
    """Bounds on clients; seconds and bytes."""

    body: Count = 32 * 1024 * 1024
    upload: Count = 0
    """Of one file of a model; 0: as many as there is room for."""
    head_time: Seconds = 10.0
    body_silence: Seconds = 30.0
    unread: Seconds = 300.0
    """How long a client may leave an answer unread: it holds a slot meanwhile."""
    waiting: Count = 512
    """Requests that may wait for one model."""
    waiting_time: Seconds = 60.0
    translation: Count = 500_000
    """Characters that one request may have translated."""
    grace: Seconds = 30.0
    """How long running answers may go on after SIGTERM."""


class Memory(Section, frozen=True):
    """What the models of this machine may take together, and who goes when another is wanted. Seconds."""

    ram: float | str = "auto"
    """``12GB``, ``8GiB``, ``75%``, bytes; ``auto``: what the machine or its container has, less a reserve."""
    vram: float | str = "auto"
    """The same of graphics processors; ``auto``: what is free there."""
    models: Count = 0
    """How many; 0: as many as fit."""
    switch_after: Seconds = 10.0
    """How long requests for loaded models may hold back those for others, where not all fit."""
    abandoned: Seconds = 5.0
    """How long a load goes on that nobody waits for any more."""


class Key(Section, frozen=True):
    """An API key; ``strict`` as in a model's entry."""

    key: str
    strict: bool = False
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    """Its jobs go before those of keys with less."""
    manage: bool = True
    """It may pull, push, make, copy and delete models."""


class Images(Section, frozen=True):
    """Links to images in requests: followed by the gateway itself, and only to these hosts."""

    hosts: tuple[str, ...] = ()
    """Exact names, or ``*.example.org`` for every name below it; none: links are refused."""
    size: Count = 20 * 1024 * 1024
    """Bytes of one image."""
    time: Seconds = 10.0
    """Seconds for all of one image, redirects included."""


class Responses(Section, frozen=True):
    """What ``/v1/responses`` keeps: answers that a later request may go on from."""

    keep: float | str = "720h"
    """How long, from the last use; negative: for ever."""
    limit: Count = 10_000
    """How many; beyond that those used longest ago go, of the key that has most."""
    size: Count = 4 * 1024 * 1024 * 1024
    """Bytes of all of them; likewise."""


class Sessions(Section, frozen=True):
    """Clients that come back with an ``X-Session-ID``."""

    system: str = ""
    """Instructions for chats of the dialect ``brenda`` that bring none."""
    keep: float | str = "720h"
    """How long, from the last use; negative: for ever."""
    limit: Count = 10_000
    """How many; beyond that those used longest ago go, of the key that has most."""


class Conversations(Section, frozen=True):
    """What is kept of ``/api/conversation``."""

    keep: float | str = -1
    """How long, from the last use; negative: for ever."""
    limit: Count = 10_000
    """How many; beyond that those used longest ago go, of the key that has most."""
    size: Count = 4 * 1024 * 1024 * 1024
    """Bytes of all of them; likewise."""


class Jobs(Section, frozen=True):
    """Pictures that are being made, and those that were."""

    running: Count = 1
    """Jobs that this process works on at once; 0: it leaves them to ``dragoman worker`` processes."""
    waiting: Count = 100
    """Jobs that may wait; beyond that they are refused, but for the first of a key, up to twice as many."""
    time: Seconds = 3600.0
    """How long one may run; 0: as long as it takes."""
    tries: Annotated[int, Meta(ge=1, le=10)] = 3
    """How often one is begun whose worker dies over it."""
    queue: str = ""
    """The URL of a Redis server, over which workers on other machines get jobs; empty: workers look into the database."""
    results: str = ""
    """Where pictures are kept: a folder that counts from the configuration, or s3://bucket/prefix; empty: under ``data_dir``."""
    keep: float | str = "168h"
    """How long a job and its pictures, after its end; negative: for ever."""
    limit: Count = 10_000
    """How many; beyond that those that ended longest ago go, of the key that has most."""
    size: Count = 20 * 1024 * 1024 * 1024
    """Bytes of all pictures; likewise."""


class Config(Section, frozen=True):
    """The whole file."""

    listeners: tuple[Listener, ...] = (Listener(port=11434),)
    backends: dict[str, dict[str, Any]] = field(default_factory=dict)
    models: tuple[dict[str, Any], ...] = ()
    defaults: Defaults = Defaults()
    library: str = ""
    """The backend in which models are pulled and made; empty: the first that can."""
    limits: Limits = Limits()
    keep_alive: float | str = "5m"
    memory: Memory = Memory()
    keys: tuple[str | Key, ...] = ()
    serve_the_whole_network_without_keys: bool = False
    access_log: bool = True
    images: Images = Images()
    responses: Responses = Responses()
    sessions: Sessions = Sessions()
    conversations: Conversations = Conversations()
    jobs: Jobs = Jobs()
    database: str = ""
    """The URL of a PostgreSQL database for all that is kept; empty: a file of SQLite's under ``data_dir``."""
    data_dir: str = "data"
    """Where what must outlive the process is kept; counts from the configuration."""

    @property
    def secrets(self) -> tuple[Key, ...]:
        """The keys, each with what goes with it."""
        return tuple(Key(key=key) if isinstance(key, str) else key for key in self.keys)


class Settled(Struct, frozen=True, kw_only=True):
    """A configuration whose every part is checked, with its backends made (and nothing loaded or connected yet)."""

    config: Config
    models: tuple[ModelEntry, ...]
    backends: dict[str, Backend]
    data_dir: Path = Path("data")
    """The configuration's, found."""
    base: Path = Path()
    """What relative paths count from."""


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine and no other can reach it."""
    name = host.casefold()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False

"""Which models lie in a folder, and which languages each translates. Everything here blocks for a disk's time.

A model is a folder as Hugging Face has Helsinki-NLP's: ``opus-mt-en-fr``, ``opus-mt-tc-big-en-fr``, ``opus-mt-en-ROMANCE``.
The languages stand in its name. One that knows several to translate into has a word for each in its vocabulary
(``>>fra<<``); from which several it translates stands in the heading of its README.md, or in config.yaml.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from backends.marian.weights import BadWeights, read_head
from canonical.languages import code_of

NEEDED = ("config.json", "vocab.json", "source.spm", "target.spm")
JSON_LIMIT = 32 * 1024 * 1024
"""Bytes of one of its JSON files; the vocabulary of 250,000 words has 6 MB."""
PAIRS = 20_000
"""Pairs of one model; the one from and to a thousand languages is not read whole."""
FORMAT = 1
"""Of what conversion writes; counted up when that changes."""

_NAME = re.compile(
    r"(?:opus-mt-)?(?:tc-(?:big|base|bible|bible-big)-|tatoeba-)?(?P<source>[A-Za-z_]+)-(?P<target>[A-Za-z_+]+)"
)
_INTO = re.compile(r">>([A-Za-z]{2,3}(?:_[A-Za-z]{2,8})*)<<")
_SOURCES = re.compile(
    r"^[*-] *source language\(?s?\)?(?: code\(?s?\)?)?:\W*([A-Za-z_, ]+)$", re.MULTILINE | re.IGNORECASE
)
_PICKLES = ("pytorch_model.bin", "tf_model.h5", "rust_model.ot")
_GROUPS = frozenset(
    {"mul", "roa", "gem", "gmw", "gmq", "sla", "zle", "zlw", "zls", "ine", "cel", "itc", "trk", "urj", "fiu"}
)
"""Names of families that look like the code of one language."""


class Config(Struct, frozen=True):
    """What of ``config.json`` matters."""

    model_type: str = ""
    d_model: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_attention_heads: int = 8
    decoder_attention_heads: int = 8
    activation_function: str = "swish"
    scale_embedding: bool = True
    max_position_embeddings: int = 512
    share_encoder_decoder_embeddings: bool = True

    @property
    def separate(self) -> bool:
        """Whether what it reads and what it says are words of two vocabularies."""
        return not self.share_encoder_decoder_embeddings


class Folder(Struct, frozen=True, kw_only=True):
    """One model."""

    name: str
    path: Path
    config: Config
    weights: tuple[Path, ...]
    """Files of safetensors; none: there are only pickles."""
    size: int
    parameters: int
    modified: int
    key: str
    """Another one as soon as anything of it changes; 64 hex digits."""
    into: dict[str, str]
    """The languages that it translates into, and the word of its vocabulary that asks for each; empty: none is needed."""
    pairs: tuple[tuple[str, str], ...]
    trouble: str = ""
    """Why it cannot be loaded."""


def names(root: Path) -> Iterator[str]:
    """The folders that could be models."""
    try:
        found = sorted(path.name for path in root.iterdir() if path.is_dir())
    except OSError:
        return
    yield from (name for name in found if _NAME.fullmatch(name) and not name.startswith("."))


def state_of(path: Path) -> object:
    """Another one when a file of the model comes, goes or changes. Raises OSError."""
    with os.scandir(path) as entries:
        return sorted((entry.name, (status := entry.stat()).st_size, status.st_mtime_ns) for entry in entries)


def read_folder(root: Path, name: str, sources: tuple[str, ...] = ()) -> Folder | None:
    """One model; None: there is none of that name. ``sources``: the languages that it translates from, as somebody says.

    Raises:
        OSError: it changes meanwhile.
    """
    path = root / name
    # No name leads out of the folder, but a link in it may: it is the operator who puts links there.
    if path.parent != root or "\0" in name or not all((path / needed).is_file() for needed in NEEDED):
        return None
    try:
        config = msgspec.json.decode(_small(path / "config.json"), type=Config)
        vocabulary = _small(path / "vocab.json")
        ids = msgspec.json.decode(vocabulary, type=dict[str, int])
    except (msgspec.MsgspecError, RecursionError):
        return None
    if config.model_type not in {"", "marian"}:
        return None
    weights, trouble, parameters = _weights(path)
    match = _NAME.fullmatch(name)
    spoken = match["target"] if match is not None else ""
    into = _into(ids, spoken)
    from_ = tuple(filter(None, map(code_of, sources))) or _from(path, match["source"] if match is not None else "")
    pairs = [(source, target) for source in from_ for target in into if source != target][:PAIRS]
    files = [path / needed for needed in (*NEEDED, "target_vocab.json")]
    status = [file.stat() for file in (*weights, *files) if file.is_file()]
    told = [(one.st_size, one.st_mtime_ns) for one in status]
    key = hashlib.sha256(repr((FORMAT, config, told)).encode() + vocabulary).hexdigest()
    return Folder(
        name=name,
        path=path,
        config=config,
        weights=weights,
        size=sum(one.st_size for one in status),
        parameters=parameters,
        modified=max(one.st_mtime_ns for one in status),
        key=key,
        into=into,
        pairs=tuple(pairs),
        trouble=trouble or ("" if pairs else "which languages it translates is not known"),
    )


def _weights(path: Path) -> tuple[tuple[Path, ...], str, int]:
    """Its files, what is wrong with them, and how many parameters they have."""
    whole = path / "model.safetensors"
    files = (whole,) if whole.is_file() else tuple(sorted(path.glob("model-*-of-*.safetensors")))
    if not files:
        pickle = next((name for name in _PICKLES if (path / name).is_file()), "")
        if not pickle:
            return (), "its weights (model.safetensors) are not there", 0
        return (
            (),
            f"its weights are only there as {pickle}, which is never opened here: it could run any code; put model.safetensors beside it (README: Translation)",
            0,
        )
    try:
        return files, "", sum(placed.count for file in files for placed in read_head(file).values())
    except BadWeights as error:
        return files, str(error), 0


def _into(ids: dict[str, int], spoken: str) -> dict[str, str]:
    """From the vocabulary where it has words for languages, else from the name."""
    words = {token: code_of(found[1]) for token in sorted(ids) if (found := _INTO.fullmatch(token)) is not None}
    into: dict[str, str] = {}
    for token, code in words.items():
        if code:
            into.setdefault(code, token)
    own = _codes(spoken)
    if not words:
        return dict.fromkeys(own, "")
    for code in own:  # en-zh has words for cmn_Hans and cmn_Hant; who asks for zh gets what most mean
        if code not in into:
            usual = next((other for other in (f"{code}-Hans", f"{code}-Latn") if other in into), "")
            usual = usual or min((other for other in into if other.startswith(f"{code}-")), default="")
            if usual:
                into[code] = into[usual]
    return into


def _from(path: Path, spoken: str) -> tuple[str, ...]:
    codes = _codes(spoken)
    if codes:
        return codes
    try:
        text = (path / "README.md").read_text(errors="replace")[:65_536]
    except OSError:
        return ()
    found = _SOURCES.search(text)
    rows = re.split(r"[ ,]+", found[1]) if found is not None else []
    return tuple(dict.fromkeys(filter(None, map(code_of, rows))))


def _codes(spoken: str) -> tuple[str, ...]:
    """``fr``, ``pt_BR``, ``cat_oci_spa`` -> codes; a family of languages (``ROMANCE``, ``roa``) -> none."""
    if spoken in _GROUPS or (spoken.isupper() and len(spoken) > 3):
        return ()
    parts = re.split(r"[_+]", spoken)
    if all(len(part) in {2, 3} and part.islower() for part in parts):
        return tuple(dict.fromkeys(filter(None, map(code_of, parts))))
    return tuple(filter(None, [code_of(spoken)]))


def _small(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(JSON_LIMIT + 1)
    if len(data) > JSON_LIMIT:
        raise msgspec.ValidationError("too large")
    return data

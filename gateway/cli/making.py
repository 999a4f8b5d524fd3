"""``dragoman create``, and ``pull`` of what lies here: files go up as blobs, and what a Modelfile says as fields.

The server reads neither: a client's word never names a file of its machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from adapters.ollama.modelfile import Modelfile, read_modelfile
from canonical.errors import InvalidRequest
from gateway.cli.client import Client, Failed


def create_body(name: str, path: Path, client: Client, *, quantize: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """The body of ``/api/create`` for a Modelfile, once its files are at the server.

    Raises:
        Failed: it cannot be read, or a file cannot.
    """
    try:
        made = read_modelfile(path.read_bytes())
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}") from error
    except InvalidRequest as error:
        raise Failed(f"{path}: {error.message}") from error
    for warning in made.warnings:
        tell(f"{path}: {warning}")
    files, names = _sources(made.sources, path.parent)
    body: dict[str, Any] = {"model": name, "stream": True}
    if len(names) > 1:
        raise Failed(f"{path}: more than one FROM names a model")
    if names:
        body["from"] = names[0]
    groups = {
        "files": files,
        "adapters": _files(made.adapters, path.parent),
        "draft_files": _files(made.drafts, path.parent),
    }
    for field, group in groups.items():
        if group:
            body[field] = {file.name: _uploaded(file, client, tell) for file in group}
    return {**body, **_fields(made), **({"quantize": quantize} if quantize else {})}


def is_path(name: str) -> bool:
    """Whether what is to be pulled is a file or a folder of this machine."""
    return name.startswith((".", "/", "~")) or (name.endswith(".gguf") and "/" not in name)


def pull_body(path: str, client: Client, *, tell: Callable[[str], None]) -> dict[str, Any]:
    """The body of ``/api/create`` for a GGUF file or a folder of its parts, once these are at the server.

    Raises:
        Failed: there is none, or it cannot be read.
    """
    files, _ = _sources([path], Path())
    name = re.sub(r"[^\w.-]", "-", Path(path).expanduser().resolve().name.removesuffix(".gguf"), flags=re.ASCII)
    tell(f"{path} becomes {name}")
    return {"model": name, "stream": True, "files": {file.name: _uploaded(file, client, tell) for file in files}}


def _fields(made: Modelfile) -> dict[str, Any]:
    told = {
        "template": made.template,
        "system": made.system,
        "license": list(made.licenses),
        "parameters": made.parameters,
        "messages": [{"role": message.role, "content": message.text} for message in made.messages],
        "requires": made.requires,
    }
    return {name: value for name, value in told.items() if value}


def _sources(given: Iterable[str], base: Path) -> tuple[list[Path], list[str]]:
    """The files and the models that ``FROM`` names."""
    files: list[Path] = []
    names: list[str] = []
    for source in given:
        path = base / Path(source).expanduser()
        if path.is_dir():
            found = sorted(path.glob("*.gguf"))
            if not found:
                raise Failed(f"{source} has no .gguf file; other formats are to be converted to GGUF first")
            files += found
        elif path.is_file():
            files.append(path)
        elif source.startswith((".", "/", "~")) or source.endswith(".gguf"):
            raise Failed(f"{source} is no file")
        else:
            names.append(source)
    return files, names


def _files(given: Iterable[str], base: Path) -> list[Path]:
    files = [base / Path(each).expanduser() for each in given]
    for file in files:
        if not file.is_file():
            raise Failed(f"{file} is no file")
    return files


def _uploaded(file: Path, client: Client, tell: Callable[[str], None]) -> str:
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise Failed(f"{file}: {error.strerror}") from error
    path = f"/api/blobs/sha256:{digest}"
    if not client.exists(path):
        tell(f"uploading {file.name}")
        client.upload(path, file)
    return f"sha256:{digest}"

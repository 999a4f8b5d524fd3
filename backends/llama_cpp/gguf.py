"""The head of a GGUF file: metadata and tensor table, read without llama.cpp and trusting nothing in it.

Every length is checked against the file's real size before it is used, so a truncated or hostile file is an error
after a bounded time, never a large allocation. Weights are not read.

Source of the format: the ``docs/gguf.md`` page of the ggml project, versions 2 and 3, little endian.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Raw, Struct, structs

from canonical.errors import BackendError
from canonical.models import Capability, ModelInfo

HEAD_LIMIT = 256 * 1024 * 1024
"""Bytes of metadata and tensor table; the largest vocabularies take some 20 MiB."""
STRING_LIMIT = 8 * 1024 * 1024
STRINGS = 16 * 1024 * 1024
"""Characters of all metadata that is kept, of which Python takes up to four bytes each; templates and licenses have under
a million. A number of a list counts as eight."""
PAIRS = 65_536
TENSORS = 100_000
ELEMENTS = 4_000_000
"""Strings in all arrays together: vocabularies and their merges have under a million."""
_LIST = 4_096
"""Longest array of integers that is kept (per-layer head counts); longer ones are only skipped."""
_CHUNK = 1024 * 1024

_INTEGERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
_SCALARS = {kind: struct.Struct(form) for kind, form in {**_INTEGERS, 6: "<f", 7: "<?", 12: "<d"}.items()}
STRING, ARRAY = 8, 9
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")

_FILE_TYPES = (
    "0 F32,1 F16,2 Q4_0,3 Q4_1,7 Q8_0,8 Q5_0,9 Q5_1,10 Q2_K,11 Q3_K_S,12 Q3_K_M,13 Q3_K_L,14 Q4_K_S,15 Q4_K_M,"
    "16 Q5_K_S,17 Q5_K_M,18 Q6_K,19 IQ2_XXS,20 IQ2_XS,21 Q2_K_S,22 IQ3_XS,23 IQ3_XXS,24 IQ1_S,25 IQ4_NL,26 IQ3_S,"
    "27 IQ3_M,28 IQ2_S,29 IQ2_M,30 IQ4_XS,31 IQ1_M,32 BF16,36 TQ1_0,37 TQ2_0,38 MXFP4"
)
_TENSOR_TYPES = (
    "0 F32,1 F16,2 Q4_0,3 Q4_1,6 Q5_0,7 Q5_1,8 Q8_0,9 Q8_1,10 Q2_K,11 Q3_K,12 Q4_K,13 Q5_K,14 Q6_K,15 Q8_K,"
    "16 IQ2_XXS,17 IQ2_XS,18 IQ3_XXS,19 IQ1_S,20 IQ4_NL,21 IQ3_S,22 IQ2_S,23 IQ4_XS,29 IQ1_M,30 BF16,34 TQ1_0,"
    "35 TQ2_0,39 MXFP4"
)


def _names(table: str) -> dict[int, str]:
    return {int(number): name for number, name in (row.split() for row in table.split(","))}


FILE_TYPES = _names(_FILE_TYPES)
TENSOR_TYPES = _names(_TENSOR_TYPES)

Value = int | float | bool | str | None


class BadGguf(BackendError):
    """The file is not a GGUF file that can be served."""

    code = "bad_model_file"


class Head(Struct, frozen=True, kw_only=True):
    """What a GGUF file says of itself."""

    metadata: dict[str, Value]
    """None stands for an array."""
    lists: dict[str, list[int]]
    """Short arrays of integers."""
    parameters: int
    """Numbers in all tensors."""
    tensor_type: str
    """The type that most of them have."""
    size: int
    """Bytes of the file."""
    modified: int
    """Epoch nanoseconds."""
    digest: str
    """SHA-256 of size, time of change and head: tells one version of a file from another. Not a checksum of the
    weights, which may be tens of gigabytes."""

    def text(self, key: str) -> str:
        """A string of the metadata, or empty."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int:
        """An integer of the metadata, the largest of a per-layer list, or 0. Never negative."""
        value = self.metadata.get(key)
        if isinstance(value, int):
            return max(value, 0)
        return max(self.lists.get(key, [0]), default=0)

    @property
    def family(self) -> str:
        """The architecture: ``llama``, ``qwen3``, ``bert``, ``clip``."""
        return self.text("general.architecture")

    @property
    def template(self) -> str:
        """The Jinja chat template, or empty."""
        return self.text("tokenizer.chat_template")

    def with_template(self, template: str) -> Head:
        """The same file, as if it had this template."""
        return structs.replace(self, metadata={**self.metadata, "tokenizer.chat_template": template})

    @property
    def context_length(self) -> int:
        """Tokens the model was made for, or 0."""
        return self.number(f"{self.family}.context_length")

    @property
    def is_projector(self) -> bool:
        """Whether this is the vision part of another model."""
        return self.family == "clip" or self.text("general.type") == "mmproj"

    @property
    def is_adapter(self) -> bool:
        """Whether this is laid over the weights of another model."""
        return self.text("general.type") == "adapter"

    @property
    def is_model(self) -> bool:
        """Whether this file is a model by itself: no projector, adapter or vocabulary."""
        return not self.is_projector and self.text("general.type") in {"", "model"} and self.parameters > 0

    def cache_bytes(self, tokens: int) -> int:
        """Memory of a key-value cache of 16-bit floats for so many tokens. Errs upwards."""
        family = self.family
        heads = self.number(f"{family}.attention.head_count")
        shared = self.number(f"{family}.attention.head_count_kv") or heads
        width = self.number(f"{family}.embedding_length") // heads if heads else 0
        keys = self.number(f"{family}.attention.key_length") or width
        values = self.number(f"{family}.attention.value_length") or width
        return 2 * tokens * self.number(f"{family}.block_count") * shared * (keys + values)


def read_head(path: Path) -> Head:
    """Read one file's head.

    Raises:
        BadGguf: not GGUF of version 2 or 3, truncated, or with figures that cannot be true.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        status = path.stat()
        reader = Reader(file, status.st_size)
        if reader.take(4) != b"GGUF":
            raise BadGguf(f"{path.name} is not a GGUF file")
        if reader.u32() not in {2, 3}:
            raise BadGguf(f"{path.name} is GGUF of another version than 2 and 3")
        tensors, pairs = reader.u64(), reader.u64()
        if pairs > PAIRS or tensors > TENSORS:
            raise BadGguf(f"{path.name} claims {pairs} metadata pairs and {tensors} tensors")
        metadata: dict[str, Value] = {}
        lists: dict[str, list[int]] = {}
        kept = 0
        for _ in range(pairs):
            key = reader.string()
            kind = reader.u32()
            if kind == ARRAY:
                metadata[key] = None
                values = reader.array()
                if values is not None:
                    lists[key] = values
                    kept += 8 * len(values)
            else:
                metadata[key] = value = reader.value(kind)
                kept += len(value) if isinstance(value, str) else 0
            kept += len(key)
            if kept > STRINGS:
                raise BadGguf(f"{path.name} has metadata of more than {STRINGS} characters")
        parameters, types = _tensors(reader, tensors)
        digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns} ".encode())
        digest.update(reader.seen())
    return Head(
        metadata=metadata,
        lists=lists,
        parameters=parameters,
        tensor_type=TENSOR_TYPES.get(types.most_common(1)[0][0], "") if types else "",
        size=status.st_size,
        modified=status.st_mtime_ns,
        digest=digest.hexdigest(),
    )


def _tensors(reader: Reader, count: int) -> tuple[int, Counter[int]]:
    parameters = 0
    types: Counter[int] = Counter()
    for _ in range(count):
        name = reader.string()
        dimensions = reader.u32()
        if not 0 < dimensions <= 4:
            raise BadGguf(f"tensor {name[:64]!r} has {dimensions} dimensions")
        elements = math.prod(reader.u64() for _ in range(dimensions))
        kind, offset = reader.u32(), reader.u64()
        # No type packs a number into less than a bit: a bound that needs no table of block sizes.
        if offset > reader.size or elements > reader.size * 8:
            raise BadGguf(f"tensor {name[:64]!r} does not fit into the file")
        parameters += elements
        types[kind] += elements
    return parameters, types


def model_info(id: str, head: Head, *, vision: bool = False) -> ModelInfo:
    """The catalog row of a model file; ``vision``: a projector goes with it."""
    name = FILE_TYPES.get(head.number("general.file_type")) if "general.file_type" in head.metadata else None
    return ModelInfo(
        id=id,
        capabilities=capabilities(head, vision=vision),
        modified=head.modified,
        size=head.size,
        digest=head.digest,
        format="gguf",
        family=head.family,
        parameter_count=head.parameters,
        quantization=name or head.tensor_type,
        context_length=head.context_length,
        embedding_length=head.number(f"{head.family}.embedding_length"),
    )


def capabilities(head: Head, *, vision: bool = False) -> frozenset[Capability]:
    """What the file's metadata says the model can do."""
    pooling = head.metadata.get(f"{head.family}.pooling_type")
    if pooling == 4:
        return frozenset({Capability.RERANK})
    if pooling in {1, 2, 3} or "bert" in head.family:
        return frozenset({Capability.EMBED})
    found = {Capability.COMPLETE}
    template = head.template
    if template:
        found.add(Capability.CHAT)
        if "tools" in template:
            found.add(Capability.TOOLS)
        if "enable_thinking" in template or "<think>" in template or "reasoning_content" in template:
            found.add(Capability.REASONING)
        if vision:
            found.add(Capability.VISION)
    # Beside a projector the engine takes prompts as text only, and a gap is told by token ids.
    if Capability.VISION not in found and any(
        f"tokenizer.ggml.{name}_token_id" in head.metadata for name in ("fim_pre", "prefix")
    ):
        found.add(Capability.INSERT)
    return frozenset(found)


def metadata_json(head: Head) -> dict[str, Raw]:
    """The metadata as JSON values: arrays and numbers that JSON does not have are null."""
    values = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in head.metadata.items()
    }
    return {key: Raw(msgspec.json.encode(value)) for key, value in values.items()}


class Reader:
    """Bytes from the front of a file, read in chunks and never past its size or ``HEAD_LIMIT``."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.size = size
        self.at = 0
        """Where the next byte is; all before it can be gone back to."""
        self._file = file
        self._data = bytearray()
        self._elements = 0

    def seen(self) -> memoryview:
        """All that was taken or passed."""
        return memoryview(self._data)[: self.at]

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        at = self._skip(count)
        return bytes(self._data[at : self.at])

    def u32(self) -> int:
        """A number of 32 bits."""
        return int(_U32.unpack_from(self._data, self._skip(4))[0])

    def u64(self) -> int:
        """A number of 64 bits."""
        return int(_U64.unpack_from(self._data, self._skip(8))[0])

    def string(self) -> str:
        """A string, its length before it."""
        length = self.u64()
        if length > STRING_LIMIT:
            raise BadGguf(f"the file has a string of {length} bytes")
        return self.take(length).decode(errors="replace")

    def value(self, kind: int) -> int | float | bool | str:
        """A scalar of one of the format's types."""
        if kind == STRING:
            return self.string()
        scalar = _SCALARS.get(kind)
        if scalar is None:
            raise BadGguf(f"the file has metadata of the unknown type {kind}")
        value: int | float | bool = scalar.unpack_from(self._data, self._skip(scalar.size))[0]
        return value

    def array(self) -> list[int] | None:
        """Pass an array; its values if it is a short one of integers."""
        kind, count = self.u32(), self.u64()
        at = self.leave(kind, count)
        if count > _LIST or kind not in _INTEGERS:
            return None
        return [row[0] for row in _SCALARS[kind].iter_unpack(bytes(self._data[at : self.at]))]

    def leave(self, kind: int, count: int) -> int:
        """Pass the values of an array; where they begin."""
        at = self.at
        if kind == STRING:
            self._elements += count
            if self._elements > ELEMENTS:
                raise BadGguf(f"the file has arrays of more than {ELEMENTS} strings")
            for _ in range(count):
                self._skip(self.u64())
            return at
        scalar = _SCALARS.get(kind)
        if scalar is None:
            raise BadGguf(f"the file has an array of the unsupported type {kind}")
        return self._skip(count * scalar.size)

    def _skip(self, count: int) -> int:
        """Make the next ``count`` bytes ready and pass them; where they begin."""
        at, end = self.at, self.at + count
        if end > len(self._data):
            if end > self.size:
                raise BadGguf("the file ends inside its head: is it a partial download?")
            if end > HEAD_LIMIT:
                raise BadGguf(f"the file's head has more than {HEAD_LIMIT} bytes")
            while len(self._data) < end:
                chunk = self._file.read(max(_CHUNK, end - len(self._data)))
                if not chunk:
                    raise BadGguf("the file became shorter while it was read")
                self._data += chunk
        self.at = end
        return at

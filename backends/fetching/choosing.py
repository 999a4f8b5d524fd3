"""Which files of a Hugging Face repository a name means: ``hf.co/org/repo:Q4_K_M``. Pure.

Repositories hold one model in many quantizations, large ones in parts (``x-00001-of-00003.gguf``), and what sees beside
them (``mmproj-F16.gguf``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from canonical.errors import InvalidRequest, ModelNotFound, Unsupported

# fmt: off
PREFERRED = (
    "Q4_K_M", "Q4_K_XL", "Q4_K_L", "Q4_K_S", "Q4_K", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_1", "MXFP4", "MXFP4_MOE",
    "Q5_K_M", "Q5_K_XL", "Q5_K_L", "Q5_K_S", "Q5_0", "Q5_1", "Q6_K", "Q6_K_XL", "Q6_K_L", "Q8_0", "Q8_K_XL",
    "Q3_K_L", "Q3_K_M", "Q3_K_XL", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS", "Q2_K", "Q2_K_L", "Q2_K_XL",
    "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "F16", "BF16", "F32",
)
# fmt: on
"""What is taken where the name says nothing."""
_PROJECTORS = ("F16", "FP16", "BF16", "Q8_0", "F32", "FP32")
_NAMED = 40
"""Choices that an error lists."""

_PART = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.gguf", re.IGNORECASE)
_LABEL = re.compile(
    r"(?:^|[-._/ ])((?:UD-)?(?:I?Q[1-9](?:_[0-9A-Z]+)*|TQ[12]_0|MXFP4(?:_MOE)?|BF16|FP?16|FP?32))(?=$|[-._/ ])",
    re.IGNORECASE,
)


class File(Struct, frozen=True):
    """One file of a repository."""

    path: str
    size: int
    digest: str
    """``sha256:<64 hex>``; empty: the repository does not tell."""

    @property
    def name(self) -> str:
        """Without the folder."""
        return self.path.rpartition("/")[2]


class Choice(Struct, frozen=True):
    """One quantization of one model."""

    label: str
    """``Q4_K_M``; empty: its name does not say."""
    files: tuple[File, ...]
    """All its parts, in order."""

    @property
    def name(self) -> str:
        """Of the first file."""
        return self.files[0].path


def choose(files: Iterable[File], tag: str, repo: str) -> tuple[Choice, File | None]:
    """The files of ``repo:tag``, and the projector that goes with them. ``latest``: whichever is best.

    Raises:
        ModelNotFound: the repository has no such thing.
        InvalidRequest: it has several. Either lists what there is.
    """
    weights = [file for file in files if file.name.lower().endswith(".gguf") and "imatrix" not in file.name.lower()]
    projectors = [file for file in weights if "mmproj" in file.name.lower()]
    choices = group([file for file in weights if file not in projectors])
    if not choices:
        raise Unsupported(f"{repo} has no model in GGUF form, the only one that is served here", param="model")
    found = _default(choices) if tag.lower() == "latest" else _named(choices, tag)
    if len(found) > 1:
        raise InvalidRequest(f"{repo} has several models that {tag!r} may mean: {_list(found)}", param="model")
    if not found:
        raise ModelNotFound(f"{repo} has no {tag!r}; there are: {_list(choices)}", param="model")
    return found[0], _projector(projectors, found[0])


def group(files: Sequence[File]) -> list[Choice]:
    """Files as models: parts belong together, and only all of them are one."""
    whole: dict[str, dict[int, File]] = {}
    counts: dict[str, int] = {}
    choices = []
    for file in sorted(files, key=lambda file: file.path):
        part = _PART.fullmatch(file.path)
        if part is None:
            choices.append(Choice(label(file.path.removesuffix(".gguf")), (file,)))
        else:
            key = f"{part[1]}-{part[3]}"
            counts[key] = int(part[3])
            whole.setdefault(key, {})[int(part[2])] = file
    for key, parts in whole.items():
        if sorted(parts) == list(range(1, counts[key] + 1)):
            choices.append(Choice(label(key.rpartition("-")[0]), tuple(parts[number] for number in sorted(parts))))
    return choices


def label(path: str) -> str:
    """The quantization that a path tells of: its file's name, or else the folder's."""
    for piece in reversed(path.split("/")):
        if found := _LABEL.findall(piece):
            return str(found[-1]).upper()
    return ""


def _named(choices: list[Choice], tag: str) -> list[Choice]:
    want = tag.lower()
    for same in (
        lambda choice: want in _names(choice),
        lambda choice: choice.label.lower() == want,
        lambda choice: choice.label.lower().removeprefix("ud-") == want,
    ):
        if found := [choice for choice in choices if same(choice)]:
            return found
    return []


def _names(choice: Choice) -> set[str]:
    name = choice.files[0].name.lower()
    return {choice.name.lower(), name, name.removesuffix(".gguf")}


def _default(choices: list[Choice]) -> list[Choice]:
    if len(choices) == 1:
        return choices
    for wanted in PREFERRED:
        for prefix in ("", "UD-"):
            if found := [choice for choice in choices if choice.label == f"{prefix}{wanted}"]:
                return found
    return choices


def _projector(projectors: list[File], choice: Choice) -> File | None:
    """The one in the model's own folder or above it, as exact as there is without being larger than need be."""
    folder = choice.name.rpartition("/")[0]
    near = [file for file in projectors if file.path.rpartition("/")[0] == folder] or [
        file for file in projectors if "/" not in file.path
    ]
    if not near:
        return None
    labels = {file: label(file.path.removesuffix(".gguf")) for file in near}
    rank = {name: place for place, name in enumerate(_PROJECTORS)}
    return min(near, key=lambda file: (rank.get(labels[file], len(rank)), file.path))


def _list(choices: Iterable[Choice]) -> str:
    names = sorted({choice.label for choice in choices})
    if "" in names or len(names) < len(list(choices)):
        names = sorted({choice.files[0].name for choice in choices})
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

"""What is asked of a model that paints: everything that the picture depends on. Optional values are None where nothing was said."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from msgspec import Struct, structs

from canonical.errors import InvalidRequest
from canonical.media import Blob, image_size

LORAS = 4
"""Adapters in one stack."""
PICTURES = 10
"""Pictures of one request."""
STEPS = 500
GUIDANCE = 100.0
WEIGHT = 10.0
"""Of an adapter, either way."""
MULTIPLE = 8
"""Of pixels, that each side must be: what one number of the latent picture stands for."""
SIDE = (16, 8192)
"""Pixels that a side may have; how many a model paints is for its backend to say."""
SEED = 2**32 - 1
"""The largest; A1111's are as wide."""
GIVEN = 40_000_000
"""Pixels of a picture that one begins with: it is made as small as what is painted, and whole it takes half a gigabyte."""
PROMPT = 10_000
"""Characters of a prompt."""


class Lora(Struct, frozen=True):
    """An adapter laid over the weights, LoRA or LyCORIS. ``weight`` None: its own default; 0: as if it were not there."""

    name: str
    weight: float | None = None


class Paint(Struct, frozen=True, kw_only=True):
    """Ask for pictures. The same one, complete, gives the same bytes again on the same device."""

    prompt: str
    model: str = ""
    negative_prompt: str = ""
    loras: tuple[Lora, ...] = ()
    """Their order means nothing."""
    steps: int | None = None
    guidance_scale: float | None = None
    """How closely to follow the prompt (CFG); 1 or less: without looking at the negative one."""
    guidance_rescale: float | None = None
    seed: int | None = None
    """0 to ``SEED``; None: a random one, which the answer tells."""
    width: int | None = None
    height: int | None = None
    sampler: str | None = None
    clip_skip: int | None = None
    """As A1111 counts: 1 is the text encoder's last layer, 2 the one before, which SDXL takes by itself."""
    image: Blob | None = None
    """What it starts from; None: noise alone."""
    mask: Blob | None = None
    """What of ``image`` is painted anew: where it is white."""
    mask_alpha: bool = False
    """It is painted anew where ``mask`` is transparent instead; one that cannot be counts by its white all the same."""
    mask_invert: bool = False
    """The other way round: what of it would be painted anew stays, and what would stay is painted anew."""
    strength: float | None = None
    """How much of ``image`` is given up, above 0 to 1."""
    reference: Blob | None = None
    """A picture to take after, through an IP-Adapter."""
    reference_scale: float | None = None
    """How much, 0 to 1."""
    n: int = 1
    """How many; each has the seed of the one before plus 1, and is what it would be alone."""
    previews: int = 0
    """Half-finished pictures wanted on the way of each, at even distances."""

    @property
    def complete(self) -> bool:
        """Whether nothing is left open that every picture has."""
        return None not in {self.steps, self.guidance_scale, self.seed, self.width, self.height, self.sampler}


class LoraInfo(Struct, frozen=True, kw_only=True):
    """An adapter that there is."""

    id: str
    title: str = ""
    """For people; empty: the id."""
    default_weight: float = 1.0
    trigger_words: tuple[str, ...] | None = None
    """What a prompt has to say for it to show; None: not known."""
    kind: str = "lora"
    """``lora``, or the LyCORIS algorithm: ``loha``, ``lokr`` ..."""


class Offer(Struct, frozen=True, kw_only=True):
    """What a painting model lets one choose, and what it takes where nothing is said."""

    preset: Paint
    samplers: tuple[str, ...] = ()
    loras: tuple[LoraInfo, ...] = ()
    max_pixels: int = 0
    """Of one picture; 0: not known."""
    references: bool = False
    """Whether it has an IP-Adapter."""


class Step(Struct, frozen=True, kw_only=True):
    """One step of one picture is done: ``done`` of ``total``, of picture number ``index`` from 0."""

    done: int
    total: int
    index: int = 0
    preview: Blob | None = None


class Painted(Struct, frozen=True, kw_only=True):
    """A finished picture. ``made`` is what it was made from, complete, of this one alone: its seed, and ``n`` 1."""

    image: Blob
    made: Paint
    index: int = 0
    warnings: tuple[str, ...] = ()
    """What was asked and could not be wholly done, such as a prompt that is longer than the model reads."""


def alone(request: Paint, index: int) -> Paint:
    """What picture number ``index`` of a complete request is made from: the same picture, asked for by itself."""
    assert request.seed is not None
    return structs.replace(request, seed=(request.seed + index) % (SEED + 1), n=1, previews=0)


def check_paint(request: Paint) -> None:
    """Refuse what no model can paint, before anything is begun.

    Raises:
        InvalidRequest: it names the field.
    """
    for name in ("prompt", "negative_prompt"):
        if len(getattr(request, name)) > PROMPT:
            raise InvalidRequest(f"{name} may have at most {PROMPT} characters", param=name)
    if len(request.loras) > LORAS:
        raise InvalidRequest(f"at most {LORAS} LoRAs at once, not {len(request.loras)}", param="loras")
    names = [lora.name for lora in request.loras]
    if len(set(names)) < len(names):
        raise InvalidRequest("a LoRA stands twice", param="loras")
    for lora in request.loras:
        _within("the weight of a LoRA", lora.weight, -WEIGHT, WEIGHT, "loras")
    _within("steps", request.steps, 1, STEPS)
    _within("guidance_scale", request.guidance_scale, 0, GUIDANCE)
    _within("guidance_rescale", request.guidance_rescale, 0, 1)
    _within("seed", request.seed, 0, SEED)
    _within("clip_skip", request.clip_skip, 1, 12)
    _within("n", request.n, 1, PICTURES)
    _within("reference_scale", request.reference_scale, 0, 1)
    for name in ("width", "height"):
        side = getattr(request, name)
        _within(name, side, *SIDE)
        if side is not None and side % MULTIPLE:
            raise InvalidRequest(f"{name} must be a multiple of {MULTIPLE}, not {side}", param=name)
    _within("strength", request.strength, 0, 1)
    if request.strength == 0:
        raise InvalidRequest("strength must be above 0: with 0 there is nothing to paint", param="strength")
    for name in ("image", "mask", "reference"):
        given = getattr(request, name)
        width, height = (0, 0) if given is None else image_size(given.data)
        if width * height > GIVEN:
            raise InvalidRequest(f"{name} may have at most {GIVEN} pixels, not {width} x {height}", param=name)
    if request.mask is not None and request.image is None:
        raise InvalidRequest("a mask needs the image that it belongs to", param="mask")


def _within(what: str, value: float | None, least: float, most: float, param: str = "") -> None:
    if value is not None and not least <= value <= most:
        shown = [str(one) if isinstance(one, int) else f"{one:g}" for one in (least, most, value)]
        raise InvalidRequest(f"{what} must be from {shown[0]} to {shown[1]}, not {shown[2]}", param=param or what)


def nearest(name: str, names: Iterable[str]) -> str:
    """Words that tell which of ``names`` may have been meant; empty: none is near and there are none to list."""
    known = sorted(names)
    folded = {one.casefold(): one for one in known}
    near = [folded[one] for one in get_close_matches(name.casefold()[:200], folded, n=3, cutoff=0.5)]
    if near:
        return f"; did you mean {' or '.join(repr(one) for one in near)}?"
    few = ", ".join(known[:8])
    return f"; there {'is' if len(known) == 1 else 'are'} {few}{', ...' if len(known) > 8 else ''}" if known else ""

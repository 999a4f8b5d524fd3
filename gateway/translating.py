"""Text in another language: by one model, or by two by way of a third language. Which, is decided here, and said in the reply.

``ways`` is pure: the catalog is handed in. Each model is leased for as long as it works and no longer, so that two need
not be in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from msgspec import Struct, structs

from backends.base import Detects, Translates
from canonical.errors import InvalidRequest, NoModelLoaded, NotImplementedHere, Unsupported
from canonical.languages import code_of, meant, name_of
from canonical.models import Capability, ModelInfo
from canonical.translation import Guess, Translate, Translation
from gateway.engine import Engine

AUTO = "auto"
"""The source of texts whose language is to be found out."""
TEXTS = 20_000
"""Texts in one request."""
ALTERNATIVES = 8
"""Other ways of saying a text that may be asked for."""
FAVOURITE = "en"
"""By way of which language, where there are several: there are most models for it, and the best."""
SURE = 0.6
"""From which share on a language is believed that no model here knows."""
SAMPLE = 5_000
"""Characters of all texts together by which their language is told."""
LOOKED = 100_000
"""Characters among which they are looked for: tens of millions may come, and none of them be a letter."""
_NONE = "no model here translates: a backend of type marian does, with `pip install 'dragoman[translation]'` (README: Translation)"


class Hop(Struct, frozen=True):
    """One model's part of the way."""

    source: str
    target: str
    model: str


class Ways:
    """What can be translated into what."""

    def __init__(self, direct: dict[tuple[str, str], ModelInfo]) -> None:
        self.direct = direct
        """The model for each pair: of several the one that has fewest pairs, and so knows these best."""
        self.codes = tuple(sorted({code for pair in direct for code in pair}))
        """All languages, in the order of their codes."""
        self._into: dict[str, list[str]] = {}
        for source, target in sorted(direct):
            self._into.setdefault(source, []).append(target)
        self.sources = tuple(self._into)
        """Those that are translated from."""

    def ends(self, source: str) -> dict[str, str]:
        """What ``source`` is translated into, and by way of which language; empty: at once."""
        near = self._into.get(source, [])
        found = dict.fromkeys(near, "")
        for middle in sorted(near, key=lambda code: (code != FAVOURITE, code)):
            if len(found) == len(self.codes) - 1:
                break
            for end in self._into.get(middle, []):
                if end != source:
                    found.setdefault(end, middle)
        return found

    def find(self, source: str, target: str) -> tuple[Hop, ...]:
        """The models, in their order; none where there is no way."""
        middle = self.ends(source).get(target)
        if middle is None:
            return ()
        pairs = [(source, middle), (middle, target)] if middle else [(source, target)]
        return tuple(Hop(start, end, self.direct[start, end].id) for start, end in pairs)


def ways(rows: Iterable[ModelInfo], *, broken: bool = False) -> Ways:
    """Of all models of the catalog; those that cannot be loaded only where they are ``broken`` ones that are wanted."""
    return _ways(tuple(row for row in rows if broken or not row.trouble))


@lru_cache(8)
def _ways(rows: tuple[ModelInfo, ...]) -> Ways:
    """Made once for each state of the catalog: a model may have thousands of pairs."""
    direct: dict[tuple[str, str], ModelInfo] = {}
    for row in sorted(rows, key=lambda row: (bool(row.trouble), len(row.pairs))):
        for pair in row.pairs:
            direct.setdefault(pair, row)
    return Ways(direct)


async def ways_of(engine: Engine) -> Ways:
    """As of now."""
    return ways(await _rows(engine))


async def translated(engine: Engine, request: Translate) -> Translation:
    """Each text in the other language.

    Raises:
        InvalidRequest: a language that is not known here, no way from one to the other, too much text.
        NotImplementedHere: no model here translates.
        GatewayError: a model fails.
    """
    _check(request, engine.characters)
    only = (await engine.model(request.model)).id if request.model else ""
    rows = [row for row in await _rows(engine) if not only or row.id == only]
    every = ways(rows, broken=True)
    if only and not rows:
        raise Unsupported(f'"{request.model}" does not support translate', param="model")
    if not every.codes:
        raise NotImplementedHere(_NONE)
    target = _known(request.target, every.codes, param="target")
    sure = 1.0
    if request.source.strip().lower() == AUTO:
        source, sure = await _found_out(engine, request.texts, every)
    else:
        source = _known(request.source, every.codes, param="source")
    answer = Translation(
        texts=request.texts, alternatives=((),) * len(request.texts), source=source, target=target, sure=sure
    )
    if source == target or not any(map(has_letters, request.texts)):
        return answer
    hops = ways(rows).find(source, target)
    if not hops:
        raise _no_way(source, target, every)
    for hop in hops:
        last = hop is hops[-1]
        said = await _asked(engine, hop, answer.texts, request.alternatives if last else 0)
        answer = structs.replace(
            answer,
            texts=tuple(one[0] for one in said),
            alternatives=tuple(tuple(one[1 : request.alternatives + 1]) for one in said),
            models=(*answer.models, hop.model),
            via=answer.via if last else (hop.target,),
        )
    return answer


async def detected(engine: Engine, texts: Sequence[str]) -> list[Guess]:
    """Which languages the texts may be in, the likeliest first; none where there is nothing to tell by."""
    return await _guesses(engine, texts, (await ways_of(engine)).codes)


def has_letters(text: str) -> bool:
    """Whether there is anything in it that could be said in another language."""
    return any(map(str.isalpha, text))


def sample(texts: Iterable[str]) -> list[str]:
    """The first letters of them, with all that stands among these; none where there are none near the beginning."""
    found, left, looked = [], SAMPLE, 0
    for text in texts:
        if left <= 0 or looked >= LOOKED:
            break
        near = text[: LOOKED - looked]
        looked += len(near) + 1
        if has_letters(near):
            found.append(near[:left])
            left -= len(near)
    return found


async def _asked(engine: Engine, hop: Hop, texts: tuple[str, ...], alternatives: int) -> Sequence[Sequence[str]]:
    async with engine.leases.held(hop.model, Capability.TRANSLATE) as model:
        if not isinstance(model, Translates):
            raise Unsupported(f'"{hop.model}" does not support translate', param="model")
        return await model.translate(
            Translate(texts=texts, source=hop.source, target=hop.target, model=hop.model, alternatives=alternatives)
        )


async def _guesses(engine: Engine, texts: Sequence[str], known: Sequence[str]) -> list[Guess]:
    told = sample(texts)
    if not told:
        return []
    try:
        async with engine.leases.held("", Capability.DETECT) as model:
            if not isinstance(model, Detects):
                raise Unsupported(f'"{model.info.id}" does not support detect', param="model")
            guesses = await model.detect("\n".join(told))
    except NoModelLoaded as error:
        raise NotImplementedHere(_NONE) from error
    if guesses[0].share >= SURE:
        return list(guesses)
    # A word or two may be of any language: then of one that is known here.
    here = [guess for guess in guesses if meant(guess.language, known)]
    total = sum(guess.share for guess in here)
    return [Guess(guess.language, guess.share / total) for guess in here] if total else list(guesses)


async def _found_out(engine: Engine, texts: Sequence[str], every: Ways) -> tuple[str, float]:
    guesses = await _guesses(engine, texts, every.codes)
    if not guesses:
        return (FAVOURITE if FAVOURITE in every.codes else every.codes[0]), 0.0
    code = meant(guesses[0].language, every.codes)
    if not code:
        language = guesses[0].language
        raise InvalidRequest(
            f"the text seems to be in {name_of(language)} ({language}), which nothing here translates; {_list(every.codes)}",
            param="source",
        )
    return code, guesses[0].share


async def _rows(engine: Engine) -> Sequence[ModelInfo]:
    return [row for row in await engine.models(able={Capability.TRANSLATE}) if row.pairs]


def _check(request: Translate, characters: int) -> None:
    if len(request.texts) > TEXTS:
        raise InvalidRequest(f"at most {TEXTS} texts are translated at once", param="text")
    if sum(map(len, request.texts)) > characters:
        raise InvalidRequest(f"at most {characters} characters are translated at once", param="text")
    if not 0 <= request.alternatives <= ALTERNATIVES:
        raise InvalidRequest(f"alternatives must be 0 to {ALTERNATIVES}", param="alternatives")


def _known(asked: str, codes: Sequence[str], *, param: str) -> str:
    code = meant(asked, codes)
    if not code:
        shown = code_of(asked) or asked[:35]
        raise InvalidRequest(f"the language {shown!r} is not known here; {_list(codes)}", param=param)
    return code


def _no_way(source: str, target: str, every: Ways) -> InvalidRequest:
    broken = next((every.direct[hop.source, hop.target] for hop in every.find(source, target)), None)
    words = f"no model here translates {name_of(source)} ({source}) into {name_of(target)} ({target})"
    if broken is not None and broken.trouble:
        return Unsupported(f"{words}: of {broken.id!r}, {broken.trouble}", param="target")
    there = ", ".join(sorted(every.ends(source))) or "nothing"
    return Unsupported(f"{words}; what it is translated into: {there}", param="target")


def _list(codes: Sequence[str]) -> str:
    return f"known are: {', '.join(codes)}"

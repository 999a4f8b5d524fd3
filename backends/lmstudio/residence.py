"""Who holds which instance in LM Studio's memory. Its user loads models there, too: theirs are used as they are, and stay.

One load a model at a time, as LM Studio would make ``model:2`` of a second one. What was loaded for us is unloaded when its
last holder leaves. A holder that was not seen for a while is looked for, and loaded again if it has gone: LM Studio was
started anew, its idle time was over, its user threw it out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from adapters.lmstudio.call import Listed, Resident
from backends.base import Tell, tell_nobody
from backends.lmstudio.lists import Found, Lists, find
from backends.lmstudio.loads import Loads, NoWay, Owned
from backends.lmstudio.settings import Loading
from canonical.errors import BackendTimeout, BackendUnavailable, GatewayError, ModelNotFound
from canonical.requests import LoadOptions

SEEN = 5.0
"""Seconds for which an instance that was seen is taken to be there."""
UNLOAD_TIME = 5.0
"""Seconds that an unload may take: who closes must not hang with LM Studio."""

logger = logging.getLogger("dragoman.lmstudio")


class Hold(Struct, kw_only=True, eq=False):
    """One handle's claim on an instance."""

    name: str
    """By which the model was asked for."""
    config: Loading
    listed: Listed
    id: str
    """What requests call it."""
    context: int = 0
    """Tokens that it has; 0: not known."""
    seen: float = 0.0
    """Loop time."""
    counted: bool = False
    """Among the instance's holders."""


class Residence:
    """The memory of one LM Studio, as far as we have a part in it."""

    def __init__(self, name: str, lists: Lists, ways: Sequence[Loads], *, ttl: float | None) -> None:
        """``ways`` to load, the best first; ``ttl``: seconds of idle time that loaded instances get."""
        self._name, self._lists, self._ways, self._ttl = name, lists, ways, ttl
        self._owned: dict[str, Owned] = {}
        self._holders: Counter[str] = Counter()
        self._locks: dict[str, asyncio.Lock] = {}
        self._missed: frozenset[str] = frozenset()

    async def take(self, name: str, config: Loading, tell: Tell) -> Hold:
        """A hold on an instance of the model, loaded if there is none that does.

        Raises:
            ModelNotFound, BackendError.
        """
        found = await self._found(name)
        hold = Hold(name=name, config=config, listed=found.listed, id=name)
        if found.listed.residents is not None:
            async with self._lock(hold):
                await self._settle(hold, await self._found(name), tell)
        return hold

    async def check(self, hold: Hold) -> None:
        """See to it that the instance is there, unless it was seen a moment ago. A server that is down tells so later."""
        if hold.listed.residents is None or asyncio.get_running_loop().time() - hold.seen < SEEN:
            return
        try:
            await self.renew(hold)
        except BackendUnavailable:
            logger.debug("backend %s cannot be asked for its models", self._name)

    async def renew(self, hold: Hold) -> bool:
        """Load the instance again if it has gone; whether it had. Raises as ``take``."""
        if hold.listed.residents is None:
            return False
        async with self._lock(hold):
            rows = await self._lists.ask()
            resident = _resident(rows, hold.id)
            if resident is not None:
                self._see(hold, resident)
                return False
            logger.info("%s has gone from the memory of backend %s: it is loaded again", hold.id, self._name)
            self._let_go(hold)
            self._owned.pop(hold.id, None)
            await self._settle(hold, self._named(rows, hold.name), tell_nobody)
            return True

    async def leave(self, hold: Hold) -> None:
        """Give up a hold; what was loaded for us goes with the last one."""
        if hold.listed.residents is None:
            return
        async with self._lock(hold):
            self._let_go(hold)
            if not self._holders[hold.id] and hold.id in self._owned:
                await self._unload(self._owned.pop(hold.id))

    async def free(self, name: str) -> bool:
        """Unload what ``name`` means, an instance or all of a model, whoever loaded it, but for what a handle of ours holds.

        False: there was nothing. Raises ModelNotFound, BackendError.
        """
        found = find(await self._lists.ask(), name)
        if found is None:
            return False
        async with self._locks.setdefault(
            found.listed.info.id, asyncio.Lock()
        ):  # a load under way has its holder first
            found = await self._found(name)
            residents = found.listed.residents or ()
            if found.resident is not None and found.resident.id == name:
                residents = (found.resident,)
            going = [one for one in residents if not self.holds(one.id)]
            for one in going:
                self._owned.pop(one.id, None)
                await self._let(Owned(one.id, found.listed.embeds))
        return bool(going)

    def load_of(self, hold: Hold) -> LoadOptions:
        """How the instance is loaded, as far as that is known."""
        batch = hold.config.batch if hold.id in self._owned and not hold.listed.embeds else None
        return LoadOptions(context=hold.context or None, batch=batch)

    def look(self, rows: Sequence[Listed]) -> None:
        """Note which instances that handles of ours hold are not there any more: their next request loads them again."""
        present = {one.id for row in rows for one in row.residents or ()}
        told = any(row.residents is not None for row in rows)
        self._missed = frozenset(id for id in self._holders if id not in present) if told else frozenset()

    def misses(self, hold: Hold) -> bool:
        """Whether the instance was not there when it was last looked for."""
        return hold.id in self._missed

    def holds(self, id: str) -> bool:
        """Whether a handle of ours has this instance."""
        return id in self._holders

    def _lock(self, hold: Hold) -> asyncio.Lock:
        return self._locks.setdefault(hold.listed.info.id, asyncio.Lock())

    async def _found(self, name: str) -> Found:
        return self._named(await self._lists.ask(), name)

    def _named(self, rows: list[Listed], name: str) -> Found:
        found = find(rows, name)
        if found is None:
            raise ModelNotFound(f"model '{name}' not found", param="model")
        return found

    async def _settle(self, hold: Hold, found: Found, tell: Tell) -> None:
        """Give ``hold`` an instance: the one that is there, or a new one.

        What is there is its user's, or held by another handle of ours: neither is pulled away from under who has it.
        """
        resident = found.resident
        if resident is not None and not _enough(resident, hold.config, found.listed):
            words = "%s is in the memory of backend %s with %d tokens of context; it is used as it is"
            logger.info(words, resident.id, self._name, resident.context)
        if resident is None:
            resident = await self._loaded(hold, found.listed, tell)
        hold.listed = found.listed
        self._see(hold, resident)
        self._holders[resident.id] += 1
        hold.counted = True

    async def _loaded(self, hold: Hold, listed: Listed, tell: Tell) -> Resident:
        try:
            owned = await self._load(listed, hold.config, tell)
        except BackendUnavailable:
            # It may have been started anew in the middle of the load: nothing of that is left there.
            if (found := await self._found(hold.name)).resident is not None:
                return found.resident
            owned = await self._load(listed, hold.config, tell)
        try:
            rows = await self._lists.ask()
        except BaseException:
            await self._unload(owned)
            raise
        if owned.id != listed.info.id and (other := _resident(rows, listed.info.id)) is not None:
            # Somebody else's load of it came first.
            await self._unload(owned)
            return other
        self._owned[owned.id] = owned
        # The context may have become less than was asked for.
        return _resident(rows, owned.id) or Resident(owned.id)

    async def _load(self, listed: Listed, config: Loading, tell: Tell) -> Owned:
        for way in self._ways[:-1]:
            try:
                return await way.load(listed, config, self._ttl, tell)
            except NoWay as error:
                logger.warning("backend %s: %s", self._name, error.message)
        return await self._ways[-1].load(listed, config, self._ttl, tell)

    async def _unload(self, owned: Owned) -> None:
        try:
            await self._let(owned)
        except GatewayError as error:
            # Its idle time will end it, or the server has ended already.
            logger.info("backend %s did not unload %s: %s", self._name, owned.id, error)

    async def _let(self, owned: Owned) -> None:
        """Unload an instance. Raises BackendError."""
        for way in self._ways:
            try:
                async with asyncio.timeout(UNLOAD_TIME):
                    await way.unload(owned)
            except NoWay:
                continue
            except TimeoutError:
                raise BackendTimeout(f"backend {self._name!r} did not unload {owned.id!r} in time") from None
            return

    def _see(self, hold: Hold, resident: Resident) -> None:
        hold.id, hold.context, hold.seen = resident.id, resident.context, asyncio.get_running_loop().time()
        self._missed -= {hold.id}

    def _let_go(self, hold: Hold) -> None:
        if hold.counted:
            hold.counted = False
            self._holders[hold.id] -= 1
            if not self._holders[hold.id]:
                del self._holders[hold.id]


def _resident(rows: list[Listed], id: str) -> Resident | None:
    return next((one for row in rows for one in row.residents or () if one.id == id), None)


def _enough(resident: Resident, config: Loading, listed: Listed) -> bool:
    """Whether an instance has the context that is wanted, as far as its model can have it."""
    wanted = config.context or 0
    most = listed.info.context_length or wanted
    return not resident.context or resident.context >= min(wanted, most)

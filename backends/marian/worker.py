"""A worker process of one Marian model: ``python -m backends.marian.worker``. It converts the model where nobody has yet."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from backends.marian import asking, cache
from backends.marian.asking import Orders
from backends.marian.converting import convert
from backends.marian.folders import Folder, read_folder
from backends.marian.settings import kind_of
from backends.marian.translator import Stopped, Translator
from backends.workers import desk
from backends.workers.desk import Emit, Far, Serve


class NotKept(Exception):
    """A converted model finds no room."""


class Missing(Exception):
    """The model has just been removed."""


def load(start: bytes, far: Far) -> Serve:
    """See ``desk.Load``."""
    orders = asking.read_orders(start)
    folder = read_folder(Path(orders.root), orders.name, orders.sources)
    if folder is None:
        raise Missing("it is no longer there")
    if folder.trouble:
        raise ValueError(folder.trouble)
    translator = _translator(folder, orders, far)

    def serve(kind: str, body: bytes, emit: Emit) -> None:
        assert kind == "translate", kind
        try:
            said = translator.translate(asking.read_work(body), partial(emit, b""))
        except Stopped:
            return
        emit(asking.write(said))

    return serve


def _translator(folder: Folder, orders: Orders, far: Far) -> Translator:
    kind = kind_of(orders.compute_type)
    where = cache.place(Path(orders.cache), folder.name, kind, folder.key)
    make = partial(
        Translator, folder, where, compute_type=orders.compute_type, beam=orders.beam, threads=orders.threads
    )
    _made(folder, kind, where)
    far(0.5)
    try:
        return make()
    except (RuntimeError, ValueError):  # what is kept is damaged: it is made again, once
        _made(folder, kind, where, anew=True)
        return make()


def _made(folder: Folder, kind: str, where: Path, *, anew: bool = False) -> None:
    try:
        cache.made(where, partial(convert, folder, kind), anew=anew)
    except OSError as error:
        raise NotKept(error.strerror or "it cannot be written") from error


if __name__ == "__main__":
    desk.main(load)

"""The worker's side of being asked for pictures: what cannot be painted is an answer, not a failure of the process."""

from __future__ import annotations

import gc

from backends.diffusers.asking import Drawn, Refused, Stepped, encode, read_asked
from backends.diffusers.decoder import NotNumbers
from backends.diffusers.engine import Painter, Tell, starved
from backends.diffusers.start import Start
from backends.seeing.broom import Broom
from backends.seeing.decoding import BadPicture
from backends.seeing.serving import Left, Wrong
from backends.workers.desk import Emit, Far, Serve

_NO_MEMORY = "the picture takes more memory than there is for it: fewer pixels need less"


def serving(start: Start, far: Far) -> Serve:
    """Load the model; a desk's ``Serve`` of it."""
    painter = Painter(start, far)
    broom = Broom()

    def serve(kind: str, body: bytes, emit: Emit) -> None:
        del kind  # there is one

        def tell(what: Stepped | Drawn | None = None) -> None:
            if emit(encode(what) if what is not None else b""):
                raise Left

        try:
            refused = _painted(painter, body, tell)
        finally:
            painter.clear()
            broom.sweep()
        if refused is not None:
            if refused.starved:
                gc.collect()  # whatever of the picture still hangs in cycles
                painter.clear()
            emit(encode(refused))

    return serve


def _painted(painter: Painter, body: bytes, tell: Tell) -> Refused | None:
    try:
        painter.paint(read_asked(body), tell)
    except Left:
        return None
    except BadPicture as error:
        return Refused(str(error), "image")
    except Wrong as error:
        return Refused(str(error), error.param)
    except NotNumbers:
        return Refused("the numbers overflowed: this model needs `dtype: float32` (or bfloat16), or another `vae`")
    except Exception as error:
        if starved(error):
            return Refused(_NO_MEMORY, starved=True)
        # Its words may name places of this machine, or what a client wrote.
        raise RuntimeError(f"{type(error).__name__} while it painted") from error
    return None

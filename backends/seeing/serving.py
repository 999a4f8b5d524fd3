"""The worker's side of being asked: a picture that cannot be looked at is an answer, not a failure of the process."""

from __future__ import annotations

from collections.abc import Callable

from backends.seeing.asking import Answered, Asked, Refused, encode, read_asked
from backends.seeing.broom import Broom
from backends.seeing.decoding import BadPicture
from backends.workers.desk import Emit, Serve

_NO_MEMORY = "the picture takes more memory than there is for it"


class Left(Exception):
    """Nobody wants the answer any more."""


class Wrong(Exception):
    """Something beside the picture is wrong with the request."""

    def __init__(self, words: str, param: str) -> None:
        super().__init__(words)
        self.param = param


def serving(look: Callable[[Asked, Callable[[], None]], Answered]) -> Serve:
    """A desk's ``Serve`` of ``look``, which takes a question and what to call between two steps of the work."""
    broom = Broom()

    def serve(kind: str, body: bytes, emit: Emit) -> None:
        del kind  # there is one

        def step() -> None:
            if emit(b""):
                raise Left

        try:
            answer = look(read_asked(body), step)
        except Left:
            return
        except BadPicture as error:
            answer = Refused(str(error))
        except Wrong as error:
            answer = Refused(str(error), error.param)
        except MemoryError:
            answer = Refused(_NO_MEMORY)
        except Exception as error:
            # torch and onnxruntime have no other sign of it; and their words name places of this machine.
            if "alloc" not in str(error).lower():
                raise RuntimeError(f"{type(error).__name__} while it looked at the picture") from error
            answer = Refused(_NO_MEMORY)
        emit(encode(answer))
        broom.sweep()

    return serve

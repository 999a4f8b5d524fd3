"""A collection in the middle of `ast.parse` fails no test."""

from __future__ import annotations

import ast
import gc

SOURCE = f"x = [{', '.join(f'f({number})' for number in range(500))}]"


class Garbage:
    """What the collector finds, and which parses when it goes, as a traceback does that is formatted."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        ast.parse("a + b")


def test_a_finalizer_that_parses_does_not_disturb_who_is_parsing() -> None:
    often = gc.get_threshold()
    gc.set_threshold(50)
    try:
        for _ in range(50):
            for _ in range(5):
                Garbage()
            assert len(ast.parse(SOURCE).body) == 1
    finally:
        gc.set_threshold(*often)

"""A fault of CPython before 3.11.9 and 3.12.3, kept out of the tests' way (python/cpython#106905).

A garbage collection in the middle of `ast.parse` may run a finalizer, whose traceback, being formatted, calls
`ast.parse` once more; the outer call then fails with "AST constructor recursion depth mismatch". Hypothesis and
pytest parse the tests' own sources, so one run in many failed for nothing.
"""

from __future__ import annotations

import ast
import gc
from typing import Any

_parse = ast.parse


def parse_undisturbed(*args: Any, **options: Any) -> Any:
    """What `ast.parse` does, with no collection in the middle."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return _parse(*args, **options)
    finally:
        if collects:
            gc.enable()


def keep_undisturbed() -> None:
    ast.parse = parse_undisturbed

"""What holds for all tests: no property fails because the machine was busy, and CI tries the same examples each time.

What decides whether a change lands must not depend on luck; who runs the tests by hand looks for new examples.
"""

from __future__ import annotations

import os
import sys

from hypothesis import settings

from tests.stored import file, fresh, place, postgres  # noqa: F401  fixtures
from tests.undisturbed import keep_undisturbed

keep_undisturbed()

settings.register_profile("explore", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("EXAMPLES", "explore"))


def pytest_unconfigure() -> None:
    """Close what llama-cpp-python opens when it is imported and never closes; warnings are errors here."""
    utils = sys.modules.get("llama_cpp._utils")
    if utils is not None:
        utils.outnull_file.close()
        utils.errnull_file.close()

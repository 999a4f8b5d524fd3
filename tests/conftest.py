"""What holds for all tests: no property fails because the machine was busy, and CI tries the same examples each time.

What decides whether a change lands must not depend on luck; who runs the tests by hand looks for new examples.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.stored import file, fresh, place, postgres  # noqa: F401  fixtures
from tests.undisturbed import keep_undisturbed

LONGEST = (
    "test_cuts",
    "test_matrix",
    "test_frameworks",
    "test_pictures",
    "test_openapi_driven",
    "test_job_kills",
    "test_images_end_to_end",
    "test_diffusers_live",
    "test_llama_cpp",
    "test_walls",
    "test_readme",
)
"""Files that take a minute or so each: begun last, they would be waited for alone."""

keep_undisturbed()

_ENVIRON = dict(os.environ)

settings.register_profile("explore", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("EXAMPLES", "explore"))


@pytest.fixture(scope="module", autouse=True)
def environ() -> Iterator[None]:
    """What a file's tests, or what they import, put into the environment ends with them: gateways of others are started in it."""
    yield
    _restore()


def _restore() -> None:
    for name in os.environ.keys() - _ENVIRON.keys():
        if not name.startswith("PYTEST_"):
            del os.environ[name]
    os.environ.update(_ENVIRON)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files stay whole, and the longest go first; workers have to agree on an order, and do."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    _restore()  # some libraries are imported while tests are collected
    items.sort(key=lambda item: ranks.get(item.path.stem, len(LONGEST)))


def pytest_unconfigure() -> None:
    """Close what llama-cpp-python opens when it is imported and never closes; warnings are errors here."""
    utils = sys.modules.get("llama_cpp._utils")
    if utils is not None:
        utils.outnull_file.close()
        utils.errnull_file.close()

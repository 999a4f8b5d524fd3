"""Heavy parts are extras of the package: where one is not installed, whoever asks for it is told what to type."""

from __future__ import annotations

from importlib.util import find_spec

from canonical.errors import NotImplementedHere


def missing(extra: str) -> NotImplementedHere:
    """What is told where an extra is not installed."""
    return NotImplementedHere(f"this needs more than is installed here: pip install 'dragoman[{extra}]'")


def have(*modules: str) -> bool:
    """Whether all these modules are installed; looks for them without importing any."""
    try:
        return all(find_spec(module) is not None for module in modules)
    except (ImportError, ValueError):  # the package around it is missing, or only half there
        return False


def must_have(extra: str, *modules: str) -> None:
    """Raises NotImplementedHere (501) where one of ``modules``, which ``extra`` brings, is not installed."""
    if not have(*modules):
        raise missing(extra)

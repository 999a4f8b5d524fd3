"""Four ways to the demo models: inside the gateway, and behind servers of each dialect (a second gateway plays them)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.serving import Served, serving
from tests.test_end_to_end import BEHIND, INSIDE

BACKEND = '  b_anthropic: {{type: anthropic, url: "{url}"}}\nmodels:\n'
MODEL = "  - {{id: pip-anthropic, backend: b_anthropic, name: pip}}\n"

WAYS = ("pip", "pip-openai", "pip-ollama", "pip-anthropic")
EMBED_WAYS = ("embed", "embed-openai", "embed-ollama")
"""Anthropic's dialect has no embeddings."""


@contextlib.contextmanager
def four_ways(inside: str = INSIDE) -> Iterator[tuple[Served, Served]]:
    """Gateway A, which has the models and reaches gateway B's; and B. Both are on ``inside``."""
    behind = BEHIND.replace("models:\n", BACKEND) + MODEL
    with serving(inside) as b, serving(inside.replace("models:\n", behind.format(url=b.url))) as a:
        yield a, b

"""Ways to the demo models: inside the gateway, and behind servers of each dialect (a second gateway plays them)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.serving import Served, serving

INSIDE = """
listeners: [{port: 0}]
backends:
  local: {type: llama_cpp, models_dir: ./models, threads: 1}
models:
  - {id: pip, backend: local, file: pip.gguf, mmproj: pip-mmproj.gguf, slots: 16, thinking: off}
  - {id: embed, backend: local, file: embed.gguf}
defaults: {chat: pip, embed: embed}
"""
_BEHIND = """
  b_openai: {{type: openai, url: "{url}"}}
  b_ollama: {{type: ollama, url: "{url}"}}
models:
  - {{id: pip-openai, backend: b_openai, name: pip}}
  - {{id: pip-ollama, backend: b_ollama, name: pip}}
  - {{id: embed-openai, backend: b_openai, name: embed}}
  - {{id: embed-ollama, backend: b_ollama, name: embed}}
"""
_ANTHROPIC = """
  b_anthropic: {{type: anthropic, url: "{url}"}}
models:
  - {{id: pip-anthropic, backend: b_anthropic, name: pip}}
"""

THREE_WAYS = ("pip", "pip-openai", "pip-ollama")
WAYS = (*THREE_WAYS, "pip-anthropic")
EMBED_WAYS = ("embed", "embed-openai", "embed-ollama")
"""Anthropic's dialect has no embeddings."""


@contextlib.contextmanager
def three_ways(inside: str = INSIDE) -> Iterator[tuple[Served, Served]]:
    """Gateway A, which has the models and reaches gateway B's by OpenAI's dialect and Ollama's; and B. Both are on ``inside``."""
    with serving(inside) as b, serving(_with(inside, _BEHIND, b.url)) as a:
        yield a, b


@contextlib.contextmanager
def four_ways(inside: str = INSIDE) -> Iterator[tuple[Served, Served]]:
    """The same, and by Anthropic's."""
    with serving(inside) as b, serving(_with(_with(inside, _BEHIND, b.url), _ANTHROPIC, b.url)) as a:
        yield a, b


def _with(inside: str, behind: str, url: str) -> str:
    return inside.replace("\nmodels:\n", behind.format(url=url))

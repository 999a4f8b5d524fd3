"""What a start brings into memory: libraries come with the first request that needs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LATER = (
    "accelerate",
    "alembic",
    "attrs",
    "diffusers",
    "httpx",
    "huggingface_hub",
    "jinja2",
    "llama_cpp",
    "lmstudio",
    "lycoris",
    "numpy",
    "obstore",
    "peft",
    "PIL",
    "psycopg",
    "pydantic",
    "redis",
    "safetensors",
    "saq",
    "sqlalchemy",
    "torch",
    "transformers",
    "xllamacpp",
)


def test_a_listener_of_all_dialects_needs_no_heavy_library() -> None:
    code = f"""
import sys
from types import SimpleNamespace
import gateway.__main__, gateway.web.listeners
from gateway.settings import Config, Listener
from gateway.web.app import DIALECTS, listener_app
listener = Listener(port=1, dialects=tuple(DIALECTS))
listener_app(listener, Config(listeners=(listener,)), SimpleNamespace(access_log=None))
print([name for name in {LATER} if name in sys.modules])
"""
    root = Path(__file__).parent.parent
    said = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"

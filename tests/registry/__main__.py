"""Run one for people: every file given is ``library/<its stem>``, and together they are Hugging Face's ``demo/models``."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from tests.registry.site import registry

with registry() as site:
    files = {Path(name).name: Path(name).read_bytes() for name in sys.argv[1:]}
    for name, content in files.items():
        site.publish(f"library/{name.removesuffix('.gguf')}", model=content)
        print(f"{site.host}/library/{name.removesuffix('.gguf')}")
    site.hub("demo/models", files)
    print(f"HF_ENDPOINT={site.url}, hosts: {site.hosts}", flush=True)
    threading.Event().wait()

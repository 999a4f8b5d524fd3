"""A registry to pull from and push to, over real HTTP: Ollama's protocol and Hugging Face's, with faults on demand.

    with registry() as r:
        r.publish("acme/tiny", model=b"GGUF...", template=b"{{ .Prompt }}")
        ...pull(f"{r.host}/acme/tiny", insecure=True)...
        assert r.served(digest) == [(0, 1000)]

Content comes from a second port, the CDN, by way of redirects, as it does in the world. ``r.hosts`` lists both for
``pull: {hosts: [...]}``; ``r.url`` is what ``HF_ENDPOINT`` may be, and ``r.hub("acme/tiny-GGUF", {"tiny.Q4_K_M.gguf": ...})``
a repository there. ``python -m tests.registry FILE.gguf`` runs one for people.
"""

from tests.registry.faults import Fault
from tests.registry.site import Served, Site, registry

__all__ = ["Fault", "Served", "Site", "registry"]

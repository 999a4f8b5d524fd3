"""Diffusion models: pictures of prompts. Folders of diffusers and single files, as safetensors; torch runs in worker processes only.

* in the gateway's process: settings (of config.yaml), backend (what the gateway asks), catalog (which models there are), recognising
  (what a folder or file is), reference_files (of IP-Adapters), headers (of safetensors); presets (what a request leaves open), sizes, samplers;
* between the two: start (what a worker is started for), asking (what they say to each other);
* in a worker: worker, serving (being asked), engine (painting), loading, placing (on which device), tasks (the kinds of
  painting); prompts, canvas (what is painted over), references (what is taken after), previews, decoder, pictures;
* lora/: adapters, in both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends.diffusers.backend import DiffusersBackend

__all__ = ["DiffusersBackend"]


def __getattr__(name: str) -> Any:
    """The backend, at its first use: a worker process, which is of this package too, never needs it."""
    if name != "DiffusersBackend":
        raise AttributeError(name)
    from backends.diffusers.backend import DiffusersBackend

    return DiffusersBackend

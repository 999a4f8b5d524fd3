"""LM Studio: its models loaded and unloaded by its own protocol, its answers through its OpenAI routes.

``settings`` what config.yaml says · ``lists`` what it has and what is in its memory · ``loads`` loading by its official
package, or by its REST where that is missing · ``residence`` who holds which instance · ``model`` one model's handle ·
``backend`` all of them
"""

from backends.lmstudio.backend import LMStudioBackend

__all__ = ["LMStudioBackend"]

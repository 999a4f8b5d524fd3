"""Us as server of LM Studio's REST: what the gateway's routes import."""

from __future__ import annotations

from adapters.lmstudio.chat import Chat, read_chat
from adapters.lmstudio.errors import JOB_NOT_FOUND, error_body, error_status, stray
from adapters.lmstudio.managing import (
    DownloadState,
    LoadQuestion,
    job_reply,
    loaded_reply,
    read_download,
    read_load,
    read_unload,
    unloaded_reply,
)
from adapters.lmstudio.models import Resident, listed, models_reply, old_model_reply, old_models_reply
from adapters.lmstudio.old import with_stats
from adapters.lmstudio.stream import ChatStream

__all__ = [
    "JOB_NOT_FOUND",
    "Chat",
    "ChatStream",
    "DownloadState",
    "LoadQuestion",
    "Resident",
    "error_body",
    "error_status",
    "job_reply",
    "listed",
    "loaded_reply",
    "models_reply",
    "old_model_reply",
    "old_models_reply",
    "read_chat",
    "read_download",
    "read_load",
    "read_unload",
    "stray",
    "unloaded_reply",
    "with_stats",
]

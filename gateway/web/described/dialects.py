"""Every dialect, told: its name, what its structs' names begin with, its errors, its operations."""

from __future__ import annotations

from gateway.web.described import (
    anthropic,
    automatic1111,
    brenda,
    conversation,
    errors,
    hybrid,
    images,
    libretranslate,
    lmstudio,
    ollama,
    openai,
)
from gateway.web.described.operation import Described

DESCRIBED = {
    "anthropic": Described(
        "Anthropic", "Anthropic", "Messages, and counting their tokens.", anthropic.Error, anthropic.DESCRIBED
    ),
    "automatic1111": Described(
        "AUTOMATIC1111", "Automatic1111", "Its API for pictures.", automatic1111.Failure, automatic1111.DESCRIBED
    ),
    "brenda": Described(
        "Brenda", "Brenda", "Chats in sessions, translation, and what is in pictures.", errors.Words, brenda.DESCRIBED
    ),
    "conversation": Described(
        "Conversations",
        "Conversation",
        "Conversations that the server keeps.",
        errors.Detail,
        conversation.DESCRIBED,
    ),
    "hybrid": Described(
        "Hybrid", "Hybrid", "Chats with text and vision models, and control of models.", errors.Detail, hybrid.DESCRIBED
    ),
    "images": Described("Images", "Images", "Pictures as jobs.", images.Error, images.DESCRIBED),
    "libretranslate": Described(
        "LibreTranslate", "LibreTranslate", "Translation.", errors.Words, libretranslate.DESCRIBED
    ),
    "lmstudio": Described("LM Studio", "LMStudio", "Its REST, of both versions.", lmstudio.Error, lmstudio.DESCRIBED),
    "ollama": Described("Ollama", "Ollama", "Its API, models' management included.", ollama.Error, ollama.DESCRIBED),
    "openai": Described(
        "OpenAI",
        "OpenAI",
        "Chats, completions, responses, embeddings and rankings; under `/v1` and without it.",
        openai.Error,
        openai.DESCRIBED,
    ),
}

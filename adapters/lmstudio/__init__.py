"""LM Studio's own REST: ``/api/v0``, OpenAI's shapes with figures beside them, and ``/api/v1``, chats that are kept."""

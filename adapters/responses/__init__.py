"""OpenAI's ``/v1/responses``: items in, items out, and a stream that names each of them. Pure translation, no I/O."""

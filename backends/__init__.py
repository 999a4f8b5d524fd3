"""Where models are: inside the process, or behind HTTP. What a loaded model can do is which methods it has: see ``base``.

* inside: llama_cpp (words), diffusers (pictures of words), marian (translation), clip and ocr (what is in a picture); workers/ watches
  over their processes, seeing/ is what those share that have to do with pictures; store/ and fetching/: models on disk, and how they get there;
* behind HTTP: openai with openai_painting, ollama, anthropic, lmstudio; upstream and what it stands on: remote, transport, connection,
  forwarding, links, honours, abilities, reading, telling;
* echo with echo_painting: no model at all, for tests and for a first look.
"""

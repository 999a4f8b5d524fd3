"""Ports, routes, guards, and answers over HTTP: the only rooms that know Litestar and ASGI.

* the way in: listeners (sockets), protocol and cycle (HTTP/1.1), key_in_body, key_in_basic, guard (who may call), caller, app (which route),
  crossroads (whose, where several dialects have the path);
* one request: exchange, with the voice of its dialect; charset; answering (what most routes do with it);
* dialects: a file each with its VOICE, PREFIXES and ROUTES; parts of one: responses, openai_images with signed (its links),
  ollama_models, brenda_pictures, brenda_painting, brenda_events, brenda_translation; what some share: keeping, loading,
  in_session, holding (clients that wait for a job);
* what every listener has: health, schema (/openapi.json and its page, which are made from described/).
"""

"""Ports, routes, guards, and answers over HTTP: the only rooms that know Litestar and ASGI.

* the way in: listeners (sockets), protocol and cycle (HTTP/1.1), key_in_body, guard (who may call), caller, app (which route),
  crossroads (whose, where several dialects have the path);
* one request: exchange, with the voice of its dialect; charset; answering (what most routes do with it);
* dialects: a file each with its VOICE, PREFIXES and ROUTES; parts of one: responses, ollama_models, brenda_pictures,
  brenda_translation; what some share: keeping, loading, in_session;
* what every listener has: health, schema (/openapi.json and its page, which are made from described/).
"""

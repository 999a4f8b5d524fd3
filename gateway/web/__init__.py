"""Ports, routes, guards, and answers over HTTP: the only rooms that know Litestar and ASGI."""

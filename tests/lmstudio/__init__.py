"""A stand-in for LM Studio, to which its official Python package truly connects, over real sockets.

What it is: the greeting, the five websocket namespaces with their handshake, RPCs and channels; ``/v1``, ``/api/v0`` and
``/api/v1`` over HTTP; with the oddities that break clients (an unknown route is 200 with an error, errors that are bare
strings, a second load makes ``model:2``, loads that a request sets off, idle time, one such model at a time). ``Studio``
holds what it has, its switches for faults, and a log of every packet and request that came.

What it is not: a server of models. It answers from a script (``script``), or lets another OpenAI-compatible server answer
(``mind``), so that what is said can be checked; plugins, MCP, ``/v1/responses``, ``/v1/messages`` and diagnostics are
missing. It was written after the vendor's documents, the packages' source and public issues, not beside the real thing.

``studio`` what it has · ``script`` what it says · ``sockets`` the websockets · ``rest`` HTTP · ``server`` starts and stops it
"""

"""What the OpenAPI document of a listener is made from: each dialect's operations, told beside its routes.

A dialect's file here has one ``Operation`` for each of its routes and methods, which names the structs that the route reads
and writes. ``document`` makes the document from them, ``page`` its page. Nothing here is imported before somebody asks.
"""

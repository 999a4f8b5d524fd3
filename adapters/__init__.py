"""Wire formats: bytes to canonical values and back, in both roles, without I/O, await or clock.

One folder a dialect: ``wire.py`` the vendor's structs, ``serve.py`` us as server, ``call.py`` us as client. ``recipe`` is none: what
a picture was made from stands in the picture itself, whoever asked for it.
"""

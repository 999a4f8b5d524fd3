"""Anthropic's Messages dialect: ``serve`` is us as server, ``call`` us as client, ``wire`` the vendor's structs."""

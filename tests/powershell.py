"""What a PowerShell script sends: its ``Invoke-RestMethod`` lines, whose bodies are JSON or tables for ``ConvertTo-Json``.

As little of the language as the examples use: tables, arrays, texts, numbers, variables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

_TOKEN = re.compile(r'@\{|@\(|[})=;\n]|"[^"]*"|\$\w+|[\w.]+')
_CALL = re.compile(r'Invoke-RestMethod -Uri "([^"]+)"((?:[^\n]*`\n)*[^\n]*)')
_TABLE = re.compile(r"(\$\w+) = (@\{.*?\n\}) \| ConvertTo-Json -Depth 10", re.DOTALL)


class Sent(Struct):
    """One request."""

    method: str
    url: str
    body: str = ""


def requests(script: str, variables: Mapping[str, str]) -> list[Sent]:
    """The requests in their order. ``variables`` are texts that the script gets from elsewhere."""
    known = dict(variables)
    for name, table in _TABLE.findall(script):
        known[name] = json.dumps(_value(_tokens(table), known), indent=2)
    found = []
    for url, rest in _CALL.findall(script):
        method = re.search(r"-Method (\w+)", rest)
        body = re.search(r"-Body ('([^']*)'|\$\w+)", rest)
        assert method is not None
        said = "" if body is None else body[2] if body[1].startswith("'") else known[body[1]]
        found.append(Sent(method[1].upper(), url, said))
    return found


def _tokens(text: str) -> list[str]:
    return list(reversed(_TOKEN.findall(text)))


def _value(tokens: list[str], known: Mapping[str, str]) -> Any:
    token = tokens.pop()
    match token[0]:
        case "@":
            end, members = ("}", dict[str, Any]()) if token == "@{" else (")", list[Any]())
            while True:
                while tokens[-1] in {"\n", ";"}:
                    tokens.pop()
                if tokens[-1] == end:
                    tokens.pop()
                    return members
                if isinstance(members, list):
                    members.append(_value(tokens, known))
                else:
                    name = tokens.pop()
                    assert tokens.pop() == "="
                    members[name] = _value(tokens, known)
        case '"':
            return token[1:-1]
        case "$":
            return known[token]
        case _:
            return json.loads(token)

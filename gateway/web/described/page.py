"""A listener's OpenAPI document as one page of HTML, which asks for nothing else and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem}
code,.path{font-family:ui-monospace,monospace;font-size:.92em}
h2{border-bottom:1px solid #8886;margin-top:2.5rem}
details{border:1px solid #8884;border-radius:.4rem;margin:.4rem 0;padding:.3rem .8rem}
summary{cursor:pointer}
summary b{display:inline-block;font-family:ui-monospace,monospace;min-width:4.5rem}
summary span{opacity:.75}
table{border-collapse:collapse;margin:.4rem 0;width:100%}
td,th{border-top:1px solid #8884;padding:.2rem .6rem .2rem 0;text-align:left;vertical-align:top}
nav a{margin-right:1rem}
""".strip()

POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What a browser may do with the page: nothing but show it, in its own style."""

_CODE = re.compile(r"`([^`]+)`")
Document = Mapping[str, Any]


def page(document: Document) -> bytes:
    """The page of a document."""
    return "".join(_page(document)).encode()


def _page(document: Document) -> Iterator[str]:
    info = document["info"]
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>'
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">'
    yield f"<style>{STYLE}</style>"
    yield f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{_words(info['description'])} "
    yield 'As OpenAPI 3.1: <a href="/openapi.json"><code>/openapi.json</code></a>.</p>'
    if "securitySchemes" in document["components"]:
        yield "<p>A key is needed: <code>Authorization: Bearer KEY</code>, or <code>x-api-key: KEY</code>.</p>"
    yield "<nav>"
    for tag in document["tags"]:
        yield f'<a href="#{escape(tag["name"])}">{escape(tag["name"])}</a>'
    yield '<a href="#schemas">schemas</a></nav>'
    for tag in document["tags"]:
        yield f'<h2 id="{escape(tag["name"])}">{escape(tag["name"])}</h2><p>{_words(tag["description"])}</p>'
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if operation["tags"][0] == tag["name"]:
                    yield from _operation(path, method, operation, document)
    yield '<h2 id="schemas">schemas</h2>'
    for name, schema in document["components"]["schemas"].items():
        yield f'<details id="{_id(name)}"><summary class="path">{escape(name)}</summary>'
        yield f"<p>{_words(schema.get('description', ''))}</p>"
        required = schema.get("required", ())
        rows = [
            (f"<code>{escape(field)}</code>", _type(one), "required" if field in required else "", _limits(one))
            for field, one in schema["properties"].items()
        ]
        yield from _table(rows)
        yield "</details>"
    yield "</html>"


def _operation(path: str, method: str, operation: Document, document: Document) -> Iterator[str]:
    yield f'<details id="{escape(operation["operationId"])}"><summary><b>{method.upper()}</b>'
    yield f' <span class="path">{escape(path)}</span> {_words(operation["summary"])}</summary>'
    if "description" in operation:
        yield f"<p>{_words(operation['description'])}</p>"
    parameters = [_found(one, document) for one in operation.get("parameters", ())]
    if parameters:
        yield "<h4>Parameters</h4>"
        yield from _table(
            (
                f"<code>{escape(one['name'])}</code>",
                escape(one["in"]),
                _type(one["schema"]),
                "required" if one.get("required") else "",
                _words(one.get("description", "")),
            )
            for one in parameters
        )
    if "requestBody" in operation:
        yield "<h4>Body</h4>"
        yield from _table(_contents(operation["requestBody"]))
    yield "<h4>Answers</h4><table>"
    for status, response in operation["responses"].items():
        whole = {**_found(response, document), **response}
        forms = "<br>".join(f"{media} {type}" for media, type in _contents(whole))
        yield f"<tr><td>{status}<td>{_words(whole['description'])}<td>{forms}"
    yield "</table></details>"


def _contents(body: Document) -> Iterator[tuple[str, str]]:
    for media, form in body.get("content", {}).items():
        yield f"<code>{escape(media)}</code>", _type(form.get("schema", {}))


def _found(one: Document, document: Document) -> Document:
    if "$ref" not in one:
        return one
    _, _, kind, name = one["$ref"].split("/")
    found: Document = document["components"][kind][name]
    return found


def _type(schema: Document | bool) -> str:
    if isinstance(schema, bool):
        return ""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{_id(name)}">{escape(name)}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        return " or ".join(f"<code>{escape(str(value))}</code>" for value in values)
    kind = schema.get("type", "any")
    if kind == "array" and "items" in schema:
        return f"list of {_type(schema['items']) or 'any'}"
    if kind == "object" and "additionalProperties" in schema:
        return f"object of {_type(schema['additionalProperties']) or 'any'}"
    return escape(" or ".join(kind) if isinstance(kind, list) else kind)


_SHOWN = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
    "default": "default",
}


def _limits(schema: Document) -> str:
    members = [schema, *(member for member in schema.get("anyOf", ()) if isinstance(member, dict))]
    told = {f"{words} {member[name]}" for member in members for name, words in _SHOWN.items() if name in member}
    return escape(", ".join([*sorted(told), *([schema["description"]] if "description" in schema else [])]))


def _table(rows: Any) -> Iterator[str]:
    yield "<table>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{cell}" for cell in row)
    yield "</table>"


def _words(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text)).replace("\n\n", "<br>")


def _id(name: str) -> str:
    return f"schema-{escape(name)}"

"""What a picture was made from, beside it: as JSON that can be posted again, and as the text that users of A1111 know."""

from __future__ import annotations

from adapters.recipe.parameters import a1111_text, read_a1111
from adapters.recipe.png import LEFT_OUT, Found, fitting, header, in_png, of_png
from adapters.recipe.posted import DIGEST, digest_of, json_of

__all__ = (
    "DIGEST",
    "LEFT_OUT",
    "Found",
    "a1111_text",
    "digest_of",
    "fitting",
    "header",
    "in_png",
    "json_of",
    "of_png",
    "read_a1111",
)

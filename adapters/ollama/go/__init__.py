"""Go's text/template, of which Ollama's TEMPLATE is made: ``parse`` reads it, ``jinja`` says it in Jinja.

Both engines of llama.cpp render Jinja, in a sandbox; nothing here renders anything. What only models of a store need
is imported by whoever needs it.
"""


def is_jinja(template: str) -> bool:
    """Whether a template is one of Jinja already: Go's know no ``{%``."""
    return "{%" in template

"""Go's text/template, of which Ollama's TEMPLATE is made: ``parse`` reads it, ``jinja`` says it in Jinja.

Both engines of llama.cpp render Jinja, in a sandbox; nothing here renders anything.
"""

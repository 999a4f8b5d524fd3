"""``dragoman run``: a question and its answer, or a conversation at the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TextIO

from gateway.cli.client import Client
from gateway.probe.safe import shown

HELP = """\
/bye        end (or Ctrl-D)
/clear      begin anew
/system X   instructions from here on
/help       this
A line that begins with three quotes begins a text of several lines, which three quotes end."""
_QUOTES = '"""'


class Talk:
    """A conversation with one model."""

    def __init__(
        self, client: Client, model: str, *, out: TextIO, keep_alive: str = "", think: bool | None = None
    ) -> None:
        self._client = client
        self._body: dict[str, Any] = {"model": model}
        if keep_alive:
            self._body["keep_alive"] = keep_alive
        if think is not None:
            self._body["think"] = think
        self._out = out
        self.messages: list[dict[str, Any]] = []
        self.last: dict[str, Any] = {}
        """What the last answer ended with: counts and durations."""

    def say(self, text: str) -> str:
        """Ask, and write the answer as it comes; returns it. Raises Failed, and forgets the question then."""
        said = {"role": "user", "content": text}
        answer, thinking = [], False
        for chunk in self._client.lines("/api/chat", {**self._body, "messages": [*self.messages, said]}):
            message = chunk.get("message") or {}
            thought, piece = message.get("thinking") or "", message.get("content") or ""
            if thought:
                self._write("" if thinking else "Thinking...\n", thought)
                thinking = True
            if piece:
                self._write("\n...done thinking.\n\n" if thinking else "", piece)
                thinking = False
                answer.append(piece)
            if chunk.get("done"):
                self.last = chunk
        self._write("\n", "")
        whole = "".join(answer)
        self.messages += [said, {"role": "assistant", "content": whole}]
        return whole

    def _write(self, before: str, text: str) -> None:
        self._out.write(before + shown(text))
        self._out.flush()


def converse(talk: Talk, read: Callable[[str], str], out: TextIO) -> None:
    """Read lines and answer them until the end of input or ``/bye``. Ctrl-C stops an answer."""
    while True:
        try:
            text = read(">>> ").strip()
            if text.startswith(_QUOTES):
                text = _several(text, read)
        except EOFError:
            out.write("\n")
            return
        except KeyboardInterrupt:
            out.write("\n/bye or Ctrl-D ends this\n")
            continue
        word, _, rest = text.partition(" ")
        if word in {"/bye", "/exit"}:
            return
        if word == "/clear":
            talk.messages.clear()
        elif word == "/system":
            talk.messages.append({"role": "system", "content": rest})
        elif word in {"/help", "/?"}:
            out.write(HELP + "\n")
        elif text.startswith("/"):
            out.write(f"{word} is unknown; /help tells what there is\n")
        elif text:
            try:
                talk.say(text)
            except KeyboardInterrupt:
                out.write("\n")


def _several(text: str, read: Callable[[str], str]) -> str:
    text = text.removeprefix(_QUOTES)
    while not text.rstrip().endswith(_QUOTES):
        text += "\n" + read("... ")
    return text.rstrip().removesuffix(_QUOTES)


def figures(last: dict[str, Any], out: TextIO) -> None:
    """How fast an answer was, of its last line."""
    seconds = {name: last.get(f"{name}_duration", 0) / 1e9 for name in ("total", "load", "prompt_eval", "eval")}
    out.writelines(f"{name.replace('_', ' ')} duration: {value:.3f} s\n" for name, value in seconds.items())
    for name in ("prompt_eval", "eval"):
        count = last.get(f"{name}_count", 0)
        speed = f", {count / seconds[name]:.1f} a second" if seconds[name] else ""
        out.write(f"{name.replace('_', ' ')} count: {count} tokens{speed}\n")

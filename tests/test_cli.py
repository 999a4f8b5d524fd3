"""The commands on models: against a running gateway, or one that they start for the while; one line where one fails."""

from __future__ import annotations

import datetime as dt
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gateway.__main__ import ON_MODELS, main
from gateway.cli import command, shown
from gateway.cli.chat import Talk, converse, figures
from gateway.cli.client import Client, Failed
from tests.loras import write_lora
from tests.pulls import gguf
from tests.registry import Fault, Site, registry
from tests.serving import ROOT, Served, serving

CONFIG = """
listeners: [{port: 0}]
backends:
  local: {type: llama_cpp, models_dir: ./models, threads: 1}
models:
  - {id: pip, backend: local, file: pip.gguf, thinking: off, temperature: 0}
keys: [a-key-of-ours]
"""
SHOP = """
listeners: [{{port: 0}}]
backends:
  local: {{type: llama_cpp, models_dir: ./models, threads: 1, pull: {{hosts: ["{hosts[0]}", "{hosts[1]}"]}}}}
"""
CAPITAL = "What is the capital of France?"
NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with serving(CONFIG) as served:
        yield served


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with registry() as found:
        yield found


@pytest.fixture(scope="module")
def shop(site: Site) -> Iterator[Served]:
    """A gateway with a store of its own, which may fetch from the registry."""
    with serving(SHOP.format(hosts=site.hosts)) as served:
        yield served


@pytest.fixture
def told(gateway: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command against the gateway: exit status, output, errors."""
    monkeypatch.setenv("DRAGOMAN_KEY", "a-key-of-ours")
    return _runner(gateway, capsys, monkeypatch)


@pytest.fixture
def managed(shop: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same against the one with a store."""
    return _runner(shop, capsys, monkeypatch)


def _runner(gateway: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("DRAGOMAN_URL", gateway.url)

    def run(*words: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        status = main(list(words))
        out, error = capsys.readouterr()
        return status, out, error

    return run


def test_the_words_of_the_command_line_are_all_known() -> None:
    assert set(ON_MODELS) == set(command.NAMES)


def test_models_are_listed_shown_loaded_seen_in_memory_and_unloaded(told: Any) -> None:
    status, out, _ = told("list")
    assert status == 0
    assert {line.split()[0] for line in out.splitlines()} == {"NAME", "rerank:latest", "embed:latest", "pip:latest"}
    assert "1.4 MB" in told("ls", "Pi")[1]
    status, out, _ = told("show", "pip")
    assert (status, "1.31M" in out, "thinking" in out) == (0, True, True)
    assert told("show", "pip", "--license")[1] == "CC0-1.0\n"
    assert told("load", "pip", "--keep-alive", "-1")[:2] == (0, "loaded pip\n")
    row = told("ps")[1].splitlines()[1]
    assert row.split()[0] == "pip:latest"
    assert "100% CPU" in row
    assert "for ever" in row
    assert told("unload", "pip")[:2] == (0, "unloaded pip\n")
    assert len(told("ps")[1].splitlines()) == 1


def test_a_question_is_answered_and_what_is_piped_in_comes_behind_it(told: Any) -> None:
    assert told("run", "pip", "What", "is", "7 + 8?")[:2] == (0, "7 + 8 = 15\n")
    assert told("run", "pip", typed="What is the capital of France?\n")[1] == "The capital of France is Paris.\n"
    status, out, error = told("run", "pip", "What is 7 + 8?", "--think", "on", "--figures")
    assert out == "Thinking...\nI must add 7 and 8.\n...done thinking.\n\n7 + 8 = 15\n"
    assert (status, "eval count" in error) == (0, True)


def test_a_conversation_goes_on_and_a_command_in_it_is_obeyed(gateway: Served) -> None:
    out = io.StringIO()
    lines = iter(
        ["", "My name is Ada.", "/system be good", "/nonsense", "/help", "/clear", '"""What is', '7 + 8?"""', "/bye"]
    )
    talk = Talk(Client(gateway.url, "a-key-of-ours"), "pip", out=out, keep_alive="5m")
    converse(talk, lambda _: next(lines), out)
    text = out.getvalue()
    assert text.startswith("Nice to meet you, Ada!\n/nonsense is unknown")
    assert [message["role"] for message in talk.messages] == ["user", "assistant"]
    assert talk.messages[0]["content"] == "What is\n7 + 8?"

    def ended(_: str) -> str:
        raise EOFError

    converse(talk, ended, out)


def test_ctrl_c_stops_an_answer_and_not_the_conversation() -> None:
    class Slow(Talk):
        def say(self, text: str) -> str:
            raise KeyboardInterrupt

    events: list[Any] = ["hello", KeyboardInterrupt(), "/bye"]

    def read(_: str) -> str:
        event = events.pop(0)
        if isinstance(event, BaseException):
            raise event
        return str(event)

    out = io.StringIO()
    converse(Slow(Client("http://127.0.0.1:1"), "m", out=out), read, out)
    assert out.getvalue() == "\n\n/bye or Ctrl-D ends this\n"


def names(run: Any, *words: str) -> list[str]:
    """The first column of a list."""
    return [line.split()[0] for line in run("list", *words)[1].splitlines()[1:]]


def test_a_model_is_pulled_copied_pushed_and_removed(managed: Any, site: Site) -> None:
    model, copied = f"{site.host}/acme/tiny", f"{site.host}/me/mine"
    manifest = site.publish("acme/tiny", model=gguf(), license=b"MIT")
    status, out, error = managed("pull", model, "--insecure")
    assert (status, error) == (0, "")
    fetched = [f"pulling {layer['digest'][7:19]}" for layer in (*manifest["layers"], manifest["config"])]
    assert out.splitlines() == [
        "pulling manifest", *fetched, "verifying sha256 digest", "writing manifest", "success",
    ]  # fmt: skip
    assert names(managed, site.host) == [f"{model}:latest"]
    assert managed("show", model, "--license")[1] == "MIT\n"
    assert managed("cp", model, copied) == (0, f"copied {model} to {copied}\n", "")
    status, out, _ = managed("push", copied, "--insecure")
    assert (status, out.splitlines()[-2:]) == (0, ["pushing manifest", "success"])
    assert (
        json.loads(site.manifests["me/mine:latest"])["layers"]
        == json.loads(site.manifests["acme/tiny:latest"])["layers"]
    )
    assert managed("rm", model, copied) == (0, f"removed {model}\nremoved {copied}\n", "")
    assert names(managed, site.host) == []


def test_what_cannot_be_fetched_sent_or_removed_is_one_line(managed: Any, site: Site) -> None:
    nothing = f"{site.host}/acme/nothing"
    for words, said, reason in (
        (("pull", nothing, "--insecure"), "pulling manifest\n", "pull model manifest: file does not exist"),
        (("push", nothing, "--insecure"), "retrieving manifest\n", "file does not exist"),
        (("pull", f"http://{nothing}"), "", "insecure protocol http"),
        (("pull", "elsewhere.example/acme/tiny"), "", "models come from and go to only those hosts"),
        (("push", "pip"), "", "models come from and go to only those hosts"),
        (("rm", nothing), "", f"model '{nothing}' not found"),
        (("rm", "a b"), "", 'name "a b" is invalid'),
        (("rm", "pip"), "", "model 'pip' is a file of the models folder: remove it there"),
        (("cp", "nothing", "x"), "", 'model "nothing" not found'),
        (("cp", "pip", "x y"), "", 'destination "x y" is invalid'),
    ):
        status, out, error = managed(*words)
        assert (status, out) == (1, said)
        assert error.startswith(f"dragoman: {reason}"), words
        assert error.count("\n") == 1


def test_a_question_to_a_model_that_is_not_there_fetches_it_first(managed: Any, site: Site) -> None:
    """What is fetched shows beside the answer, not in it."""
    site.publish(f"{site.host}/acme/pip".partition("/")[2], model=(ROOT / "models" / "pip.gguf").read_bytes())
    name = f"{site.host}/acme/pip"
    assert managed("run", name, CAPITAL)[0] == 1, "it asks for no source without TLS by itself"
    assert managed("pull", name, "--insecure")[0] == 0
    assert "Paris" in managed("run", name, CAPITAL, "--think", "off")[1]
    managed("rm", name)


def test_a_file_that_lies_here_is_pulled_too(managed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "models" / "pip.gguf", tmp_path / "my bot.gguf")
    for path in ("my bot.gguf", "./my bot.gguf", str(tmp_path), "."):
        status, out, error = managed("pull", path)
        assert (status, error) == (0, "")
        name = out.splitlines()[0].removeprefix(f"{path} becomes ")
        assert name == ("my-bot" if "bot" in path else tmp_path.name)
        assert out.splitlines()[-1] == "success"
        assert "Paris" in managed("run", name, CAPITAL, "--think", "off")[1]
        managed("rm", name)
    assert managed("pull", "./gone.gguf") == (1, "", "dragoman: ./gone.gguf is no file\n")
    (tmp_path / "odd.gguf").write_text("not one")
    status, _, error = managed("pull", "odd.gguf")
    assert (status, "GGUF" in error, error.count("\n")) == (1, True, 1)


def test_a_model_is_made_by_a_modelfile(managed: Any, tmp_path: Path) -> None:
    """Its files go up once, and what ``show`` tells of it makes the same model again."""
    shutil.copy(ROOT / "models" / "pip.gguf", tmp_path / "weights.gguf")
    write_lora(tmp_path / "silent.gguf")
    (tmp_path / "Modelfile").write_text(
        'FROM ./weights.gguf\nADAPTER ./silent.gguf\nPARAMETER temperature 0\nPARAMETER stop "!"\nPARAMETER stop "is"\n'
        'SYSTEM """Be\nbrief."""\nMESSAGE user My name is Ada.\nMESSAGE assistant Nice to meet you, Ada!\nLICENSE MIT\n'
    )
    status, out, error = managed("create", "made", "--file", str(tmp_path / "Modelfile"))
    assert (status, error) == (0, "")
    assert out.splitlines()[:2] == ["uploading weights.gguf", "uploading silent.gguf"]
    assert out.splitlines()[-1] == "success"
    assert "uploading" not in managed("create", "again", "--file", str(tmp_path / "Modelfile"))[1]
    assert managed("run", "made", "What is my name?", "--think", "off")[1] == "Your name \n"
    assert managed("show", "made", "--system")[1] == "Be\nbrief.\n"
    text = managed("show", "made", "--modelfile")[1]
    assert "FROM made:latest\n" in text
    (tmp_path / "Modelfile").write_text(text)
    assert managed("create", "made", "--file", str(tmp_path / "Modelfile"))[0] == 0, "of itself"
    assert managed("create", "third", "--file", str(tmp_path / "Modelfile"))[0] == 0
    told = [managed("show", name, f"--{part}")[1] for name in ("made", "third") for part in ("parameters", "system")]
    assert told[:2] == told[2:] != ["\n", "\n"]
    assert managed("run", "third", "What is my name?", "--think", "off")[1] == "Your name \n"
    assert managed("rm", "made", "again", "third")[0] == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("SYSTEM x", "no FROM line"),
        ("FROM ./gone.gguf", "./gone.gguf is no file"),
        ("FROM pip\nADAPTER ./gone.gguf", "gone.gguf is no file"),
        ("FROM .", ". has no .gguf file"),
        ("FROM pip\nFROM embed", "more than one FROM names a model"),
        ("FROM pip\nPARAMETER temprature 1", "unknown parameter 'temprature'"),
        ("FROM pip\nTEMPLATE {{ .Prompt", "template error: unclosed action"),
        ("FROM ./Modelfile", "is not a GGUF file"),
    ],
)
def test_a_modelfile_of_which_nothing_can_be_made_is_one_line(
    managed: Any, tmp_path: Path, text: str, reason: str
) -> None:
    (tmp_path / "Modelfile").write_text(text)
    status, _, error = managed("create", "x", "--file", str(tmp_path / "Modelfile"))
    assert status == 1
    assert reason in error
    assert error.count("\n") == 1
    assert names(managed, "x") == []


def test_a_gateway_that_dies_amid_a_pull_is_said(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.publish("acme/large", model=gguf(seed=3))
    with serving(SHOP.format(hosts=site.hosts)) as dying:
        run: Callable[..., tuple[int, str, str]] = _runner(dying, capsys, monkeypatch)
        site.at = (site.out + 100_000, dying.process.kill)
        site.faults.append(Fault("stall", 150_000, times=9))
        status, out, error = run("pull", f"{site.host}/acme/large", "--insecure")
        site.faults.clear()
    assert (status, out.splitlines()[0]) == (1, "pulling manifest")
    assert error.startswith(f"dragoman: {dying.url} stopped answering")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("show", "nothing"), "dragoman: model 'nothing:latest' not found\n"),
        (("show", "pip", "--url", "ftp://x"), "dragoman: 'ftp://x' is no address of a gateway\n"),
        (("show", "pip", "--url", "http://[x"), "dragoman: 'http://[x' is no address"),
        (("create", "x", "--file", "/no/such/file"), "dragoman: /no/such/file: No such file or directory\n"),
    ],
)
def test_what_fails_is_one_line_and_status_1(told: Any, words: tuple[str, ...], reason: str) -> None:
    status, out, error = told(*words)
    assert (status, out) == (1, "")
    assert error.startswith(reason)
    assert error.count("\n") == 1


def test_a_bracket_in_a_name_is_one(managed: Any) -> None:
    """And no word on how a text is to look."""
    name = "[bold]x[/]"
    for words in (["load", name], ["unload", name], ["rm", name], ["cp", name, "y"], ["show", name]):
        status, _, err = managed(*words)
        assert status == 1
        assert "Traceback" not in err
        assert err.count("\n") == 1


def test_where_no_gateway_answers_that_is_said(told: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        status, _, error = told("ps", "--url", url)
    assert (status, error) == (1, f"dragoman: no gateway answers on {url}: Connection refused\n")


def test_a_wrong_key_is_said(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGOMAN_KEY", "another-key")
    status, _, error = told("ps")
    assert (status, "key" in error) == (1, True)


def test_without_a_gateway_one_is_started_for_the_command_and_ends_with_it(tmp_path: Path) -> None:
    """The configuration's port is free: nobody serves there, before, during or after."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = CONFIG.replace("port: 0", f"port: {port}").replace("./models", str(ROOT / "models"))
    (tmp_path / "config.yaml").write_text(text)
    run = subprocess.run(
        [sys.executable, "-m", "gateway", "run", "pip", "What is 7 + 8?"],
        check=False, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    assert (run.returncode, run.stdout, run.stderr) == (0, "7 + 8 = 15\n", "")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_what_a_command_made_without_a_gateway_is_there_for_the_next_one(tmp_path: Path, site: Site) -> None:
    """Each starts one of its own, over the same store."""
    site.publish("acme/small", model=gguf(seed=4))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = SHOP.format(hosts=site.hosts).replace("port: 0", f"port: {port}")
    (tmp_path / "config.yaml").write_text(text.replace("./models", str(ROOT / "models")))
    name = f"{site.host}/acme/small"

    def run(*words: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *words],
            check=False, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    status, out, error = run("pull", name, "--insecure")
    assert (status, out.splitlines()[-1], error) == (0, "success", "")
    assert run("rm", name) == (0, f"removed {name}\n", "")
    assert list((tmp_path / "data" / "models" / "manifests").rglob("*latest")) == []


def test_ctrl_c_pauses_a_pull(shop: Served, managed: Any, site: Site) -> None:
    site.publish("acme/slow", model=gguf(seed=5))
    name = f"{site.host}/acme/slow"
    site.stalled.clear()
    site.faults.append(Fault("stall", 100_000, times=99))
    pull = subprocess.Popen(
        [sys.executable, "-m", "gateway", "pull", name, "--insecure"],
        env={"PYTHONPATH": str(ROOT), "DRAGOMAN_URL": shop.url}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert site.stalled.wait(20)
    pull.send_signal(signal.SIGINT)
    out, error = pull.communicate(timeout=20)
    site.faults.clear()
    assert (pull.returncode, error) == (130, "dragoman: stopped\n")
    assert out.splitlines()[0] == "pulling manifest"
    assert names(managed, site.host) == []
    assert managed("pull", name, "--insecure")[0] == 0
    assert managed("rm", name)[0] == 0


def test_a_configuration_that_cannot_be_used_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("nonsense: 1")
    assert main(["ps", "--config", str(path)]) == 1
    assert "unknown field `nonsense`" in capsys.readouterr().err
    path.write_text("listeners: [{port: 1, dialects: [openai]}]")
    assert main(["ps", "--config", str(path)]) == 1
    assert "Ollama's dialect" in capsys.readouterr().err


def test_progress_is_a_line_a_step_where_nobody_watches_and_bars_where_somebody_does() -> None:
    steps: list[dict[str, Any]] = [
        {"status": "pulling manifest"},
        {"status": "pulling abc", "digest": "sha256:abc", "total": 100},
        {"status": "pulling abc", "digest": "sha256:abc", "total": 100, "completed": 50},
        {"status": "pulling abc", "digest": "sha256:abc", "total": 100, "completed": 100},
        {"status": "evil\x1b[2J"},
        {"status": "success"},
    ]
    out = io.StringIO()
    shown.Bars(Console(file=out)).follow(iter(steps))
    assert out.getvalue().splitlines() == ["pulling manifest", "pulling abc", "evil\ufffd[2J", "success"]
    out = io.StringIO()
    shown.Bars(Console(file=out, force_terminal=True, width=100)).follow(iter(steps))
    assert "100/100 bytes" in out.getvalue()
    out = io.StringIO()
    marked = {"status": "[link=https://example.org]a[/link] [/]", "digest": "d", "total": 1}
    shown.Bars(Console(file=out, force_terminal=True, width=100)).follow(iter([marked]))
    assert marked["status"] in out.getvalue()

    def broken() -> Iterator[dict[str, Any]]:
        yield steps[0]
        raise Failed("gone")

    with pytest.raises(Failed):
        shown.Bars(Console(file=io.StringIO(), force_terminal=True)).follow(broken())


def test_sizes_and_times_are_told_as_people_say_them() -> None:
    assert [shown.bytes_of(size) for size in (0, 999, 1_400_000, 2_019_377_376, 7e12)] == [
        "0 B", "999 B", "1.4 MB", "2.0 GB", "7.0 TB",
    ]  # fmt: skip
    assert [shown.processor(100, vram) for vram in (0, 40, 100, 150)] == [
        "100% CPU",
        "60%/40% CPU/GPU",
        "100% GPU",
        "100% GPU",
    ]
    assert shown.ago("2026-11-21T11:00:00Z", NOW) == "1 hour ago"
    assert shown.until("2026-11-21T12:04:59.5Z", NOW) == "4 minutes from now"
    assert shown.until("2026-11-21T11:59:00Z", NOW) == "stopping"
    assert shown.until("2318-01-01T00:00:00Z", NOW) == "for ever"


def test_figures_of_an_answer_are_told() -> None:
    out = io.StringIO()
    figures({"total_duration": 2_000_000_000, "eval_count": 10, "eval_duration": 500_000_000}, out)
    assert "total duration: 2.000 s" in out.getvalue()
    assert "eval count: 10 tokens, 20.0 a second" in out.getvalue()


@pytest.mark.parametrize("body", [b"<html>", b"[1]"])
def test_who_does_not_answer_as_a_gateway_does_is_refused(body: bytes) -> None:
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(Failed, match="does not answer as a gateway does"):
                Client(f"http://127.0.0.1:{server.server_port}").version()
        finally:
            server.shutdown()
            thread.join()


def test_a_question_fails_in_band(gateway: Served) -> None:
    client = Client(gateway.url, "a-key-of-ours")
    with pytest.raises(Failed, match="not found"):
        list(client.lines("/api/chat", {"model": "nothing", "messages": [{"role": "user", "content": "x"}]}))
    assert json.dumps(client.ask("GET", "/api/version"))

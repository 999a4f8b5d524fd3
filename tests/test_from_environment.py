"""The environment as a configuration: what the hybrid API's variables come to, and what cannot be is one line that names them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from backends.lmstudio import LMStudioBackend
from gateway import from_environment
from gateway.__main__ import main
from gateway.config import ConfigError
from tests.serving import ROOT

PRINTED = ROOT / "tests" / "hybrid_examples" / "env.example"
NONE: Mapping[str, str] = {}


def written(folder: Path, text: str) -> Path:
    path = folder / ".env"
    path.write_bytes(text.encode())
    return path


def test_h6_the_documented_file_is_what_holds_without_one() -> None:
    for settled in (from_environment.load(PRINTED, NONE), from_environment.load(None, NONE)):
        config = settled.config
        (listener,) = config.listeners
        assert (listener.host, listener.port, listener.mounts[0].name) == ("127.0.0.1", 8000, "hybrid")
        assert (listener.cors.origins, listener.cors.credentials) == (("*",), False)
        assert (config.defaults.chat, config.defaults.vision) == ("qwen/qwen3-4b-2507", "qwen3-vl-4b-instruct")
        assert [(model.id, model.backend) for model in settled.models] == [
            ("qwen/qwen3-4b-2507", "lmstudio"),
            ("qwen3-vl-4b-instruct", "lmstudio"),
        ]
        assert config.backends == {
            "lmstudio": {"type": "lmstudio", "url": "http://localhost:1234/v1", "api_key": "lm-studio"}
        }
        assert isinstance(settled.backends["lmstudio"], LMStudioBackend)
        assert not config.keys


def test_h6_the_environment_counts_before_the_file(tmp_path: Path) -> None:
    path = written(
        tmp_path, "\ufeffPORT=1\r\nexport HOST='127.0.0.2' # mine\r\ndefault_regular_model=\"${FAMILY}/a\"\nOTHER=1\n"
    )
    config = from_environment.load(path, {"PORT": "2", "FAMILY": "qwen"}).config
    assert (config.listeners[0].host, config.listeners[0].port, config.defaults.chat) == ("127.0.0.2", 2, "qwen/a")
    assert from_environment.load(path, {"FAMILY": "q"}).data_dir == tmp_path / "data"


def test_h6_what_is_empty_is_the_usual_or_none(tmp_path: Path) -> None:
    names = (
        "OPENAI_BASE_URL OPENAI_API_KEY HOST PORT CORS_ORIGINS DEFAULT_REGULAR_MODEL DEFAULT_VISION_MODEL DRAGOMAN_KEY"
    )
    settled = from_environment.load(written(tmp_path, "".join(f"{name}=\n" for name in names.split())), NONE)
    config = settled.config
    assert (config.listeners[0].host, config.listeners[0].port) == ("127.0.0.1", 8000)
    assert (config.listeners[0].cors.origins, config.defaults.chat, settled.models, config.keys) == ((), "", (), ())
    assert config.backends["lmstudio"]["api_key"] == ""


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("http://a.example", ("http://a.example",)),
        ("http://a.example/, https://b.example:3000", ("http://a.example", "https://b.example:3000")),
        ('["http://a.example/","http://b.example"]', ("http://a.example", "http://b.example")),
        ("*", ("*",)),
    ],
)
def test_h6_origins_are_read_as_people_write_them(text: str, origins: tuple[str, ...]) -> None:
    assert from_environment.load(None, {"CORS_ORIGINS": text}).config.listeners[0].cors.origins == origins


def test_h6_one_model_for_both_is_one_model() -> None:
    settled = from_environment.load(None, {"DEFAULT_REGULAR_MODEL": "m", "DEFAULT_VISION_MODEL": "m"})
    assert [model.id for model in settled.models] == ["m"]


def test_h6_other_machines_need_a_key() -> None:
    for environ in ({"HOST": "0.0.0.0"}, {"HOST": "192.0.2.7"}, {"HOST": "::"}):
        with pytest.raises(ConfigError, match="set DRAGOMAN_KEY to a key that clients must send, or HOST="):
            from_environment.load(None, environ)
        assert from_environment.load(None, {**environ, "DRAGOMAN_KEY": "a-long-secret"}).config.keys == (
            "a-long-secret",
        )
        assert from_environment.load(None, {**environ, "SERVE_THE_WHOLE_NETWORK_WITHOUT_KEYS": "true"}).config.listeners
        with pytest.raises(ConfigError):
            from_environment.load(None, {**environ, "SERVE_THE_WHOLE_NETWORK_WITHOUT_KEYS": "false"})


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"PORT": "http"}, "PORT=http is no port"),
        ({"PORT": "65536"}, "PORT=65536 is no port"),
        ({"PORT": "٣"}, "PORT=٣ is no port"),
        ({"OPENAI_BASE_URL": "localhost:1234"}, "must begin with http:// .* - in OPENAI_BASE_URL, OPENAI_API_KEY$"),
        ({"OPENAI_BASE_URL": "http://localhost:8000/v1"}, "own listener - in OPENAI_BASE_URL"),
        ({"OPENAI_API_KEY": "a b"}, "no header can carry - in OPENAI_BASE_URL, OPENAI_API_KEY$"),
        ({"CORS_ORIGINS": "a.example"}, "an origin is scheme://host, without a path - in CORS_ORIGINS$"),
        ({"CORS_ORIGINS": "[1]"}, "CORS_ORIGINS is no JSON list of texts"),
        ({"DEFAULT_REGULAR_MODEL": "a\x07"}, "a name is printable .* - in DEFAULT_REGULAR_MODEL$"),
        ({"DEFAULT_VISION_MODEL": "a\x07"}, "a name is printable .* - in DEFAULT_VISION_MODEL$"),
        ({"DRAGOMAN_KEY": "short"}, "a key has at least .* - in DRAGOMAN_KEY$"),
        ({"OPENAI_API_KEY": "${NOBODY}"}, "the environment variable NOBODY is not set - in OPENAI_BASE_URL"),
    ],
    ids=str,
)
def test_h6_what_cannot_be_is_one_line_with_its_variable(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        from_environment.load(None, environ)
    assert str(caught.value).startswith("the environment: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"A=1\n\n\nno sense here\n", "line 4 is no NAME=value"),
        (b"A='open\n", "line 1 is no NAME=value"),
        ("PORT=1".encode("utf-16"), "the file is not UTF-8"),
    ],
)
def test_h6_a_file_that_is_none_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / ".env"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        from_environment.load(path, NONE)
    with pytest.raises(ConfigError, match="No such file"):
        from_environment.load(tmp_path / "none", NONE)


def test_h6_a_name_that_nobody_reads_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from_environment.load(written(tmp_path, "DEFAULT_REGULAR_MODLE=x\n"), NONE)
    assert "DEFAULT_REGULAR_MODLE is not a variable that is read" in caplog.text


def test_h6_check_takes_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in from_environment.USUAL:
        monkeypatch.delenv(name, raising=False)
    assert main(["check", "--env-file", str(PRINTED)]) == 0
    assert f"{PRINTED} is good: 2 models, 1 backends" in capsys.readouterr().out
    monkeypatch.setenv("PORT", "x")
    assert main(["check", "--env"]) == 2
    assert capsys.readouterr().err == "dragoman: the environment: PORT=x is no port\n"


def test_h6_two_sources_are_one_too_many() -> None:
    command = [sys.executable, "-m", "gateway", "check", "--env", "--config", "x"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, "not allowed with argument" in done.stderr) == (2, True)

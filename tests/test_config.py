"""config.yaml: everything that exists is shown, nothing else is accepted, and what is wrong is one line with its place."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from msgspec import Struct

from adapters.ollama.go import is_jinja
from backends.base import TYPES
from backends.clip.settings import ClipModelSettings, ClipSettings
from backends.diffusers.settings import PainterModelSettings, PainterSettings
from backends.llama_cpp import LlamaCppBackend
from backends.llama_cpp.settings import LlamaCppModelSettings, LlamaCppSettings
from backends.lmstudio.settings import LMStudioSettings, Loading
from backends.marian.settings import MarianModelSettings, MarianSettings
from backends.ocr.settings import OcrModelSettings, OcrSettings
from backends.strict_yaml import YamlError, read_yaml
from gateway import __main__
from gateway.config import ConfigError, load
from gateway.settings import Config, Cors, Defaults, Images, Limits, Listener, ModelEntry, Responses

ROOT = Path(__file__).resolve().parent.parent
SHOWN = (ROOT / "config.yaml").read_text()
SECRET = "sk-5up3r-s3cr3t-key"  # for tests
ENVIRON = {"DRAGOMAN_KEY": SECRET, "STUDIO_KEY": "studio-key"}
ECHO = "backends: {demo: {type: echo}}\n"

_COMMENTED = re.compile(r"^(?P<indent>[ ]*)# (?P<key>[ ]*(?:- )?[a-z_]+:(?: .*)?)$")


def uncommented(text: str) -> str:
    """config.yaml with its commented keys in force."""
    lines = []
    for line in text.splitlines():
        match = _COMMENTED.match(line)
        lines.append(match["indent"] + match["key"] if match else line)
    return "\n".join(lines)


def write(folder: Path, text: str, name: str = "house.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refused(folder: Path, text: str, environ: dict[str, str] | None = None) -> str:
    """The message for a configuration that cannot be used; always one line, with the file, and no secret."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path, ENVIRON if environ is None else environ)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert SECRET not in message
    return message.removeprefix(f"{path}: ")


def test_the_shipped_configuration_is_good():
    settled = load(ROOT / "config.yaml", {})
    assert [model.id for model in settled.models] == ["pip", "embed", "rerank"]
    assert settled.config.listeners == (Listener(port=11434),)


def test_every_commented_key_is_accepted(tmp_path):
    text = uncommented(SHOWN)
    assert text.count("#") < SHOWN.count("#") - 15
    shown = yaml.safe_load(text)
    assert set(shown) == set(Config.__struct_fields__)
    assert set(shown["limits"]) == set(Limits.__struct_fields__)
    assert set(shown["listeners"][0]) == set(Listener.__struct_fields__)
    assert set(shown["listeners"][0]["cors"]) == set(Cors.__struct_fields__)
    assert {section["type"] for section in shown["backends"].values()} == set(TYPES)
    # Two examples contradict what stands around them, as examples may.
    text = text.replace("[other-id]", "[embed]").replace("models_dir: ./models", f"models_dir: {ROOT / 'models'}")
    settled = load(write(tmp_path, text), ENVIRON)
    assert settled.config.keys == (SECRET,)
    assert len(settled.backends) == len(TYPES)


@pytest.mark.parametrize(
    "section",
    [
        Config,
        Images,
        Responses,
        Listener,
        Cors,
        Limits,
        Defaults,
        ModelEntry,
        LlamaCppSettings,
        LlamaCppModelSettings,
        MarianSettings,
        MarianModelSettings,
        ClipSettings,
        ClipModelSettings,
        OcrSettings,
        OcrModelSettings,
        PainterSettings,
        PainterModelSettings,
        LMStudioSettings,
        Loading,
    ],
)
def test_every_key_is_shown(section: type[Struct]):
    for name in section.__struct_fields__:
        if name not in {"settings", "own"}:  # the backend's own keys, and what some of these come to
            assert re.search(rf"^[ #-]*{name}:", SHOWN, re.MULTILINE), f"{name} is not in config.yaml"


def test_shown_defaults_are_the_defaults():
    shown = yaml.safe_load(uncommented(SHOWN))
    assert shown["limits"] == {name: getattr(Limits(), name) for name in Limits.__struct_fields__}
    standard = Config()
    for name in ("keep_alive", "access_log", "serve_the_whole_network_without_keys"):
        assert shown[name] == getattr(standard, name)


BROKEN = [
    ("memory: {ram: much}", "no amount of memory: 12GB, 8GiB, 75% or auto - at `$.memory.ram`"),
    ("memory: {vram: 101%}", "at `$.memory.vram`"),
    (
        ECHO + "models: [{id: a, backend: demo, pinned: true}, {id: b, backend: demo, exclusive: true}]",
        "'a' is pinned, so 'b' is never alone - at `$.models[1].exclusive`",
    ),
    ("lisners: []", "unknown field `lisners`"),
    ("listeners: [{port: 1, prot: 2}]", "unknown field `prot` - at `$.listeners[0]`"),
    ("listeners: [{port: 1, cors: {origin: []}}]", "unknown field `origin` - at `$.listeners[0].cors`"),
    ("limits: {body_limit: 3}", "unknown field `body_limit` - at `$.limits`"),
    (ECHO + "models: [{id: a, backend: demo, contxt: 3}]", "unknown field `contxt` - at `$.models[0]`"),
    ("backends: {demo: {type: echo, url: x}}", "unknown field `url` - at `$.backends.demo`"),
    ("backends: {x: {type: openai, url: 'http://h', timeouts: {conect: 1}}}", "`$.backends.x.timeouts`"),
    ("listeners: [{port: http}]", "`$.listeners[0].port`"),
    ("listeners: [{port: 65536}]", "`$.listeners[0].port`"),
    ("listeners: [{port: -1}]", "`$.listeners[0].port`"),
    ("listeners: [{}]", "`port` - at `$.listeners[0]`"),
    ("listeners: 11434", "`$.listeners`"),
    ("listeners: []", "`$.listeners`"),
    ("listeners: [{port: 1, dialects: []}]", "`$.listeners[0].dialects`"),
    ("listeners: [{port: 1, dialects: [olama]}]", "`$.listeners[0].dialects[0]`"),
    ("listeners: [{port: 1, dialects: [ollama, ollama]}]", "`$.listeners[0].dialects`"),
    ("listeners: [{port: 1}, {port: 1}]", "port 1 stands twice - at `$.listeners[1].port`"),
    ("listeners: [{port: 1, cors: {origins: ['https://a.example/']}}]", "`$.listeners[0].cors.origins`"),
    ("listeners: [{port: 1, cors: {origins: ['https://a'], credentials: true}}]", "`$.listeners[0].cors`"),
    ("limits: {grace: -1}", "`$.limits.grace`"),
    ("limits: {waiting: .inf}", "`$.limits.waiting`"),
    ("limits: {waiting_time: .nan}", "`$.limits.waiting_time`"),
    ("keep_alive: five minutes", "`$.keep_alive`"),
    ("keep_alive: .inf", "`$.keep_alive`"),
    (ECHO + "models: [{id: a, backend: demo, keep_alive: 5x}]", "`$.models[0].keep_alive`"),
    ("access_log: perhaps", "`$.access_log`"),
    ("keys: [short]", "`$.keys[0]`"),
    ("keys: ['has a blank in it']", "`$.keys[0]`"),
    ("keys: ['schlüsselschlüssel']", "`$.keys[0]`"),
    ("keys: abcdefghij", "`$.keys`"),
    (
        "backends: {x: {type: olama}}",
        f"unknown type 'olama' (one of {', '.join(sorted(TYPES))}) - at",
    ),
    ("backends: {x: {}}", "missing `type`"),
    ("backends: {x: {type: 3}}", "missing `type`"),
    ("backends: {x: {type: 'nowhere.at.all:Class'}}", "`$.backends.x.type`"),
    ("backends: {x: {type: 'json:Nothing'}}", "`$.backends.x.type`"),
    ("backends: {x: {type: 'json:JSONDecoder'}}", "`$.backends.x.type`"),
    ("backends: {x: {type: ':Class'}}", "`$.backends.x.type`"),
    ("backends: {x/y: {type: echo}}", "`$.backends.x/y`"),
    ("backends: {x: [1]}", "`$.backends[...]`"),
    ("models: [{id: a, backend: nope}]", "unknown backend 'nope' - at `$.models[0].backend`"),
    ("models: [{id: a}]", "`$.models[0]`"),
    (ECHO + "models: [{id: '', backend: demo}]", "`$.models[0]`"),
    (ECHO + 'models: [{id: "a\\nb", backend: demo}]', "`$.models[0]`"),
    (ECHO + "models: [{id: a, backend: demo}, {id: b, backend: demo, aliases: [a]}]", "'a' belongs to 'a' already"),
    (ECHO + "models: [{id: a, backend: demo, fallbacks: [b]}]", "falls back to 'b', which is no model here"),
    (ECHO + "models: [{id: a, backend: demo, fallbacks: [a]}]", "falls back to itself"),
    (ECHO + "models: [{id: a, backend: demo}]\ndefaults: {chat: b}", "no model 'b'"),
    ("- 1", "Expected `object`"),
    ("false", "Expected `object`"),
    ("''", "Expected `object`"),
    ("a: [", "not YAML"),
    ("a: b: c", "line 1"),
    ("\tb: c", "line 1"),
    ("a: \x00", "not YAML"),
    ("access_log: true\naccess_log: false", "'access_log' stands twice in one mapping, line 2"),
    ("backends:\n  x: {type: echo}\n  y: {type: echo}\n  x: {type: echo}", "'x' stands twice in one mapping, line 4"),
    ("a: !!python/object/apply:os.system [true]", "tags"),
    ("a: !secret b", "tags"),
    ("a: 1\n---\nb: 2", "more than one document"),
    ("a: &a [*a]", "alias"),
    ("keys: ['${NOT_SET}']", "the environment variable NOT_SET is not set - at `$.keys[0]`"),
]


@pytest.mark.parametrize(("text", "said"), BROKEN, ids=[text[:50] for text, _ in BROKEN])
def test_what_is_wrong_is_one_line_with_its_place(tmp_path, text, said):
    assert said in refused(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)
    (tmp_path / "big.yaml").write_bytes(b"# " + b"x" * 300_000)
    with pytest.raises(ConfigError, match="larger than"):
        load(tmp_path / "big.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"keys: [schl\xfcssel]")
    with pytest.raises(ConfigError, match="not YAML"):
        load(tmp_path / "latin.yaml")


def test_an_empty_file_is_all_defaults(tmp_path):
    assert load(write(tmp_path, "# nothing\n")).config == Config()


def bomb(levels: int, merge: bool) -> str:
    first, last = ("{z: 1}", "<<: [{}]") if merge else ("[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]", "[{}]")
    lines = [f"x0: &x0 {first}"]
    for level in range(1, levels):
        inner = last.format(", ".join([f"*x{level - 1}"] * 10))
        lines.append(f"x{level}: &x{level} " + (f"{{{inner}}}" if merge else inner))
    return "\n".join(lines)


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.timeout(10)
def test_alias_bombs_are_refused_before_they_expand(merge):
    with pytest.raises(YamlError, match="values"):
        read_yaml(bomb(9, merge).encode())


@pytest.mark.timeout(10)
def test_nesting_without_end_is_refused(tmp_path):
    assert "nested too deeply" in refused(tmp_path, "a: " + "[" * 5000)
    assert "nested too deeply" in refused(tmp_path, "a: " + "[" * 2000 + "]" * 2000)


def test_merged_mappings_may_override_what_they_take(tmp_path):
    text = "a: {b: &b {x: 1, <<: {y: 2}}}\nc: {<<: *b, x: 3}\nd: &d {<<: *b, x: 4}\ne: {<<: *d}"
    assert read_yaml(text.encode())["c"] == {"x": 3, "y": 2}
    assert read_yaml(text.encode())["e"] == {"x": 4, "y": 2}


def test_variables_stand_for_text_anywhere_and_are_not_read_twice(tmp_path):
    path = write(tmp_path, "listeners: [{port: '${PORT}', hosts: ['${A}.lan']}]\nkeys: ['${A}-${A}']")
    settled = load(path, {"PORT": "8123", "A": "${B}1234"})
    assert settled.config.listeners[0].port == 8123
    assert settled.config.keys == ("${B}1234-${B}1234",)


@pytest.mark.parametrize(
    "text",
    [
        "keys: ['${DRAGOMAN_KEY}'",
        "keys: ['${DRAGOMAN_KEY} x']",
        "keys: {'${DRAGOMAN_KEY}': 1}",
        f"keys: {SECRET}",
        f"keys: [*{SECRET}]",
        f"keys: [!{SECRET} x]",
        f"keys: [{SECRET}]]",
        f"keys: [{SECRET}, 'x']",
        f"keys: [[{SECRET}]]",
        f"keys: ['{SECRET} {SECRET}']",
        f"keys: [{SECRET}]\nlisteners: [{{port: x}}]",
        f"backends: {{x: {{type: openai, url: 'http://h', api_key: '{SECRET} x'}}}}",
        f"backends: {{x: {{type: openai, url: 'http://h', api_key: ['{SECRET}']}}}}",
        f"backends: {{x: {{type: openai, url: 'http://h:x', api_key: '{SECRET}'}}}}",
        f"backends: {{x: {{type: openai, url: 'http://me:{SECRET}@h:p', api_key: abcdefgh}}}}",
        f"backends: {{x: {{type: openai, url: 'http://me:{SECRET}@h', api_key: abcdefgh}}}}",
        f"backends: {{x: {{type: openai, url: ['{SECRET}']}}}}",
    ],
)
def test_no_message_has_a_secret_in_it(tmp_path, text):
    refused(tmp_path, text)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "''", "example.org", "127.0.0.1.example.org"])
def test_an_address_for_others_needs_keys_or_frightening_words(tmp_path, host):
    text = f"listeners: [{{port: 1, host: '{host.strip(chr(39))}'}}]\n"
    assert "serve_the_whole_network_without_keys" in refused(tmp_path, text)
    assert load(write(tmp_path, text + f"keys: [{SECRET}]"))
    assert load(write(tmp_path, text + "serve_the_whole_network_without_keys: true"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_a_loopback_address_needs_no_keys(tmp_path, host):
    assert load(write(tmp_path, f"listeners: [{{port: 1, host: '{host}'}}]")).config.listeners[0].loopback


@pytest.mark.parametrize(
    ("listening", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("127.0.0.1", "http://localhost:8000/v1"),
        ("127.0.0.1", "http://LocalHost:8000"),
        ("127.0.0.1", "http://localhost.:8000"),
        ("127.0.0.1", "http://[::1]:8000"),
        ("127.0.0.1", "http://0.0.0.0:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://localhost:8000"),
        ("192.0.2.7", "http://192.0.2.7:8000"),
    ],
)
@pytest.mark.parametrize("kind", ["ollama", "openai"])
def test_a_backend_that_is_our_own_listener_is_refused(tmp_path, listening, url, kind):
    text = f"listeners: [{{port: 8000, host: '{listening}'}}]\nkeys: [{SECRET}]\n"
    text += f"backends: {{x: {{type: {kind}, url: '{url}'}}}}"
    assert "this gateway's own listener - at `$.backends.x.url`" in refused(tmp_path, text)


def test_a_backend_on_another_port_or_machine_is_fine(tmp_path):
    text = "listeners: [{port: 8000}]\nbackends:\n"
    text += "  x: {type: openai, url: 'http://127.0.0.1:8001'}\n  y: {type: openai, url: 'http://192.0.2.7:8000'}"
    assert len(load(write(tmp_path, text)).backends) == 2


def test_defaults_may_name_a_backends_own_model(tmp_path):
    assert load(write(tmp_path, ECHO + "models: [{id: a, backend: demo}]\ndefaults: {chat: demo/echo}"))


def test_relative_paths_count_from_the_file(tmp_path, monkeypatch):
    (tmp_path / "folder" / "models").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    settled = load(write(tmp_path / "folder", "backends: {l: {type: llama_cpp, models_dir: ./models}}"))
    assert settled.backends["l"]._files.folder == tmp_path / "folder" / "models"


def test_two_entries_cannot_give_one_local_model_two_groups_of_settings(tmp_path):
    text = f"backends: {{l: {{type: llama_cpp, models_dir: '{ROOT / 'models'}'}}}}\nmodels:\n"
    text += "  - {id: a, name: m, backend: l, file: pip.gguf, context: 512}\n"
    text += "  - {id: b, name: m, backend: l, file: pip.gguf}"
    assert "use aliases" in refused(tmp_path, text)


# The command line


def dragoman(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
        env={**os.environ, **environ},
        check=False,
    )


def test_check_says_good_with_status_0():
    done = dragoman("check")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"config.yaml is good: 3 models, \d backends", done.stdout)


def test_check_says_what_is_wrong_with_status_2_and_no_traceback(tmp_path):
    path = write(tmp_path, "keys: ['${TEST_SECRET}']\nlisteners: [{port: 1, prot: 2}]")
    done = dragoman("check", "--config", str(path), TEST_SECRET=SECRET)
    assert done.returncode == 2
    assert done.stderr == f"dragoman: {path}: Object contains unknown field `prot` - at `$.listeners[0]`\n"
    assert dragoman("check", "--config", str(tmp_path / "no.yaml")).returncode == 2
    assert dragoman("serve", "--config", str(tmp_path / "no.yaml")).returncode == 2


def test_a_module_that_fails_on_import_is_one_line(tmp_path):
    (tmp_path / "broken_backend.py").write_text("import sys\nraise RuntimeError('not today')")
    path = write(tmp_path, "backends: {x: {type: 'broken_backend:Class'}}")
    done = dragoman("check", "--config", str(path), PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "not today - at `$.backends.x.type`" in done.stderr


def test_a_taken_port_is_one_line_that_names_it(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = dragoman("serve", "--config", str(write(tmp_path, f"listeners: [{{port: {port}}}]")))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"dragoman: port {port} on 127.0.0.1 is already in use\n"


@pytest.mark.parametrize("host", ["192.0.2.1", "a" * 300, "a\\0b"])
def test_an_address_that_is_not_ours_is_one_line(tmp_path, host):
    path = write(tmp_path, f'listeners: [{{port: 0, host: "{host}"}}]\nkeys: [{SECRET}]')
    done = dragoman("--config", str(path))
    assert done.returncode == 2
    assert done.stderr.startswith("dragoman: cannot listen on")
    assert done.stderr.count("\n") == 1


def test_the_command_in_this_process(capsys):
    assert __main__.main(["check", "--config", str(ROOT / "config.yaml")]) == 0
    assert __main__.main(["check", "--config", str(ROOT / "none.yaml")]) == 2
    assert "none.yaml: No such file or directory" in capsys.readouterr().err


def test_the_template_of_a_modelfile_is_said_in_jinja(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, LlamaCppModelSettings] = {}
    monkeypatch.setattr(LlamaCppBackend, "configure", lambda _, name, settings: known.update({name: settings}))
    config = tmp_path / "config.yaml"
    config.write_text(
        "backends: {local: {type: llama_cpp, models_dir: .}}\n"
        "models: [{id: m, backend: local, file: m.gguf, modelfile: Modelfile}]\n"
    )
    (tmp_path / "Modelfile").write_text("FROM m\nTEMPLATE Question: {{ .Prompt }} Answer:\n")
    load(config)
    assert is_jinja(known["m"].chat_template)
    (tmp_path / "Modelfile").write_text("FROM m\nTEMPLATE {{ .Prompt\n")
    with pytest.raises(ConfigError, match=r"the modelfile: .* at `\$\.models\[0\]`"):
        load(config)

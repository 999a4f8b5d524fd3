"""B17, B18: translation in the dialect ``brenda``, against a live gateway with the demo models."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.serving import ROOT, Served, serving

pytest.importorskip("ctranslate2")

CONFIG = """
listeners: [{port: 0, dialects: [brenda, ollama]}]
backends:
  translation: {type: marian, models_dir: ./models/translation, threads: 1%s}
%s
"""


def call(url: str, path: str, body: object = None, timeout: float = 30) -> tuple[int, Any]:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout)
    with contextlib.closing(connection):
        connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def translate(served: Served, text: object, source: str = "en", target: str = "fr", **more: object) -> tuple[int, Any]:
    body = {"text": text, "from_lang": source, "to_lang": target, **more}
    return call(served.url, "/v1/translation/translate", body)


@pytest.fixture(scope="module")
def house():
    with serving(CONFIG % ("", "")) as served:
        yield served


def test_b17_the_languages_and_which_go_by_way_of_another(house):
    assert call(house.url, "/v1/translation/languages") == (
        200,
        {"languages": {"en": ["de", "fr"], "fr": ["de", "en"]}, "via": {"fr": {"de": "en"}}},
    )


def test_b18_hello_becomes_bonjour(house):
    assert translate(house, "hello") == (200, {"translated_text": "bonjour", "from": "en", "to": "fr"})


def test_b18_by_way_of_a_third_language_which_the_reply_says(house):
    assert translate(house, "le chat est noir", "fr", "de") == (
        200,
        {"translated_text": "die Katze ist schwarz", "from": "fr", "to": "de", "via": "en"},
    )


def test_b18_a_long_text_keeps_its_lines_and_blanks(house):
    text = "  Hello! \r\n\r\n\tGood morning.  The cat is red.\n - 12.5 %\n" * 40
    said = "  Bonjour ! \r\n\r\n\tBonjour.  Le chat est rouge.\n - 12.5 %\n" * 40
    assert translate(house, text) == (200, {"translated_text": said, "from": "en", "to": "fr"})


def test_b18_several_texts_at_once_keep_their_order(house):
    texts = ["thank you", "", "hello", "the dog is small", "hello", "  "]
    said = ["merci", "", "bonjour", "le chien est petit", "bonjour", "  "]
    assert translate(house, texts)[1]["translated_text"] == said
    assert translate(house, [])[1]["translated_text"] == []


@pytest.mark.parametrize(("source", "target"), [("EN", "FR"), ("en-US", "fr_CA"), ("eng", "fra"), (" en ", "fr")])
def test_b18_codes_of_regions_and_other_spellings_mean_the_language(house, source, target):
    told = {"translated_text": "bonjour", "from": source, "to": target}
    assert translate(house, "hello", source, target) == (200, told)


@pytest.mark.parametrize("text", ["hello", "", "\n", "🙂 123"])
def test_b18_into_the_same_language_a_text_stays_as_it_is(house, text):
    assert translate(house, text, "en", "en-GB")[1]["translated_text"] == text


@pytest.mark.parametrize("text", ["", " \n ", "12,5", "🙂🙂", "---"])
def test_b18_what_has_no_words_stays_as_it_is(house, text):
    assert translate(house, text) == (200, {"translated_text": text, "from": "en", "to": "fr"})


def test_b18_the_language_can_be_found_out(house):
    pytest.importorskip("py3langid")
    assert translate(house, "le chat est noir", "auto", "en")[1] == {
        "translated_text": "the cat is black",
        "from": "fr",
        "to": "en",
    }
    status, told = translate(house, "El gato es negro y la casa es grande", "auto", "en")
    assert status == 400
    assert "Spanish (es)" in told["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"text": "x", "from_lang": "xx", "to_lang": "fr"}, "'xx' is not known here; known are: de, en, fr"),
        ({"text": "x", "from_lang": "en", "to_lang": "français"}, "is not known here; known are: de, en, fr"),
        ({"text": "x", "from_lang": "de", "to_lang": "fr"}, "German (de) into French (fr)"),
        ({"text": "x", "from_lang": "", "to_lang": "fr"}, "from_lang"),
        ({"text": "x", "from_lang": "en"}, "to_lang"),
        ({"from_lang": "en", "to_lang": "fr"}, "text"),
        ({"text": 5, "from_lang": "en", "to_lang": "fr"}, "text"),
        ({"text": ["a", None], "from_lang": "en", "to_lang": "fr"}, "text[1]"),
        ({"text": ["a"] * 20_001, "from_lang": "en", "to_lang": "fr"}, "20000 texts"),
        ({"text": "a" * 500_001, "from_lang": "en", "to_lang": "fr"}, "500000 characters"),
        ([], "object"),
    ],
)
def test_b18_what_cannot_be_is_400_and_says_why(house, body, words):
    status, told = call(house.url, "/v1/translation/translate", body)
    assert status == 400
    assert words in told["error"]


def test_b18_a_model_can_be_named(house):
    assert translate(house, "hello", model="opus-mt-en-fr")[1]["translated_text"] == "bonjour"
    assert translate(house, "hello", model="opus-mt-en-de")[0] == 400
    assert translate(house, "x", model="nobody")[0] == 404
    status, told = translate(house, "x", model="py3langid")
    assert status == 400
    assert "does not support translate" in told["error"]


def test_b18_clients_at_once_get_each_their_own(house):
    wanted = {"hello": "bonjour", "thank you": "merci", "the cat is red": "le chat est rouge", "yes": "oui"}
    with ThreadPoolExecutor(12) as crowd:
        texts = list(wanted) * 12
        answers = list(crowd.map(lambda text: translate(house, text)[1], texts))
    assert [answer.get("translated_text", answer) for answer in answers] == [wanted[text] for text in texts]


def test_models_of_translation_are_no_chat_models(house):
    assert [row["name"] for row in call(house.url, "/api/tags")[1]["models"]] == []


# Faults


def workers(served: Served) -> dict[str, int]:
    """The processes of loaded models by their names."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == served.process.pid and b"-m" in words:
                found[words[words.index(b"-m") + 2].decode()] = int(entry.name)
    return found


LONG = " ".join(f"The cat is red and {number} and the house is old." for number in range(9_000))
"""It would take minutes: each of its sentences is another one."""


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def until_at_work(pid: int, before: float) -> None:
    deadline = time.monotonic() + 30
    while cpu(pid) < before + 0.3:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_worker_fails_what_runs_and_is_started_again():
    with serving(CONFIG % ("", "")) as served:
        assert translate(served, "hello")[0] == 200
        pid = workers(served)["opus-mt-en-fr"]
        before = cpu(pid)
        with ThreadPoolExecutor(1) as other:
            running = other.submit(translate, served, LONG)
            until_at_work(pid, before)
            os.kill(pid, signal.SIGKILL)
            status, told = running.result()
        assert status == 502
        assert "SIGKILL" in told["error"]
        assert translate(served, "hello")[1]["translated_text"] == "bonjour"
        assert workers(served)["opus-mt-en-fr"] != pid


def test_under_the_memory_budget_models_go_and_come_again():
    with serving(CONFIG % ("", "memory: {models: 1}")) as served:
        assert translate(served, "le chat est noir", "fr", "de")[1]["translated_text"] == "die Katze ist schwarz"
        assert set(workers(served)) == {"opus-mt-en-de"}
        assert translate(served, "le chat est noir", "fr", "en")[1]["translated_text"] == "the cat is black"
        assert set(workers(served)) == {"opus-mt-fr-en"}


def test_a_model_that_does_not_fit_is_503():
    with serving(CONFIG % ("", "memory: {ram: 10MB}")) as served:
        status, told = translate(served, "hello")
        assert status == 503
        assert "memory" in told["error"]


def test_a_client_that_leaves_stops_its_translation_within_a_batch():
    with serving(CONFIG % (", slots: 1", "")) as served:
        assert translate(served, "hello")[0] == 200
        pid = workers(served)["opus-mt-en-fr"]
        address = urlsplit(served.url)
        leaver = http.client.HTTPConnection(address.hostname, address.port)
        before = cpu(pid)
        leaver.request(
            "POST", "/v1/translation/translate", json.dumps({"text": LONG, "from_lang": "en", "to_lang": "fr"})
        )
        until_at_work(pid, before)
        leaver.close()
        began = time.monotonic()
        assert translate(served, "hello")[1]["translated_text"] == "bonjour"  # there is one slot
        assert time.monotonic() - began < 5
        deadline = time.monotonic() + 10
        while "499" not in served.log():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_hostile_texts_are_translated_or_refused_while_others_are_answered(house):
    texts = [
        "a" * 100_000,
        "a!" * 5_000,
        "x。" * 5_000,
        ". " * 50_000,
        "é\u0301" * 20_000,
        "\n" * 100_000,
        "\u2028." * 9_000,
    ]
    texts += ["</s> <unk> >>deu<< <pad>", "\ud800"[:0] + "\u0000hello\u0000", ">>de<< hello"]
    with ThreadPoolExecutor(4) as crowd:
        running = [
            crowd.submit(
                call, house.url, "/v1/translation/translate", {"text": text, "from_lang": "en", "to_lang": "fr"}, 100
            )
            for text in texts
        ]
        worst = 0.0
        while not all(one.done() for one in running):
            began = time.monotonic()
            assert call(house.url, "/v1/translation/languages")[0] == 200
            worst = max(worst, time.monotonic() - began)
            time.sleep(0.02)
    assert [one.result()[0] for one in running] == [200] * len(texts)
    assert worst < 2


# Models that cannot be converted, or are while others look


@pytest.fixture
def shelf(tmp_path):
    """A folder of models that may be changed, and where the converted ones go."""
    shutil.copytree(ROOT / "models/translation/opus-mt-en-fr", tmp_path / "models/opus-mt-en-fr")
    config = CONFIG.replace("./models/translation", str(tmp_path / "models")) % (f", cache: {tmp_path}/cache", "%s")
    return tmp_path, config % "keep_alive: 0"


def test_pickles_are_refused_and_the_error_says_what_to_do(shelf):
    folder, config = shelf
    model = folder / "models/opus-mt-en-fr"
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with serving(config) as served:
        assert call(served.url, "/v1/translation/languages")[1]["languages"] == {}
        status, told = translate(served, "hello")
        assert status == 400
        assert "pytorch_model.bin, which is never opened here" in told["error"]
        assert str(folder) not in told["error"]


def test_a_changed_model_is_converted_anew_and_the_old_one_goes(shelf):
    folder, config = shelf
    with serving(config) as served:
        assert translate(served, "hello")[1]["translated_text"] == "bonjour"
        (first,) = (path for path in (folder / "cache").iterdir() if path.is_dir())
        other = ROOT / "models/translation/opus-mt-en-de"
        for path in other.iterdir():  # what it says now is German
            shutil.copy(path, folder / "models/opus-mt-en-fr" / path.name)
        deadline = time.monotonic() + 20
        while (
            translate(served, "hello")[1]["translated_text"] != "hallo"
        ):  # the list of models is looked at now and then
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert [path for path in (folder / "cache").iterdir() if path.is_dir()] != [first]


def test_a_damaged_conversion_is_made_again(shelf):
    folder, config = shelf
    with serving(config) as served:
        assert translate(served, "hello")[0] == 200
        (made,) = (folder / "cache").glob("*/model.bin")
        made.write_bytes(made.read_bytes()[:1000])
    with serving(config) as served:
        assert translate(served, "hello")[1]["translated_text"] == "bonjour"


def test_two_gateways_convert_one_model_and_both_have_it(shelf):
    folder, config = shelf
    with serving(config) as first, serving(config) as second, ThreadPoolExecutor(2) as both:
        answers = list(both.map(lambda served: translate(served, "hello")[1]["translated_text"], (first, second)))
    assert answers == ["bonjour"] * 2
    assert len([path for path in (folder / "cache").iterdir() if path.is_dir()]) == 1


def test_where_nothing_can_be_written_it_is_507_and_nothing_is_left(shelf):
    folder, config = shelf
    (folder / "cache").write_text("no folder")
    with serving(config) as served:
        status, told = translate(served, "hello")
    assert status == 507
    assert "cannot be converted" in told["error"]
    assert str(folder) not in told["error"]


def test_without_the_extra_it_is_501_with_the_command_to_type(tmp_path):
    """A module of this name that cannot be found: find_spec looks along the same path as import."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Nowhere:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'ctranslate2', 'py3langid'}: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Nowhere())\n"
    )
    environ = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with serving(CONFIG % ("", ""), environ=environ) as served:
        assert call(served.url, "/v1/translation/languages")[1]["languages"]["en"] == ["de", "fr"]
        for source in ("en", "auto"):
            status, told = translate(served, "hello", source)
            assert status == 501
            assert "pip install 'dragoman[translation]'" in told["error"]


def test_without_a_backend_that_translates_it_is_501():
    with serving("listeners: [{port: 0, dialects: [brenda]}]\nbackends: {demo: {type: echo}}") as served:
        assert call(served.url, "/v1/translation/languages") == (200, {"languages": {}, "via": {}})
        status, told = translate(served, "hello")
        assert status == 501
        assert "type marian" in told["error"]

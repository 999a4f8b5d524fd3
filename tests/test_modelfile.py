"""Modelfile text: Ollama's grammar, its words for what is wrong, and back again for any text."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.ollama.modelfile import Modelfile, read_modelfile, read_parameters, write_modelfile, write_parameters
from adapters.ollama.values import BOOLEANS, FLOATS, INTEGERS
from canonical.errors import InvalidRequest
from canonical.messages import Message, Text

WHOLE = '''# a comment
from ./tiny.gguf
From ./tiny-00002.gguf
PARAMETER temperature 0.2
parameter num_ctx 4096
PARAMETER num_ctx 8192
PARAMETER use_mmap false
PARAMETER stop "<|end|>"
PARAMETER stop  <|user|>
TEMPLATE """{{ .System }}
# no comment
{{ .Prompt }}"""
SYSTEM You answer in one line.   # and this belongs to it
  ADAPTER ./lora.gguf
MESSAGE user hi
MESSAGE assistant """hello
there"""
LICENSE MIT
LICENSE """
Apache
"""
REQUIRES 0.14.0
DRAFT small.gguf
'''


def test_every_command_is_read():
    assert read_modelfile(WHOLE) == Modelfile(
        sources=("./tiny.gguf", "./tiny-00002.gguf"),
        adapters=("./lora.gguf",),
        drafts=("small.gguf",),
        template="{{ .System }}\n# no comment\n{{ .Prompt }}",
        system="You answer in one line.   # and this belongs to it",
        licenses=("MIT", "\nApache\n"),
        parameters={"temperature": 0.2, "num_ctx": 8192, "use_mmap": False, "stop": ["<|end|>", "<|user|>"]},
        messages=(Message("user", (Text("hi"),)), Message("assistant", (Text("hello\nthere"),))),
        requires="0.14.0",
    )


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfFROM m\r\nSYSTEM \xc3\xa9\r\n",
        "FROM m\nSYSTEM é".encode("utf-16"),
        b"\xfe\xff" + "FROM m\nSYSTEM é".encode("utf-16-be"),
        "FROM\tm\rSYSTEM é\r".encode(),
    ],
)
def test_marks_of_encodings_and_other_line_ends(data):
    assert read_modelfile(data) == Modelfile(sources=("m",), system="é")


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("plain", "plain"),
        ("  two  words  ", "two  words"),
        ('"quoted"', "quoted"),
        ('" kept "', " kept "),
        ('""', ""),
        ("", ""),
        ('"""x"""', "x"),
        ('"""he said "x""""', 'he said "x"'),
        ('"one\ntwo"', "one\ntwo"),
        ('say "x"', 'say "x"'),
        ('"a" and "b"', 'a" and "b'),
    ],
)
def test_quotes(value, read):
    assert read_modelfile(f"FROM m\nSYSTEM {value}\nTEMPLATE t").system == read


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no FROM line"),
        ("SYSTEM x", "no FROM line"),
        ("FROM m\n\nFRO x", '(line 3): command must be one of "from", "license", "template", "system", "adapter", '),
        ("FROM", "(line 1): command must be one of"),
        ("FROM m\r\nFROM\r\n", '"message", or "requires"'),
        ("FROM m\nPARAMETER heat 1", "(line 2): unknown parameter 'heat'"),
        ("FROM m\nPARAMETER temperature hot", "(line 2): invalid float value [hot]"),
        ("FROM m\nPARAMETER temperature nan", "invalid float value [nan]"),
        ("FROM m\nPARAMETER num_ctx 1.5", "invalid int value [1.5]"),
        ("FROM m\nPARAMETER use_mmap maybe", "invalid bool value [maybe]"),
        ("FROM m\nPARAMETER num_ctx", "(line 2): PARAMETER needs a name and a value"),
        ("FROM m\nMESSAGE tool x", '(line 2): message role must be one of "system", "user", or "assistant"'),
        ('FROM m\nSYSTEM """x\ny', "(line 2): unexpected end of file"),
        ('FROM m\nSYSTEM "x\ny', "(line 2): unexpected end of file"),
        (b"FROM m\nSYSTEM \xff", "UTF-8"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text, words):
    with pytest.raises(InvalidRequest) as caught:
        read_modelfile(text)
    assert words in caught.value.message


def test_what_has_no_effect_is_a_warning():
    found = read_modelfile("FROM m\nPARAMETER mirostat 1\nRENDERER qwen3\nPARSER qwen3")
    assert found.parameters == {}
    assert len(found.warnings) == 3


def test_a_hostile_text_is_told_at_once():
    """As ``/api/show`` does for everybody, of what anybody made."""
    text = '"\n"""\n' + "".join(f'"""END{number}\n' for number in range(1, 200_000))
    began = time.process_time()
    written = write_modelfile(Modelfile(sources=("m",), system=text))
    told = write_parameters({"stop": [f"x{number}" for number in range(200_000)]})
    assert len(read_parameters(told)["stop"]) == 200_000
    assert time.process_time() - began < 20
    assert '"""END200000' in written


def test_a_hostile_file_takes_no_time():
    """Quotes that never close, blanks without end: each is walked through once."""
    for line in ('"', '"""', '" ', "\t \n", '"""a"""b\n'):
        with pytest.raises(InvalidRequest):
            read_modelfile('SYSTEM """' + line * 200_000 + "x")


TEXTS = st.text(max_size=60) | st.text(alphabet='"\n \r#a\t\u2028E1N:', max_size=12)
MODELFILES = st.builds(
    Modelfile,
    sources=st.lists(TEXTS, min_size=1, max_size=3).map(tuple),
    adapters=st.lists(TEXTS, max_size=2).map(tuple),
    template=st.none() | TEXTS,
    system=st.none() | TEXTS,
    licenses=st.lists(TEXTS, max_size=2).map(tuple),
    parameters=st.fixed_dictionaries(
        {},
        optional={
            **{name: st.integers(-(10**12), 10**12) for name in INTEGERS},
            **{name: st.floats(allow_nan=False, allow_infinity=False) for name in FLOATS},
            **{name: st.booleans() for name in BOOLEANS},
            "stop": st.lists(TEXTS, min_size=1, max_size=3),
        },
    ),
    messages=st.lists(
        st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.tuples(st.builds(Text, TEXTS))),
        max_size=3,
    ).map(tuple),
)


@given(MODELFILES)
@example(Modelfile(sources=("m",), system='a"""\nb"\nc'))
@example(Modelfile(sources=("m",), system='a"""END1\nb"\n"""END2\n'))
@example(Modelfile(sources=("m",), system='x"""END1'))
def test_what_is_written_is_read_as_the_same(modelfile):
    assert read_modelfile(write_modelfile(modelfile)) == modelfile


def test_usual_texts_are_written_as_ollama_writes_them():
    assert write_modelfile(read_modelfile(WHOLE)).splitlines()[:6] == [
        "FROM ./tiny.gguf",
        "FROM ./tiny-00002.gguf",
        "ADAPTER ./lora.gguf",
        "DRAFT small.gguf",
        'TEMPLATE """{{ .System }}',
        "# no comment",
    ]
    told = write_modelfile(Modelfile(sources=("x",), parameters={"temperature": 0.0, "top_p": 0.9}))
    assert told == "FROM x\nPARAMETER temperature 0\nPARAMETER top_p 0.9\n"


def test_parameters_as_show_words_them():
    text = write_parameters({"stop": ["<|im_end|>", 'a"\n'], "temperature": 0.6, "num_ctx": 4096, "top_p": 1.0})
    assert text.splitlines() == [
        'stop                           "<|im_end|>"',
        r'stop                           "a\"\n"',
        "temperature                    0.6",
        "num_ctx                        4096",
        "top_p                          1",
    ]
    assert read_parameters(text) == {"stop": ["<|im_end|>", 'a"\n'], "temperature": 0.6, "num_ctx": 4096, "top_p": 1.0}
    assert read_parameters("num_ctx 1\nodd\n\nunknown 5\nstop   x") == {"num_ctx": 1, "stop": ["x"]}


@given(st.text())
def test_any_stop_is_told_on_one_line(text):
    told = write_parameters({"stop": [text]})
    assert len(told.splitlines()) == 1
    assert json.loads(told.partition(" ")[2]) == text
    assert read_parameters(told) == {"stop": [text]}

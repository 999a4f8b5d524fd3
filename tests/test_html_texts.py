"""HTML with other texts: of the markup no byte changes, and what is text is what an HTML parser takes for text."""

from __future__ import annotations

import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.libretranslate.html import Document

PAGE = """<!DOCTYPE html><html lang="en"><head><title>A &amp; B</title><style>p { color: red }</style></head>
<!-- a <b>comment</b> --><body class='x' data-a="1 > 0"><P>Hello&nbsp;<b>you</b>!<br/>More<br>text</P>
<script>if (a < b && "</p>") { run("text") }</script><pre>kept  as <i>it</i> is</pre><code>x</code>
<span translate="no">Brand <span>inner</span> name</span> after <i class="a notranslate b">also</i>
<img alt="not me" src=x><p>1 < 2 and 3 > 2 &lt;tag&gt; <a href=it's>it</a></p><![CDATA[ data ]]></body></html>"""


def test_the_texts_of_a_page():
    assert [text.strip() for text in Document(PAGE).texts] == [
        "A & B", "Hello", "you", "More", "text", "after", "1 < 2 and 3 > 2 <tag>", "it",
    ]  # fmt: skip


def test_only_texts_change():
    document = Document(PAGE)
    changed = document.with_texts([f"[{number}]" for number in range(len(document.texts))])
    assert changed.startswith('<!DOCTYPE html><html lang="en"><head><title>[0]</title><style>p { color: red }</style>')
    assert "<P>[1]<b>[2]</b>!<br/>[3]<br>[4]</P>" in changed
    assert '<script>if (a < b && "</p>") { run("text") }</script><pre>kept  as <i>it</i> is</pre>' in changed
    assert '<span translate="no">Brand <span>inner</span> name</span>' in changed


def test_what_a_model_says_becomes_no_markup():
    assert Document("<p>hello</p>").with_texts(["<script>&"]) == "<p>&lt;script&gt;&amp;</p>"


class Reference(HTMLParser):
    """The standard library's parser, which is wholly different inside."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []

    def handle_data(self, data: str) -> None:
        self.found.append(data)


_WELL_FORMED = st.recursive(
    st.one_of(
        st.text(st.characters(exclude_characters="<&\0\r", exclude_categories=("Cs", "Cc")), max_size=12),
        st.sampled_from(["&amp;", "&eacute;", "&#233;", "<br>", "<!-- x -->", "<hr/>", '<a b="c>d" e>']),
    ),
    lambda inner: st.builds(
        lambda name, parts: f"<{name} a='1'>{''.join(parts)}</{name}>",
        st.sampled_from(["p", "div", "B"]),
        st.lists(inner, max_size=4),
    ),
    max_leaves=20,
)


@given(_WELL_FORMED)
def test_a_parser_sees_the_same_texts(source):
    reference = Reference()
    reference.feed(source)
    reference.close()
    letters = "".join(text for text in reference.found if any(map(str.isalpha, text)))
    ours = "".join(Document(source).texts)
    assert [char for char in ours if char.isalpha()] == [char for char in letters if char.isalpha()]


@given(st.text(st.sampled_from("<>/!-?abp &;=\"' \n[]"), max_size=120))
def test_any_markup_stays_as_it_is(source):
    document = Document(source)
    kept = "".join(piece for piece in document._pieces if isinstance(piece, str))
    assert len(kept) <= len(source)
    if not document.texts:
        assert str(document) == source


@pytest.mark.parametrize(
    "piece",
    [
        "<",
        "<a ",
        "<!--",
        '<a b="',
        "<a b='c' ",
        "</",
        "<script>",
        "<![CDATA[",
        "&",
        "<p translate=no>",
        "<a/=",
        "<a =",
        "<a " + "b " * 50,
    ],
)
def test_hostile_markup_takes_no_longer_than_it_is_long(piece):
    source = piece * (400_000 // len(piece))
    began = time.process_time()
    Document(source)
    assert time.process_time() - began < 3

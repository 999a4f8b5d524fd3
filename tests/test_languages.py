"""Codes of languages: models and clients write them in many ways, and mean the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canonical.languages import LIMIT, code_of, meant, name_of


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("fr", "fr"),
        ("FR", "fr"),
        (" fra ", "fr"),
        ("fre", "fr"),
        ("fr_FR", "fr-FR"),
        ("fr-ca", "fr-CA"),
        ("cmn_Hans", "zh-Hans"),
        ("zh_TW", "zh-Hant"),
        ("zh-CN", "zh-Hans"),
        ("zt", "zh-Hant"),
        ("pob", "pt-BR"),
        ("jap", "ja"),
        ("iw", "he"),
        ("srp_Cyrl", "sr-Cyrl"),
        ("yue", "yue"),
        ("", ""),
        ("french", ""),
        ("f", ""),
        ("fr/../x", ""),
        ("fr" + "-abcdefgh" * 9, ""),
    ],
)
def test_a_code_however_it_is_written(tag, code):
    assert code_of(tag) == code


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("fr", "French"),
        ("zh-Hant", "Chinese (traditional)"),
        ("pt-BR", "Portuguese (Brazil)"),
        ("fr-CA", "French (CA)"),
        ("yue", "yue"),
    ],
)
def test_names(code, name):
    assert name_of(code) == name


@pytest.mark.parametrize(
    ("asked", "among", "code"),
    [
        ("fr-FR", {"fr", "en"}, "fr"),
        ("fra", {"fr", "en"}, "fr"),
        ("zh_CN", {"zh", "en"}, "zh"),
        ("zh", {"zh-Hant", "zh-Hans"}, "zh-Hans"),
        ("zh-TW", {"zh-Hant", "zh-Hans"}, "zh-Hant"),
        ("pt", {"pt-BR"}, "pt-BR"),
        ("pt-PT", {"pt", "pt-BR"}, "pt"),
        ("sr", {"sr-Cyrl", "sr-Latn"}, "sr-Latn"),
        ("de-Latn-DE-1996", {"de"}, "de"),
        ("it", {"fr", "en"}, ""),
        ("", {"fr"}, ""),
    ],
)
def test_which_is_meant(asked, among, code):
    assert meant(asked, among) == code


@given(st.text(max_size=60))
def test_any_text_is_a_code_or_none_and_a_code_stays_itself(text):
    code = code_of(text)
    assert len(code) <= LIMIT
    assert code_of(code) == code
    assert name_of(code) or not code

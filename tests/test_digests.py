"""Digests have one form, whoever writes them."""

from __future__ import annotations

import pytest

from canonical import digests
from canonical.errors import InvalidRequest

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize("text", ["sha256:" + "AB" * 32, "sha256-" + "ab" * 32])
def test_digests_have_one_form(text):
    assert digests.normal(text) == DIGEST


@pytest.mark.parametrize(
    "text", ["", "ab" * 32, "sha256:" + "ab" * 31, "sha256_" + "ab" * 32, DIGEST + "\n", "sha512:" + "ab" * 32]
)
def test_what_is_no_digest(text):
    assert not digests.is_digest(text)
    with pytest.raises(InvalidRequest, match="invalid digest format"):
        digests.normal(text)


def test_a_digest_is_the_sha256_of_the_bytes():
    assert digests.EMPTY == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    ("name", "is_one"), [("sha256-" + "ab" * 32, True), (DIGEST, False), ("sha256-" + "AB" * 32, False)]
)
def test_the_file_of_a_blob_is_known_by_its_name(name, is_one):
    assert digests.is_blob(name) is is_one

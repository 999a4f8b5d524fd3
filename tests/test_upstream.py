"""The table of what a backend's failure means for a client."""

from __future__ import annotations

import pytest

from adapters.upstream import MESSAGE_LIMIT, retry_seconds, upstream_error
from canonical.errors import BackendError, BackendTimeout, Busy, InvalidRequest, ModelNotFound

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("status", "kind", "ours"),
    [
        (400, InvalidRequest, 400),
        (413, InvalidRequest, 413),
        (422, InvalidRequest, 422),
        (429, Busy, 429),
        (503, Busy, 503),
        (401, BackendError, 502),
        (403, BackendError, 502),
        (500, BackendError, 500),
        (502, BackendError, 502),
        (504, BackendTimeout, 504),
        (301, BackendError, 502),
        (307, BackendError, 502),
        (405, BackendError, 502),
        (418, BackendError, 502),
        (501, BackendError, 502),
        (529, BackendError, 502),
    ],
)
def test_status(status: int, kind: type[Exception], ours: int) -> None:
    error = upstream_error(status, "why")
    assert (type(error), error.status) == (kind, ours)


@pytest.mark.parametrize("status", [400, 413, 422, 429, 503, 500, 502, 504])
def test_the_reason_and_code_are_passed_on(status: int) -> None:
    error = upstream_error(status, " why ", "its_code")
    assert (error.message, error.code) == ("why", "its_code")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_of_our_key_never_quotes_it(status: int) -> None:
    error = upstream_error(status, "Incorrect API key provided: sk-secret", "invalid_api_key")
    assert "secret" not in error.message
    assert error.code == "backend_credentials"


@pytest.mark.parametrize(
    ("message", "code", "status"),
    [
        ("model 'x' not found", None, 404),
        ("No.", "model_not_found", 404),
        ("404 page not found", None, 502),
        ("", None, 502),
    ],
)
def test_404_is_ours_to_pass_on_when_it_speaks_of_a_model(message: str, code: str | None, status: int) -> None:
    error = upstream_error(404, message, code)
    assert error.status == status
    assert isinstance(error, ModelNotFound) is (status == 404)


def test_a_redirect_tells_no_address() -> None:
    assert upstream_error(302, "http://10.0.0.1/").message == "the backend answered with status 302"


def test_an_endless_message_is_cut() -> None:
    assert len(upstream_error(400, "x" * 100_000).message) == MESSAGE_LIMIT


def test_without_words_the_status_speaks() -> None:
    assert upstream_error(500, " ").message == "the backend answered with status 500"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("2.5", 2.5),
        ("3600", 3600),
        ("3601", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10),
        ("Tue, 14 Nov 2023 22:13:10 GMT", None),
        ("Fri, 14 Nov 2043 22:13:10 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_seconds(value, now=NOW) == seconds
    assert upstream_error(429, "", retry_after=value, now=NOW).retry_after == seconds
    assert upstream_error(400, "", retry_after=value, now=NOW).retry_after is None


def test_a_date_needs_a_clock() -> None:
    assert retry_seconds("Tue, 14 Nov 2023 22:13:30 GMT") is None

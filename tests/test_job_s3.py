"""Pictures in an object store: a real server, which goes, comes back, has no such bucket, or refuses the keys."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from canonical.errors import NotFound, StorageFailed
from gateway.jobs.files import new_name
from gateway.jobs.s3 import S3Files, check_url
from tests.job_processes import gateway
from tests.s3_server import KEY, SECRET, S3Server, s3_server
from tests.serving import ROOT

A, B, C, D, E, F = sorted(new_name() for _ in range(6))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "buckets") as one:
        yield one


def test_what_is_put_is_there_listed_and_gone_when_it_is_deleted(server: S3Server) -> None:
    async def story() -> None:
        files = S3Files(server.url())
        await files.check()
        assert server.kept() == [], "the check leaves something behind"
        await files.put(A, b"a" * 1_000_000)
        await files.put(B, b"b")
        assert server.kept() == ["pictures/some/where/" + A, "pictures/some/where/" + B]
        assert await files.get(A) == b"a" * 1_000_000
        others = server.folder / "pictures" / "some" / "where" / "of-others.txt"
        others.write_text("theirs")
        found = {name: at async for name, at in files.names()}
        assert set(found) == {A, B}
        assert all(at > 1_600_000_000 for at in found.values())
        await files.delete([A, new_name(), B])
        await files.delete([A])
        await files.delete(["of-others.txt"])
        assert others.read_text() == "theirs"
        others.unlink()
        assert server.kept() == []
        for name in (A, "../secret.png", "", "a/b.png", "x" * 5000):
            with pytest.raises(NotFound):
                await files.get(name)
        await files.close()

    asyncio.run(story())


def test_a_bucket_alone_is_a_place_too(server: S3Server) -> None:
    async def story() -> None:
        files = S3Files(server.url("pictures"))
        await files.put(C, b"c")
        assert server.kept() == ["pictures/" + C]
        assert [name async for name, _ in files.names()] == [C]
        await files.delete([C])

    asyncio.run(story())


def test_the_environment_says_what_the_url_does_not(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    async def story() -> None:
        files = S3Files("s3://pictures/x")
        await files.put(D, b"d")
        assert await files.get(D) == b"d"
        await files.delete([D])

    asyncio.run(story())


@pytest.mark.parametrize(
    ("path", "secret", "words"),
    [
        ("nowhere/some/where", SECRET, "the object store has no such bucket (NoSuchBucket)"),
        ("pictures/some/where", "another-secret", "the object store refuses its keys (SignatureDoesNotMatch)"),
    ],
)
def test_what_can_never_work_is_one_line_at_the_start(server: S3Server, path: str, secret: str, words: str) -> None:
    with pytest.raises(ValueError, match="object store") as raised:
        asyncio.run(S3Files(server.url(path, secret=secret)).check())
    assert str(raised.value) == words
    with pytest.raises(StorageFailed, match="object store"):
        asyncio.run(S3Files(server.url(path, secret=secret)).get(new_name()))


def test_a_server_that_is_away_is_waited_for_and_no_secret_is_told(
    server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        impatient = S3Files(server.url(), patience=0.3)
        server.stop()
        try:
            with caplog.at_level(logging.INFO):
                await impatient.check()
                for attempt in (
                    impatient.put(E, b"e"),
                    impatient.get(E),
                    impatient.delete([E]),
                    anext(impatient.names()),
                ):
                    with pytest.raises(StorageFailed, match="the object store does not answer"):
                        await attempt
            waiting = asyncio.ensure_future(S3Files(server.url(), patience=20).put(F, b"f"))
            done, _ = await asyncio.wait([waiting], timeout=0.05)
            assert not done
        finally:
            server.start()
        await waiting
        assert await S3Files(server.url()).get(F) == b"f"
        await S3Files(server.url()).delete([F])

    asyncio.run(story())
    assert "does not answer" in caplog.text
    for secret in (KEY, SECRET, E, str(server.port)):
        assert secret not in caplog.text


def house(folder: Path, url: str) -> Path:
    path = folder / "config.yaml"
    document = {
        "listeners": [{"port": 0, "dialects": ["images"]}],
        "backends": {"demo": {"type": "echo"}},
        "data_dir": str(folder / "data"),
        "jobs": {"results": url},
    }
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_bucket_that_is_not_there_is_refused_at_the_start(server: S3Server, tmp_path: Path, command: str) -> None:
    path = house(tmp_path, server.url("nowhere/x"))
    run = subprocess.run(
        [sys.executable, "-m", "gateway", command, "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr == "dragoman: the object store has no such bucket (NoSuchBucket) - at `$.jobs.results`\n"


def test_pictures_and_what_they_begin_with_are_there_for_all_machines(server: S3Server, tmp_path: Path) -> None:
    image = base64.b64encode((ROOT / "models" / "clip" / "red-square.png").read_bytes()).decode()
    with gateway(house(tmp_path, server.url())) as client:
        id = client.submit("a", image=image, strength=0.5)
        client.until(id, "SUCCESS")
        assert client.picture(id).startswith(b"\x89PNG")
        assert sorted(name.rpartition(".")[2] for name in server.kept()) == ["in", "png"]
        server.stop()
        waiting = client.submit("b")
        client.until(waiting, "PROGRESS")
        server.start()
        client.until(waiting, "SUCCESS")
        assert client.picture(waiting).startswith(b"\x89PNG")
        for one in (id, waiting):
            assert client.ask("DELETE", f"/jobs/{one}")[0] == 200
        assert server.kept() == []
        assert SECRET not in client.served.log()
    assert not (tmp_path / "data" / "pictures").exists()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://", "an object store is s3://bucket/prefix"),
        ("s3://b", "an object store is s3://bucket/prefix"),
        ("s3://key:hunter2@bucket/x", "an object store is s3://bucket/prefix"),
        ("s3://bucket/../x", "a prefix has letters"),
        ("s3://bucket//x", "an object store is s3://bucket/prefix"),
        ("s3://bucket/x?endpont=http://h", "'endpont' says nothing of an object store"),
        ("s3://bucket/x?endpoint=h:9000", "an endpoint is http://host:port"),
        ("s3://bucket/x?access_key_id=hunter2", "access_key_id and secret_access_key go together"),
        ("s3://bucket/x?region=a&region=b", "said twice"),
        ("s3://bucket/x?hunter2", "an object store is s3://bucket/prefix"),
    ],
)
def test_a_url_that_cannot_be_is_told_without_its_secrets(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        check_url(url)
    assert words in str(raised.value)
    assert "hunter2" not in str(raised.value)

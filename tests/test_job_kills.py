"""Whatever dies over a job, by SIGKILL: the job is found, begun again, and ends once. Real processes, a real Redis and PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.gated import Gate
from tests.job_processes import Client, children, gateway, kill, until, working
from tests.postgres import Server
from tests.redis_server import PASSWORD, RedisServer, redis_server
from tests.serving import ROOT


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    try:
        with redis_server(tmp_path_factory.mktemp("redis")) as server:
            yield server
    except FileNotFoundError as error:
        if os.environ.get("EXAMPLES") == "ci":
            raise
        pytest.skip(str(error))


class House:
    """One configuration, with the gate of its model."""

    def __init__(self, folder: Path, **jobs: Any) -> None:
        self.folder = folder
        self.database = jobs.pop("database", "")
        self.jobs = {"results": str(folder / "pictures"), **jobs}
        self.gate = Gate(folder / "gate")

    @property
    def config(self) -> Path:
        path = self.folder / "config.yaml"
        document = {
            "listeners": [{"port": 0, "dialects": ["images"]}],
            "backends": {"gated": {"type": "tests.gated:GatedBackend", "folder": str(self.gate.folder)}},
            "data_dir": str(self.folder / "data"),
            "database": self.database,
            "jobs": self.jobs,
        }
        path.write_text(json.dumps(document))
        return path

    def begun(self, client: Client, prompt: str, steps: int = 2, **more: Any) -> str:
        """A job that has done some of its steps, and waits for leave."""
        self.gate.let(prompt, steps)
        id = client.submit(prompt, steps=4, **more)
        until(lambda: self.gate.done(f"step-{steps}", prompt), what=prompt)
        until(lambda: (client.job(id).get("meta") or {}).get("current", 0) > 0, what=f"{prompt} is seen")
        return id

    def ended(self, client: Client, id: str, prompt: str, *, begun: int) -> None:
        """It was begun so often, and painted to its end once."""
        self.gate.let(prompt)
        client.until(id, "SUCCESS")
        assert client.picture(id).startswith(b"\x89PNG")
        assert len(self.gate.done("begin", prompt)) == begun
        assert len(self.gate.done("end", prompt)) == 1


@pytest.fixture(params=["file", "postgres"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> House:
    if request.param == "file":
        return House(tmp_path, running=0)
    server: Server = request.getfixturevalue("postgres")
    return House(tmp_path, running=0, database=server.emptied())


def test_a_gateway_that_dies_over_its_job_begins_it_again_once(tmp_path: Path) -> None:
    house = House(tmp_path, running=1)
    with gateway(house.config) as client:
        id = house.begun(client, "a")
        kill(client)
    with gateway(house.config) as client:
        until(lambda: len(house.gate.done("begin", "a")) == 2)
        assert client.job(id)["state"] == "PROGRESS"
        house.ended(client, id, "a", begun=2)


def test_another_worker_takes_over_from_one_that_dies(house: House) -> None:
    with gateway(house.config) as client, working(house.config) as one:
        id = house.begun(client, "a")
        assert house.gate.done("begin", "a") == [one.pid]
        with working(house.config) as two:
            one.kill()
            house.ended(client, id, "a", begun=2)
            assert house.gate.done("end", "a") == [two.pid]


def test_a_gateway_that_dies_is_not_missed_by_a_worker(house: House) -> None:
    with working(house.config) as worker:
        with gateway(house.config) as client:
            id = house.begun(client, "a")
            kill(client)
        house.gate.let("a")
        until(lambda: house.gate.done("end", "a"))
        with gateway(house.config) as client:
            house.ended(client, id, "a", begun=1)
        assert house.gate.done("begin", "a") == [worker.pid]


def test_three_deaths_are_a_failure_with_words(tmp_path: Path) -> None:
    house = House(tmp_path, running=0)
    with gateway(house.config) as client:
        house.gate.let("a", 2)
        id = client.submit("a", steps=4)
        for tried in (1, 2, 3):
            with working(house.config) as worker:
                until(lambda tried=tried: len(house.gate.done("step-2", "a")) == tried)
                worker.kill()
        with working(house.config):
            failed = client.until(id, "FAILURE")
        assert "the worker died over it 3 times" in json.dumps(failed)


def test_a_worker_ends_within_its_grace_and_gives_back_what_it_cannot_finish(tmp_path: Path) -> None:
    house = House(tmp_path, running=0)
    quick = house.config.with_name("quick.yaml")
    quick.write_text(json.dumps({**json.loads(house.config.read_text()), "limits": {"grace": 0.5}}))
    with gateway(house.config) as client:
        with working(quick) as worker:
            id = house.begun(client, "a")
            assert worker.end() == 0
        assert client.job(id)["state"] == "PENDING"
        with working(house.config) as worker:
            until(lambda: len(house.gate.done("begin", "a")) == 2)
            worker.process.terminate()
            house.gate.let("a")
            assert worker.process.wait(30) == 0, "it does not finish what it has begun"
        house.ended(client, id, "a", begun=2)


# Over Redis


@pytest.fixture
def spread(tmp_path: Path, redis: RedisServer) -> House:
    redis.kill()
    redis.start()
    return House(tmp_path, queue=redis.url)


def test_jobs_go_over_redis_in_turn_and_can_be_stopped(spread: House) -> None:
    with gateway(spread.config) as client:
        waiting = client.submit("b", steps=4)
        until(lambda: "no worker" in json.dumps(client.job(waiting)), what="words on why it waits")
        with working(spread.config) as worker:
            client.until(waiting, "SUCCESS")
            id = spread.begun(client, "a")
            until(lambda: client.job(id)["meta"] == {"current": 2, "total": 4, "percent": 50})
            status, _ = client.ask("DELETE", f"/jobs/{id}")
            assert status == 200
            until(lambda: spread.gate.done("stopped", "a") == [worker.pid])
            spread.ended(client, spread.begun(client, "c"), "c", begun=1)
            assert PASSWORD not in worker.log() + client.served.log()
            assert "prompt" not in worker.log()


def test_another_worker_takes_over_from_one_that_dies_over_redis(spread: House) -> None:
    with gateway(spread.config) as client, working(spread.config) as one:
        id = spread.begun(client, "a", n=2)
        with working(spread.config) as two:
            one.kill()
            spread.gate.let("a")
            client.until(id, "SUCCESS")
            assert spread.gate.done("begin", "a") == [one.pid, two.pid]


def test_a_gateway_that_dies_joins_the_job_again(spread: House) -> None:
    with working(spread.config) as worker:
        with gateway(spread.config) as client:
            id = spread.begun(client, "a")
            kill(client)
        with gateway(spread.config) as client:
            until(lambda: client.job(id)["state"] == "PROGRESS")
            spread.ended(client, id, "a", begun=1)
        assert spread.gate.done("end", "a") == [worker.pid]


def test_redis_may_lose_everything(spread: House, redis: RedisServer) -> None:
    with gateway(spread.config) as client, working(spread.config):
        finished, kept = spread.begun(client, "a"), ""
        redis.kill()
        until(lambda: "cannot be reached" in json.dumps(client.job(finished)), what="words on why it stands still")
        spread.gate.let("b", 2)
        kept = client.submit("b", steps=4)
        assert client.job(kept)["state"] == "PENDING"
        assert "cannot be reached" in json.dumps(client.job(kept))
        # The worker finishes meanwhile, and cannot say so.
        spread.gate.let("a")
        until(lambda: spread.gate.done("end", "a"))
        redis.start()
        spread.ended(client, finished, "a", begun=1)
        until(lambda: spread.gate.done("step-2", "b"))
        spread.ended(client, kept, "b", begun=1)
        stopped = spread.begun(client, "c")
        redis.kill()
        until(lambda: "cannot be reached" in json.dumps(client.job(stopped)))
        assert client.ask("DELETE", f"/jobs/{stopped}")[0] == 200
        redis.start()
        until(lambda: spread.gate.done("stopped", "c"), what="the worker hears of it when Redis is back")


def test_nothing_that_others_write_to_redis_stops_the_jobs(spread: House, redis: RedisServer) -> None:
    job = {"function": "paint", "queue": "dragoman", "retries": 1, "timeout": 0, "status": "queued"}
    paths = {"request": {"prompt": "x", "seed": 1}, "inputs": {"image": {"name": "../../etc/passwd", "media_type": ""}}}
    large = {"request": {"prompt": "x", "seed": 1, "width": 10**9, "height": 10**9}}
    junk: list[bytes | str] = [
        b"\xff",
        "[1]",
        "[" * 100_000,
        b"\x80\x02cos\nsystem\n",
        json.dumps({"queue": "dragoman"}),
    ]
    junk += [json.dumps({**job, "key": "x", "kwargs": one}) for one in ({}, {"order": 7}, {"order": "{"})]
    junk += [json.dumps({**job, "key": "x", "kwargs": {"order": json.dumps(one)}}) for one in (paths, large)]
    with (
        gateway(spread.config) as client,
        working(spread.config) as worker,
        contextlib.closing(Redis.from_url(redis.url)) as server,
    ):
        spread.ended(client, spread.begun(client, "a"), "a", begun=1)
        for number, one in enumerate(junk):
            server.set(f"saq:job:dragoman:{number}", one)
            server.rpush("saq:dragoman:queued", f"saq:job:dragoman:{number}")
            server.zadd("saq:dragoman:incomplete", {f"saq:job:dragoman:{number}": 0})
        server.zadd("saq:dragoman:incomplete", {"saq:job:dragoman:of-a-gateway-that-is-gone": 0})
        for name, one in {"a": "junk", "b": "[]", "c": json.dumps({"metadata": {"slots": -1e300}})}.items():
            server.sadd("saq:dragoman:workers", name)
            server.set(f"saq:dragoman:worker:{name}", one)
        spread.ended(client, spread.begun(client, "b"), "b", begun=1)
        assert worker.process.poll() is None
        assert not spread.gate.done("begin", "x")


def test_a_process_that_dies_while_it_paints_is_begun_again(redis: RedisServer, tmp_path: Path) -> None:
    redis.kill()
    redis.start()
    house = House(tmp_path, queue=redis.url)
    document = json.loads(house.config.read_text())
    document["backends"] = {"painter": {"type": "diffusers", "models_dir": str(ROOT / "models" / "painting")}}
    config = tmp_path / "torch.yaml"
    config.write_text(json.dumps(document))
    asked = {"model": "painter/tiny-sdxl-base", "width": 64, "height": 64, "seed": 5}
    with gateway(config) as client, working(config) as worker:
        id = client.submit("a red square", **asked, steps=40)
        until(lambda: (client.job(id).get("meta") or {}).get("current", 0) > 0)
        (torch,) = children(worker.pid)
        os.kill(torch, signal.SIGKILL)
        client.until(id, "SUCCESS")
        (again,) = children(worker.pid)
        assert again != torch
        kill(client)
        worker.kill()
        until(lambda: not Path(f"/proc/{again}").exists(), what="the end of what painted")


def test_two_gateways_share_one_database_and_one_redis(redis: RedisServer, postgres: Server, tmp_path: Path) -> None:
    redis.kill()
    redis.start()
    house = House(tmp_path, queue=redis.url, database=postgres.emptied())
    with gateway(house.config) as one, gateway(house.config) as two, working(house.config, "--jobs", "2"):
        made = {one.submit(f"p{n}", steps=2): f"p{n}" for n in range(6)}
        made |= {two.submit(f"q{n}", steps=2): f"q{n}" for n in range(6)}
        for number, (id, prompt) in enumerate(made.items()):
            house.ended((one, two)[number % 2], id, prompt, begun=1)
        id = house.begun(one, "a")
        assert two.ask("DELETE", f"/jobs/{id}")[0] == 200, "one cannot stop what the other has handed over"
        until(lambda: house.gate.done("stopped", "a"))
        id = house.begun(one, "b")
        kill(one)
        house.ended(two, id, "b", begun=1)

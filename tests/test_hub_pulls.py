"""Pulls from Hugging Face: by our code, and by the hub's own client from the same stand-in; and plain addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from backends.fetching import huggingface
from backends.store.manifests import read_manifest
from canonical.digests import digest_of
from canonical.errors import BackendError, BackendTimeout, GatewayError, InvalidRequest, ModelNotFound
from canonical.progress import Progress
from tests.pulls import Puller, gguf
from tests.registry import Fault, Site, registry
from tests.stores import named

SMALL, LARGE, EYES = gguf(1), gguf(2), gguf(3)
REPO = "acme/Tiny-GGUF"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with registry() as one:
        # As HF_ENDPOINT in the environment does when the package is imported.
        monkeypatch.setattr(constants, "ENDPOINT", one.url)
        template = f"{one.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_URL_HOSTS", constants.HF_URL_HOSTS | {"127.0.0.1"})
        monkeypatch.delenv("HF_TOKEN", raising=False)
        files = {"README.md": b"# Tiny", "tiny.Q4_K_M.gguf": SMALL, "tiny.Q8_0.gguf": LARGE, "mmproj-F16.gguf": EYES}
        one.hub(REPO, {**files, "config.json": b"{}"})
        yield one


@pytest.fixture
def puller(site: Site, tmp_path: Path) -> Puller:
    return Puller(tmp_path / "store", site)


@pytest.mark.parametrize(
    ("name", "listed", "weights"),
    [
        (f"hf.co/{REPO}", f"hf.co/{REPO}:latest", SMALL),
        (f"hf.co/{REPO}:q8_0", f"hf.co/{REPO}:q8_0", LARGE),
        (f"huggingface.co/{REPO}:Q4_K_M", f"huggingface.co/{REPO}:Q4_K_M", SMALL),
        (f"hf.co/{REPO}/tiny.Q8_0.gguf", f"hf.co/{REPO}:tiny.Q8_0.gguf", LARGE),
        (f"https://huggingface.co/{REPO}/blob/main/tiny.Q8_0.gguf", f"huggingface.co/{REPO}:tiny.Q8_0.gguf", LARGE),
        (f"https://huggingface.co/{REPO}/resolve/main/tiny.Q8_0.gguf?download=true", f"huggingface.co/{REPO}:tiny.Q8_0.gguf", LARGE),
    ],
)  # fmt: skip
def test_a_repository_becomes_a_model(puller: Puller, name: str, listed: str, weights: bytes) -> None:
    steps = puller.pull(name, insecure=False)
    assert steps[0] == Progress(status="pulling manifest")
    assert steps[-1].status == "writing manifest"
    assert puller.listed() == {listed}
    content = puller.store.manifest(named(listed))
    assert content is not None
    manifest = read_manifest(content)
    assert [(one.kind, one.digest) for one in manifest.layers] == [
        ("model", digest_of(weights)),
        ("projector", digest_of(EYES)),
    ]
    assert puller.store.content(manifest.config.digest).startswith(b'{"model_format":"gguf","model_family":"llama"')
    assert puller.store.blob(digest_of(weights)).read_bytes() == weights


def test_nothing_is_asked_of_the_hub_but_the_model(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import _detect_agent

    monkeypatch.setattr(_detect_agent, "_registry", None)
    monkeypatch.setattr(_detect_agent, "_read_cached_registry", lambda *_, **__: None)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    puller.pull(f"hf.co/{REPO}")
    asked = {one.path.partition("?")[0] for one in puller.site.requests(site="registry")}
    commit = puller.site.repos[REPO].commit
    assert asked == {
        f"/api/models/{REPO}",
        f"/api/models/{REPO}/tree/{commit}",
        f"/{REPO}/resolve/{commit}/tiny.Q4_K_M.gguf",
        f"/{REPO}/resolve/{commit}/mmproj-F16.gguf",
    }


def test_parts_stay_together(puller: Puller) -> None:
    parts = {f"Q4_K_M/big-Q4_K_M-0000{n}-of-00002.gguf": gguf(10 + n) for n in (1, 2)}
    puller.site.hub("acme/Big", parts)
    puller.pull("hf.co/acme/Big")
    content = puller.store.manifest(named("hf.co/acme/Big"))
    assert content is not None
    assert [(one.name, one.digest) for one in read_manifest(content).of("model")] == [
        (path.partition("/")[2], digest_of(data)) for path, data in parts.items()
    ]


def test_the_hubs_own_client_fetches_from_the_stand_in(site: Site, tmp_path: Path) -> None:
    """The stand-in is one that others take for the hub, too."""
    path = huggingface_hub.hf_hub_download(REPO, "tiny.Q4_K_M.gguf", endpoint=site.url, cache_dir=tmp_path)
    assert Path(path).read_bytes() == SMALL
    assert site.repos[REPO].commit in path
    whole = huggingface_hub.snapshot_download(
        REPO, endpoint=site.url, cache_dir=tmp_path, allow_patterns=["*.json", "*Q8_0*"]
    )
    assert {file.name: file.read_bytes() for file in Path(whole).iterdir()} == {
        "config.json": b"{}",
        "tiny.Q8_0.gguf": LARGE,
        "tiny.Q4_K_M.gguf": SMALL,
    }


def test_a_broken_pull_goes_on_with_the_same_commit(puller: Puller) -> None:
    puller.site.faults.append(Fault("drop", 100_000))
    with pytest.raises(BackendError):
        puller.pull(f"hf.co/{REPO}", tries=1)
    first = sum(b - a for a, b in puller.site.served(digest_of(SMALL)))
    assert first >= 100_000
    puller.site.faults.clear()
    puller.site.log.clear()
    puller.pull(f"hf.co/{REPO}")
    again = sum(b - a for a, b in puller.site.served(digest_of(SMALL)))
    assert again < len(SMALL)
    assert all(puller.site.repos[REPO].commit in one.path for one in puller.site.requests(path="/resolve/"))


def test_a_token_goes_to_the_hub_and_no_further(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    puller.site.hub("acme/Gated", {"x.Q4_K_M.gguf": SMALL}, gated=True)
    with pytest.raises(BackendError, match="gated: set HF_TOKEN"):
        puller.pull("hf.co/acme/Gated")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    puller.pull("hf.co/acme/Gated")
    assert puller.listed() == {"hf.co/acme/Gated:latest"}
    assert {one.authorization for one in puller.site.requests(site="cdn")} == {""}
    assert puller.site.requests(path="/resolve/")[0].authorization == "Bearer hf_good"


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("hf.co/acme/None", ModelNotFound, "no repository 'acme/None'"),
        (f"hf.co/{REPO}:Q2_K", ModelNotFound, "there are: Q4_K_M, Q8_0"),
        (f"hf.co/{REPO}/config.json", InvalidRequest, "invalid model name"),
        (f"hf.co/{REPO}/../../x.gguf", ModelNotFound, "has no 'x.gguf'"),
        ("hf.co/acme", InvalidRequest, "invalid|not listed"),
    ],
)
def test_what_is_not_there_is_said(puller: Puller, name: str, error: type[GatewayError], said: str) -> None:
    with pytest.raises(GatewayError, match=said) as caught:
        asyncio.run(anext_all(puller, name))
    assert isinstance(caught.value, error) or name == "hf.co/acme"
    assert puller.listed() == set()


async def anext_all(puller: Puller, name: str) -> None:
    async for _ in puller.fetching().pull(name):
        pass


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("status", 500, where="api"), "status 500"),
        (Fault("body", text="no json", where="api"), "cannot be read"),
        (Fault("body", text="[1]", where="api"), "cannot be read"),
        (Fault("status", 403, where="resolve"), "status 403"),
        (Fault("status", 404, where="resolve"), "does not let us fetch"),
        (Fault("flip", 1000), "digest mismatch"),
        (Fault("redirect", text="http://127.0.0.1:1/x", where="resolve"), "no public address"),
    ],
    ids=lambda value: f"{value.where}-{value.kind}" if isinstance(value, Fault) else "",
)
def test_a_hub_that_fails_is_an_error(puller: Puller, fault: Fault, said: str) -> None:
    puller.site.faults.append(fault)
    with pytest.raises(BackendError, match=said):
        puller.pull(f"hf.co/{REPO}")
    assert puller.listed() == set()


@pytest.mark.parametrize("patience", [20.0, 0.1])
def test_a_hub_that_is_silent_does_not_hold_us(
    puller: Puller, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    """Neither one that its own client gives up, nor one that it would wait for."""
    monkeypatch.setattr(huggingface, "WITHIN", 0.4)
    monkeypatch.setattr(huggingface, "ANSWER", patience)
    puller.site.faults.append(Fault("stall", where="api"))
    with pytest.raises(BackendTimeout, match="took too long"):
        puller.pull(f"hf.co/{REPO}")
    puller.site.closing.set()


def test_the_hub_must_be_listed_as_any_other_host(site: Site, tmp_path: Path) -> None:
    from backends.fetching.fetching import Fetching
    from backends.fetching.hosts import PullSettings
    from backends.store import Store

    fetching = Fetching(Store(tmp_path), PullSettings(hosts=("registry.ollama.ai",)))
    with pytest.raises(InvalidRequest, match=r"'hf\.co' is not listed"):
        asyncio.run(anext(fetching.pull(f"hf.co/{REPO}")))
    assert site.log == []


# Plain addresses, and files of the operator's.


def address(site: Site, data: bytes, digest: str = "") -> str:
    # The CDN gives any blob at a signed address; the last part of the path stands for its name.
    found = digest or digest_of(data)
    return f"http://{site.cdn}/models/My%20Tiny.gguf?signed=yes#{found.replace(':', '=')}"


@pytest.fixture
def plain(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    from tests.registry.answers import Cdn

    original = Cdn.route

    def route(self: Cdn) -> None:
        self.url = self.url._replace(path=f"/data/{digest_of(SMALL)}")
        original(self)

    monkeypatch.setattr(Cdn, "route", route)
    return site


def test_an_address_with_a_digest_becomes_a_model(puller: Puller, plain: Site) -> None:
    steps = puller.pull(address(plain, SMALL))
    assert steps[-1].status == "writing manifest"
    assert puller.listed() == {f"{plain.cdn}/models/My-Tiny:latest"}
    assert puller.store.blob(digest_of(SMALL)).read_bytes() == SMALL


def test_an_address_is_gone_on_with(puller: Puller, plain: Site) -> None:
    plain.faults.append(Fault("drop", 100_000))
    with pytest.raises(BackendError):
        puller.pull(address(plain, SMALL), tries=1)
    plain.faults.clear()
    plain.log.clear()
    puller.pull(address(plain, SMALL))
    assert sum(b - a for a, b in plain.served(digest_of(SMALL))) < len(SMALL)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda text: text.partition("#")[0], InvalidRequest, "must end with its digest"),
        (lambda text: text.replace("sha256=", "md5="), InvalidRequest, "must end with its digest"),
        (lambda text: text[:-64] + "0" * 64, BackendError, "digest mismatch"),
        (lambda text: text.replace("http://127.0.0.1", "http://10.0.0.1"), InvalidRequest, "not listed"),
        (lambda text: text.replace("http://", "http://user:x@"), InvalidRequest, "cannot be followed"),
    ],
)
def test_an_address_that_cannot_be_is_refused(
    puller: Puller, plain: Site, change: object, error: type[GatewayError], said: str
) -> None:
    with pytest.raises(error, match=said):
        puller.pull(change(address(plain, SMALL)))  # type: ignore[operator]
    assert puller.listed() == set()
    assert puller.files() == []


def test_an_address_without_tls_needs_leave(puller: Puller, plain: Site) -> None:
    with pytest.raises(InvalidRequest, match="insecure"):
        puller.pull(address(plain, SMALL), insecure=False)
    assert plain.log == []

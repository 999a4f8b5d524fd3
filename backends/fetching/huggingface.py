"""Models of Hugging Face's hub: ``hf.co/org/repo[:QUANT]``.

huggingface-hub knows its API: which files there are at which commit, their SHA-256, and the user's token
(``HF_TOKEN``, ``HF_ENDPOINT`` or what its own login left). The files come by our download, which resumes on several connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from adapters.ollama.names import Name
from backends.base import Tell
from backends.fetching.blobs import Blobs, Part
from backends.fetching.choosing import File, choose
from backends.fetching.download import Wanted
from backends.fetching.making import Weights, make
from backends.fetching.patience import Denied, Missing
from backends.links import Link, read_link
from canonical.errors import BackendError, BackendTimeout, BackendUnavailable, ModelNotFound
from canonical.progress import Progress

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")

FILES = 10_000
"""That a repository is looked through for."""
WITHIN = 60.0
"""Seconds for its list."""
ANSWER = 10.0
"""Seconds for the first answer."""


class Listing(Struct, frozen=True):
    """A repository at one commit."""

    commit: str
    files: tuple[File, ...]
    links: dict[str, str]
    """Where each file of interest is."""
    token: str


def endpoint() -> Link:
    """Where the hub is: ``HF_ENDPOINT``, or its own. Raises BackendError."""
    from huggingface_hub import constants

    try:
        return read_link(constants.ENDPOINT)
    except ValueError as error:
        raise BackendError(f"HF_ENDPOINT is no address: {error}") from None


async def pull(name: Name, blobs: Blobs, tell: Tell) -> None:
    """Fetch the files that a name means, and make a model of them.

    Raises:
        ModelNotFound: no such repository, or quantization. InvalidRequest: several. BackendError, StorageFailed.
    """
    tell(Progress(status="pulling manifest"))
    repo = f"{name.namespace}/{name.model}"
    try:
        async with asyncio.timeout(WITHIN):
            listing = await _aside(lambda: _list(repo))
    except TimeoutError:
        raise BackendTimeout("Hugging Face took too long to list the repository") from None
    choice, projector = choose(listing.files, name.tag, repo)
    files = [*choice.files, *([projector] if projector else [])]
    for file in files:
        if not file.digest:
            raise BackendError(f"{repo} tells no SHA-256 of {file.name[:100]!r}: it cannot be checked")
    async with blobs.claimed(Part(file.digest, file.size) for file in files):
        for file in files:
            secret = f"Bearer {listing.token}" if listing.token else ""
            link = read_link(listing.links[file.path])
            try:
                await blobs.fetch(Wanted(link=link, digest=file.digest, size=file.size, secret=secret), tell)
            except (Denied, Missing):
                raise BackendError(f"Hugging Face does not let us fetch {file.name[:100]!r} of {repo}") from None
        weights = [Weights(file.digest, file.name, "projector" if file is projector else "model") for file in files]
        await make(name, weights, blobs, tell)


async def _aside(work: Callable[[], T]) -> T:
    """The result of blocking work that nothing can stop: whoever leaves leaves it behind, and so does a process that ends."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(outcome: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: None if future.done() else outcome())

    def run() -> None:
        try:
            found = work()
        except Exception as error:  # noqa: BLE001  whatever it is, it belongs to who waits
            failure = error
            tell(lambda: future.set_exception(failure))
        else:
            tell(lambda: future.set_result(found))

    threading.Thread(target=run, name="hub", daemon=True).start()
    return await future


def _list(repo: str) -> Listing:
    """Blocking, as the hub's client is; 0.2 s for its import."""
    import httpx2
    from huggingface_hub import HfApi, constants, get_token, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    constants.HF_HUB_DISABLE_TELEMETRY = True  # else it asks the hub how to find out which programs call us
    token = get_token() or ""
    api = HfApi(endpoint=constants.ENDPOINT, token=token or False, library_name="dragoman")
    try:
        commit = api.model_info(repo, timeout=ANSWER).sha or "main"
        files = tuple(_files(api, repo, commit))
    except GatedRepoError:
        raise BackendError(
            f"{repo} is gated: set HF_TOKEN to the token of an account that may read it", code="gated_repository"
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ModelNotFound(
            f"Hugging Face has no repository {repo!r}, or none that we may read", param="model"
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise BackendError(f"Hugging Face answered with status {status} for the list of {repo}") from None
    except httpx2.TimeoutException:
        raise BackendTimeout("Hugging Face took too long to answer") from None
    except (httpx2.HTTPError, OSError):
        raise BackendUnavailable("Hugging Face cannot be reached") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackendError(f"Hugging Face's list of {repo} cannot be read") from error
    links = {
        file.path: hf_hub_url(repo, file.path, revision=commit, endpoint=constants.ENDPOINT)
        for file in files
        if file.path.lower().endswith(".gguf")
    }
    return Listing(commit, files, links, token)


def _files(api: HfApi, repo: str, commit: str) -> list[File]:
    from huggingface_hub.hf_api import RepoFile

    found = []
    for entry in itertools.islice(api.list_repo_tree(repo, recursive=True, revision=commit), FILES):
        if isinstance(entry, RepoFile):
            digest = f"sha256:{entry.lfs.sha256}" if entry.lfs is not None else ""
            found.append(File(str(entry.path), int(entry.size), digest))
    return found

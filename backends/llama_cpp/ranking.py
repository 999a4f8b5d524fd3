"""Reranking models: a query and documents in, a score a document out, over either engine.

A score is what the model's rank head gives, mostly a logit: larger is better, and nothing else about it is sure. Some
models give 0 to 1, others any number; so no score is turned into something that looks like a probability.
"""

from __future__ import annotations

from msgspec import structs

from adapters.openai.call import read_ranking, write_rerank
from backends.llama_cpp.body import TOKEN_LENGTH
from backends.llama_cpp.engine import is_error
from backends.llama_cpp.loaded import Loaded, cut_to_fit, input_error, too_long
from canonical.errors import BackendError, InvalidRequest
from canonical.requests import Origin, Ranked, Ranking, Rerank

_DOCUMENTS = 16
"""Documents that get their score in one call of the engine: what it has begun cannot be stopped."""


class RerankModel(Loaded):
    """A model that tells how well documents answer a query."""

    async def rerank(self, request: Rerank) -> Ranking:
        """A score for each document.

        Raises:
            InvalidRequest: the query and a document together are too long, and may not be cut.
            BackendError: the engine failed.
        """
        longest = self._limits.context * TOKEN_LENGTH - len(request.query)
        shorten = request.truncate is True
        if longest < 0:
            raise too_long("the query", self._limits.context, param="query")
        if not shorten and any(len(document) > longest for document in request.documents):
            words = f"a document has more than {longest} characters"
            raise too_long(words, self._limits.context, param="documents")
        documents = tuple(document[:longest] for document in request.documents)
        plain = structs.replace(request, documents=documents, top_n=None, truncate=None, origin=Origin())
        ranked: list[Ranked] = []
        tokens = 0
        for start in range(0, len(documents), _DOCUMENTS):
            part = structs.replace(plain, documents=documents[start : start + _DOCUMENTS])
            answer = await self._part(part, shorten=shorten)
            ranked.extend(Ranked(start + one.index, one.score) for one in answer.ranked)
            tokens += answer.prompt_tokens or 0
        return Ranking(model=self.info.id, ranked=tuple(ranked), prompt_tokens=tokens)

    async def _part(self, request: Rerank, *, shorten: bool) -> Ranking:
        try:
            return await self._ask(request)
        except InvalidRequest as error:
            if not shorten or error.code != "context_length_exceeded":
                raise
        answers = [await self._shortened(request, document) for document in request.documents]
        return Ranking(
            model="",
            ranked=tuple(Ranked(index, answer.ranked[0].score) for index, answer in enumerate(answers)),
            prompt_tokens=sum(answer.prompt_tokens or 0 for answer in answers),
        )

    async def _ask(self, request: Rerank) -> Ranking:
        body = await self.runner.rerank(write_rerank(request, "model"))
        if is_error(body):
            raise input_error(body, self._limits.context, param="documents")
        answer = read_ranking(body, len(request.documents))
        if len(answer.ranked) < len(request.documents):
            raise BackendError("the engine left a document without a score")
        return answer

    async def _shortened(self, request: Rerank, document: str) -> Ranking:
        async def ask(length: int) -> Ranking:
            return await self._ask(structs.replace(request, documents=(document[:length],)))

        return await cut_to_fit(ask, len(document), self._limits.context, least=0)

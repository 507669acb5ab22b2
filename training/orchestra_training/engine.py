"""`TorchEngine`: the model that a trainer holds, as the engine of a `LocalRouter`.

    engine = TorchEngine(model, pad=tokenizer.pad_token_id, ends=[tokenizer.eos_token_id])
    router = LocalRouter(engine=engine, tokenizer=fast_tokenizer, chat_template=template, temperature=1.0)

Requests of concurrent runs are answered in batches: while one batch is computed in a thread, the next one gathers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from langchain_core.exceptions import ContextOverflowError

MAX_BATCH: Final = 512
"""Prompts that are computed at a time."""

Reply = tuple[list[int], list[float]]


@dataclass(frozen=True, slots=True)
class _Request:
    prompt: Sequence[int]
    max_tokens: int
    temperature: float
    explore: bool
    reply: asyncio.Future[Reply]


class TorchEngine:
    """An `orchestra_graph.routers.local.Engine` around a causal language model of transformers.

    Args:
        model: On any device. Its weights may change between requests: nothing is kept of a request.
        pad: Token that fills up shorter prompts; it is masked.
        ends: Tokens that end a reply.
        seed: Of the sampling.
        max_batch: Prompts that are computed at a time.
    """

    def __init__(
        self, model: Any, *, pad: int, ends: Sequence[int] = (), seed: int = 0, max_batch: int = MAX_BATCH
    ) -> None:
        self.model = model
        self.batches = 0
        """Forward passes so far, for measuring."""
        self.seconds = 0.0
        """Wall seconds that they took."""
        self.written = 0
        """Tokens written."""
        self._pad = pad
        self._ends = frozenset(ends)
        self._max_batch = max_batch
        self._seed = seed
        self._random: torch.Generator | None = None
        self._waiting: list[_Request] = []
        self._worker: asyncio.Task[None] | None = None

    async def complete(
        self, prompt: Sequence[int], *, max_tokens: int, temperature: float, explore: bool = False
    ) -> Reply:
        """Continue a prompt, together with those of other tasks; `explore` begins with the second likeliest token."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(prompt, max_tokens, temperature, explore, reply))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await reply

    async def _work(self) -> None:
        """Answer what waits, batch by batch."""
        await asyncio.sleep(0)  # let other tasks that are ready ask first
        while self._waiting:
            # Of about the same length, so that little is padded.
            self._waiting.sort(key=lambda request: len(request.prompt))
            batch, self._waiting = self._waiting[-self._max_batch :], self._waiting[: -self._max_batch]
            try:
                replies = await asyncio.to_thread(self._complete, batch)
            except BaseException as error:
                for request in batch:
                    if not request.reply.done():
                        request.reply.set_exception(error)
                if not isinstance(error, Exception):
                    raise
            else:
                for request, reply in zip(batch, replies, strict=True):
                    if request.reply.done():
                        continue
                    if isinstance(reply, ContextOverflowError):
                        request.reply.set_exception(reply)
                    else:
                        request.reply.set_result(reply)

    def _complete(self, batch: Sequence[_Request]) -> list[Reply | ContextOverflowError]:
        started = time.perf_counter()
        with torch.no_grad():
            replies = self._continue(batch)
        self.seconds += time.perf_counter() - started
        self.written += sum(len(reply[0]) for reply in replies if not isinstance(reply, ContextOverflowError))
        return replies

    def _continue(self, batch: Sequence[_Request]) -> list[Reply | ContextOverflowError]:
        device = self.model.device
        replies: list[Reply] = [([], []) for _ in batch]
        warmth = torch.tensor([request.temperature for request in batch], device=device)
        while not all(self._is_done(request, reply) for request, reply in zip(batch, replies, strict=True)):
            # Nothing is cached: a router of this kind writes one token.
            texts = [[*request.prompt, *tokens] for request, (tokens, _) in zip(batch, replies, strict=True)]
            others = [request.explore and not tokens for request, (tokens, _) in zip(batch, replies, strict=True)]
            tokens, logprobs = self._sample(self._last_logits(texts), warmth, torch.tensor(others, device=device))
            for request, reply, token, logprob in zip(batch, replies, tokens.tolist(), logprobs.tolist(), strict=True):
                if not self._is_done(request, reply):
                    reply[0].append(token)
                    reply[1].append(logprob)
        return [*replies]

    def _last_logits(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Scores of the token behind each text: `(texts, vocabulary)`."""
        device = self.model.device
        self.batches += 1
        lengths = [len(text) for text in texts]
        longest = max(lengths)
        # Filled up behind its end a text needs no mask: no token reads what follows it.
        ids = torch.tensor([[*text, *[self._pad] * (longest - len(text))] for text in texts], device=device)
        ends = sorted(set(lengths))
        kept = torch.tensor([end - 1 for end in ends], device=device)
        logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits
        place = {end: n for n, end in enumerate(ends)}
        chosen = torch.tensor([place[length] for length in lengths], device=device)
        return logits[torch.arange(len(texts), device=device), chosen]

    def _is_done(self, request: _Request, reply: Reply) -> bool:
        return len(reply[0]) >= request.max_tokens or bool(reply[0] and reply[0][-1] in self._ends)

    def _sample(
        self, logits: torch.Tensor, warmth: torch.Tensor, others: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A token a prompt and its logprob: the likeliest where the temperature is 0, the second for `others`."""
        scale = torch.where(warmth > 0, warmth, torch.ones_like(warmth))
        scores = torch.log_softmax(logits.float() / scale[:, None], dim=-1)
        if self._random is None or self._random.device != scores.device:  # a trainer may have moved the model
            self._random = torch.Generator(device=scores.device).manual_seed(self._seed)
        drawn = torch.multinomial(scores.exp(), 1, generator=self._random)[:, 0]
        first, second = scores.topk(2, dim=-1).indices.unbind(-1)
        tokens = torch.where(others, second, torch.where(warmth > 0, drawn, first))
        return tokens, scores.gather(1, tokens[:, None])[:, 0]

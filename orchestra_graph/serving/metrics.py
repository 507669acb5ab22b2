"""What a vLLM server tells of itself at `/metrics`: requests, tokens, queue and prefix cache.

The Prometheus text format is read here, in a few lines, since all that is needed of it is a sum by name: a client
library would be one more dependency for that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_SAMPLE: Final = re.compile(
    r"""(?m)^([a-zA-Z_:][\w:]*)                    # name
        (?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?      # labels; a quoted value may hold a brace
        [ \t]+(\S+)                                # value; a time stamp may follow""",
    re.VERBOSE,
)


def read_metrics(text: str) -> dict[str, float]:
    """Sum of the samples of each metric, over all labels (engines, finish reasons).

    >>> read_metrics('a_total{engine="0"} 1.0\\na_total{engine="1"} 2.0\\n# a comment')
    {'a_total': 3.0}
    """
    sums: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        try:
            number = float(value)
        except ValueError:  # no number: another format
            continue
        sums[name] = sums.get(name, 0.0) + number
    return sums


@dataclass(frozen=True, slots=True)
class Load:
    """A vLLM server's counters since its start, and its load now."""

    requests: int
    """Requests that ended, whatever way."""
    running: int
    waiting: int
    prompt_tokens: int
    generated_tokens: int
    cache_queries: int
    """Prompt tokens that were looked up in the prefix cache."""
    cache_hits: int
    """Those of them that were found."""
    cache_used: float
    """Share of the key-value cache in use, 0 to 1."""

    @classmethod
    def of(cls, metrics: Mapping[str, float]) -> Load:
        """Read it from `read_metrics`.

        Raises:
            KeyError: The server is no vLLM, or statistics are switched off (`--disable-log-stats`).
        """
        return cls(
            requests=round(metrics["vllm:request_success_total"]),
            running=round(metrics["vllm:num_requests_running"]),
            waiting=round(metrics["vllm:num_requests_waiting"]),
            prompt_tokens=round(metrics["vllm:prompt_tokens_total"]),
            generated_tokens=round(metrics["vllm:generation_tokens_total"]),
            cache_queries=round(metrics.get("vllm:prefix_cache_queries_total", 0)),
            cache_hits=round(metrics.get("vllm:prefix_cache_hits_total", 0)),
            cache_used=metrics.get("vllm:kv_cache_usage_perc", 0.0),
        )

    @property
    def hit_rate(self) -> float | None:
        """Share of prompt tokens found in the prefix cache; None before the first."""
        return self.cache_hits / self.cache_queries if self.cache_queries else None

    def since(self, earlier: Load) -> Load:
        """The same with counters from `earlier` on; those of a server started anew count from zero."""
        if earlier.prompt_tokens > self.prompt_tokens or earlier.requests > self.requests:
            return self
        return Load(
            requests=self.requests - earlier.requests,
            running=self.running,
            waiting=self.waiting,
            prompt_tokens=self.prompt_tokens - earlier.prompt_tokens,
            generated_tokens=self.generated_tokens - earlier.generated_tokens,
            cache_queries=self.cache_queries - earlier.cache_queries,
            cache_hits=self.cache_hits - earlier.cache_hits,
            cache_used=self.cache_used,
        )

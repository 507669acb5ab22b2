"""`ColocatedEngine`: vLLM inside the trainer's process, on the same device, as the engine of a `LocalRouter`.

TRL starts it and gives it the trainer's weights before each batch of rollouts; see `use_vllm` and `vllm_mode` of
`trl.GRPOConfig`. For one process: a request is computed in a thread, which knows no device but the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.exceptions import ContextOverflowError

from orchestra_training.engine import Reply, TorchEngine


class ColocatedEngine(TorchEngine):
    """Takes the place of the model's own forward pass.

    Args:
        model: The trainer's model, for its device.
        pad: Not used.
    """

    generation: Any = None
    """The trainer's `vllm_generation`, once it is there."""

    def _continue(self, batch: Sequence[Any]) -> list[Reply | ContextOverflowError]:
        """Replies as long as TRL's `max_completion_length`, at its temperature: those of the recipe.

        vLLM refuses all that it is asked at a time where one prompt is too long.
        """
        self.batches += 1
        limit = self.generation.max_model_length or self.model.config.max_position_embeddings
        readable = [request for request in batch if len(request.prompt) < limit]
        replies = iter(self._generate(readable) if readable else ())
        return [next(replies) if len(request.prompt) < limit else _overflow(request, limit) for request in batch]

    def _generate(self, batch: Sequence[Any]) -> list[Reply]:
        prompts = [list(request.prompt) for request in batch]
        _, written, logprobs, _ = self.generation.generate(prompts=prompts, images=None, num_generations=1)
        return [
            (list(tokens[: request.max_tokens]), [told[0] for told in scores[: request.max_tokens]])
            for request, tokens, scores in zip(batch, written, logprobs, strict=True)
        ]


def _overflow(request: Any, limit: int) -> ContextOverflowError:
    return ContextOverflowError(f"a prompt of {len(request.prompt):,} tokens; the model reads fewer than {limit:,}")

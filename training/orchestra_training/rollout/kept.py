"""`KeptEngine`: what the weights say after a prompt is computed once for all the rollouts that read it.

The rollouts of a group begin with the same prompts, and a policy that is nearly sure goes on with the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from orchestra_training.engine import TorchEngine

KEPT_BYTES: Final = 256 << 20
"""Memory for scores."""


class KeptEngine(TorchEngine):
    """A `TorchEngine` whose weights change only when `weights_changed` says so."""

    _kept: dict[tuple[int, ...], torch.Tensor] | None = None

    def weights_changed(self) -> None:
        """Forget what the old weights said."""
        self._kept = None

    def _last_logits(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        if self._kept is None:
            self._kept = {}
        keys = [tuple(text) for text in texts]
        new = list(dict.fromkeys(key for key in keys if key not in self._kept))
        if new:
            self._kept.update(zip(new, super()._last_logits(new), strict=True))
        scores = torch.stack([self._kept[key] for key in keys])
        most = KEPT_BYTES // (scores.element_size() * scores.shape[-1])
        while len(self._kept) > most:
            del self._kept[next(iter(self._kept))]
        return scores

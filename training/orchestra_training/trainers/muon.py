"""Muon for the matrices of a model's layers, AdamW for everything else, as the one optimiser that a trainer expects.

Muon makes the update of a matrix orthogonal, so that no direction is left behind (Jordan et al., "Muon: An optimizer
for hidden layers in neural networks", 2024). A model that starts from random weights learns from far fewer rows with
it; embeddings, norms and the output layer are no matrices of that kind and stay with AdamW.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import AdamW, Muon, Optimizer


class MuonAdamW(Optimizer):
    """Two of torch's optimisers side by side. A scheduler scales the learning rates of both alike.

    Args:
        model: What is trained, with all its weights in this process.
        muon_lr: Learning rate of the layers' matrices.
        lr: Learning rate of everything else.
        betas: Of AdamW.
        eps: Of AdamW.
        weight_decay: Of all weights but vectors.
    """

    def __init__(
        self, model: Any, *, muon_lr: float, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
    ) -> None:
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        tables = {
            id(part.weight)
            for part in (model.get_input_embeddings(), model.get_output_embeddings())
            if part is not None
        }
        matrices = [weight for weight in trained if weight.ndim == 2 and id(weight) not in tables]
        embeddings = [weight for weight in trained if id(weight) in tables]
        vectors = [weight for weight in trained if weight.ndim != 2]
        groups: list[dict[str, Any]] = [{"params": embeddings}, {"params": vectors, "weight_decay": 0.0}]
        self._parts: tuple[Optimizer, ...] = (
            Muon(matrices, lr=muon_lr, weight_decay=weight_decay),
            AdamW([g for g in groups if g["params"]], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay),
        )
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every weight that has a gradient."""
        loss = None if closure is None else closure()
        for part in self._parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the states of both."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        # They have made new groups, and a scheduler changes those that are here.
        self.param_groups = [group for part in self._parts for group in part.param_groups]

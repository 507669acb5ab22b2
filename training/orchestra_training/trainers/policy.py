"""The policy gradient step of `grpo` and `replay`: TRL's GRPO loss on rows of whole trajectories.

TRL's trainer generates one completion a prompt; a trajectory is several rows, and how many differs. So what a step
learns from comes whole from a function, and each optimiser step is one such batch, cut into passes of a bounded number
of tokens. The loss is TRL's `dapo` with the weights of `orchestra_training.batch`: the mean over trajectories of the
mean over their policy tokens. Old logprobs are those that were stored when the tokens were sampled. Rows with the same
tokens are computed once; TRL's entropy bonus and metrics are means over what is computed.

A batch may be cut into minibatches, each a step on an equal share of its rows drawn at random, and all of it is used
`num_iterations` times; checkpoints are written only between batches, so that a resumed training draws those that an
uninterrupted one would have drawn. A batch without a row changes nothing.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from random import Random
from typing import Any

import torch
from accelerate.utils import DistributedType, gather_object
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from orchestra_graph.errors import ConfigError
from orchestra_training.batch import Batch, WeighedRow, merged
from orchestra_training.rows import Row
from orchestra_training.trainers.models import fits
from orchestra_training.trainers.vllm_weights import merged_weights

Draw = Callable[[int], tuple[Batch, Mapping[str, float]]]
"""From the number of a batch, counted from 0, to what this process learns from it and the figures to log."""

Pass = dict[str, torch.Tensor]
"""One forward and backward pass, by TRL's names."""

_NOTHING = WeighedRow(Row("", (), [0], [0], [0], [0.0]), 0.0)
"""Stands where a process has fewer rows than others: all must make the same number of passes."""


class PolicyTrainer(GRPOTrainer):
    """Learns from batches of trajectories.

    Args:
        model: The policy.
        args: With `loss_type="dapo"`, `beta=0` and one accumulation step.
        draw: Gives the batches.
        tokens_per_pass: Tokens of a pass, padding among them.
        minibatches: Steps that one use of a batch is cut into.
        tokenizer: The policy's; says how to pad.
        callbacks: As for any trainer.
        peft_config: For LoRA.
    """

    def __init__(
        self,
        model: Any,
        args: GRPOConfig,
        draw: Draw,
        *,
        tokens_per_pass: int,
        minibatches: int = 1,
        tokenizer: Any,
        callbacks: Sequence[Any] = (),
        peft_config: Any = None,
    ) -> None:
        # The dataset only counts the steps: what they learn from is drawn.
        prompts = args.generation_batch_size // args.num_generations
        steps = Dataset.from_dict({"prompt": [""] * (args.max_steps * prompts)})
        super().__init__(
            model=model,
            reward_funcs=_scored_in_the_batch,
            args=args,
            train_dataset=steps,
            processing_class=tokenizer,
            callbacks=list(callbacks),
            peft_config=peft_config,
        )
        self.uses_stored_logprobs = True
        """Otherwise each token counts as if it were sampled from the weights as they are."""
        self._draw = draw
        self._tokens_per_pass = tokens_per_pass
        self._minibatches = minibatches
        self._parts: list[list[Pass]] | None = None
        self._gather_any_length()
        self._refuse_deepspeed()
        _keep_exact(getattr(self.accelerator.state, "fsdp_plugin", None))
        if self.use_vllm:
            self._send_exact_weights(merged=peft_config is not None)

    def _gather_any_length(self) -> None:
        """TRL gathers figures of each row for its log, and passes of different processes differ in their rows.

        It takes their least and their greatest, and passes over what is no number.
        """
        gather, pad = self.accelerator.gather, self.accelerator.pad_across_processes
        self.accelerator.gather = lambda told: gather(pad(told, pad_index=math.nan))

    def _refuse_deepspeed(self) -> None:
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            raise ConfigError(
                'distributed_type = "DEEPSPEED": it would make an optimiser step of each pass; expected "FSDP", '
                "as in the recipe qwen3_8b_8gpu"
            )

    def _send_exact_weights(self, *, merged: bool) -> None:
        """vLLM is given weights as it holds them, and the model is not changed for it.

        Raises:
            ConfigError: They would have to be merged of a sharded model.
        """
        if merged and self.accelerator.distributed_type == DistributedType.FSDP:
            raise ConfigError(
                "lora and FSDP: adapters of a sharded model cannot be merged for vLLM; fix: train in one process, or "
                "all weights"
            )
        generation, dtype = self.vllm_generation, self.model.config.dtype
        weights = partial(merged_weights, generation.model) if merged else generation._iter_named_params
        # FSDP trains in single precision, twice as much to send.
        generation._iter_named_params = lambda: ((name, weight.to(dtype)) for name, weight in weights())

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward over a batch; the gradients of all passes add up."""
        number, step = divmod(self.state.global_step, self.num_iterations * self._minibatches)
        if self._parts is None or not step:
            model.eval()  # rollouts in this process are sampled from the policy itself, not from what dropout leaves
            self._parts = self._next_parts(number)
        passes = self._parts[step % len(self._parts)]
        model.train()  # also where a batch has no row: TRL logs by it
        started = time.perf_counter()
        loss = torch.zeros((), device=self.accelerator.device)
        self.current_gradient_accumulation_steps = len(passes)  # TRL's entropy bonus is a mean over passes
        for position, one in enumerate(passes):
            with self._synced(model, last=position == len(passes) - 1):
                # Not GRPOTrainer's own, which counts passes.
                loss += super(GRPOTrainer, self).training_step(model, one)
        self._metrics["train"]["seconds/update"].append(time.perf_counter() - started)
        return loss

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        return generation_batch

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Scores of the completions alone, where they fit."""
        if compute_aux_loss or not fits(len(input_ids), logits_to_keep + 1, self.model):
            scores: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
            scores = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss
            )
            return scores
        with self.accelerator.autocast():
            logits = model(
                input_ids=input_ids, attention_mask=attention_mask, logits_to_keep=logits_to_keep + 1, use_cache=False
            ).logits
        every = torch.log_softmax(logits[:, :-1].float() / self.temperature, dim=-1)
        logprobs = every.gather(-1, input_ids[:, -logits_to_keep:, None])[..., 0]
        return logprobs, -(every.exp() * every).sum(-1) if compute_entropy else None, None

    def _synced(self, model: Any, *, last: bool) -> AbstractContextManager[Any]:
        """Processes share their gradients once a step; a sharded model shares them in each pass."""
        shared = {DistributedType.MULTI_GPU, DistributedType.MULTI_CPU}
        waits = not last and self.accelerator.distributed_type in shared
        return self.accelerator.no_sync(model) if waits else nullcontext()

    def _next_parts(self, number: int) -> list[list[Pass]]:
        """The passes of each minibatch."""
        if self.use_vllm:
            self.vllm_generation.sync_weights()
            self.accelerator.wait_for_everyone()  # the first process alone knows when the server has the weights
        batch, figures = self._draw(number)
        rows, parts = merged(batch.rows), self._minibatches
        if parts > 1:
            Random(number).shuffle(rows)
        pieces = [list(_pieces(rows[n::parts], self._tokens_per_pass)) for n in range(parts)]
        everyone = gather_object([(batch.trajectories, [len(part) for part in pieces], dict(figures))])
        trajectories = sum(others for others, _, _ in everyone)
        counts = [max(passes) for passes in zip(*(passes for _, passes, _ in everyone), strict=True)]
        self._log_mean([told for _, _, told in everyone])
        # TRL divides the loss by the number of passes. It can divide by that of trajectories too, but not by less than
        # one a pass. A minibatch stands for the whole batch.
        return [
            [
                self._tensors(piece, parts * passes / trajectories)
                for piece in part + [[_NOTHING]] * (passes - len(part))
            ]
            for part, passes in zip(pieces, counts, strict=True)
        ]

    def _log_mean(self, told: Sequence[Mapping[str, float]]) -> None:
        """Figures as means over the processes."""
        for name in sorted({name for one in told for name in one}):
            values = [one[name] for one in told if name in one]
            self._metrics["train"][name].append(sum(values) / len(values))

    def _tensors(self, piece: Sequence[WeighedRow], scale: float) -> Pass:
        """A pass; prompts are padded on the left, completions on the right.

        Args:
            piece: Its rows.
            scale: Of their weights.
        """
        rows = [weighed.row for weighed in piece]
        device = self.accelerator.device
        before, after = max(len(row.prompt_ids) for row in rows), max(len(row.completion_ids) for row in rows)
        pad = self._tokenizer.pad_token_id

        def left(values: Sequence[int], fill: int) -> list[int]:
            return [fill] * (before - len(values)) + list(values)

        def right(values: Sequence[Any], fill: Any) -> list[Any]:
            return list(values) + [fill] * (after - len(values))

        old = {
            "old_per_token_logps": torch.tensor([right(row.logprobs or [], 0.0) for row in rows], device=device),
        }
        return {
            **(old if self.uses_stored_logprobs else {}),
            "prompt_ids": torch.tensor([left(row.prompt_ids, pad) for row in rows], device=device),
            "prompt_mask": torch.tensor([left([1] * len(row.prompt_ids), 0) for row in rows], device=device),
            "completion_ids": torch.tensor([right(row.completion_ids, pad) for row in rows], device=device),
            "completion_mask": torch.tensor([right([1] * len(row.completion_ids), 0) for row in rows], device=device),
            "tool_mask": torch.tensor([right(row.mask, 0) for row in rows], device=device),
            "advantages": torch.tensor([scale * weighed.weight for weighed in piece], device=device),
            "num_items_in_batch": torch.tensor(1.0, device=device),
        }


def _keep_exact(plugin: Any) -> None:
    """Logprobs and gradients in single precision: FSDP2 would round both to bfloat16, and a clip counts each digit."""
    if plugin is not None and plugin.fsdp_version == 2 and plugin.mixed_precision_policy is not None:
        exact = {"output_dtype": None, "reduce_dtype": torch.float32}
        plugin.mixed_precision_policy = dataclasses.replace(plugin.mixed_precision_policy, **exact)


def _scored_in_the_batch(**columns: Any) -> list[float]:
    """TRL asks for a reward function, and never calls it here."""
    raise NotImplementedError("rewards are in the batch that was drawn")


def _pieces(rows: Sequence[WeighedRow], tokens: int) -> Iterator[list[WeighedRow]]:
    """Rows in pieces of at most so many tokens when padded; a longer row is a piece of its own."""
    piece: list[WeighedRow] = []
    before = after = 0
    for weighed in sorted(rows, key=lambda one: len(one.row.prompt_ids) + len(one.row.completion_ids)):
        wider = max(before, len(weighed.row.prompt_ids)), max(after, len(weighed.row.completion_ids))
        if piece and (len(piece) + 1) * sum(wider) > tokens:
            yield piece
            piece, wider = [], (len(weighed.row.prompt_ids), len(weighed.row.completion_ids))
        piece.append(weighed)
        before, after = wider
    if piece:
        yield piece

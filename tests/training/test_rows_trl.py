"""Rows against TRL itself: how its trainer chains turns with tools, and what its loss makes of folded rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from orchestra_training.rows import Row, policy_tokens, rows_of

from orchestra_graph.serving.random_weights import TEMPLATE
from tests.training.test_rows import MALFORMED, Tokens, captured

pytestmark = pytest.mark.slow

TOKENIZER = Path(__file__).parents[1] / "data" / "tokenizer" / "tokenizer.json"
EXACT = 1e-6
"""Relative difference of gradients that count as equal (float32)."""


def search(query: str) -> str:
    """Search.

    Args:
        query: What to look for.
    """
    return f"found {query}"


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A GRPO trainer of TRL with a tool and a small Qwen3 of random weights."""
    import torch  # noqa: PLC0415  (takes seconds)
    from datasets import Dataset  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM  # noqa: PLC0415
    from trl import GRPOConfig, GRPOTrainer  # noqa: PLC0415
    from trl.chat_template_utils import qwen3_template  # noqa: PLC0415

    class Scripted(GRPOTrainer):
        """Replies are given, not generated; what was read and written for each is kept."""

        script: list[list[str]]
        kept: list[list[tuple[list[int], list[int], list[float]]]]

        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
            written = []
            for place, read in enumerate(prompt_ids):
                run = place if len(prompt_ids) == len(self.script) else self._going_on(read)
                ids = self.processing_class(self.script[run].pop(0) + "<|im_end|>")["input_ids"]
                self.kept[run].append((list(read), ids, [-0.5 - n / 7 for n in range(len(ids))]))
                written.append(self.kept[run][-1])
            return [list(ids) for _, ids, _ in written], [list(logprobs) for *_, logprobs in written]

        def _going_on(self, read: list[int]) -> int:
            """The run whose last reply ends what is read now."""
            return next(n for n, turns in enumerate(self.kept) if turns[-1][0] + turns[-1][1] == read[: self._end(n)])

        def _end(self, run: int) -> int:
            return len(self.kept[run][-1][0]) + len(self.kept[run][-1][1])

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(TOKENIZER), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
    tokenizer.response_template = qwen3_template
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=4096,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config._attn_implementation = "eager"
    arguments = GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("grpo")),
        loss_type="dapo",
        beta=0.0,
        per_device_train_batch_size=2,
        num_generations=2,
        max_completion_length=1024,
        report_to="none",
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
    )
    trainer = Scripted(
        model=Qwen3ForCausalLM(config),
        reward_funcs=lambda completions, **kwargs: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": "?"}]}] * 2),
        processing_class=tokenizer,
        tools=[search],
    )
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def call(query: str) -> str:
    return f'<tool_call>\n{{"name": "search", "arguments": {{"query": "{query}"}}}}\n</tool_call>'


def test_rows_are_what_trl_chains(trainer: Any) -> None:
    """The tokens of each request that TRL sends are a trajectory's captures; the row is what TRL trains on."""
    trainer.script = [
        [f"I look.\n{call('a')}", f"{call('b')}\n{call('c')}", "It is 2."],
        ["I know: 3.", "never read"],
        [call("d"), "Four."],
    ]
    trainer.kept = [[], [], []]
    trainer._sync_tool_dicts, trainer._async_tool_dicts = [{"search": search}] * 3, [{}] * 3
    prompts = [[{"role": "user", "content": f"What is {n}?"}] for n in range(3)]
    prompt_ids, completion_ids, masks, _, logprobs, *_ = trainer._generate(prompts)
    assert [len(turns) for turns in trainer.kept] == [3, 1, 2]
    for place, turns in enumerate(trainer.kept):
        run = captured(*((read, written) for read, written, _ in turns))
        data = run.model_dump()
        for turn, (*_, given) in zip(run.turns, turns, strict=True):
            data["captures"][turn["captures"][0]]["logprobs"] = given
        (row,) = rows_of(type(run).model_validate(data))
        assert (row.prompt_ids, row.completion_ids) == (list(prompt_ids[place]), list(completion_ids[place]))
        assert row.mask == list(masks[place])
        assert row.logprobs == list(logprobs[place])
    assert {0, 1} == {*masks[0]}, "there is something between the replies"


def gradient(trainer: Any, rows: list[Row], advantages: dict[str, float], loss_type: str = "dapo") -> Any:
    """The gradient of TRL's loss, flat, with the normalisation that rows of one trajectory need."""
    import torch  # noqa: PLC0415

    tokens = policy_tokens(rows)
    weights = [advantages[row.run_id] / (tokens[row.run_id] if loss_type == "dapo" else 1) for row in rows]
    pad = trainer.processing_class.pad_token_id

    def padded(lists: list[list[int]], value: int, *, left: bool = False) -> Any:
        longest = max(map(len, lists))
        fill = [[value] * (longest - len(ids)) for ids in lists]
        return torch.tensor([f + ids if left else ids + f for f, ids in zip(fill, lists, strict=True)])

    prompts, completions = [row.prompt_ids for row in rows], [row.completion_ids for row in rows]
    inputs = {
        "prompt_ids": padded(prompts, pad, left=True),
        "prompt_mask": padded([[1] * len(ids) for ids in prompts], 0, left=True),
        "completion_ids": padded(completions, pad),
        "completion_mask": padded([[1] * len(ids) for ids in completions], 0),
        "tool_mask": padded([row.mask for row in rows], 0),
        "advantages": torch.tensor(weights),
        "num_items_in_batch": torch.tensor(float(len(tokens))),
    }
    trainer.loss_type = loss_type
    trainer.model.train()
    trainer.model.zero_grad()
    trainer._compute_loss(trainer.model, inputs).backward()
    return torch.cat([weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None])


def difference(one: Any, other: Any) -> float:
    return float((one - other).norm() / one.norm())


LONG: list[Tokens] = [([11, 12, 13], [14, 15])]
for _ in range(4):
    LONG.append(([*LONG[-1][0], *LONG[-1][1], 16 + len(LONG), 30], [40 + len(LONG), 15, 15]))
SHORT: list[Tokens] = [([21, 22], [23, 24, 25, 26])]


@pytest.mark.parametrize("left_out", [(), (0,), (2,)])
def test_folded_and_unfolded_rows_give_the_same_gradient(trainer: Any, left_out: tuple[int, ...]) -> None:
    long = captured(*LONG, run_id="long", decisions=dict.fromkeys(left_out, MALFORMED))
    short = captured(*SHORT, run_id="short")
    folded = [*rows_of(long), *rows_of(short)]
    single = [row for n in range(len(LONG)) if n not in left_out for row in rows_of(captured(LONG[n], run_id="long"))]
    unfolded = [*single, *rows_of(short)]
    assert len(folded) == 2 and len(unfolded) == 6 - len(left_out)
    advantages = {"long": 1.3, "short": -0.7}
    wanted = gradient(trainer, folded, advantages)
    assert difference(wanted, gradient(trainer, unfolded, advantages)) < EXACT
    assert difference(wanted, gradient(trainer, folded, advantages, "grpo")) < EXACT
    assert difference(wanted, gradient(trainer, unfolded, advantages, "grpo")) > 0.1, "weighs a run by its rows"

"""The router in this process: its NumPy engine against transformers, and what its replies carry."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from orchestra_training.engine import TorchEngine
from orchestra_training.tiny.model import CHOOSE, END, PAD, TinyShape, make, train_tokenizer
from safetensors.torch import load_file, save_file

from orchestra_graph.errors import ConfigError
from orchestra_graph.protocols.scan import SKIP, TAKE
from orchestra_graph.routers.local import LocalRouter
from orchestra_graph.routers.qwen3 import KEPT_PROMPTS, NumpyEngine
from orchestra_graph.routers.template import compile_template, shown_messages
from orchestra_graph.serving.random_weights import TEMPLATE
from orchestra_graph.vllm import CapturedMessage, take_capture

TEXTS = [f"Task: what is {n} and #{n}, then {'more ' * n}?\nTool: takes skips {n}" for n in range(40)]
SHAPE = TinyShape(vocabulary=320, hidden=32, layers=2, heads=4, kv_heads=2, head_dim=16, inner=48)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of a model with random weights, and the model."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models") / "small"
    return folder, make(folder, train_tokenizer(TEXTS, SHAPE.vocabulary), SHAPE, seed=3)


@pytest.fixture(scope="module")
def router(made: tuple[Path, Any]) -> LocalRouter:
    return LocalRouter.from_folder(made[0])


def torch_logprobs(model: Any, ids: list[int]) -> Any:
    with torch.no_grad():
        return torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, -1].double(), -1)


def test_scores_are_those_of_transformers_also_behind_a_beginning_that_is_known(
    made: tuple[Path, Any], router: LocalRouter
) -> None:
    engine = NumpyEngine.from_folder(made[0])
    for text in [*TEXTS[:6], TEXTS[0], TEXTS[5][:20], TEXTS[5]]:
        ids = router.render([HumanMessage(text)])
        scores = engine.logits(ids)
        ours = scores - scores.max() - np.log(np.exp(scores - scores.max()).sum())
        assert np.abs(ours - torch_logprobs(made[1], ids).numpy()).max() < 1e-5


async def test_the_two_engines_write_the_same(made: tuple[Path, Any], router: LocalRouter) -> None:
    engine = TorchEngine(made[1], pad=router.tokenizer.token_to_id(PAD), ends=[router.tokenizer.token_to_id(END)])
    other = LocalRouter(engine=engine, tokenizer=router.tokenizer, chat_template=router.chat_template)
    for text in TEXTS[:3]:
        ours, theirs = [await r.ainvoke(text, max_tokens=5) for r in (router, other)]
        assert isinstance(ours, CapturedMessage)
        assert isinstance(theirs, CapturedMessage)
        assert ours.capture["token_ids"] == theirs.capture["token_ids"]
        assert ours.capture["logprobs"] == pytest.approx(theirs.capture["logprobs"], abs=1e-5)
        assert ours.capture["prompt_token_ids"] == theirs.capture["prompt_token_ids"]


async def test_concurrent_requests_are_one_batch_and_get_what_they_would_alone(
    made: tuple[Path, Any], router: LocalRouter
) -> None:
    engine = TorchEngine(made[1], pad=router.tokenizer.token_to_id(PAD))
    prompts = [router.render([HumanMessage(text)]) for text in TEXTS]
    together = await asyncio.gather(*(engine.complete(prompt, max_tokens=1, temperature=0) for prompt in prompts))
    assert engine.batches == 1
    for prompt, (tokens, logprobs) in zip(prompts, together, strict=True):
        expected = torch_logprobs(made[1], prompt)
        assert tokens == [int(expected.argmax())]
        assert logprobs[0] == pytest.approx(float(expected.max()), abs=1e-5)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
async def test_at_temperature_1_tokens_come_as_often_as_their_probability_says(
    made: tuple[Path, Any], router: LocalRouter, kind: str
) -> None:
    engine: Any = NumpyEngine.from_folder(made[0], seed=1) if kind == "numpy" else TorchEngine(made[1], pad=0, seed=1)
    prompt = router.render([HumanMessage(TEXTS[1])])
    expected = torch_logprobs(made[1], prompt).exp()
    draws = [await engine.complete(prompt, max_tokens=1, temperature=1.0) for _ in range(400)]
    for tokens, logprobs in draws:
        assert logprobs[0] == pytest.approx(math.log(float(expected[tokens[0]])), abs=1e-4)
    likely = expected.topk(40).indices.tolist()
    share = sum(tokens[0] in likely for tokens, _ in draws) / len(draws)
    assert share == pytest.approx(float(expected[likely].sum()), abs=0.1)


async def test_a_reply_ends_at_the_end_token_which_is_part_of_it(made: tuple[Path, Any], router: LocalRouter) -> None:
    end = router.tokenizer.token_to_id(END)
    weights = {name: array.copy() for name, array in router.engine._weights.items()}
    weights["model.embed_tokens.weight"][end] *= 40.0  # by far the longest vector: often the likeliest
    engine = NumpyEngine(router.engine._shape, weights, seed=0)
    replies = [await engine.complete(router.render([HumanMessage(t)]), max_tokens=9, temperature=1.0) for t in TEXTS]
    ended = [tokens for tokens, _ in replies if end in tokens]
    assert ended
    assert all(tokens.index(end) == len(tokens) - 1 for tokens in ended)


async def test_the_capture_holds_what_training_needs(router: LocalRouter) -> None:
    message, capture = take_capture(await router.ainvoke(TEXTS[0], max_tokens=1, temperature=0.5))
    assert capture is not None
    assert router.tokenizer.decode(capture["prompt_token_ids"], skip_special_tokens=False).endswith(CHOOSE)
    assert len(capture["token_ids"]) == len(capture["logprobs"]) == 1
    assert capture["sampling"] == {"temperature": 0.5, "max_tokens": 1}
    assert message.usage_metadata is not None
    assert message.usage_metadata["input_tokens"] == len(capture["prompt_token_ids"])


def test_it_answers_synchronous_callers_too(router: LocalRouter) -> None:
    assert router.invoke(TEXTS[0], max_tokens=1).usage_metadata == {
        "input_tokens": len(router.render([HumanMessage(TEXTS[0])])),
        "output_tokens": 1,
        "total_tokens": len(router.render([HumanMessage(TEXTS[0])])) + 1,
    }


def test_no_more_prompts_are_kept_than_it_says(router: LocalRouter, made: tuple[Path, Any]) -> None:
    engine = NumpyEngine.from_folder(made[0])
    for text in TEXTS:
        engine.logits(router.render([HumanMessage(text)]))
    assert len(engine._kept) == KEPT_PROMPTS


def test_the_two_words_are_one_token_behind_a_prompt_and_only_there(router: LocalRouter) -> None:
    for word in (TAKE, SKIP):
        assert router.tokenizer.encode(word).tokens == [word]
        assert word not in router.tokenizer.encode(f"un{word}n").tokens


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("model_type", "llama", "model_type = 'llama'; serve this model with vLLM instead"),
        ("use_sliding_window", True, "use_sliding_window = True"),
        ("rope_parameters", {"rope_type": "yarn"}, "rope_parameters"),
        ("rope_scaling", {"type": "yarn", "factor": 4.0}, "rope_scaling = {'type': 'yarn'"),
        ("hidden_act", "gelu", "hidden_act = 'gelu'"),
    ],
)
def test_another_architecture_is_refused(
    made: tuple[Path, Any], tmp_path: Path, field: str, value: Any, said: str
) -> None:
    for file in made[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    if field == "rope_scaling":  # as releases of transformers before 5 write it
        del config["rope_parameters"]
    (tmp_path / "config.json").write_text(json.dumps({**config, field: value}))
    with pytest.raises(ConfigError, match=said):
        LocalRouter.from_folder(tmp_path)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json, model\.safetensors, tokenizer\.json not there"):
        LocalRouter.from_folder(tmp_path)


def test_numbers_that_numpy_does_not_know_are_refused(made: tuple[Path, Any], tmp_path: Path) -> None:
    for file in made[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: array.bfloat16() for name, array in weights.items()}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"model\.safetensors: .*bfloat16.*; serve this model with vLLM instead"):
        LocalRouter.from_folder(tmp_path)


def test_templates_are_rendered_as_transformers_does(made: tuple[Path, Any]) -> None:
    from transformers import AutoTokenizer  # noqa: PLC0415  (takes seconds)

    call = {"name": "look", "args": {"word": "Zürich's <b>", "n": [1, None]}, "id": "1", "type": "tool_call"}
    messages = [
        HumanMessage("Who's there & why?"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("<nobody>", tool_call_id="1"),
    ]
    words = {"type": "object", "properties": {"word": {"type": "string", "description": "é, <i> & 'q'"}}}
    tools = [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": words}}]
    template = TEMPLATE.read_text(encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(made[0])
    shown = shown_messages(messages)
    theirs = tokenizer.apply_chat_template(
        shown, tools=tools, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    assert compile_template(template).render(messages=shown, tools=tools, add_generation_prompt=True) == theirs
    assert '"arguments": {"word": "Zürich\'s <b>", "n": [1, null]}' in theirs
    router = LocalRouter(engine=None, tokenizer=tokenizer.backend_tokenizer, chat_template=template)
    assert router.render(messages, tools) == tokenizer(theirs, add_special_tokens=False)["input_ids"]


def test_what_training_marks_in_a_template_is_shown_as_it_is() -> None:
    text = (
        "{% set x = '-' %}{% for m in messages %}"
        "<{% generation %}{% set x = m.content %}{{ x }}{% endgeneration %}{{ x }}>{% endfor %}"
    )
    assert compile_template(text).render(messages=[{"content": "a"}, {"content": "b"}]) == "<a-><b->"


@dataclass(frozen=True)
class Writes:
    """An engine that always writes the same."""

    tokens: list[int]

    async def complete(self, prompt: Any, *, max_tokens: int, temperature: float) -> tuple[list[int], list[float]]:
        return self.tokens[:max_tokens], [0.0] * len(self.tokens[:max_tokens])


@pytest.mark.parametrize(("limit", "reason"), [(1, "length"), (2, "stop"), (9, "stop")])
async def test_a_reply_that_is_cut_off_says_so(router: LocalRouter, limit: int, reason: str) -> None:
    word, end = router.tokenizer.encode("take").ids[0], router.tokenizer.token_to_id(END)
    fixed = router.model_copy(update={"engine": Writes([word, end])})
    message, capture = take_capture(await fixed.ainvoke(TEXTS[0], max_tokens=limit))
    assert capture is not None
    assert message.response_metadata["finish_reason"] == capture["finish_reason"] == reason

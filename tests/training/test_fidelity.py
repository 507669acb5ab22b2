"""What a run must state to be exact, and what each thing that is missing makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from orchestra_training.harvest.fidelity import fidelity

from orchestra_graph import ChatVLLM, Expert, Price, RunLog, create_orchestrator
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.served import VLLM_SAMPLING, Served
from orchestra_graph.testing import ScriptedExpert
from tests.openai_server import OpenAIServer, Reply
from tests.training.runs import decided, run

SENT = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "seed": 7, "max_tokens": 64}
EXACT: dict[str, Any] = {
    "tokenizer": "tiny",
    "template_hash": "t",
    "logprobs_mode": "processed_logprobs",
    "sampling": dict(VLLM_SAMPLING),
}
SERVED = Served(weights_hash="w", step=3, **EXACT)


def capture(id: str, **parts: Any) -> dict[str, Any]:
    tokens = {"prompt_token_ids": [1, 2], "token_ids": [3, 4], "logprobs": [-0.1, -0.2]}
    return {"id": id, "turn": "r-0", **tokens, "sampling": SENT, **parts}


def exact(id: str = "r", *, captured: dict[str, Any] | None = None, **parts: Any) -> Trajectory:
    """A run of which all is stated, but for the parts."""
    turns = [decided(0, ["search"], captures=["a"]), decided(1, ["large"], captures=["b"])]
    captures = {name: capture(name, **(captured or {})) for name in "ab"}
    return run(id, **{"turns": turns, "captures": captures, **EXACT, **parts})


def test_a_run_that_states_all_is_exact() -> None:
    assert fidelity(exact()) == ("exact", None, "")


def test_a_turn_for_which_nobody_was_asked_takes_nothing_away() -> None:
    """A protocol decides by itself where one tool is left; a request that was made is charged."""
    unasked = decided(2, ["large"])
    asked = fidelity(exact(turns=[*exact().turns, unasked]))
    assert (asked.fidelity, asked.reason[:23]) == ("rendered", "turn r-2 has no capture")
    del unasked["charges"]["r-2#0"]
    assert fidelity(exact(turns=[*exact().turns, unasked])).fidelity == "exact"
    unstated = fidelity(exact(turns=[*exact().turns, {**unasked, "charges": {}}]))
    assert unstated.fidelity == "rendered", "a turn of an old trace states no charges"


@pytest.mark.parametrize(
    ("parts", "captured", "expected"),
    [
        ({"logprobs_mode": None}, {}, ("ids", "logprobs_mode", "logprobs_mode = None; expected 'processed_logprobs'")),
        ({"logprobs_mode": "raw_logprobs"}, {}, ("ids", "logprobs_mode", "logprobs_mode = 'raw_logprobs'")),
        ({"constraint": "required"}, {}, ("ids", "constraint", "constraint = 'required'; expected none")),
        ({"tokenizer": None}, {}, ("ids", "tokenizer", "tokenizer is not stated")),
        ({"template_hash": None}, {}, ("ids", "template", "template_hash is not stated")),
        ({"sampling": {}}, {}, ("ids", "sampling", "capture a: min_p is not stated")),
        ({}, {"sampling": {**SENT, "temperature": 0.7}}, ("ids", "sampling", "temperature = 0.7; expected 1")),
        ({}, {"sampling": {**SENT, "top_k": 20}}, ("ids", "sampling", "capture a: top_k = 20; expected 0")),
        ({}, {"sampling": {**SENT, "logit_bias": {"5": -100}}}, ("ids", "sampling", "logit_bias = {'5': -100}")),
        ({}, {"sampling": {**SENT, "tool_choice": "required"}}, ("ids", "constraint", "tool_choice = 'required'")),
        ({}, {"sampling": None}, ("ids", "sampling", "capture a: sampling is not stated")),
        ({}, {"logprobs": None}, ("ids", "no_logprobs", "capture a: None logprobs; expected 2")),
        ({}, {"logprobs": [-1.0]}, ("ids", "no_logprobs", "capture a: 1 logprobs; expected 2")),
        ({}, {"token_ids": []}, ("rendered", "no_tokens", "capture a has no token ids")),
        ({"captures": {}}, {}, ("rendered", "no_tokens", "turn r-0 has no capture")),
        ({"captures": {}, "tokenizer": None}, {}, ("text", "no_tokens", "turn r-0 has no capture")),
        ({"turns": []}, {}, ("rendered", "no_tokens", "the policy decided no turn")),
    ],
)
def test_what_is_missing_is_named(parts: dict[str, Any], captured: dict[str, Any], expected: tuple[str, ...]) -> None:
    found = fidelity(exact(captured=captured, **parts))
    assert (found.fidelity, found.kind) == expected[:2]
    assert expected[2] in found.reason


def test_turns_that_the_policy_was_not_asked_for_need_no_tokens() -> None:
    failed = {"problem": {"kind": "router_error", "detail": "no reply"}, "calls": []}
    turns = [
        decided(0, ["search"], captures=["a"]),
        decided(1, decision=failed),
        decided(2, ["large"], decision={"by": "closing"}),
    ]
    assert fidelity(exact(turns=turns)).fidelity == "exact"


def test_nested_runs_of_the_policy_count() -> None:
    inner = exact("inner", logprobs_mode=None)
    outer = exact(runs={"inner": inner})
    assert fidelity(outer) == (
        "ids",
        "logprobs_mode",
        "nested run inner: logprobs_mode = None; expected 'processed_logprobs'",
    )
    other = inner.model_copy(update={"policy": None})
    assert fidelity(exact(runs={"inner": other})).fidelity == "exact"


@pytest.mark.parametrize(
    ("served", "options", "purpose", "expected"),
    [
        (SERVED, {}, "train", ("exact", None)),
        (SERVED, {}, "serve", ("ids", "constraint")),
        (SERVED, {"temperature": 0.5}, "train", ("ids", "sampling")),
        (None, {"temperature": 1.0}, "train", ("ids", "logprobs_mode")),
    ],
)
async def test_a_run_through_a_server_says_truthfully_how_it_was_made(
    openai_server: OpenAIServer,
    tmp_path: Path,
    served: Served | None,
    options: dict[str, Any],
    purpose: str,
    expected: tuple[str, str | None],
) -> None:
    openai_server.vllm = True
    openai_server.script = [Reply("", [("solver", {"request": "add"})]), Reply("", [("final_answer", {"answer": "2"})])]
    log = RunLog(tmp_path / "runs.jsonl")
    model = ChatVLLM(model="m", base_url=openai_server.base_url, served=served, **options)
    solver = Expert(ScriptedExpert("2"), name="solver", price=Price(per_call=0.01))
    graph = create_orchestrator(model, [solver], run_log=log).compile()
    await graph.ainvoke({"messages": [("user", "1 + 1?")]}, context={"task": {"purpose": purpose}})
    (logged,) = read_runs(log.path)
    found = fidelity(logged)
    assert (found.fidelity, found.kind) == expected, found.reason
    if served is not None:
        assert logged.policy is not None
        assert (logged.policy.weights_hash, logged.policy.step, logged.template_hash) == ("w", 3, "t")

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchestra_training.filters import FilterReport
from orchestra_training.rows import Row, policy_tokens, rows_of

from orchestra_graph.runlog.record import Trajectory
from tests.training.runs import decided, run

REPAIRED = {"repaired": ["read a call that was written as text"]}
MALFORMED = {"problem": {"kind": "no_call", "detail": "the reply holds no tool call"}}
CUT_OFF = {"problem": {"kind": "truncated", "detail": "the reply was cut off"}}

Tokens = tuple[list[int], list[int]]
"""What was read, and what was written."""


def captured(*replies: Tokens | list[Tokens], decisions: Any = (), **parts: Any) -> Trajectory:
    """A run with one turn for each reply, or for each list of replies; tokens' logprobs are -id."""
    decisions = {index: {} for index in range(len(replies))} | dict(decisions)
    turns, captures = [], {}
    for index, given_ in enumerate(replies):
        turn = decided(index, ["search"], decision=decisions[index])
        for read, written in given_ if isinstance(given_, list) else [given_]:
            name = f"{turn['id']}:{len(turn.setdefault('captures', []))}"
            turn["captures"].append(name)
            captures[name] = {
                "id": name,
                "turn": turn["id"],
                "prompt_token_ids": read,
                "token_ids": written,
                "logprobs": [-float(id) for id in written],
            }
        turns.append(turn)
    return run(turns=turns, captures=captures, **parts)


CHAT: list[Tokens] = [([1, 2], [3, 4]), ([1, 2, 3, 4, 5, 6], [7]), ([1, 2, 3, 4, 5, 6, 7], [8, 9])]
REBUILT: list[Tokens] = [([1, 2], [3, 4]), ([1, 5], [6]), ([1, 5, 6, 7], [8])]


def test_a_chat_is_one_row() -> None:
    assert rows_of(captured(*CHAT)) == [
        Row(
            run_id="r",
            turns=("r-0", "r-1", "r-2"),
            prompt_ids=[1, 2],
            completion_ids=[3, 4, 5, 6, 7, 8, 9],
            mask=[1, 1, 0, 0, 1, 1, 1],
            logprobs=[-3.0, -4.0, 0.0, 0.0, -7.0, -8.0, -9.0],
        )
    ]


def test_a_prompt_written_anew_begins_another_row() -> None:
    rows = rows_of(captured(*REBUILT))
    assert [(row.turns, row.prompt_ids, row.completion_ids, row.mask) for row in rows] == [
        (("r-0",), [1, 2], [3, 4], [1, 1]),
        (("r-1", "r-2"), [1, 5], [6, 7, 8], [1, 0, 1]),
    ]


def test_a_reply_that_comes_back_with_other_tokens_begins_another_row() -> None:
    """Text that a server tokenises again need not give the ids that were written."""
    rows = rows_of(captured(([1, 2], [3, 4]), ([1, 2, 34, 5], [6])))
    assert [(row.prompt_ids, row.completion_ids) for row in rows] == [([1, 2], [3, 4]), ([1, 2, 34, 5], [6])]


def test_requests_of_one_turn_fold_as_those_of_several_do() -> None:
    rows = rows_of(captured([([1, 2], [3]), ([1, 2, 3, 4], [5])], ([1, 2, 3, 4, 5, 6], [7])))
    assert [(row.turns, row.completion_ids, row.mask) for row in rows] == [
        (("r-0", "r-1"), [3, 4, 5, 6, 7], [1, 0, 1, 0, 1])
    ]


@pytest.mark.parametrize("decision", [MALFORMED, CUT_OFF, REPAIRED, {"by": "fallback"}])
@pytest.mark.parametrize(
    ("position", "prompt", "completion", "mask"),
    [
        (0, [1, 2, 3, 4, 5, 6], [7, 8, 9], [1, 1, 1]),
        (1, [1, 2], [3, 4, 5, 6, 7, 8, 9], [1, 1, 0, 0, 0, 1, 1]),
        (2, [1, 2], [3, 4, 5, 6, 7], [1, 1, 0, 0, 1]),
    ],
)
def test_a_turn_that_is_not_trained_is_only_read(
    decision: dict[str, Any], position: int, prompt: list[int], completion: list[int], mask: list[int]
) -> None:
    report = FilterReport()
    (row,) = rows_of(captured(*CHAT, decisions={position: decision}), report=report)
    assert (row.prompt_ids, row.completion_ids, row.mask) == (prompt, completion, mask)
    assert row.turns == tuple(f"r-{index}" for index in range(3) if index != position)
    assert [dropped.id for dropped in report.dropped] == [f"r-{position}"]
    assert report.kept == 2


def test_without_filters_every_reply_is_trained() -> None:
    (row,) = rows_of(captured(*CHAT, decisions={1: MALFORMED}), filters=())
    assert row.turns == ("r-0", "r-1", "r-2")


def test_a_run_whose_every_turn_is_left_out_has_no_row() -> None:
    assert rows_of(captured(*CHAT, decisions=dict.fromkeys(range(3), MALFORMED))) == []


@pytest.mark.parametrize(
    ("change", "kind", "detail"),
    [
        ({"prompt_token_ids": []}, "no_ids", "capture r-1:0 has 0 prompt and 1 completion ids; expected some of both"),
        ({"token_ids": [], "logprobs": []}, "no_ids", "capture r-1:0 has 6 prompt and 0 completion ids"),
        ({"logprobs": [-1.0, -1.0]}, "logprobs", "capture r-1:0 has 2 logprobs for 1 ids; expected one each"),
        (None, "lost", "capture r-1:0 is not in the log"),
    ],
)
def test_turns_without_their_tokens_are_counted(change: dict[str, Any] | None, kind: str, detail: str) -> None:
    data = captured(*CHAT).model_dump(mode="json")
    if change is None:
        del data["captures"]["r-1:0"]
    else:
        data["captures"]["r-1:0"] |= change
    report = FilterReport()
    (row,) = rows_of(Trajectory.model_validate(data), report=report)
    assert row.turns == ("r-0", "r-2") and row.mask == [1, 1, 0, 0, 0, 1, 1]
    assert report.counts == {("without_tokens", kind): 1}
    assert report.dropped[0].fault.detail.startswith(detail)


def test_a_program_has_no_rows() -> None:
    report = FilterReport()
    assert rows_of(run(), report=report) == []
    assert report.counts == {("without_tokens", "no_capture"): 2}


def test_logprobs_are_known_of_a_whole_row_or_not_at_all() -> None:
    data = captured(*CHAT).model_dump(mode="json")
    del data["captures"]["r-1:0"]["logprobs"]
    (row,) = rows_of(Trajectory.model_validate(data))
    assert row.logprobs is None and len(row.mask) == 7


def test_nested_runs_of_the_same_policy_have_rows_of_their_own() -> None:
    def nested(id: str, **parts: Any) -> dict[str, Any]:
        inner = captured(([20], [21, 22]), **parts).model_dump(mode="json")
        inner["turns"][0]["id"] = f"{id}-0"
        return {**inner, "run_id": id, "parent": "r-0-0"}

    report = FilterReport()
    outer = captured(
        *CHAT, runs={"same": nested("same"), "other": nested("other", policy={"name": "large", "step": 3})}
    )
    rows = rows_of(outer, report=report)
    assert [(row.run_id, row.turns) for row in rows] == [("r", ("r-0", "r-1", "r-2")), ("r", ("same-0",))]
    assert policy_tokens(rows) == {"r": 7}
    assert [(dropped.id, dropped.fault.detail) for dropped in report.dropped] == [
        ("other", "policy = large; expected that of the run around, tiny")
    ]


def test_policy_tokens() -> None:
    rows = [*rows_of(captured(*CHAT)), *rows_of(captured(*REBUILT, run_id="s"))]
    assert policy_tokens(rows) == {"r": 5, "s": 4}


IDS = st.lists(st.integers(0, 3), min_size=1, max_size=4)


@st.composite
def conversations(draw: Any) -> list[Tokens]:
    """Successive requests, each of which appends to what stands, or begins anew; few ids, so that prefixes clash."""
    requests: list[Tokens] = []
    for _ in range(draw(st.integers(1, 6))):
        read = draw(IDS)
        if requests and draw(st.booleans()):
            before = requests[-1]
            read = [*before[0], *before[1], *draw(st.one_of(st.just([]), IDS))]
        requests.append((read, draw(IDS)))
    return requests


@given(conversations(), st.sets(st.integers(0, 5)))
def test_every_trained_token_stands_once_behind_what_was_read_for_it(requests: list[Tokens], out: set[int]) -> None:
    """What a model computes for a token depends on all ids before it: they are those that the server read and wrote."""
    rows = rows_of(captured(*requests, decisions={index: MALFORMED for index in out if index < len(requests)}))
    trained = []
    for row in rows:
        assert row.logprobs is not None
        assert len(row.completion_ids) == len(row.mask) == len(row.logprobs)
        assert row.mask[0] == row.mask[-1] == 1
        ids = row.prompt_ids + row.completion_ids
        trained += [
            (ids[: len(row.prompt_ids) + n], ids[len(row.prompt_ids) + n], row.logprobs[n])
            for n, is_trained in enumerate(row.mask)
            if is_trained
        ]
    assert trained == [
        (read + written[:n], id, -float(id))
        for index, (read, written) in enumerate(requests)
        if index not in out
        for n, id in enumerate(written)
    ]
    assert policy_tokens(rows).total() == len(trained)

"""Preference pairs: vectors that fit their texts, splits without a common phrasing, what models write is sifted."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import BaseMessage
from langchain_openai import ChatOpenAI
from orchestra_training.filters import FilterReport
from orchestra_training.preference_pairs import Pair, by_model, by_rules, read_pairs
from orchestra_training.preference_pairs.pair import likeness, wording
from orchestra_training.preference_pairs.phrases import GENERAL, GROUPS, PRIVATE, STRENGTHS, TONES, all_phrases
from orchestra_training.preference_pairs.tool_groups import groups_of
from orchestra_training.preference_pairs.written import CHECKER_PROMPT, MOST_LIKENESS, SITUATIONS, WRITER_PROMPT

from orchestra_graph.catalog import Catalog, Price, ToolSpec
from orchestra_graph.errors import ConfigError, ServerError
from orchestra_graph.preferences import Preferences
from orchestra_graph.testing import ScriptedRouter
from orchestra_graph.wish import read_wish
from orchestra_graph.workbench import Workbench
from orchestra_graph.workbench.wishes import preference_phrases
from orchestra_graph.workbench.wording import SPLITS, Split, pattern_of
from tests.commands import Orchestra, complaint
from tests.examples import examples
from tests.openai_server import Body, OpenAIServer, Refusal, Reply

CATALOGS = Path(__file__).parents[2] / "orchestra_graph" / "catalogs"
WORKBENCH = Workbench().catalog
MINE = Catalog.of(
    [
        ToolSpec(name="web", kind="search", provider="tavily", price=Price(per_call=0.008)),
        ToolSpec(name="files", kind="search", path="docs", price=Price()),
        ToolSpec(name="llama", kind="expert", model="llama", base_url="http://10.0.0.7:8000/v1", price=Price(output=1)),
        ToolSpec(name="qwen", kind="expert", model="qwen", base_url="http://gpu-box:8000/v1"),
        ToolSpec(name="o3", kind="expert", model="o3", provider="openai", price=Price(input=2, output=8)),
        ToolSpec(name="far", kind="expert", model="far", base_url="https://api.example.org/v1"),
    ]
)


def drawn(catalog: Catalog, split: Split, n: int = 400, seed: int = 0) -> list[Pair]:
    return list(by_rules(catalog, n, split=split, seed=seed, report=FilterReport()))


@pytest.mark.parametrize("catalog", [WORKBENCH, MINE], ids=["workbench", "mine"])
def test_splits_have_no_phrasing_in_common(catalog: Catalog) -> None:
    """Every sentence of a text is of its own split, and resembles none of the other's."""
    known = {split: [text for phrases in all_phrases() for text in phrases.of(split)] for split in SPLITS}
    bare = {s: {wording(re.sub(r"\{\w+\}", "toolname", t), []) for t in texts} for s, texts in known.items()}
    assert max(likeness(one, other) for one in bare["train"] for other in bare["held_out"]) < MOST_LIKENESS
    whole = {s: [pattern_of(text) for text in texts if " " in text] for s, texts in known.items()}
    for split, other in (SPLITS, SPLITS[::-1]):
        pairs = drawn(catalog, split)
        assert len(pairs) == 400
        for pair in pairs:
            sentences = re.findall(r".+?[.!?](?= |$)", pair.text)
            assert not any(pattern.fullmatch(s) for pattern in whole[other] for s in sentences), pair.text


def test_wordings_of_the_workbench_are_in_the_split_that_they_have_there() -> None:
    for split in SPLITS:
        theirs = {text for phrases in preference_phrases() for text in phrases.of(split)}
        assert theirs <= {text for phrases in all_phrases() for text in phrases.of(split)}


def test_there_are_many_phrasings_of_each_meaning_in_every_tone() -> None:
    assert all(list(wish.said) == list(TONES) for wish in GENERAL.values())
    assert min(sum(len(p.train) for p in wish.said.values()) for wish in GENERAL.values()) >= 8
    assert sum(len(phrases.train) + len(phrases.held_out) for phrases in all_phrases()) > 200


@settings(deadline=None, max_examples=examples(30))
@given(st.integers(0, 2**32), st.sampled_from(SPLITS), st.sampled_from([WORKBENCH, MINE]))
def test_a_vector_is_what_the_text_says(seed: int, split: Split, catalog: Catalog) -> None:
    groups = groups_of(catalog)
    for pair in drawn(catalog, split, 20, seed):
        wish = pair.preferences
        assert wish.vector(list(catalog.tools)) == list(pair.vector) and wish.text == pair.text
        assert wish.apply(catalog) == catalog
        assert wish.prefer.keys().isdisjoint(wish.avoid)
        assert len(wish.prefer) < len(catalog.tools) > len(wish.avoid)
        assert {*wish.prefer.values(), *wish.avoid.values()} <= set(STRENGTHS.values())
        for named in (wish.prefer, wish.avoid):
            spoken = all(name in pair.text for name in named)
            assert spoken or tuple(name for name in catalog.tools if name in named) in groups.values()
        assert wish != Preferences(text=pair.text)


def test_a_text_means_one_thing_and_comes_once() -> None:
    pairs = drawn(MINE, "train", 1000)
    assert len({pair.text for pair in pairs}) == len(pairs) == 1000
    again = {pair.text: pair.vector for pair in drawn(MINE, "train", 1000, seed=1)}
    both = [pair for pair in pairs if pair.text in again]
    assert both and all(again[pair.text] == pair.vector for pair in both)


def test_pairs_are_a_function_of_seed_and_split() -> None:
    assert drawn(MINE, "train", 50) == drawn(MINE, "train", 50)
    assert drawn(MINE, "train", 50) != drawn(MINE, "train", 50, seed=1)


def test_all_kinds_of_wishes_come_up() -> None:
    wishes = [pair.preferences for pair in drawn(MINE, "train", 1000)]
    kinds = Counter(
        (wish.cost, wish.latency, *sorted({*wish.prefer.values(), "+"}, key=str), bool(wish.avoid)) for wish in wishes
    )
    assert len(kinds) > 40
    assert {(wish.cost, wish.latency) for wish in wishes} >= {(1.0, 0.0), (0.1, 1.0), (0.6, 0.1), (0.4, 0.1)}
    private = [wish for wish in wishes if wish.text in PRIVATE.train]
    assert private and all(
        wish.vector(list(MINE.tools)) == [0, 1, 1, 1, 0, 0, 1, 0.4, 0.1, 1, 0, 0, 0, 1, 1] for wish in private
    )


def test_the_rules_of_orchestra_ask_read_the_plain_ones_alike() -> None:
    """What `read_wish` understands of a tool it understands as the pair has it."""
    for name in WORKBENCH.tools:
        for text, kind in ((f"Avoid {name}.", "avoid"), (f"Prefer {name}.", "prefer"), (f"Use {name}.", "prefer")):
            assert getattr(read_wish(text, list(WORKBENCH.tools)), kind) == {name: 1.0}


def test_groups_are_read_off_the_catalog() -> None:
    assert groups_of(MINE) == {
        "own": ("files", "llama", "qwen"),
        "outside": ("web", "o3", "far"),
        "search": ("web", "files"),
        "free": ("files",),
        "dearest": ("web",),
        "provider:tavily": ("web",),
        "provider:openai": ("o3",),
    }
    assert {name.partition(":")[0] for name in groups_of(MINE)} <= GROUPS.keys()


def test_one_tool_leaves_nothing_to_choose() -> None:
    one = Catalog.of([ToolSpec(name="only")])
    assert all(not pair.preferences.prefer and not pair.preferences.avoid for pair in drawn(one, "train", 30))
    with pytest.raises(ConfigError, match="the catalog has no tools"):
        drawn(Catalog.of([]), "train")


def test_repeated_texts_are_counted_and_phrasings_may_be_used_up() -> None:
    report = FilterReport()
    pairs = list(by_rules(Catalog.of([ToolSpec(name="only")]), 1000, split="held_out", report=report))
    assert report.kept == len(pairs) < 60
    assert report.counts == {("pairs", "repeated"): 20_000 - len(pairs)}


def test_a_file_reads_back_and_a_wrong_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    pairs = drawn(MINE, "train", 5)
    path.write_text("".join(pair.model_dump_json() + "\n" for pair in pairs))
    assert list(read_pairs(path)) == pairs
    path.write_text(path.read_text() + pairs[0].model_dump_json().replace('"vector":[', '"vector":[0,'))
    with pytest.raises(ConfigError, match=r"pairs\.jsonl:6: .*vector has 16 elements; expected 15 for 6 tools"):
        list(read_pairs(path))
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        list(read_pairs(tmp_path / "none"))


# Written by a model.


def said(text: str, *, accuracy: float = 1, cost: float = 0.4, latency: float = 0.1, **tools: Any) -> Body:
    lists = {kind: [{"tool": n, "weight": w} for n, w in tools.get(kind, {}).items()] for kind in ("prefer", "avoid")}
    return {"text": text, "accuracy": accuracy, "cost": cost, "latency": latency, **lists}


GOOD = [
    said("Our records may not leave the house.", prefer={"llama": 1}, avoid={"o3": 0.8}),
    said("I have no money at all.", cost=1),
    said("Hurry, the show begins!", latency=0.9),
]


async def written(writer: Any, checker: Any, n: int = 3, **more: Any) -> tuple[list[Pair], FilterReport]:
    report = FilterReport()
    pairs = by_model(MINE, n, writer=writer, checker=checker, by="model:w", split="train", report=report, **more)
    return [pair async for pair in pairs], report


def proposals(*pairs: Body) -> ScriptedRouter:
    return ScriptedRouter(lambda _: ("Proposals", {"pairs": list(pairs)}))


def check(*refused: str) -> ScriptedRouter:
    def reply(messages: list[BaseMessage]) -> tuple[str, Any]:
        fault = any(text in messages[-1].text for text in refused)
        return "Check", {"reason": "o3 is not spoken of" if fault else "", "agrees": not fault}

    return ScriptedRouter(reply)


async def test_what_is_written_and_agreed_on_becomes_pairs() -> None:
    writer, checker = proposals(*GOOD), check()
    pairs, report = await written(writer, checker)
    assert [pair.preferences.model_dump(exclude_defaults=True, exclude={"text"}) for pair in pairs] == [
        {"prefer": {"llama": 1.0}, "avoid": {"o3": 0.8}},
        {"cost": 1.0},
        {"latency": 0.9},
    ]
    assert {(pair.by, pair.split, pair.catalog_hash) for pair in pairs} == {("model:w", "train", MINE.hash)}
    assert (report.kept, report.counts) == (3, {})
    system, task = writer.prompts[0]
    assert system.text == WRITER_PROMPT
    assert any(situation in task.text for situation in SITUATIONS.train) and "o3 | expert | 2 | 8" in task.text
    system, task = checker.prompts[0]
    assert system.text == CHECKER_PROMPT
    assert GOOD[0]["text"] in task.text and "prefer llama 1, avoid o3 0.8" in task.text


async def test_what_is_left_out_is_counted_with_its_reason() -> None:
    bad = [
        said("  "),
        said("Ask nobody else.", prefer={"o4": 1}),
        said("As cheap as it gets.", cost=2),
        said("Use o3, and never o3.", prefer={"o3": 1}, avoid={"o3": 1}),
        said("Whatever you think."),
        said("Hurry, the show begins.", latency=0.9),
        said("Quickly, quickly, the news are on!", latency=1),
        said("My data is mine.", avoid={"o3": 1}),
    ]
    pairs, report = await written(
        proposals(*GOOD, *bad),
        check("My data is mine."),
        4,
        apart_from=["Quickly, quickly: the news are about to go on."],
    )
    assert [pair.text for pair in pairs] == [proposal["text"] for proposal in GOOD]
    once = dict.fromkeys(["blank", "unknown_tool", "out_of_range", "contradiction", "no_wish", "like_other_split"], 4)
    assert {kind: n for (_, kind), n in report.counts.items()} == {**once, "repeated": 1 + 3 * 5, "disagreed": 1}
    assert "'o4'; expected one of web, files" in str(report.dropped[1].fault.detail)
    disagreed = next(d for d in report.dropped if d.fault.kind == "disagreed")
    assert disagreed.id == "model:w-train-1-10" and "o3 is not spoken of" in disagreed.fault.detail


async def test_replies_of_another_form_are_counted() -> None:
    pairs, report = await written(ScriptedRouter(lambda _: "I would rather not."), check())
    assert pairs == [] and report.counts == {("pairs", "unreadable"): 4}
    pairs, report = await written(proposals(*GOOD), ScriptedRouter(lambda _: ("Check", {"agrees": "perhaps"})))
    assert pairs == [] and report.counts[("pairs", "unchecked")] == 3


async def test_no_more_than_wanted() -> None:
    pairs, report = await written(proposals(*GOOD), check(), 2)
    assert len(pairs) == 2 and report.counts == {("pairs", "surplus"): 1}


async def test_a_model_without_structured_output_is_refused() -> None:
    with pytest.raises(ConfigError, match="FakeListChatModel has no structured output"):
        await written(FakeListChatModel(responses=["x"]), check())


@pytest.mark.parametrize(
    ("status", "told"), [(401, "Proposals: .*AuthenticationError: .* 401"), (500, "Proposals: .*Error code: 500")]
)
async def test_a_server_that_refuses(openai_server: OpenAIServer, status: int, told: str) -> None:
    openai_server.script = [Refusal(status)]
    model = ChatOpenAI(model="m", base_url=openai_server.base_url, api_key="k", max_retries=0)
    with pytest.raises(ServerError, match=told):
        await written(model, model)


async def test_a_reply_without_choices_is_a_server_that_did_not_answer(openai_server: OpenAIServer) -> None:
    openai_server.script = [Reply(choices=False)]
    model = ChatOpenAI(model="m", base_url=openai_server.base_url, api_key="k", max_retries=0)
    with pytest.raises(ServerError, match="no choices"):
        await written(model, model)


@pytest.mark.parametrize("text", ["not json at all", '{"question": 1}'])
async def test_a_reply_of_another_form_is_counted(openai_server: OpenAIServer, text: str) -> None:
    openai_server.script = [Reply(text)]
    model = ChatOpenAI(model="m", base_url=openai_server.base_url, api_key="k", max_retries=0)
    pairs, report = await written(model, model)
    assert pairs == [] and report.counts == {("pairs", "unreadable"): 4}


async def test_a_reply_that_is_cut_off_is_counted(openai_server: OpenAIServer) -> None:
    openai_server.script = [Reply('{"pairs": [{"text": "I', finish_reason="length")]
    model = ChatOpenAI(model="m", base_url=openai_server.base_url, api_key="k", max_retries=0)
    pairs, report = await written(model, model)
    assert pairs == [] and report.counts == {("pairs", "unreadable"): 4}


# The command.

FILE = """\
version = 1
[tools.llama]
kind = "expert"
model = "llama"
base_url = "{url}"
terminal = true
[tools.o3]
kind = "expert"
model = "gpt-4.1"
base_url = "{url}"
terminal = true
[tools.plain]
kind = "function"
target = "math:sqrt"
"""


def answer(body: Body) -> Reply:
    """The writer and the checker behind one server."""
    name = body["response_format"]["json_schema"]["name"]
    if name == "Check":
        return Reply(json.dumps({"reason": "", "agrees": "no money" not in body["messages"][-1]["content"]}))
    assert name == "Proposals"
    return Reply(json.dumps({"pairs": GOOD}))


def test_the_command_writes_pairs(orchestra: Orchestra, openai_server: OpenAIServer, tmp_path: Path) -> None:
    openai_server.script = answer
    (tmp_path / "c.toml").write_text(FILE.format(url=openai_server.base_url))
    done = orchestra(
        "pairs", "c.toml", "--to", "p.jsonl", "--count", 20, "--written", 2, "--held-out", 0,
        "--writer", "llama", "--checker", "o3", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["pairs"] == {"train": {"rules": 20, "model:llama": 2}}
    assert done.json["left_out"]["disagreed"] == 1
    pairs = list(read_pairs(tmp_path / "p.jsonl"))
    assert [pair.by for pair in pairs] == ["rules"] * 20 + ["model:llama"] * 2
    checks = [r.body for r in openai_server.requests if r.body["model"] == "gpt-4.1"]
    assert len(checks) == 3 and all(body["temperature"] == 0 for body in checks)


def test_both_splits_are_written_in_one_event_loop(
    orchestra: Orchestra, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A client that keeps its connections open cannot use them in a second loop."""
    loops: list[asyncio.AbstractEventLoop] = []

    def reply(_: list[BaseMessage]) -> tuple[str, Any]:
        loops.append(asyncio.get_running_loop())
        return "Proposals", {"pairs": GOOD}

    monkeypatch.setattr("orchestra_training.cli.models.build_model", lambda *_, **__: ScriptedRouter(reply))
    (tmp_path / "c.toml").write_text(FILE.format(url="http://nowhere"))
    pens = ("--written", 2, "--held-out", 0.5, "--writer", "llama", "--checker", "o3")
    assert orchestra("pairs", "c.toml", "--to", "p.jsonl", "--count", 0, *pens).code == 0
    assert len(loops) > 1 and len(set(loops)) == 1


def test_what_was_made_before_a_server_refused_is_kept(
    orchestra: Orchestra, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    openai_server.script = [Refusal(401)]
    (tmp_path / "c.toml").write_text(FILE.format(url=openai_server.base_url))
    pens = ("--written", 2, "--writer", "llama", "--checker", "o3")
    done = orchestra("pairs", "c.toml", "--to", "p.jsonl", "--count", 20, *pens)
    assert done.code == 1 and "no reply of the model asked for Proposals" in done.err and "401" in done.err
    assert len(list(read_pairs("p.jsonl"))) == 20


def test_the_command_needs_no_model(orchestra: Orchestra, tmp_path: Path) -> None:
    done = orchestra("pairs", CATALOGS / "workbench.toml", "--to", "p.jsonl", "--count", 50)
    assert done.code == 0
    assert re.search(r"train +rules +40\n", done.out) and re.search(r"held_out +rules +10\n", done.out)
    assert "50 pairs: p.jsonl" in done.out
    assert Counter(pair.split for pair in read_pairs("p.jsonl")) == {"train": 40, "held_out": 10}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--written", 1], "expected --writer and --checker"),
        (["--written", 1, "--writer", "small", "--checker", "small"], "--writer small: the catalog has no line with a"),
        (["--to", "none/p.jsonl"], "cannot be written: No such file or directory"),
    ],
)
def test_the_command_says_what_is_wrong(orchestra: Orchestra, arguments: list[Any], told: str) -> None:
    done = orchestra("pairs", CATALOGS / "workbench.toml", "--to", "p.jsonl", *arguments)
    assert done.code == 1 and told in done.err
    assert not Path("p.jsonl").exists()


def test_pens_without_anything_to_write_are_not_ignored(orchestra: Orchestra) -> None:
    done = orchestra("pairs", CATALOGS / "workbench.toml", "--to", "p.jsonl", "--checker", "large")
    assert done.code == 2 and "--checker without --written N" in complaint(done.err)
    assert not Path("p.jsonl").exists()


def test_a_file_that_is_there_stays(orchestra: Orchestra) -> None:
    Path("p.jsonl").write_text("mine")
    done = orchestra("pairs", CATALOGS / "workbench.toml", "--to", "p.jsonl")
    assert done.code == 1 and "--to p.jsonl is there already" in done.err
    assert Path("p.jsonl").read_text() == "mine"

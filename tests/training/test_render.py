from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from orchestra_training.filters import FilterReport
from orchestra_training.render import Renderer
from orchestra_training.rows import rows_of

from orchestra_graph import Catalog, RunLog, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.protocols.scan import ScanProtocol, in_order
from orchestra_graph.runlog.read import read_runs
from orchestra_graph.runlog.record import Trajectory
from orchestra_graph.serving.random_weights import TEMPLATE
from orchestra_graph.workbench import Oracle, Workbench
from orchestra_graph.workbench.trial import try_router
from tests.training.runs import CATALOG, decided, run

TOKENIZER = Path(__file__).parents[1] / "data" / "tokenizer" / "tokenizer.json"


def tokenizer_of(file: Path, template: str, **special: str) -> Any:
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415  (takes seconds)

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), **special)
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_of(TOKENIZER, TEMPLATE.read_text(encoding="utf-8"), eos_token="<|im_end|>")


@pytest.fixture(scope="module")
def renderer(tokenizer: Any) -> Renderer:
    return Renderer(tokenizer, ConversationProtocol(), name="chat")


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> list[Trajectory]:
    """Runs of a program."""
    log, bench = RunLog(tmp_path_factory.mktemp("log") / "runs.jsonl"), Workbench()
    asyncio.run(try_router(bench, Oracle(), bench.tasks("train", 12), run_log=log))
    return list(read_runs(log.path))


def test_a_programs_run_is_one_row_of_chat(renderer: Renderer, lessons: list[Trajectory]) -> None:
    several = 0
    for lesson in lessons:
        report = FilterReport()
        (row,) = rows_of(renderer.render(lesson), report=report)
        assert row.turns == tuple(turn["id"] for turn in lesson.turns) and not report.dropped
        assert row.logprobs is None
        prompt = renderer.decode(row.prompt_ids)
        assert prompt.startswith("<|im_start|>system\n") and prompt.endswith("<|im_start|>assistant\n")
        written = [id for id, ours in zip(row.completion_ids, row.mask, strict=True) if ours]
        replies = renderer.decode(written).split("<|im_end|>")
        assert replies.pop() == "" and len(replies) == len(lesson.turns)
        for turn, reply in zip(lesson.turns, replies, strict=True):
            (call,) = turn["decision"]["calls"]
            assert reply.startswith(f"{turn['decision']['reason']}\n<tool_call>\n")
            assert f'"name": "{call["tool"]}"' in reply
        read = renderer.decode([id for id, ours in zip(row.completion_ids, row.mask, strict=True) if not ours])
        assert read.count("<tool_response>") == len(lesson.turns) - 1
        several += len(lesson.turns) > 1
    assert several


def test_what_is_rendered_says_by_what(renderer: Renderer, lessons: list[Trajectory]) -> None:
    rendered = renderer.render(lessons[0])
    assert (rendered.protocol, rendered.tokenizer, rendered.template_hash) == (
        "conversation",
        "chat",
        renderer.template_hash,
    )
    assert rendered.verdict == lessons[0].verdict and lessons[0].captures == {}


@pytest.mark.slow
def test_a_scan_is_a_word_a_line(lessons: list[Trajectory], tmp_path: Path) -> None:
    from orchestra_training.tiny.model import TEMPLATE, train_tokenizer  # noqa: PLC0415  (imports torch)

    train_tokenizer([lesson.task.question for lesson in lessons], 600).save(str(tmp_path / "tokenizer.json"))
    renderer = Renderer(tokenizer_of(tmp_path / "tokenizer.json", TEMPLATE), ScanProtocol(), name="tiny")
    for lesson in lessons:
        assert lesson.catalog is not None
        lines = [spec.name for spec in in_order(lesson.catalog, lesson.preferences)]
        rows = rows_of(renderer.render(lesson))
        assert all(row.mask == [1] and renderer.decode(row.prompt_ids).endswith("<|choose|>") for row in rows)
        words = [renderer.decode(row.completion_ids) for row in rows]
        wanted = []
        for turn in lesson.turns:
            place = lines.index(turn["decision"]["calls"][0]["tool"])
            wanted += ["skip"] * place + ["take"] * (place + 1 < len(lines))
        assert words == wanted


def test_nested_runs_are_rendered_with_it(renderer: Renderer) -> None:
    inner = run("inner", parent="r-0-0", catalog=CATALOG.json_data, turns=[decided(0, ["small"])])
    outer = run(catalog=CATALOG.json_data, runs={"inner": inner.model_dump(mode="json")})
    rows = rows_of(renderer.render(outer))
    assert [(row.run_id, len(row.turns)) for row in rows] == [("r", 2), ("r", 1)]


def test_turns_that_no_reply_leads_to_are_counted(renderer: Renderer) -> None:
    malformed: dict[str, Any] = {"problem": {"kind": "no_call", "detail": "the reply holds no tool call"}}
    turns = [decided(0, ["search"]), decided(1, decision=malformed), decided(2, ["large"])]
    report = FilterReport()
    (row,) = rows_of(renderer.render(run(catalog=CATALOG.json_data, turns=turns)), filters=(), report=report)
    assert row.turns == ("r-0", "r-2")
    assert report.counts == {("without_tokens", "no_capture"): 1}


def test_runs_without_a_catalog_or_with_one_that_does_not_fit_are_counted(tokenizer: Any) -> None:
    report = FilterReport()
    parameters = {"type": "object", "properties": {"query": {}}, "required": ["query"]}
    needing = Catalog.of([ToolSpec(name="search", parameters=parameters), ToolSpec(name="large")]).json_data
    scan = Renderer(tokenizer, ScanProtocol(), name="chat")
    assert rows_of(scan.render(run()), report=report) == []
    assert rows_of(scan.render(run(catalog=needing)), report=report) == []
    assert report.counts == {("without_tokens", "no_capture"): 4}


@pytest.mark.parametrize(
    ("template", "protocol", "message"),
    [
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}",
            ConversationProtocol(),
            "a reply is not shown behind the generation prompt",
        ),
        (
            "{% for m in messages %}\n{{ m.content }}{% endfor %}{% if add_generation_prompt %}\n{% endif %}",
            ConversationProtocol(),
            r"a reply does not end with '<\|im_end\|>'",
        ),
        ("{{ messages[0].content }}", ScanProtocol(), r"'(take|skip)' is \d tokens; the protocol scan reads 1"),
    ],
)
def test_what_does_not_fit_is_told(tokenizer: Any, template: str, protocol: Any, message: str) -> None:
    renderer = Renderer(tokenizer, protocol, name="chat", chat_template=template)
    with pytest.raises(ConfigError, match=message):
        renderer.render(run(catalog=CATALOG.json_data))


def test_a_folder_is_read(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "other.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    renderer = Renderer.from_folder(tmp_path / "model")
    assert (renderer.name, renderer.protocol.name) == ("model", "conversation")
    other = Renderer.from_folder(tmp_path / "model", chat_template=tmp_path / "other.jinja")
    assert other.template_hash != renderer.template_hash
    with pytest.raises(ConfigError, match="protocol = 'chat'; expected one of conversation, scan"):
        Renderer.from_folder(tmp_path / "model", "chat")
    with pytest.raises(ConfigError, match=r"no tokenizer\.json there"):
        Renderer.from_folder(tmp_path)
    with pytest.raises(ConfigError, match=r"none\.jinja: cannot be read"):
        Renderer.from_folder(tmp_path / "model", chat_template=tmp_path / "none.jinja")

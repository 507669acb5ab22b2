"""The command line as a user meets it: what is printed, where, with which exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestra_graph.runlog.read import read_runs
from tests.commands import Done, Orchestra
from tests.openai_server import OpenAIServer, Refusal, Reply

EXAMPLE = Path(__file__).parent.parent / "orchestra_graph" / "catalogs" / "example.toml"
QUESTION = "What is 123456 * 98765?"
MISTAKES = """\
version = 1
[tools.a]
kind = "exprt"
price = { input = -1 }
latency = { p50 = 5, p95 = 2 }
fallback = ["b"]
"""


@pytest.fixture
def catalog(openai_server: OpenAIServer, tmp_path: Path) -> Path:
    """A catalog whose router and expert are on the scripted server."""
    path = tmp_path / "catalog.toml"
    path.write_text(
        f"""\
version = 1
[router]
model = "router"
base_url = "{openai_server.base_url}"
price = {{ input = 1, output = 2 }}
limits = {{ retries = 0 }}
[tools.expert]
kind = "expert"
description = "Answers."
terminal = true
model = "expert"
base_url = "{openai_server.base_url}"
price = {{ input = 3, output = 4 }}
limits = {{ retries = 0 }}
"""
    )
    return path


def answering(text: str) -> Callable[[dict[str, Any]], Reply]:
    """Script of a server whose router asks the expert, which says a text."""

    def script(body: dict[str, Any]) -> Reply:
        if body["model"] == "router":
            return Reply("the expert knows", calls=[("expert", {})])
        return Reply(text)

    return script


@pytest.mark.parametrize("command", [(), ("demo",), ("ask",), ("check",), ("runs",), ("runs", "list")])
def test_help(orchestra: Orchestra, command: tuple[str, ...]) -> None:
    done = orchestra(*command, "--help", columns=80)
    assert done.code == 0
    assert "Usage: orchestra" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_help_names_the_exit_codes(orchestra: Orchestra) -> None:
    assert "Exit codes: 0 done, 1 failed" in orchestra("--help").out


def test_version(orchestra: Orchestra) -> None:
    assert orchestra("--version").out.startswith("orchestra-graph 0.")


def test_ask_shows_decision_reason_dollars_and_seconds_in_this_order(orchestra: Orchestra) -> None:
    done = orchestra("ask", QUESTION, "--prefer", "cheap, avoid large")
    assert done.code == 0
    assert "cost 1, latency 0.1, avoid large 1" in done.out
    lines = [line.strip() for line in done.out.splitlines()]
    start = lines.index("turn 1  math")
    assert lines[start + 1].startswith("because     math scores best")
    assert lines[start + 2].startswith("→ math      123456 * 98765 = 12193131840")
    assert lines[start + 3].startswith("$0.0000")
    assert lines[start + 3].endswith(" s")
    assert lines[start + 4] == "answer  12193131840"
    assert lines[-1].startswith("total ")


def test_a_narrow_terminal_keeps_the_answer_beside_its_label(orchestra: Orchestra) -> None:
    done = orchestra("ask", QUESTION, columns=60)
    assert "answer  12193131840" in done.out
    assert max(len(line) for line in done.out.splitlines()) <= 60


def test_ask_json(orchestra: Orchestra) -> None:
    done = orchestra("ask", QUESTION, "--json", "--budget", 1, "--deadline", 60, "--turns", 3)
    assert (done.code, done.err) == (0, "")
    assert done.json["answer"] == "12193131840"
    assert done.json["stopped_by"] == "answer"
    assert done.json["ledger"]["tools"].keys() == {"router", "math"}
    assert len(done.json["turns"]) == 1


def test_route_only_calls_no_tool(orchestra: Orchestra) -> None:
    done = orchestra("ask", QUESTION, "--route-only", "--json")
    assert done.json["decision"]["calls"][0]["tool"] == "math"
    shown = orchestra("ask", QUESTION, "--route-only").out
    assert "turn 1  math" in shown
    assert "12193131840" not in shown


def test_route_only_without_a_decision_fails(orchestra: Orchestra, catalog: Path, openai_server: OpenAIServer) -> None:
    openai_server.script = lambda body: Refusal(500)
    done = orchestra("ask", QUESTION, "--catalog", catalog, "--route-only", "--json")
    assert done.code == 1
    assert done.json["decision"]["problem"]["kind"] == "router_error"
    assert "error: " in done.err


def test_fixed_router_and_log(orchestra: Orchestra, tmp_path: Path) -> None:
    assert orchestra("ask", QUESTION, "--router", "fixed:large", "--log", "runs.jsonl.zst").code == 0
    [run] = read_runs(tmp_path / "runs.jsonl.zst")
    assert [call["tool"] for turn in run.turns for call in turn["decision"]["calls"]] == ["large"]


def test_a_program_that_gives_up_is_not_asked_again(orchestra: Orchestra) -> None:
    done = orchestra("ask", "Where was Adam born?", "--router", "fixed:coder", "--json")
    assert done.json["stopped_by"] == "router"
    assert len(done.json["turns"]) == 3


def test_a_closing_call_is_shown_alike_while_it_runs_and_from_the_log(orchestra: Orchestra) -> None:
    asked = orchestra("ask", "Where was Adam born?", "--router", "fixed:search", "--turns", 1, "--log", "l.jsonl")
    block = asked.out[asked.out.index("turn 1") :]
    assert re.search(r"turn 2  \(closing\) \w+\n +because .*\n(?: +.*\n)* +[→✗] \w+ ", block)
    assert "decided" not in block[block.index("turn 2") :]
    shown = orchestra("runs", "show", "l.jsonl", "").out
    assert shown[shown.index("turn 1") :] == block


def test_no_budget_no_answer(orchestra: Orchestra) -> None:
    done = orchestra("ask", QUESTION, "--budget", 0)
    assert done.code == 1
    assert done.err == "error: no tool brought a result before its dollars were used up; raise --budget\n"
    assert orchestra("ask", QUESTION, "--budget", 0, "--route-only").err.startswith("error: no decision")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--router", "fixed:nope"], "'nope' is no tool; expected fixed: and one of large, small"),
        (["--router", "best"], "--router best: expected tiny, rules, cheapest, random or fixed:TOOL"),
        (["--catalog", "none.toml"], "none.toml: 1 problem"),
        (["--log", "."], "--log . is a folder; expected a file"),
        (["--prefer", "never large, small, math, coder, runner, search, reader, clerk, analyst"], "every tool"),
    ],
)
def test_ask_says_what_is_wrong(orchestra: Orchestra, arguments: list[str], message: str) -> None:
    done = orchestra("ask", QUESTION, *arguments)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ")
    assert message in done.err


@pytest.mark.parametrize(
    "arguments", [["ask"], ["ask", " "], ["ask", "q", "--budget", "-1"], ["ask", "q", "--route-only", "--log", "x"]]
)
def test_wrong_command_lines(orchestra: Orchestra, arguments: list[str]) -> None:
    assert orchestra(*arguments).code == 2


def test_ask_real_models(orchestra: Orchestra, openai_server: OpenAIServer, catalog: Path) -> None:
    openai_server.script = answering("So it is.\n<answer>42</answer>")
    done = orchestra("ask", "life?", "--catalog", catalog, "--log", "runs.jsonl", "--json")
    assert done.json["answer"] == "42"
    router, expert = openai_server.billed
    owed = (router.prompt * 1 + router.completion * 2 + expert.prompt * 3 + expert.completion * 4) / 1e6
    assert done.json["ledger"]["dollars"] == pytest.approx(owed)
    [run] = read_runs("runs.jsonl")
    assert run.answer == "42"
    assert run.totals is not None
    assert run.totals["dollars"] == pytest.approx(owed)
    shown = orchestra("ask", "life?", "--catalog", catalog).out
    assert "decided     $0.00" in shown


def test_what_a_model_says_cannot_steer_the_terminal(
    orchestra: Orchestra, openai_server: OpenAIServer, catalog: Path
) -> None:
    openai_server.script = answering("<answer>[red]x[/red] \x1b[2J\u202e :smile: \u00fc</answer>")
    out = orchestra("ask", "a [bold]question[/bold]", "--catalog", catalog, "--log", "l.jsonl", columns=90).out
    assert "answer  [red]x[/red] \ufffd[2J\ufffd :smile: \u00fc" in out
    assert "[bold]question[/bold]" in orchestra("runs", "list", "l.jsonl").out


def test_an_answer_that_is_code_stays_as_it_is(
    orchestra: Orchestra, openai_server: OpenAIServer, catalog: Path
) -> None:
    code = "def f():\n\treturn " + " + ".join(["1"] * 60)
    openai_server.script = answering(f"<answer>{code}</answer>")
    for columns in (None, 40):
        assert f"answer\n{code}\n" in orchestra("ask", "code?", "--catalog", catalog, columns=columns).out


def test_a_server_that_refuses(orchestra: Orchestra, openai_server: OpenAIServer, catalog: Path) -> None:
    openai_server.script = [Refusal(401, "bad key")]
    for extra in ([], ["--route-only"], ["--json"]):
        done = orchestra("ask", "q", "--catalog", catalog, *extra)
        assert done.code == 1
        assert done.err.startswith("error: the router's model failed")
        assert done.err.count("\n") == 1
    openai_server.script = [Refusal(500)]
    done = orchestra("ask", "q", "--catalog", catalog, "--router", "fixed:expert")
    assert done.code == 1
    assert "✗ expert" in done.out
    assert done.err.startswith("error: no tool brought a result before the router gave up; last: ")
    assert done.err.count("\n") == 1


def test_a_key_that_is_not_set(orchestra: Orchestra, openai_server: OpenAIServer) -> None:
    done = orchestra("ask", "q", "--catalog", EXAMPLE)
    assert done.code == 1
    assert done.err == (
        "error: the environment variable OPENAI_API_KEY (key of router) is missing; fix: export OPENAI_API_KEY=...\n"
    )
    assert openai_server.requests == []


def test_check(orchestra: Orchestra, openai_server: OpenAIServer, catalog: Path) -> None:
    done = orchestra("check", catalog)
    assert done.code == 0
    assert "expert, answer" in done.out
    assert "valid: 1 tool, hash" in done.out
    assert "note:" not in done.out
    assert openai_server.requests == []


def test_check_tells_what_is_missing(orchestra: Orchestra) -> None:
    done = orchestra("check", EXAMPLE)
    assert done.code == 0
    assert "note: the environment variable OPENAI_API_KEY (key of router, large) is missing" in done.out
    assert "note: search: path = 'documents' is not there or may not be read" in done.out
    assert "note: router: priced from the genai-prices library" in done.out


@pytest.mark.slow
def test_latencies_that_a_log_measured_replace_those_of_the_catalog(
    orchestra: Orchestra, openai_server: OpenAIServer, catalog: Path
) -> None:
    openai_server.script = answering("<answer>42</answer>")
    ask = ("ask", "life?", "--catalog", catalog, "--router", "fixed:expert", "--log", "runs.jsonl")
    for _ in range(20):
        assert orchestra(*ask).code == 0
        assert orchestra("check", catalog, "--json").json["tools"]["expert"]["latency"]["source"] == "catalog"
    assert orchestra(*ask).code == 0
    hashes = [run.catalog_hash for run in read_runs("runs.jsonl")]
    assert len(set(hashes[:20])) == 1
    assert hashes[20] not in hashes[:20]
    measured = orchestra("check", catalog, "--log", "runs.jsonl", "--json").json["tools"]["expert"]["latency"]
    assert measured["source"] == "measured"
    assert 0 < measured["p50"] <= measured["p95"]
    shown = orchestra("check", catalog, "--log", "runs.jsonl").out
    assert re.search(r"p50(?s:.*)note: expert: latency measured in runs\.jsonl", shown)


def test_check_of_a_log_that_measured_nothing(orchestra: Orchestra, catalog: Path, tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").touch()
    assert "note: runs.jsonl: too few answered calls" in orchestra("check", catalog, "--log", "runs.jsonl").out
    assert orchestra("check", catalog, "--log", "none.jsonl").err.startswith("error: none.jsonl: no such run log")


def test_check_json(orchestra: Orchestra) -> None:
    assert orchestra("check", EXAMPLE, "--json").json["tools"]["large"]["price"]["output"] == 10.0


def test_check_names_every_mistake(orchestra: Orchestra, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text(MISTAKES)
    done = orchestra("check", "wrong.toml")
    assert (done.code, done.out) == (1, "")
    head, *problems = done.err.splitlines()
    assert head == "error: wrong.toml: 4 problems"
    assert [problem.split(":")[0].strip() for problem in problems] == ["line 3", "line 4", "line 5", "line 6"]


def test_check_of_what_is_no_catalog(orchestra: Orchestra, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\x00\xff\xfe\x80")
    for name, message in (("nothing", "no such file"), (".", "Is a directory"), ("binary", "not UTF-8")):
        done = orchestra("check", name)
        assert done.code == 1
        assert message in done.err


def test_demo(orchestra: Orchestra) -> None:
    done = orchestra("demo", "--tasks", 8, "--show", 2, "--log", "runs.jsonl")
    assert done.code == 0
    assert done.out.count("solved\n") == 2
    assert "8 held-out tasks, each router on all of them" in done.out
    table = done.out[done.out.index("router  ") :]
    for name in ("tiny", "rules", "fixed (large)", "cheapest", "random", "oracle"):
        assert f"\n{name} " in table
    assert len(list(read_runs("runs.jsonl"))) == 6 * 8


def test_demo_json(orchestra: Orchestra) -> None:
    done = orchestra("demo", "--tasks", 4, "--json")
    routers = {summary["router"]: summary for summary in done.json["routers"]}
    assert routers["oracle"]["success"] == 1.0
    assert routers["fixed (large)"]["priciest_share"] == 1.0


def test_runs_of_an_empty_log(orchestra: Orchestra, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    assert orchestra("runs", "list", "empty.jsonl") == Done(0, "0 runs\n", "")
    assert orchestra("runs", "list", "empty.jsonl", "--json") == Done(0, "", "")
    assert "no run whose id starts with 'abc'" in orchestra("runs", "show", "empty.jsonl", "abc").err


@pytest.mark.parametrize("command", [["list", "none.jsonl"], ["show", "none.jsonl", "a"], ["repair", "none.jsonl"]])
def test_runs_of_a_log_that_is_not_there(orchestra: Orchestra, command: list[str]) -> None:
    done = orchestra("runs", *command)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: none.jsonl: no such run log")
    assert done.err.count("\n") == 1


@pytest.mark.slow
def test_runs_list_show_and_repair(orchestra: Orchestra, tmp_path: Path) -> None:
    log = tmp_path / "runs.jsonl"
    for question in (QUESTION, "What is 7 * 8?"):
        orchestra("ask", question, "--log", log)
    with log.open("ab") as file:
        file.write(log.read_bytes()[:300])
    listed = orchestra("runs", "list", log)
    assert listed.code == 0
    assert [line.split()[-1] for line in listed.out.splitlines()] == ["answer", "12193131840", "56", "runs"]
    assert listed.err.startswith(f"unreadable: {log}:3: torn")
    first, second = (json.loads(line) for line in orchestra("runs", "list", log, "--json").out.splitlines())
    assert (first["answer"], second["answer"]) == ("12193131840", "56")
    shown = orchestra("runs", "show", log, first["run_id"][:6])
    assert QUESTION in shown.out
    assert "turn 1  math" in shown.out
    assert "answer  12193131840" in shown.out
    assert orchestra("runs", "show", log, first["run_id"], "--json").json["run_id"] == first["run_id"]
    assert "2 runs whose id starts with ''" in orchestra("runs", "show", log, "").err
    assert orchestra("runs", "repair", log).out == "folded 0, already in the log 0, running 0\n"


def test_the_list_fits_a_narrow_terminal(orchestra: Orchestra) -> None:
    orchestra("ask", f"{QUESTION} Say no more than the number, please, and be sure of it.", "--log", "runs.jsonl")
    [run] = read_runs("runs.jsonl")
    lines = orchestra("runs", "list", "runs.jsonl", columns=80).out.splitlines()
    assert lines[0].split() == ["run", "started", "dollars", "seconds", "ended", "question"]
    assert lines[1].startswith(run.run_id[:8])
    assert all(len(line) <= 80 for line in lines)
    assert "…" in lines[1]

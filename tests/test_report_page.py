"""The page's file: whole, of this file alone, and safe whatever the runs say."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from orchestra_graph.catalog import Catalog, Price, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.report.page import write_page
from orchestra_graph.report.runs import RunTable
from orchestra_graph.runlog.record import Trajectory

HOSTILE = "</script><script>alert(1)</script><!-- {{data}}"


def a_run(**parts: Any) -> Trajectory:
    turn = {
        "id": "0123abcd-0",
        "index": 0,
        "decision": {
            "calls": [{"id": "0123abcd-0-0", "tool": "small", "args": {"q": 1}}],
            "reason": "cheap",
            "by": "router",
        },
        "charges": {
            "0123abcd-0#0": {"tool": "router", "status": "paid", "dollars": 0.001, "seconds": 1.0},
            "0123abcd-0-0#0": {"tool": "small", "status": "failed", "dollars": 0.002, "seconds": 1.0},
            "0123abcd-0-0#1": {"tool": "small", "status": "paid", "dollars": 0.003, "seconds": 1.0},
            "0123abcd-0-0/4567cdef-0#0": {"tool": "small/router", "status": "paid", "dollars": 0.25, "seconds": 1.0},
        },
        "outcomes": {"0123abcd-0-0": {"content": HOSTILE, "error": False, "answer": "2", "seconds": 2.0}},
        "seconds": 0.5,
    }
    catalog = Catalog.of([ToolSpec(name="small", price=Price(input=1.0), terminal=True), ToolSpec(name="large")])
    return Trajectory.model_validate(
        {
            "run_id": "0123abcd" * 4,
            "task": {"question": f"1 + 1? {HOSTILE}"},
            "turns": [turn],
            "catalog": catalog.json_data,
            "ended": "answered",
            "stopped_by": "answer",
            "answer": "2",
            "verdict": {"outcome": 1.0, "by": "exact"},
            **parts,
        }
    )


def data_of(page: str) -> Any:
    found = re.search(r'<script id="data" type="application/octet-stream">([\w+/=]*)</script>', page)
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def test_a_page_is_one_file_that_asks_nobody(tmp_path: Path) -> None:
    table = RunTable()
    table.add(a_run(), router="rules")
    write_page(tmp_path / "page.html", title=f"A {HOSTILE}", result={"conditions": {}}, runs=table.to_json())
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script>") == 2
    assert "default-src 'none'" in page
    assert "alert(1)" not in page.replace("&lt;script&gt;alert(1)", "")
    addresses = set(re.findall(r"https?://[\w./-]+", page)) - {"http://www.w3.org/2000/svg"}
    assert addresses == set()
    assert "{{" not in page.replace("{{data}}", "", 2)
    assert data_of(page)["runs"]["texts"][0] == "rules"


def test_the_same_data_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_page(tmp_path / name, title="t", result={"conditions": {}}, runs=RunTable().to_json())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_run_holds_what_a_person_asks_about_a_turn() -> None:
    table = RunTable()
    table.add(a_run(), experts={"small": "math", "large": "large"}, router="rules", condition="prices")
    data = table.to_json()
    texts, (run,) = data["texts"], data["runs"]
    assert (texts[run["router"]], texts[run["condition"]], run["solved"]) == ("rules", "prices", True)
    (turn,) = run["turns"]
    (call,) = turn["calls"]
    assert (texts[turn["reason"]], turn["dollars"], turn["seconds"]) == ("cheap", 0.001, 0.5)
    assert (texts[call["tool"]], call["dollars"], call["seconds"], call["ends"]) == ("small", 0.255, 2.0, True)
    assert (texts[call["result"]], texts[call["args"]]) == (HOSTILE, "q: 1")
    options = [data["tools"][place] for place in data["catalogs"][run["catalog"]]]
    shown = [(texts[tool[0]], tool[2], tool[7], texts[tool[8]]) for tool in options]
    assert shown == [("small", 1.0, 1, "math"), ("large", 0.0, 0, "")]


def test_what_runs_share_is_kept_once() -> None:
    table = RunTable()
    for _ in range(3):
        table.add(a_run(), router="rules")
    assert (len(table.runs), len(table.catalogs), len(table.tools)) == (3, 1, 2)
    assert len(table.texts) == len(set(table.texts))


def test_a_run_that_nobody_judged_and_one_that_broke() -> None:
    table = RunTable()
    table.add(a_run(verdict=None, turns=[], answer=None, catalog=None, ended="failed"))
    assert (table.runs[0]["solved"], table.runs[0]["catalog"], table.runs[0]["turns"]) == (None, None, [])


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        write_page(tmp_path / "no" / "page.html", title="t", result={}, runs={})

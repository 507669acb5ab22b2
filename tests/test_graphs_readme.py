"""What ships with the graphs: pictures that show them as they are, paths that exist, files that are short and light."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestra_graph.settings import load, load_module

GRAPHS = Path(__file__).parent.parent / "graphs"
README = (GRAPHS / "README.md").read_text(encoding="utf-8")
LONGEST = 150

ALONE = """
import os, sys
os.environ.clear()
from orchestra_graph.settings import load_module
from pathlib import Path
for file in sys.argv[1:]:
    print(load_module(Path(file)).__doc__.partition("\\n")[0])
"""


@pytest.mark.parametrize("name", ["research", "service", "recursive"])
def test_the_pictures_are_drawn_from_the_compiled_graphs(name: str) -> None:
    picture = load_module(GRAPHS / "pictures.py").draw(name)
    found = re.search(rf"<!-- picture: {name} -->\n```mermaid\n(.*?)```\n<!-- end -->", README, re.DOTALL)
    assert found and found[1] == picture, "run python graphs/pictures.py"
    assert "router" in picture and "closing" in picture


def test_langgraph_finds_each_graph_by_its_path() -> None:
    graphs: dict[str, Any] = json.loads((GRAPHS / "langgraph.json").read_text())["graphs"]
    assert set(graphs) == {"research", "service", "recursive"}
    for reference in graphs.values():
        assert load(reference, GRAPHS).__doc__


@pytest.mark.slow
def test_the_files_are_short_and_load_without_server_or_key() -> None:
    files = sorted(GRAPHS.glob("*.py"))
    assert {file.name: n for file in files if (n := len(file.read_text("utf-8").splitlines())) > LONGEST} == {}
    done = subprocess.run([sys.executable, "-c", ALONE, *map(str, files)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(files)


def test_the_readme_names_every_file_and_the_floor_of_tau2() -> None:
    for path in GRAPHS.glob("*.py"):
        assert f"`{path.name}`" in README or f"graphs/{path.name}" in README
    assert "Doing nothing passes 23 of the 50 airline tasks" in README


async def test_langgraph_is_given_one_compiled_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    service: Any = load_module(GRAPHS / "service.py")
    graph = await service.graph()
    assert await service.graph() is graph
    assert {"messages"} <= set(graph.get_input_jsonschema()["properties"])
    assert {"preferences", "budget"} <= set(graph.get_context_jsonschema()["properties"])

"""Lines that the whole package keeps: import direction, file lengths, light imports, public names; and no network."""

from __future__ import annotations

import ast
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import orchestra_graph

PACKAGE = Path(orchestra_graph.__file__).parent
REPOSITORY = PACKAGE.parent
LONGEST_FILE = 400

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "kept", "text", "toml_lines", "turns", "redact", "served"),
    ("spans", "captures", "modules", "portal"),
    ("catalog", "billing", "deadlines", "journal", "node", "tracing"),
    ("prices", "preferences", "tokens"),
    ("catalog_file", "charging", "ledger", "wish"),
    ("state", "events"),
    ("meter",),
    ("attempts", "vllm", "testing"),
    ("protocols", "tools", "runlog"),
    ("routers", "report", "settings", "catalog_import", "approval"),
    ("engine", "workbench", "serving"),
    ("budgeting", "evidence", "graph_state", "progress"),
    ("execution",),
    ("nesting",),
    ("lifecycle",),
    ("router", "destination"),
    ("graph", "graph_router"),
    ("add_router", "middleware"),
    ("", "workbench.trial"),
    ("cli",),
)
"""Modules and packages, the lowest first. Each imports only from lower layers, and what is below itself."""

WITH_EXTRA = {"orchestra_graph.routers.qwen3"}
"""Modules that need an extra; others import them inside functions."""

UPWARD = {("catalog", "catalog_file")}
"""The one import inside a function that goes up: `Catalog.from_toml`."""

PUBLIC = """
    Bubblewrap Budget Catalog CatalogError ChatVLLM Cheapest CodeInterpreter ConfigError Expert Finding Fixed Latency
    Limits LocalSearch MissingError ModelSpec OrchestraError Preferences Price Random Request Result RetrieverSearch
    RouterError Rules RunLog RunLogError Subgraph Subprocess Tool ToolError ToolSpec WebSearch add_router
    create_orchestrator report
""".split()

IMPORT_ALL = """
import importlib, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "vllm", "trl", "transformers", "sympy", "langchain_tavily", "faiss",
                                   "fastapi", "uvicorn", "numpy", "tokenizers", "safetensors", "jinja2"}:
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Refuse())
import orchestra_graph

names = [module.name for module in pkgutil.walk_packages(orchestra_graph.__path__, "orchestra_graph.")]
names = [name for name in names if name not in sys.argv[1:]]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def sources() -> dict[str, ast.Module]:
    """Syntax tree of each module, by its name below the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = sources()


def unit_of(module: str) -> str:
    """The longest entry of `LAYERS` that a module belongs to."""
    units = [unit for layer in LAYERS for unit in layer if module == unit or (unit and module.startswith(f"{unit}."))]
    assert units, f"{module} is in no layer; add it to LAYERS, as low as it can be"
    return max(units, key=len)


def level(unit: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if unit in layer)


def imports(tree: ast.Module) -> Iterator[str]:
    """Modules of the package that a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name.partition(".")[2] for a in node.names if a.name.partition(".")[0] == "orchestra_graph")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "orchestra_graph":
            base = (node.module or "").partition(".")[2]
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                yield inner if inner in MODULES else base


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down(module: str) -> None:
    unit = unit_of(module)
    for other in map(unit_of, imports(MODULES[module])):
        allowed = other == unit or level(other) < level(unit) or (unit, other) in UPWARD
        assert allowed, f"{module or 'orchestra_graph'} imports {other or 'orchestra_graph'}, which is not below it"


def test_no_layer_names_a_module_that_is_gone() -> None:
    assert [u for layer in LAYERS for u in layer if u not in MODULES] == []


def test_files_are_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path): n for path, n in lengths.items() if n > LONGEST_FILE} == {}


def test_no_module_needs_a_heavy_library_or_an_extra() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL, *WITH_EXTRA], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(MODULES) - 1 - len(WITH_EXTRA)


def test_public_names() -> None:
    assert orchestra_graph.__all__ == PUBLIC
    for name in PUBLIC:
        value = getattr(orchestra_graph, name)
        assert (value.__doc__ or "").strip(), f"{name} has no docstring"


LIGHT = """
import sys
import orchestra_graph

assert not {"langgraph", "langchain_core", "pydantic"} & set(sys.modules)
assert set(orchestra_graph.__all__) <= set(dir(orchestra_graph))
from orchestra_graph import Expert, Rules, create_orchestrator
import orchestra_graph.cli
assert "openai" not in sys.modules

import orchestra_graph.add_router, orchestra_graph.report
from orchestra_graph import add_router, report
assert callable(add_router) and callable(report), "functions that share their name with a module"
"""


def test_names_are_imported_when_they_are_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="'orchestra_graph' has no attribute 'Expret'"):
        orchestra_graph.Expret  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("module", sorted(MODULES))
def test_public_definitions_have_docstrings(module: str) -> None:
    tree = MODULES[module]
    assert ast.get_docstring(tree), f"{module} has no docstring"
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    named = [
        node
        for body in (tree.body, *(cls.body for cls in classes))
        for node in body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    ]
    assert [node.name for node in named if not ast.get_docstring(node)] == []


def test_typed_dicts_come_from_typing_extensions() -> None:
    """On Python 3.11 the graph's JSON schema fails with those of `typing`."""
    users = [
        path
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and node.module == "typing"
        and any(alias.name == "TypedDict" for alias in node.names)
    ]
    assert users == []


def test_nothing_reads_the_environment_but_the_command_and_from_env() -> None:
    readers = [
        f"{module}.{node.name}"
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "from_env"
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute) and inner.attr in ("environ", "getenv") and unit_of(module) != "cli"
    ]
    assert readers == []


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80)])
def test_tests_reach_no_network(address: tuple[str, int]) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as s, pytest.raises(pytest.fail.Exception, match="may reach loopback only"):
        s.connect(address)


def test_tests_look_no_name_up() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"example\.org"):
        socket.getaddrinfo("example.org", 443)


async def test_tests_reach_loopback() -> None:
    with socket.socket() as listener, socket.socket() as s:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        s.connect(listener.getsockname())
        assert s.getpeername() == listener.getsockname()
    with socket.socket(socket.AF_UNIX) as s, pytest.raises(FileNotFoundError):
        s.connect("/nowhere/at/all")

"""Settings of configured graphs: what is read, and what a wrong file says."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from orchestra_graph.catalog import ModelSpec
from orchestra_graph.errors import CatalogError, ConfigError
from orchestra_graph.settings import GraphSettings, load, load_module, read_settings
from orchestra_graph.tokens import FolderTokenizer, ServerTokenizer

TOKENIZER = Path(__file__).parent / "data" / "tokenizer"
CATALOG = """
version = 1
[router]
model = "m"
base_url = "http://127.0.0.1:1/v1"
[tools.find]
kind = "search"
path = "documents"
"""


class Settings(GraphSettings):
    policy: str


def write(folder: Path, text: str, name: str = "graph.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_read_and_its_paths_start_at_its_folder(tmp_path: Path) -> None:
    write(tmp_path, CATALOG, "team.toml")
    write(tmp_path, "Be kind. ß", "policy.md")
    text = 'catalog = "team.toml"\npolicy = "policy.md"\nrun_log = "runs.jsonl"\n[budget]\ndollars = 0.5\n'
    settings = read_settings(write(tmp_path, f"{text}[preferences]\ncost = 1.0\nnever = ['x']\n"), Settings)
    assert (settings.budget.dollars, settings.budget.seconds, settings.preferences.cost) == (0.5, math.inf, 1.0)
    assert settings.preferences.never == ("x",)
    assert settings.text(settings.policy) == "Be kind. ß"
    catalog = settings.read_catalog()
    assert (catalog.router.model, catalog.tools["find"].path) == ("m", str(tmp_path / "documents"))
    log = settings.make_run_log()
    assert log is not None and log.path == tmp_path / "runs.jsonl"


def test_the_catalog_may_stand_in_the_file_and_the_router_elsewhere(tmp_path: Path) -> None:
    text = f"policy = ''\ncatalog = '''{CATALOG}'''\n[router]\nmodel = 'other'\nbase_url = 'http://localhost:9/v1'\n"
    settings = read_settings(write(tmp_path, text), Settings)
    router = settings.read_catalog().router
    assert (router.model, router.base_url) == ("other", "http://localhost:9/v1")
    assert settings.make_run_log() is None


def test_a_wrong_catalog_tells_its_lines(tmp_path: Path) -> None:
    settings = read_settings(write(tmp_path, "policy = ''\ncatalog = '''\nversion = 2\n'''"), Settings)
    with pytest.raises(CatalogError, match=r"the settings' catalog: .*\n  line 1: version = 2"):
        settings.read_catalog()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("catalog = ", "graph.toml: .*expected TOML"),
        (
            "catalog = 'c'\n[budget]\ndollars = -1",
            r"budget.dollars = -1: .*; policy is missing|policy is missing; budget",
        ),
        ("catalog = 'c'\npolicy = 'p'\ncost = 1", "cost: unknown key; expected one of .*catalog.*policy"),
        ("catalog = 'c'\npolicy = 3", "policy = 3: "),
        ("catalog = 'c'\npolicy = 'p'\n[router]\napi_key = 'sk-123'", "router.api_key: unknown key$"),
        ("catalog = 'c'\npolicy = 'p'\n[router]\napi_key_env = 'sk-123'", "api_key_env .its value is not shown."),
    ],
)
def test_a_wrong_file_gives_one_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        read_settings(write(tmp_path, text), Settings)
    assert "\n" not in str(error.value) and "sk-123" not in str(error.value)


def test_a_file_that_is_not_there_or_no_text_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_settings(tmp_path / "none.toml", Settings)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="expected TOML in UTF-8"):
        read_settings(tmp_path / "bytes.toml", Settings)
    settings = read_settings(write(tmp_path, "catalog = 'c'\npolicy = 'p'"), Settings)
    for name, said in (("none.md", "No such file"), ("bytes.toml", "it is not UTF-8")):
        with pytest.raises(ConfigError, match=said):
            settings.text(name)


def test_tokens_are_counted_in_the_models_folder_or_by_its_server(tmp_path: Path) -> None:
    own = read_settings(write(tmp_path, f"catalog = 'c'\npolicy = 'p'\ntokenizer = '{TOKENIZER}'"), Settings)
    assert isinstance(own.make_tokenizer(ModelSpec(), {}), FolderTokenizer)
    settings = read_settings(write(tmp_path, "catalog = 'c'\npolicy = 'p'"), Settings)
    router = ModelSpec(model="m", base_url="http://127.0.0.1:1/v1")
    assert isinstance(settings.make_tokenizer(router, {}), ServerTokenizer)
    with pytest.raises(ConfigError, match="tokenizer is missing"):
        settings.make_tokenizer(ModelSpec(model="gpt-5"), {})


def test_a_name_is_loaded_from_a_python_file_once(tmp_path: Path) -> None:
    code = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n@dataclass\nclass Made:\n    n: int\n"
    )
    write(tmp_path, code, "made.py")
    made = load("made.py:Made", tmp_path)
    assert made(n=1).n == 1
    assert load_module(tmp_path / "made.py").Made is made


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("made.py", "expected FILE.py:NAME"),
        ("made:x", "expected FILE.py:NAME"),
        ("made.py:no name", "expected FILE.py:NAME"),
        ("none.py:x", "is not there; expected a Python file"),
        ("broken.py:x", "cannot be loaded: ZeroDivisionError: division by zero; fix"),
        ("quits.py:x", "cannot be loaded: SystemExit: 3; fix"),
        ("fine.py:gone", "fine.py has no gone"),
    ],
)
def test_a_name_that_cannot_be_loaded_gives_one_line(reference: str, said: str, tmp_path: Path) -> None:
    for name, code in (("broken", "1 / 0"), ("quits", "raise SystemExit(3)"), ("fine", "x = 1")):
        write(tmp_path, code, f"{name}.py")
    with pytest.raises(ConfigError, match=said) as error:
        load(reference, tmp_path)
    assert "\n" not in str(error.value)
    assert not any(str(tmp_path / "broken.py") in name for name in sys.modules)

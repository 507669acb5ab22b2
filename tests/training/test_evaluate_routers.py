"""Routers by name: what a spec means, in the fixed catalog and in drawn ones."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from langchain_core.language_models import BaseChatModel
from orchestra_training.evaluate.conditions import CONDITIONS, WorkbenchSet
from orchestra_training.evaluate.examples import Example
from orchestra_training.evaluate.routers import (
    BASELINES,
    InTurn,
    Member,
    RouterSpec,
    check_names,
    parse_router,
    read_routers,
    take_seat,
)
from pydantic import SecretStr

from orchestra_graph.catalog import Catalog, Price, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.routers import Fixed, Random
from orchestra_graph.vllm import ChatVLLM

FIXED = WorkbenchSet("in-distribution", tasks=1).example(0)


@cache
def unseen() -> list[Example]:
    return [e for i in range(20) if (e := WorkbenchSet("unseen", tasks=20).example(i))]


def seat(spec: str, example: Example = FIXED) -> BaseChatModel:
    (member,) = parse_router(spec).members
    return take_seat(spec, member, example, {}).router


def test_baselines() -> None:
    assert seat("fixed:small") == Fixed(tool="small", name="fixed:small")
    assert seat("random:7") == Random(seed=7, name="random:7")
    strongest = seat("strongest")
    assert isinstance(strongest, InTurn)
    assert strongest.steps == ("search", "large", "search", "large")


def test_a_baseline_finds_its_expert_under_any_name() -> None:
    """Where it is missing, the strongest that is there takes its place."""
    found = set()
    for example in unseen():
        router = seat("fixed:large", example)
        assert isinstance(router, Fixed)
        expert = example.identity[router.tool]
        found.add(expert)
        assert (expert == "large") == ("large" in example.identity.values())
    assert {"large", "math"} <= found


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_baseline_takes_its_seat_in_every_condition(condition: str) -> None:
    for spec in (*BASELINES, "strongest:clerk"):
        assert seat(spec, WorkbenchSet(condition, tasks=1).example(0)).name == spec


def test_a_name_with_several_members() -> None:
    spec = parse_router("dice=random:1, random:2")
    assert (spec.name, spec.members) == ("dice", (Member(program="random:1"), Member(program="random:2")))


@pytest.mark.parametrize("spec", ["local:lr=1", "m@http://h/v1?a=1"])
def test_what_stands_before_an_equals_sign_is_a_name_only_where_it_can_be_one(spec: str) -> None:
    (member,) = parse_router(spec).members
    assert spec in (f"local:{member.local}", f"{member.model}@{member.base_url}")
    assert parse_router(spec).name == spec
    assert parse_router(f"mine={spec}") == RouterSpec("mine", (member,))
    assert parse_router(f"rules,{spec}").members == (Member(program="rules"), member)


def test_a_served_model() -> None:
    (member,) = parse_router("Qwen/Qwen3-8B@http://localhost:1/v1").members
    assert (member.model, member.base_url) == ("Qwen/Qwen3-8B", "http://localhost:1/v1")
    router = take_seat("q", member, FIXED, {}).router
    assert isinstance(router, ChatVLLM) and router.temperature == 0


def test_a_price_tells_a_served_model_from_the_same_at_another_price() -> None:
    """Runs of a log that were paid at another price are not those that are wanted; without one nothing changes."""
    served = {"model": "m", "base_url": "http://h/v1"}
    without, cheap, dear = (Member(**served, price=price) for price in (Price(), Price(input=1), Price(input=100)))
    assert without.identity == Member(**served).identity == "m conversation 0"
    assert cheap.identity == 'm conversation 0 {"input":1.0}' != dear.identity


@pytest.mark.parametrize(
    "spec", ["magic", "fixed:", "rules:1", "random:x", "oracle:1", "model@ftp://host", "tiny=local:a,magic", "=rules"]
)
def test_what_is_no_router(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"^router '[^\n]*expected[^\n]*$"):
        parse_router(spec)


def test_a_file_of_routers(tmp_path: Path) -> None:
    path = tmp_path / "routers.toml"
    path.write_text(
        '[[routers.tiny]]\nlocal = "seed0"\n[[routers.tiny]]\nlocal = "seed1"\n'
        '[routers.big]\nmodel = "m"\nbase_url = "http://h/v1"\nprice = { input = 1.0, output = 2.0 }\n'
    )
    tiny, big = read_routers(path)
    assert (tiny.name, [m.local for m in tiny.members]) == ("tiny", ["seed0", "seed1"])
    assert take_seat("big", big.members[0], FIXED, {}).catalog.router.price.output == 2.0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[routers.a]\nlocale = 1\n", r"routers\.toml: routers\.a"),
        ('[routers.a]\nprogram = "magic"\n', "expected rules"),
        ('[routers.a]\nmodel = "m"\n', "model and base_url go together"),
        (
            '[routers.a]\nlocal = "f"\nprice = { input = 1.0 }\ntemperature = 1\n',
            "price, temperature: of a served model",
        ),
        ("[routers.a]\n", "expected one of program, local, model"),
        ("nothing", "expected TOML"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "routers.toml").write_text(text)
    with pytest.raises(ConfigError, match=problem):
        read_routers(tmp_path / "routers.toml")


def test_a_baseline_that_does_not_fit() -> None:
    own = Example(0, 0, "", "t", "Who?", Catalog.of([ToolSpec(name="a", terminal=True)]))
    with pytest.raises(ConfigError, match="the oracle knows the experts of the workbench only"):
        seat("oracle", own)
    with pytest.raises(ConfigError, match="'b' is no tool; expected one of a"):
        seat("fixed:b", own)
    for spec in ("fixed:large", "strongest:large"):
        with pytest.raises(ConfigError, match="'large' is no tool; expected one of a"):
            seat(spec, own)
    assert seat("strongest", own) == InTurn(steps=("a", "a"), name="strongest")
    free = Catalog.of([ToolSpec(name="web", kind="search"), ToolSpec(name="a"), ToolSpec(name="b")])
    searches = seat("strongest", Example(0, 0, "", "t", "Who?", free))
    assert searches == InTurn(steps=("web", "a", "web", "a"), name="strongest")


def test_a_key_is_looked_up_by_its_name() -> None:
    member = Member(model="m", base_url="http://h/v1", api_key_env="MY_KEY")
    router = take_seat("m", member, FIXED, {"MY_KEY": "k"}).router
    assert isinstance(router, ChatVLLM) and isinstance(router.openai_api_key, SecretStr)
    assert router.openai_api_key.get_secret_value() == "k"
    with pytest.raises(ConfigError, match="the environment variable MY_KEY"):
        take_seat("m", member, FIXED, {})


def test_two_routers_of_one_name() -> None:
    with pytest.raises(ConfigError, match="two routers are named 'rules'"):
        check_names([parse_router("rules"), parse_router("rules")])

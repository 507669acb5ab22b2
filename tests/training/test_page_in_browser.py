"""The page of a real evaluation, opened and clicked in a real browser that may reach no network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from orchestra_training.evaluate.conditions import WorkbenchSet, standard_budgets
from orchestra_training.evaluate.evaluation import Evaluation, carry_out, make_reference, run_table
from orchestra_training.evaluate.routers import parse_router
from playwright.sync_api import Browser, Page, expect, sync_playwright

from orchestra_graph.report.curves import Curves
from orchestra_graph.report.page import write_page

pytestmark = pytest.mark.slow

ROUTERS = ("rules", "fixed:large", "oracle")
N = 8


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the page of a small evaluation."""
    folder = tmp_path_factory.mktemp("page")
    wanted = Evaluation(
        routers=list(map(parse_router, ROUTERS)),
        sets=[
            partial(WorkbenchSet, "in-distribution", tasks=N),
            partial(WorkbenchSet, "unseen", tasks=N),
            partial(WorkbenchSet, "preferences", tasks=N),
            partial(WorkbenchSet, "budget", tasks=2, budgets=standard_budgets([1, 2, 4], [1e-7, 0.0005, 0.005])),
        ],
        log=folder / "runs.jsonl",
    )
    reference = folder / "reference.jsonl"
    carry_out(wanted)
    make_reference(Evaluation(routers=[parse_router("rules")], sets=wanted.sets, log=wanted.log), reference)
    outcome = carry_out(Evaluation(routers=wanted.routers, sets=wanted.sets, log=wanted.log, reference=reference))
    curves = [
        Curves(
            "seed0", {"reward": [(float(step), step / 100) for step in range(100)], "loss": [(0.0, 1.0), (9.0, 0.5)]}
        )
    ]
    result = outcome.tables(against="rules", draws=200)
    page = folder / "page.html"
    write_page(page, title="Routers side by side", result=result, runs=run_table(wanted, most=10_000), curves=curves)
    return page.as_uri()


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Browser]:
    """Opened after the evaluation: it keeps an event loop of its own running in this thread."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    assert found, "chromium is missing; fix: install it, for example: sudo apt-get install chromium"
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=options)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: faults.append(request.url) if request.url.startswith("http") else None)
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    yield page
    page.close()
    assert faults == []


def test_the_first_condition_is_shown(page: Page) -> None:
    expect(page).to_have_title("Routers side by side")
    expect(page.locator("#subtitle")).to_contain_text("3 routers, 4 conditions")
    assert [tab.inner_text() for tab in page.get_by_role("tab").all()] == [
        "in-distribution",
        "unseen",
        "preferences",
        "budget",
    ]
    for name in ROUTERS:
        expect(page.locator(f"#figures tr[data-router='{name}']")).to_be_visible()
        expect(page.locator("#frontier svg text.name", has_text=name).first).to_be_visible()
    assert page.locator("#shares .mark").count() > len(ROUTERS)


def test_marks_tell_their_figures(page: Page) -> None:
    mark = page.locator("#frontier .mark").first
    assert "a task" in (mark.get_attribute("aria-label") or "")
    expect(page.locator("#tip")).to_be_hidden()
    mark.focus()
    expect(page.locator("#tip")).to_be_visible()
    expect(page.locator("#tip")).to_contain_text("solved")


def test_quality_can_be_utility(page: Page) -> None:
    expect(page.locator("#frontier svg")).to_contain_text("↑ solved")
    page.locator("#frontier").get_by_role("button", name="utility").click()
    expect(page.locator("#frontier svg")).to_contain_text("↑ utility")


def test_tables_sort(page: Page) -> None:
    def first() -> str | None:
        return page.locator("#figures tbody tr").first.get_attribute("data-router")

    assert first() == "oracle"
    page.locator("#figures th button", has_text="dollars a task").click()
    assert first() == "oracle"  # the cheapest as well
    page.locator("#figures th button", has_text="dollars a task").click()
    assert first() == "fixed:large"


def test_conditions_have_cards_of_their_own(page: Page) -> None:
    page.get_by_role("tab", name="budget").click()
    assert page.locator("#budget svg").count() == 2
    expect(page.locator("#budget")).to_contain_text("$0.0005")
    page.locator("#budget .legend button", has_text="oracle").click()
    assert page.locator("#budget .faded").count() > 0
    page.get_by_role("tab", name="preferences").click()
    expect(page.locator("#wishes tbody tr")).to_have_count(len(ROUTERS))
    page.get_by_role("tab", name="unseen").click()
    expect(page.locator("#places")).to_be_visible()


def test_a_limit_that_pays_for_no_call_has_no_share_of_the_priciest(page: Page) -> None:
    page.get_by_role("tab", name="budget").click()
    marks = page.locator("#budget svg").nth(1).locator("circle[r='3.5']")
    expect(marks).to_have_count(3 * len(ROUTERS))
    page.locator("#budget").get_by_role("button", name="to the priciest").click()
    expect(marks).to_have_count(2 * len(ROUTERS))


def test_tabs_follow_the_arrow_keys(page: Page) -> None:
    page.get_by_role("tab", name="in-distribution").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="unseen")).to_have_attribute("aria-selected", "true")


def test_training_curves(page: Page) -> None:
    expect(page.locator("#curves h3")).to_have_text(["reward", "loss"])
    assert page.locator("#curves svg path").count() == 2
    page.locator("#curves svg").first.hover()
    expect(page.locator("#tip")).to_contain_text("seed0: 0.")


def test_runs_are_found_and_their_turns_opened(page: Page) -> None:
    rows = page.locator(".runrow")
    expect(page.locator("#count")).to_contain_text(f"{len(ROUTERS) * N} of ")
    page.select_option("#filter-router", "oracle")
    expect(rows).to_have_count(N)
    page.fill("#search", "nobody asks this")
    expect(rows).to_have_count(0)
    page.fill("#search", "")
    expect(rows).to_have_count(N)
    rows.first.click()
    expect(rows.first).to_have_attribute("aria-expanded", "true")
    turn = page.locator(".turn").first
    turn.locator("summary").click()
    expect(turn.locator(".options tbody tr")).to_have_count(9)
    expect(turn.locator(".options tr.chosen")).to_have_count(1)
    expect(turn).to_contain_text("left to do: ")
    expect(turn).to_contain_text("per million")
    expect(turn.locator(".result").first).not_to_be_empty()
    expect(turn.locator(".cost")).to_contain_text("$")
    rows.first.click()
    expect(page.locator(".run")).to_have_count(0)


def test_drawn_names_tell_who_is_behind_them(page: Page) -> None:
    page.get_by_role("tab", name="unseen").click()
    page.fill("#search", "large")
    page.select_option("#filter-router", "fixed:large")
    page.locator(".runrow").first.click()
    expect(page.locator(".turn summary .tag").first).to_have_text("large")
    page.locator(".turn summary").first.click()
    expect(page.locator(".options tr.chosen small")).to_have_text("large")


def test_the_outcome_filter_agrees_with_the_figures(page: Page) -> None:
    page.select_option("#filter-router", "fixed:large")
    page.select_option("#filter-outcome", "solved")
    solved = page.locator(".runrow").count()
    figure = page.locator("#figures tr[data-router='fixed:large'] td").nth(1).inner_text()
    assert f"{solved / N:.1%}" in figure


def test_light_and_dark(page: Page) -> None:
    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = background()
    page.locator("#theme").click()
    assert background() != light
    page.locator("#theme").click()
    assert background() == light


def test_nothing_is_wider_than_a_phone(browser: Browser, address: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()


def test_thousands_of_runs_stay_usable(browser: Browser, tmp_path: Path, address: str) -> None:
    """Rows are drawn a page at a time, and a filter finds the one run that is meant."""
    page = browser.new_page()
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    data = page.evaluate("unpack()")
    runs = data["runs"]
    runs["texts"].append("the needle")
    runs["runs"] = [dict(run) for _ in range(100) for run in runs["runs"]]
    runs["runs"][-1]["question"] = len(runs["texts"]) - 1
    write_page(tmp_path / "many.html", title="Many", result=data["result"], runs=json.loads(json.dumps(runs)))
    page.goto((tmp_path / "many.html").as_uri())
    page.wait_for_selector("body[data-ready]")
    assert len(runs["runs"]) > 8_000
    assert page.locator(".runrow").count() == 60
    page.locator("#runs .more").click()
    assert page.locator(".runrow").count() == 120
    page.select_option("#filter-condition", "")
    page.fill("#search", "the needle")
    expect(page.locator(".runrow")).to_have_count(1)
    page.close()


def test_routers_that_cost_nothing_are_on_the_chart(browser: Browser, tmp_path: Path, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    data = page.evaluate("unpack()")
    routers = data["result"]["conditions"]["in-distribution"]["routers"]
    for free in (["rules"], list(ROUTERS)):
        for name in free:
            routers[name]["dollars"] = {"value": 0.0, "low": 0.0, "high": 0.0}
        write_page(tmp_path / "free.html", title="Free", result=data["result"], runs=data["runs"])
        page.goto((tmp_path / "free.html").as_uri())
        page.wait_for_selector("body[data-ready]")
        for name in ROUTERS:
            expect(page.locator("#frontier svg text.name", has_text=name).first).to_be_visible()
        expect(page.locator("#frontier svg")).to_contain_text("$0")
    page.close()

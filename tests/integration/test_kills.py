"""A few kills of each store; `tests/benchmarks/kills.py` does hundreds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.biller import Biller
from tests.integration.kills import Harness, Nursery
from tests.integration.postgres import postgres
from tests.integration.victim import prepare

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KILLS = 15


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with closing(Nursery()) as victims:
        yield victims


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "state.sqlite")
    else:
        with postgres() as address:
            yield address


def test_killed_runs_go_on_to_the_same_answer_and_every_payment_is_in_the_ledger(
    store: str, nursery: Nursery, tmp_path: Path
) -> None:
    prepare(store)
    with Biller() as biller:
        report = Harness(store, tmp_path, biller, nursery).kill(KILLS)
    assert report.faults == []
    assert (report.wrong_answers, report.paid_again, report.not_in_ledger) == ([], [], [])
    assert report.kills.total() == KILLS
    assert report.billed > KILLS

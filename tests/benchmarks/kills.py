"""Kills runs with SIGKILL and takes them up again, on SQLite and on PostgreSQL, and counts what is wrong afterwards.

    python tests/benchmarks/kills.py                        # 200 kills each, about a quarter of an hour
    python tests/benchmarks/kills.py --kills 20 --stores sqlite --seed 7

`tests/integration/kills.py` says how runs are killed and what is held against what. The bar: no wrong answer, no call
paid again whose result had been written, every payment in the ledger, as charged or as uncertain. Exit code 1 when it
is missed. `--durability exit` shows why that mode of LangGraph is not safe.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # started by its path, the repository is not on it

from tests.integration.biller import Biller
from tests.integration.kills import Harness, Nursery, Report
from tests.integration.postgres import postgres
from tests.integration.victim import prepare

STORES = ("sqlite", "postgres")


@contextmanager
def store_of(kind: str, folder: Path) -> Iterator[str]:
    """A store: a file, or a server that is started for it."""
    if kind == "sqlite":
        yield str(folder / "state.sqlite")
    else:
        with postgres() as address:
            yield address


def show(report: Report, seconds: float) -> None:
    """Print what was found."""
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(report.kills.items()))
    print(f"{report.store}: {report.kills.total()} kills of {report.runs} runs in {seconds:.0f} s ({kinds})")
    print(
        f"  before the first checkpoint {report.before}, inside a nested run {report.nested}, "
        f"between log line and last checkpoint {report.ended}; log repaired {report.repairs} times, "
        f"{report.torn} lines cut short"
    )
    print(
        f"  {report.billed} requests billed: {report.billed - report.uncertain} charged, {report.uncertain} uncertain; "
        f"{report.unsent} uncertain that never reached the provider"
    )
    for name in ("wrong_answers", "paid_again", "not_in_ledger", "faults"):
        found: list[str] = getattr(report, name)
        print(f"  {name.replace('_', ' '):<16}{len(found)}")
        for line in found[:5]:
            print(f"    {line}")
    print("  passed" if report.passed else "  MISSED")


def main() -> None:
    """Kill, print, and exit with 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description="Killed runs: answers, payments, ledgers.")
    parser.add_argument("--kills", type=int, default=200, help="of each store")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--durability", choices=("sync", "async", "exit"), default="sync")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args()
    passed = True
    for kind in args.stores:
        with tempfile.TemporaryDirectory() as name, store_of(kind, Path(name)) as store, closing(Nursery()) as nursery:
            prepare(store)
            started = time.monotonic()
            with Biller() as biller:
                report = Harness(store, Path(name), biller, nursery, args.seed, args.durability).kill(args.kills)
        passed = passed and report.passed
        if args.json:
            print(json.dumps({**asdict(report), "passed": report.passed}))
        else:
            show(report, time.monotonic() - started)
    sys.exit(not passed)


if __name__ == "__main__":
    main()

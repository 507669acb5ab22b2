"""What it takes to write the router's view, turn by turn, in an episode that outgrows its room of 24,000 tokens.

    python tests/benchmarks/views.py             # 50 turns, 100 documents
    python tests/benchmarks/views.py --rounds 20

Every turn a search brings two documents of 1,000 words, and every fifth an expert's program and what it printed as
well. The tokenizer is that of the tests, which is built like Qwen3's, read from its file. Each round is a new run with
texts of its own and a new protocol, so nothing is known from the round before. A figure is the wall time of one view
in milliseconds, without the model; the ratio is the median of the last ten turns over that of the first ten. The bar:
under 20 ms a turn, and a cost that does not grow with the square of the turns.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.protocols.base import Protocol, Situation
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.protocols.nemotron_qa import NemotronQA, nemotron_catalog
from orchestra_graph.tokens import FolderTokenizer
from orchestra_graph.turns import Outcome, Turn

TOKENIZER = Path(__file__).parent.parent / "data" / "tokenizer"
WORDS = (Path(__file__).parent.parent.parent / "LICENSE").read_text(encoding="utf-8").split()
TURNS = 50
DOCUMENTS = 2
"""Documents that each turn brings."""

PROTOCOLS: dict[str, Callable[[], Protocol]] = {
    "nemotron_qa, hle": lambda: NemotronQA(FolderTokenizer(TOKENIZER), "hle"),
    "nemotron_qa, frames": lambda: NemotronQA(FolderTokenizer(TOKENIZER), "frames"),
    "conversation": ConversationProtocol,
}


def _text(words: int, seed: random.Random) -> str:
    """Words in sentences and paragraphs."""
    parts = []
    for _ in range(words):
        parts.append(seed.choice(WORDS))
        parts.append(seed.choices([" ", ". ", "\n", "\n\n"], [90, 6, 2, 2])[0])
    return "".join(parts)


def _turn(run: str, index: int, seed: random.Random) -> Turn:
    """One call, with what it brought."""
    texts = [_text(1_000, seed) for _ in range(DOCUMENTS)]
    brought: list[tuple[str, str, list[Any]]] = [("search-1", "\n\n".join(texts), [{"text": text} for text in texts])]
    if index % 5 == 0:
        code, output = _text(100, seed), _text(50, seed)
        brought.append(("reasoner-1", code + output, [{"code": code, "output": output}]))
    calls = [{"id": f"{run}-{index}-{n}", "tool": tool, "args": {}} for n, (tool, _, _) in enumerate(brought)]
    outcomes: dict[str, Outcome] = {
        f"{run}-{index}-{n}": {"content": content, "error": False, "artifacts": artifacts}
        for n, (_, content, artifacts) in enumerate(brought)
    }
    decision: Any = {"calls": calls, "reason": "", "by": "router"}
    return {
        "id": f"{run}-{index}",
        "index": index,
        "decision": decision,
        "charges": {},
        "outcomes": outcomes,
        "seconds": 0.0,
    }


def measure(protocol: Protocol, run: str, seed: random.Random) -> tuple[list[float], int]:
    """Milliseconds of each turn's view, and the characters of the last."""
    catalog = nemotron_catalog()
    turns: dict[str, Turn] = {}
    found = []
    for index in range(TURNS + 1):
        situation = Situation(
            "What follows from all this?", catalog, Preferences(), Budget(), dict(turns), (), f"{run}-{index}"
        )
        started = time.perf_counter()
        view = next(protocol.decide(situation))
        found.append((time.perf_counter() - started) * 1000)
        turn = _turn(run, index, seed)
        turns[turn["id"]] = turn
    return found[1:], sum(len(message.text) for message in view.messages)


def main() -> None:
    """Print the figures of each protocol."""
    parser = argparse.ArgumentParser(description="What it takes to write the router's view, turn by turn.")
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    found: dict[str, list[list[float]]] = {name: [] for name in PROTOCOLS}
    length: dict[str, int] = {}
    for number in range(rounds):
        for name, make in PROTOCOLS.items():
            protocol = make()
            for warm in (True, False):  # the first run of a process pays for code that is loaded once
                if number and warm:
                    continue
                times, length[name] = measure(protocol, f"{warm}{number}", random.Random(f"{number} {warm}"))
            found[name].append(times)
    print(f"{TURNS} turns, {TURNS * DOCUMENTS} documents, {rounds} rounds; milliseconds a turn")
    print(f"{'protocol':20} {'p50':>7} {'p95':>7} {'max':>7} {'last/first':>11} {'characters':>11}")
    for name, runs in found.items():
        every = sorted(value for run in runs for value in run)
        ratio = statistics.median([v for run in runs for v in run[-10:]]) / statistics.median(
            [v for run in runs for v in run[:10]]
        )
        p95 = every[int(0.95 * (len(every) - 1))]
        print(f"{name:20} {statistics.median(every):7.2f} {p95:7.2f} {every[-1]:7.2f} {ratio:11.2f} {length[name]:11,}")


if __name__ == "__main__":
    main()

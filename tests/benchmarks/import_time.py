"""Import time of orchestra_graph beside that of what it is built on: langgraph.graph and langchain_openai.

    python tests/benchmarks/import_time.py [rounds]

Each import runs in a fresh interpreter, all in turn. A figure is the median of the paired ratios of CPU seconds (user
and system); wall time would measure the disk. The bar stands on the import that the README begins with, all that an
orchestrator of one's own models needs; the import of the package alone, which imports nothing, and that of every public
name are told beside it. Exits 1 above the bar.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

BAR = 1.1
ROUNDS = 20
OURS = "from orchestra_graph import Expert, Rules, create_orchestrator"
THEIRS = "import langgraph.graph, langchain_openai"
STATEMENTS = (OURS, THEIRS, "import orchestra_graph", "from orchestra_graph import *")


def cpu_seconds(statement: str) -> float:
    """CPU seconds of a fresh interpreter that runs a statement."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each statement, round by round; which one goes first alternates."""
    found: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for statement in STATEMENTS:
        cpu_seconds(statement)  # writes the byte code, once
    for number in range(rounds):
        first = number % len(STATEMENTS)
        for statement in STATEMENTS[first:] + STATEMENTS[:first]:
            found[statement].append(cpu_seconds(statement))
    return found


def main() -> None:
    """Print the ratios, and fail above the bar."""
    found = measure(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
    for statement, seconds in found.items():
        ratios = sorted(ours / theirs for ours, theirs in zip(seconds, found[THEIRS], strict=True))
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        print(f"{statement}: {statistics.median(seconds):.3f} s CPU", end="")
        print(f", ratio {statistics.median(ratios):.3f} (quartiles {low:.3f} to {high:.3f})")
    ratio = statistics.median(ours / theirs for ours, theirs in zip(found[OURS], found[THEIRS], strict=True))
    print(f"ratio of the first to the second: {ratio:.3f}, bar: {BAR}")
    sys.exit(ratio > BAR)


if __name__ == "__main__":
    main()

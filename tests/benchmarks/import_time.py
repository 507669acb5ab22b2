"""Import time of orchestra_graph beside that of what it is built on: langgraph.graph and langchain_openai.

    python tests/benchmarks/import_time.py [pairs]

Each import runs in a fresh interpreter, the two sides in turn. The figure is the median of the paired ratios of CPU
seconds (user and system); wall time would measure the disk. Exits 1 above the bar.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

BAR = 1.1
PAIRS = 25
OURS = "import orchestra_graph"
THEIRS = "import langgraph.graph, langchain_openai"


def cpu_seconds(statement: str) -> float:
    """CPU seconds of a fresh interpreter that runs a statement."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(pairs: int) -> list[tuple[float, float]]:
    """CPU seconds of both sides, pair by pair; which side goes first alternates."""
    for statement in (OURS, THEIRS):
        cpu_seconds(statement)  # writes the byte code, once
    found = []
    for number in range(pairs):
        first, second = (OURS, THEIRS) if number % 2 else (THEIRS, OURS)
        seconds = {first: cpu_seconds(first), second: cpu_seconds(second)}
        found.append((seconds[OURS], seconds[THEIRS]))
    return found


def main() -> None:
    """Print the ratio, and fail above the bar."""
    pairs = measure(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS)
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    ratio = statistics.median(ratios)
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    print(f"import orchestra_graph: {ours:.3f} s, what it is built on: {theirs:.3f} s (CPU, {len(pairs)} pairs)")
    print(f"ratio: {ratio:.3f} (quartiles {low:.3f} to {high:.3f}), bar: {BAR}")
    sys.exit(ratio > BAR)


if __name__ == "__main__":
    main()

"""Which trajectories train and which test: by their task, so that no task is in both."""

from __future__ import annotations

import hashlib
from typing import Final

from orchestra_graph.runlog.record import Task

_HASH_BYTES: Final = 8


def task_hash(task: Task) -> str | None:
    """Hash of what is asked, spelling of spaces and capitals aside; of the task's id where the question is not known.

    Args:
        task: Of a run.

    Returns:
        16 hexadecimal characters, or None where neither is known.

    >>> task_hash(Task(question="What is  1 + 1?")) == task_hash(Task(question="what is 1 + 1?", id="t1"))
    True
    """
    asked = " ".join(task.question.split()).casefold()
    if not asked and task.id is None:
        return None
    named = f"question:{asked}" if asked else f"id:{task.id}"
    return hashlib.sha256(named.encode("utf-8", "replace")).hexdigest()[: 2 * _HASH_BYTES]


def is_test(hash: str, share: float) -> bool:
    """Whether a task tests.

    Args:
        hash: From `task_hash`.
        share: Part of the tasks that test, from 0 to 1; with a larger one the same tasks test, and further ones.
    """
    return int(hash, 16) < share * 256**_HASH_BYTES

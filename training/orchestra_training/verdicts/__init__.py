"""Verdicts: whether a task was solved, and who says so.

Each judge returns a `orchestra_graph.runlog.record.Verdict`; its `reason` is for a person who doubts it.

    exact          the same text after normalisation
    numeric        the same number within a tolerance
    Mathematics    the same mathematical object (`math-verify`)
    same_database  the three criteria of ToolScale
    programs       hidden tests, in a sandbox
    Judge          a chat model
    feedback       people, in LangSmith
"""

from orchestra_training.verdicts.database import Visit, same_database
from orchestra_training.verdicts.feedback import read_feedback
from orchestra_training.verdicts.judge import Judge
from orchestra_training.verdicts.mathematics import Mathematics
from orchestra_training.verdicts.programs import Call, Case, check_function, check_program
from orchestra_training.verdicts.text import exact, numeric

__all__ = [
    "Call",
    "Case",
    "Judge",
    "Mathematics",
    "Visit",
    "check_function",
    "check_program",
    "exact",
    "numeric",
    "read_feedback",
    "same_database",
]

"""The workbench: an offline world of tasks and experts, executable, seeded, without end.

    bench = Workbench()
    for task in bench.tasks("held_out", 60):
        world = bench.world(task)  # a fresh one for every run
        graph = create_orchestrator(router, bench.tools(world), catalog=bench.catalog).compile()
        result = await graph.ainvoke({"messages": [HumanMessage(task.question)]})
        solved = await bench.verdict(task, result["answer"], world)

The economy on one page. Seven families of tasks grow in five steps of difficulty; nine tools do real work up to a limit
in the family's own units. Beyond it they are wrong, as people are: they round, forget, stop early, take the naive idea.
Outside its field a specialist says so, and the run goes on.

    family          unit                  difficulty 1 to 5          small   large     specialist      runner
    arithmetic      digits kept           5, 8, 12, 16, 36           6       16        math 24         any
    algebra         unknowns or degree    1, 2, 2, 3, 4              1       3         math 4          any
    calculus        rules combined        1, 2, 3, 4, 5              1       5         math 4
    number_theory   digits, divisors      3, 4, 7, 7, 11 digits      4, 50   12, 5000  math 20, 10^6   any
    programming     steps, rank           2-1, 3-2, 4-3, 5-4, 7-5    3, 2    5, 5      coder 8, 5
    lookup          hops, a search each   1, 2, 2, 3, 3              1       2         reader 3
    records         changes, sweeps       1-0, 2-0, 3-0, 4-1, 6-2            4, 2      clerk 12, 0; analyst 12, 3

- `large` is the strongest and by far the dearest. Alone it cannot look anything up; with a search before it and a retry
  it still leaves at least 12% of the tasks unsolved.
- `small` is nearly free and fit for easy tasks. It also reads an answer off the output of `runner`, which writes and
  runs exact programs but states no answer.
- `search` brings the documents of one hop a call: the only way into the knowledge base, whose names are all made up.
- `clerk` makes two changes a call and has to be called again; `analyst` makes all at once and costs more.
- The `Oracle` knows the limits and picks the cheapest plan that solves the task: nearly all tasks, at a fifth of what
  `large` costs or less. That gap is what a router can earn.

The limits are in `skills.py`; descriptions, prices and latencies in `orchestra_graph/catalogs/workbench.toml`, and
nowhere else. Latency is modelled and reported to the meter, never slept. Tokens are counted on the texts really
written. `Workbench.sample` hides all of it behind random names, descriptions, prices and preferences, for training;
wordings of the split `held_out` never come up in `train`.

Not here: conversations with a user, tasks without a checkable answer, experts that fail by chance.
"""

from orchestra_graph.workbench.bench import Workbench
from orchestra_graph.workbench.oracle import Oracle, plan, solutions
from orchestra_graph.workbench.sample import Episode
from orchestra_graph.workbench.skills import SKILLS, Skill
from orchestra_graph.workbench.task import Task
from orchestra_graph.workbench.tasks import FAMILIES
from orchestra_graph.workbench.world import World

__all__ = ["FAMILIES", "SKILLS", "Episode", "Oracle", "Skill", "Task", "Workbench", "World", "plan", "solutions"]

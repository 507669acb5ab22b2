"""What users say and the weights that they mean, for a catalog of one's own: python examples/preference_pairs.py"""

from orchestra_training.filters import FilterReport
from orchestra_training.preference_pairs import by_rules

from orchestra_graph import Catalog, Expert, Price, Rules, ToolSpec, create_orchestrator
from orchestra_graph.testing import ScriptedExpert

catalog = Catalog.of(
    [
        ToolSpec(name="local", base_url="http://gpu-box:8000/v1", model="qwen3-8b", price=Price(per_second=0.0006)),
        ToolSpec(name="large", provider="openai", model="gpt-5", price=Price(input=1.25, output=10.0)),
        ToolSpec(name="web", kind="search", provider="tavily", price=Price(per_call=0.008)),
    ]
)

report = FilterReport()
for split in ("train", "held_out"):
    for pair in by_rules(catalog, 4, split=split, seed=7, report=report):
        print(f"{split}: {pair.text}")
        print(f"    {list(pair.vector)}")

# A pair's preferences go into a run as they are.
wish = next(iter(by_rules(catalog, 1, split="train", seed=7, report=report))).preferences
experts = [Expert(ScriptedExpert("<answer>42</answer>"), name=name) for name in catalog.tools]
graph = create_orchestrator(Rules(), experts).compile()
state = graph.invoke({"messages": [("user", "What is 6 x 7?")]}, context={"preferences": wish})
print(f"answer: {state['answer']}")

"""Preference pairs: what a user may say of cost, time, accuracy and tools, with the weights that it means.

    report = FilterReport()
    train = list(by_rules(catalog, 1000, split="train", report=report))
    held_out = list(by_rules(catalog, 200, split="held_out", report=report))

`by_rules` draws them from sentences of ours, `by_model` has a chat model write them and a second one check them (arXiv
2511.21689, section 3.3). The splits share no phrasing. The command: `orchestra pairs CATALOG --to pairs.jsonl`.
"""

from orchestra_training.preference_pairs.pair import Pair, read_pairs
from orchestra_training.preference_pairs.rules import by_rules
from orchestra_training.preference_pairs.written import by_model

__all__ = ["Pair", "by_model", "by_rules", "read_pairs"]

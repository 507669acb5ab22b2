"""Logprobs of given tokens by transformers; runs in the server's environment.

    python logprobs.py MODEL < lines.jsonl              # a line: {"prompt": [ids], "completion": [ids]}

Prints the natural logarithms of the probabilities of each completion's tokens, a list a line.
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
    for line in map(json.loads, sys.stdin):
        tokens = torch.tensor([line["prompt"] + line["completion"]])
        read = len(line["prompt"])
        with torch.no_grad():
            logits = model(tokens).logits[0, read - 1 : -1]
        logprobs = torch.log_softmax(logits, dim=-1)
        print(json.dumps(logprobs.gather(1, tokens[0, read:, None])[:, 0].tolist()))


if __name__ == "__main__":
    main()

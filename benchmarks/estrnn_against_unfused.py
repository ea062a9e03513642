"""ESTRNN against the published operator sequence: forward passes and training steps, interleaved, medians of CPU time.

    OMP_NUM_THREADS=1 python benchmarks/estrnn_against_unfused.py
    OMP_NUM_THREADS=1 python benchmarks/estrnn_against_unfused.py --variants lite --sides 64 --frames 6 --repeats 2

Random weights, which speed does not depend on. Floors: the network's convolutions and matrix products over the best
rate that this machine shows on a large one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from unfused import UnfusedESTRNN

from selfhvd_tta.backbones import discover
from selfhvd_tta.lab.speed.floors import Work, count_operations, measure_rates

CPU = torch.device("cpu")


def run(network: torch.nn.Module, clip: torch.Tensor, half: bool, training: bool) -> torch.Tensor:
    """One forward pass, or one with its backward pass."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half), torch.set_grad_enabled(training):
        output = network(clip)
        if training:
            network.zero_grad(set_to_none=True)
            output.float().square().mean().backward()
    return output.detach().float()


def main() -> None:
    """Measure, and print a row of a Markdown table for each network and task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", default="c80b15,lite")
    parser.add_argument("--sides", default="128,256", help="of the square clip, one per variant")
    parser.add_argument("--frames", default=14, type=int)
    parser.add_argument("--repeats", default=5, type=int)
    parser.add_argument("--no-training", action="store_true")
    given = parser.parse_args()
    rates = measure_rates(CPU, (torch.float32, torch.bfloat16))
    estrnn = discover()["estrnn"]
    head = ("network", "crop", "task", "unfused f32", "ours f32", "ours bf16", "unfused bf16")
    print(f"threads: {torch.get_num_threads()}")
    print("| " + " | ".join((*head, "f32 / f32", "f32 / bf16", "bf16 / bf16", "floors")) + " | difference |")
    print("| --- " * 12 + "|")
    for name, side in zip(given.variants.split(","), map(int, given.sides.split(",")), strict=True):
        torch.manual_seed(0)
        ours = estrnn.build(**estrnn.variant(name).config)
        unfused = UnfusedESTRNN(ours)
        clip = torch.rand(1, given.frames, 3, side, side) - 0.5
        for training in (False,) if given.no_training else (False, True):
            tasks: dict[str, Callable[[], torch.Tensor]] = {}
            for half in (False, True):
                for label, network in (("unfused", unfused), ("ours", ours)):
                    tasks[f"{label} {half}"] = partial(run, network, clip, half, training)
            times: dict[str, list[float]] = {task: [] for task in tasks}
            outputs = {task: work() for task, work in tasks.items()}
            for _ in range(given.repeats):
                for task, work in tasks.items():
                    begun = time.process_time()
                    work()
                    times[task].append(time.process_time() - begun)
            plain, mine, half_mine, half_plain = (
                statistics.median(times[task]) for task in ("unfused False", "ours False", "ours True", "unfused True")
            )
            work = Work(count_operations(tasks["ours False"]))
            floors = " / ".join(f"{work.floor(rates, dtype):.3f} s" for dtype in ("float32", "bfloat16"))
            gaps = [
                255 * float((outputs[t] - outputs["unfused False"]).abs().max()) for t in ("ours False", "ours True")
            ]
            cells = [name, str(side), "training step" if training else "forward"]
            cells += [f"{seconds:.3f} s" for seconds in (plain, mine, half_mine, half_plain)]
            cells += [f"{plain / mine:.2f}", f"{plain / half_mine:.2f}", f"{half_plain / half_mine:.2f}", floors]
            print("| " + " | ".join([*cells, f"{gaps[0]:.4f}, {gaps[1]:.3f} / 255"]) + " |", flush=True)


if __name__ == "__main__":
    main()

"""The parts of the check, each a function that yields lines of results."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from case import CPU, GIB, MAIN, SMALL, Check, Lines

import selfhvd_tta
from selfhvd_tta.backbones import discover
from selfhvd_tta.errors import DeviceError, Interrupted
from selfhvd_tta.events import Event, Note, Progress
from selfhvd_tta.flows import FlowEstimator
from selfhvd_tta.flows.dis import DIS
from selfhvd_tta.flows.sea_raft import SEARAFT
from selfhvd_tta.lab.evaluation.metrics.psnr import psnr
from selfhvd_tta.lab.speed.machine import describe
from selfhvd_tta.lab.speed.sample import shaky_frames, write_video
from selfhvd_tta.lab.speed.timing import synchronise
from selfhvd_tta.method.adaptation import Adaptation
from selfhvd_tta.method.alignment import align
from selfhvd_tta.method.bank import BankSupervision
from selfhvd_tta.method.restoration import Restorer
from selfhvd_tta.run.device import choose_compute
from selfhvd_tta.run.memory import extent_for
from selfhvd_tta.settings import (
    AdaptationSettings,
    AlignmentSettings,
    OutputSettings,
    RuntimeSettings,
    Settings,
)
from selfhvd_tta.video.opening import open_reader


def environment(check: Check) -> Lines:
    """The machine."""
    facts: dict[str, Any] = dict(describe(check.device))
    if check.gpu:
        free, total = torch.cuda.mem_get_info(check.device)
        facts |= {"free_gib": round(free / GIB, 1), "total_gib": round(total / GIB, 1)}
        facts |= {"bf16": torch.cuda.is_bf16_supported(including_emulation=False)}
    yield facts


def parity(check: Check) -> Lines:
    """Outputs and gradients of every network as on the CPU, in float32; and how far half precision is from it."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    sides = {"nafnet:lite": (160, 2), "ifirnn": (64, 3), "basicvsrpp": (256, 3), "rvrt": (136, 2)}
    others = [name for name in discover() if name not in {m.partition(":")[0] for m in (*MAIN, *sides)}]
    for name in (*MAIN, *(sides if check.gpu else ()), *(others if check.gpu else ())):
        side, frames = sides.get(name, (64, 5) if check.gpu else (32, 5))
        here = check.network(name, CPU)
        there = copy.deepcopy(here).to(check.device)
        clip = check.clip(frames, side, side)[None].float() / 255
        outputs, gradients = [], []
        for network, device in ((here, CPU), (there, check.device)):
            out = network(clip.to(device))
            (out - 0.5).square().mean().backward()
            outputs.append(out.detach().cpu())
            gradients.append([p.grad.cpu() for p in network.parameters() if p.grad is not None])
        pairs = zip(*gradients, strict=True)
        worst = max(float((a - b).norm() / (a.norm() + 1e-12)) for a, b in pairs)
        with torch.no_grad(), torch.autocast(check.device.type, dtype=torch.bfloat16):
            half = there(clip.to(check.device)).float().cpu()
        yield {
            "network": name,
            "output_codes": 255 * float((outputs[0] - outputs[1]).abs().max()),
            "gradient_relative": worst,
            "bf16_codes": 255 * float((outputs[0] - half).abs().max()),
        }
    torch.manual_seed(0)
    flow: FlowEstimator = SEARAFT().eval()
    frames_ = check.clip(2, 256, 256).float() / 255
    one = flow(frames_[:1], frames_[1:]).flow
    other = copy.deepcopy(flow).to(check.device)(*(f[None].to(check.device) for f in frames_)).flow.cpu()
    yield {"network": "flow sea-raft (random weights)", "flow_pixels": float((one - other).abs().max())}


def steps(check: Check) -> Lines:
    """Steps with the label bank: time, how long the host takes to launch one, whether the host waits, memory."""
    plan = AdaptationSettings(iters=2000, crop=256 if check.gpu else 32, clip_length=10 if check.gpu else 4)
    size = (100, 720, 1280) if check.gpu else (8, 64, 64)
    for name in MAIN if check.gpu else SMALL[:1]:
        job = check.adaptation(name, plan, size, check.device)
        assert isinstance(job.supervision, BankSupervision)
        bank = job.supervision.bank
        bank.take_outputs((row, bank.observed(row)[0]) for row in range(size[0]))
        bank.take_history()
        bank.made = bank.judged = [True] * size[0]
        job.state.step = 60
        for stage2 in (False, True):

            def work(job: Adaptation = job, stage2: bool = stage2) -> None:
                job.step(stage2)

            memory = check.peak(work)
            seconds = check.seconds(work, 20 if check.gpu else 1)
            begun = time.perf_counter()
            work()
            launch = time.perf_counter() - begun
            synchronise(check.device)
            yield {
                "network": name,
                "stage": 1 + stage2,
                "dtype": str(job.inputs.compute.autocast or torch.float32).removeprefix("torch."),
                "ms": round(1e3 * seconds, 2),
                "launch_ms": round(1e3 * launch, 2),
                "waits": _waits(check, work),
                "kernel_ms": _kernel_ms(check, work),
                "peak_gib": memory,
            }


def _waits(check: Check, work: Callable[[], object]) -> str | None:
    """What the host waits for in it, by PyTorch's own guard; empty: nothing. None on a CPU."""
    if not check.gpu:
        return None
    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    except RuntimeError as error:
        return f"{str(error).splitlines()[0]} at {traceback.extract_tb(error.__traceback__)[-1]}"[:200]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""


def _kernel_ms(check: Check, work: Callable[[], object]) -> float | None:
    """How long the GPU computes in it."""
    if not check.gpu:
        return None
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        work()
        synchronise(check.device)
    on_gpu = [e for e in found.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return round(sum(e.device_time_total for e in on_gpu) / 1e3, 2)


def graph(check: Check) -> Lines:
    """Forward and backward pass as a CUDA graph against launching every kernel."""
    if not check.gpu:
        yield {"skipped": "a CUDA graph needs a GPU"}
        return
    clip = torch.rand(1, 10, 3, 256, 256, device=check.device)
    for name in MAIN[:2]:
        network = check.network(name).train()
        with torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=False):
            captured: Any = torch.cuda.make_graphed_callables(copy.deepcopy(network.raw), (clip,))

            def run(module: Any) -> None:
                module(clip).float().square().mean().backward()

            graphed, eager = (check.seconds(lambda m=m: run(m), 10) for m in (captured, network.raw))
        yield {"network": name, "graph_ms": round(1e3 * graphed, 2), "eager_ms": round(1e3 * eager, 2)}


def memory(check: Check) -> Lines:
    """Peak and speed of restoration, also on smaller cards that are pretended."""
    sizes = ((720, 1280), (1080, 1920)) if check.gpu else ((64, 64),)
    for height, width in sizes:
        for name in MAIN if check.gpu else SMALL[:1]:
            network = check.network(name)
            compute = choose_compute(Settings(), check.device, network.backbone)
            for card in (None, 12, 8) if height == 1080 else (None,):
                if card:
                    total = torch.cuda.mem_get_info(check.device)[1] / GIB
                    torch.cuda.set_per_process_memory_fraction(min(1.0, card / total))
                said: list[str] = []
                extent = extent_for(height, width, compute, network.backbone, network.variant)
                count = min(extent.window + 8, 70) if check.gpu else 6
                frames = check.clip(count, height, width)
                restorer = Restorer(network, network.backbone, compute, extent.window, said.append, extent.tile)
                given: list[int] = []

                def restore(restorer: Restorer = restorer, frames: Any = frames, given: list[int] = given) -> None:
                    stream = (f.to(check.device).float() / 255 for f in frames)
                    given.append(sum(1 for _ in restorer.restore(stream)))

                begun = time.perf_counter()
                try:
                    peak = check.peak(restore)
                finally:
                    if card:
                        torch.cuda.set_per_process_memory_fraction(1.0)
                yield {
                    "network": name,
                    "size": f"{width}x{height}",
                    "card_gib": card,
                    "window": extent.window,
                    "lost_frames": count - given[0],
                    "frames_s": round(count / (time.perf_counter() - begun), 1),
                    "peak_gib": peak,
                    "told": said,
                }


def labels(check: Check) -> Lines:
    """Aligning one pair at 720p."""
    height, width = (720, 1280) if check.gpu else (128, 128)
    source, target = (f[None].to(check.device).float() / 255 for f in check.clip(2, height, width))
    torch.manual_seed(0)
    for name, flow in (("sea-raft (random weights)", SEARAFT().to(check.device).eval()), ("dis", DIS())):

        def work(flow: FlowEstimator = flow) -> None:
            align(target, source, flow, AlignmentSettings())

        yield {"flow": name, "pair_ms": round(1e3 * check.seconds(work, 5 if check.gpu else 1), 1)}


def learning(check: Check) -> Lines:
    """Two hundred steps: the loss falls as on the CPU."""
    count = 200 if check.gpu else 4
    plan = AdaptationSettings(iters=count, crop=48, clip_length=4, label_refresh=count // 2, learning_rate=5e-4)
    losses = []
    for device in (CPU, check.device):
        record = check.adaptation("estrnn:lite", plan, (8, 64, 64), device, exact=True).run()
        losses.append([step["loss"] for step in record.steps])
    ends = [float(np.mean(each[-20:])) for each in losses]
    yield {"steps": count, "cpu": ends[0], "here": ends[1], "relative": abs(ends[1] / ends[0] - 1)}


def determinism(check: Check) -> Lines:
    """The same job twice, and once interrupted and resumed: the same bytes."""
    for name in SMALL if check.gpu else SMALL[:1]:
        source, outputs = _sample(check), [check.folder / f"{name.partition(':')[0]}{k}.mp4" for k in range(3)]
        settings = _job(check, name, 24 if check.gpu else 2)
        for output in outputs[:2]:
            selfhvd_tta.deblur(source, output, settings)

        def stop(event: Event) -> None:
            if isinstance(event, Progress) and event.phase == "stage 2":
                raise Interrupted("stopped on purpose")

        with contextlib.suppress(Interrupted):
            selfhvd_tta.deblur(source, outputs[2], settings, stop)
        absent = not outputs[2].exists()
        selfhvd_tta.deblur(source, outputs[2], settings)
        first, second, third = (hashlib.sha256(path.read_bytes()).hexdigest() for path in outputs)
        yield {"network": name, "same_twice": first == second, "absent": absent, "same_resumed": first == third}


def exhaustion(check: Check) -> Lines:
    """A job in a gigabyte of memory: it goes on with less, or ends in an error with a way out."""
    if not check.gpu:
        yield {"skipped": "a GPU's memory can be limited, a CPU's cannot"}
        return
    total = torch.cuda.mem_get_info(check.device)[1]
    for gib in (1.0, 0.4):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_allocated() + gib * GIB) / total))
        notes: list[str] = []

        def listen(event: Event, notes: list[str] = notes) -> None:
            if isinstance(event, Note):
                notes.append(event.text)

        try:
            selfhvd_tta.deblur(_sample(check), check.folder / "little.mp4", _job(check, "estrnn:c80b15", 4), listen)
            ended = "done"
        except DeviceError as error:
            ended = error.message
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        yield {"gib": gib, "ended": ended, "told": [note for note in notes if "memory" in note]}


def jobs(check: Check) -> Lines:
    """Whole jobs by phase."""
    for name in MAIN if check.gpu else SMALL[:1]:
        phases: dict[str, float] = {}
        last = [time.perf_counter()]

        def listen(event: Event, phases: dict[str, float] = phases, last: list[float] = last) -> None:
            synchronise(check.device)
            now = time.perf_counter()
            key = event.phase if isinstance(event, Progress) else type(event).__name__
            phases[key], last[0] = round(phases.get(key, 0.0) + now - last[0], 2), now

        settings, source, kept = _job(check, name, 200 if check.gpu else 2), _sample(check), []

        def job(settings: Settings = settings, source: Path = source, kept: list[Any] = kept, to: Any = listen) -> None:
            kept.append(selfhvd_tta.deblur(source, check.folder / "job.mp4", settings, to))

        peak = check.peak(job)
        yield {
            "network": name,
            "frames": kept[0].frames,
            "seconds": round(kept[0].seconds, 1),
            "phases": phases,
            "peak_gib": peak,
        }


def street(check: Check) -> Lines:
    """A clip whose truth is known, adapted on the device."""
    if check.blurry is None or check.truth is None:
        yield {"skipped": "give --blurry and --truth"}
        return
    output = check.folder / "street.mkv"
    settings = replace(
        _job(check, "auto", 400 if check.gpu else 2), output=OutputSettings(codec="ffv1", overwrite=True)
    )
    begun = time.perf_counter()
    selfhvd_tta.deblur(check.blurry, output, settings)
    seconds = time.perf_counter() - begun
    before, after = (_psnr(path, check.truth) for path in (check.blurry, output))
    yield {"clip": check.blurry.name, "seconds": round(seconds, 1), "input_db": before, "result_db": after}


def _psnr(path: Path, truth: Path) -> float:
    pairs = zip(open_reader(path), open_reader(truth), strict=True)
    return round(float(np.mean([psnr(a.rgb, b.rgb) for a, b in pairs])), 2)


def _sample(check: Check) -> Path:
    path = check.folder / "sample.mp4"
    if not path.exists():
        write_video(path, shaky_frames(1280, 720, 60) if check.gpu else shaky_frames(64, 64, 8))
    return path


def _job(check: Check, name: str, iters: int) -> Settings:
    plan = AdaptationSettings(iters=iters, label_refresh=max(2, iters // 2))
    if not check.gpu:
        plan = replace(plan, crop=32, clip_length=4)
    output = OutputSettings(overwrite=True)
    runtime = RuntimeSettings(device=str(check.device), offline=True, checkpoint_minutes=0)
    align_by = AlignmentSettings(flow="dis", blur="global", teachers=10 if check.gpu else 2)
    return Settings(backbone=name, force=True, alignment=align_by, adaptation=plan, runtime=runtime, output=output)


# In the order of what they tell, with the seconds that each needs at least on a GPU.
PARTS: tuple[tuple[Callable[[Check], Lines], float], ...] = (
    (environment, 0),
    (parity, 30),
    (steps, 40),
    (learning, 30),
    (memory, 40),
    (determinism, 30),
    (exhaustion, 20),
    (jobs, 60),
    (graph, 20),
    (labels, 10),
    (street, 60),
)

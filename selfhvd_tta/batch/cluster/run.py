"""The videos of a batch as tasks of a Ray cluster: one task per video, repeated elsewhere if its worker is lost.

The batch itself (plan, ledger, events) stays where it was started. As many tasks are submitted at a time as the cluster
has room for. Workers that see the driver's folders under the same paths work in them; else inputs, results and job
directories travel through a depot.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import selfhvd_tta
from selfhvd_tta.batch.cluster.depot import Depot, DepotClient
from selfhvd_tta.batch.cluster.remote import POLL_S, EventActor, sees, video
from selfhvd_tta.batch.events import Outcome
from selfhvd_tta.batch.plan import BatchPlan
from selfhvd_tta.batch.process import GRACE_S, Request, Tell
from selfhvd_tta.errors import DeviceError, ExitCode, UsageError
from selfhvd_tta.wording import plural

RETRIES = 3
PROBE_S = 300.0  # workers of a busy node start slowly: Ray gives them the lowest priority
STOP_S = 2 * GRACE_S  # for a node's own grace period, and its last events and copies
EXTRA = "pip install '.[cluster]'"


class RayCrew:
    """Does the videos of a batch on a Ray cluster. A context manager that connects and disconnects.

    Args:
        plan: the batch.
        address: ``local`` starts a cluster on this machine, ``auto`` joins the one that this machine belongs to,
            ``ray://host:10001`` connects to one from outside.
        gpus: of one video; None: 1 if the cluster has any, else 0. A fraction lets several share one.
        cpus: of one video.
        jobs: most videos at the same time; None: as many as the cluster has room for now.
        retries: how often a video whose worker was lost is started or resumed elsewhere.
        worker: command of the process for one video on its node; None for the usual one.

    Attributes:
        slots: videos at the same time.
        staged: files travel through a depot, because not every node sees the driver's folders.
        notes: lines for the user.

    Raises:
        UsageError: the extra ``cluster`` is not installed, or there is no such cluster.
        DeviceError: the cluster will never have room for a video.
    """

    def __init__(
        self,
        plan: BatchPlan,
        address: str = "local",
        gpus: float | None = None,
        cpus: float = 1,
        jobs: int | None = None,
        retries: int = RETRIES,
        worker: Sequence[str] | None = None,
    ) -> None:
        self.plan, self.address, self.gpus, self.cpus, self.jobs = plan, address, gpus, cpus, jobs
        self.retries, self.worker = retries, None if worker is None else tuple(worker)
        self.notes: list[str] = []
        self.staged = False
        self.slots = 0
        self.depot: Any = None
        self._refs: set[Any] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def __enter__(self) -> RayCrew:
        self.ray = _connect(self.address)
        try:
            self._look_around()
        except BaseException:
            self.ray.shutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.depot is not None:
            with contextlib.suppress(self.ray.exceptions.RayError):
                self.ray.get(self.depot.close.remote(), timeout=10)
        self.ray.shutdown()

    def _look_around(self) -> None:
        ray = self.ray
        nodes = [n for n in ray.nodes() if n["Alive"]]
        gpus = sum(n["Resources"].get("GPU", 0) for n in nodes)
        wanted = (1.0 if gpus else 0.0) if self.gpus is None else self.gpus
        room = [_room(n["Resources"], self.cpus, wanted) for n in nodes]
        self.slots = self.jobs or sum(room)
        if self.slots < 1:
            raise DeviceError(
                f"no node of the Ray cluster has {self.cpus:g} CPUs and {wanted:g} GPUs for a video",
                "Lower --cpus-per-video or --gpus-per-video; give --jobs where nodes are added on demand.",
            )
        # Actors of the batch live on the head node: if that is lost, so is the cluster.
        pinned: dict[str, Any] = {"num_cpus": 0}
        if any("node:__internal_head__" in n["Resources"] for n in nodes):
            pinned["resources"] = {"node:__internal_head__": 0.001}
        self.hub = ray.remote(EventActor).options(**pinned).remote()
        self.staged = not self._nodes_see_our_folders(nodes)
        self.depot = ray.remote(Depot).options(**pinned).remote() if self.staged else None
        self.task = ray.remote(video).options(
            num_cpus=self.cpus, num_gpus=wanted, max_retries=self.retries, retry_exceptions=False
        )
        at_once = f"{plural(self.slots, 'video')} at a time"
        how = "files travel through the cluster" if self.staged else "all nodes see the folders"
        self.notes.append(f"Ray: {plural(len(nodes), 'node')}, {at_once}, {how}")

    def _nodes_see_our_folders(self, nodes: list[dict[str, Any]]) -> bool:
        """Whether each node finds the inputs and a file that was just written into the output folder."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.plan.folder.mkdir(parents=True, exist_ok=True)
        token = self.plan.folder.resolve() / f".batch-{uuid.uuid4().hex}.tmp"
        token.write_text(token.name)
        paths = [str(task.source.resolve()) for task in self.plan.tasks if task.state == "to do"]
        probe = self.ray.remote(sees)
        try:
            refs = [
                probe.options(
                    num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(n["NodeID"], soft=False)
                ).remote(str(token), paths)
                for n in nodes
            ]
            return all(self.ray.get(refs, timeout=PROBE_S))
        except self.ray.exceptions.RayError as error:
            raise DeviceError(
                f"the nodes of the Ray cluster cannot work: {str(error).strip().splitlines()[-1]}",
                "Install the same selfhvd-tta and Python on every node, and check 'ray status'.",
            ) from error
        finally:
            token.unlink(missing_ok=True)

    def work(self, name: str, request: Request, tell: Tell) -> Outcome:
        """As :class:`selfhvd_tta.batch.run.Crew` wants it: submit, pass events on, wait."""
        ray = self.ray
        started = time.monotonic()
        key = uuid.uuid4().hex
        source, output = Path(request["video"]).resolve(), Path(request["output"]).resolve()
        mine = dict(request) | {"video": str(source), "output": str(output)}
        if mine.get("report"):
            mine["report"] = str(Path(mine["report"]).resolve())
        client = None
        if self.depot is not None:
            client = DepotClient(lambda method, *args: ray.get(getattr(self.depot, method).remote(*args)), key)
        ref = None
        try:
            if client is not None:
                client.send(source, f"in/{source.name}")
            with self._lock:
                if self._stopped:
                    raise KeyboardInterrupt
                ref = self.task.remote(name, key, mine, self.hub, self.depot, self.worker, selfhvd_tta.__version__)
                self._refs.add(ref)
            while not ray.wait([ref], timeout=POLL_S)[0]:
                self._pass_on(key, tell)
            self._pass_on(key, tell)
            outcome = ray.get(ref)
            if client is not None and outcome.state == "done":
                _deliver(client, output)
            return replace(outcome, source=str(request["video"]), output=str(request["output"]))
        except (ray.exceptions.RayError, OSError, KeyboardInterrupt) as error:
            seconds = time.monotonic() - started
            message, hint = _lost(ray, error, self.retries)
            paths = str(request["video"]), str(request["output"])
            return Outcome(name, *paths, "failed", "", seconds, message, hint, exit_code=ExitCode.FAILED)
        finally:
            with self._lock:
                self._refs.discard(ref)
            if client is not None:
                with contextlib.suppress(ray.exceptions.RayError):
                    client.call("remove", key)

    def _pass_on(self, key: str, tell: Tell) -> None:
        for event in self.ray.get(self.hub.drain.remote(key)):
            tell(event)

    def stop(self) -> None:
        """Cancel running tasks and wait until each worker has ended its process cleanly."""
        with self._lock:
            self._stopped = True
            refs = list(self._refs)
        # Ray gives up a cancelled task before its worker has ended, and the end of the session would kill the worker.
        deadline = time.monotonic() + STOP_S
        with contextlib.suppress(self.ray.exceptions.RayError):
            for ref in refs:
                self.ray.cancel(ref)
            while self.ray.get(self.hub.busy.remote(), timeout=max(POLL_S, deadline - time.monotonic())):
                if time.monotonic() >= deadline:
                    break
                time.sleep(POLL_S)


def _deliver(client: DepotClient, output: Path) -> None:
    """Move a result and its other files from the depot to their place; the result last."""
    names = client.names("out")
    for name in sorted(names, key=lambda n: n == output.name):
        client.fetch(f"out/{name}", output.parent / name)


def _room(resources: dict[str, float], cpus: float, gpus: float) -> int:
    """Number of videos that a node has room for."""
    by = [resources.get(name, 0) // wanted for name, wanted in (("CPU", cpus), ("GPU", gpus)) if wanted]
    return int(min(by)) if by else 1


def _connect(address: str) -> Any:
    """Ray, connected."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
        import ray.util
    except ImportError as error:
        raise UsageError("--ray needs Ray, which is not installed", f"Install it: {EXTRA}") from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        quiet["include_dashboard"] = False
    elif address != "auto" and not address.startswith("ray://"):
        raise UsageError(f"--ray {address}: is not the address of a cluster", "Use local, auto or ray://host:10001.")
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"--ray {address}: no cluster can be reached: {reason}",
            "Start one with 'ray start --head' and 'ray start --address=HOST:6379', or use --ray local.",
        ) from error
    return ray


def _lost(ray: Any, error: BaseException, retries: int) -> tuple[str, str]:
    """Message and hint for a task that ended without an outcome."""
    if isinstance(error, KeyboardInterrupt | ray.exceptions.TaskCancelledError):
        return "interrupted", ""
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "its node ran out of memory", "Raise --cpus-per-video, so that fewer videos share a node."
    if isinstance(error, ray.exceptions.WorkerCrashedError | ray.exceptions.NodeDiedError):
        return f"its worker was lost {retries + 1} times", "Look at the nodes' memory and 'ray status'."
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"the cluster failed: {lines[-1]}", "Look at 'ray status' and the logs of its node."

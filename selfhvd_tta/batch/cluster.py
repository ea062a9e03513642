"""The videos of a batch as tasks of a Ray cluster: one task per video, repeated elsewhere if its worker is lost.

The batch itself (plan, ledger, events) stays where it was started. As many tasks are submitted at a time as the cluster
has room for. Workers that see the driver's folders under the same paths work in them; else inputs, results and job
directories travel through a depot.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import selfhvd_tta
from selfhvd_tta.batch.depot import Depot, DepotClient, Mirror
from selfhvd_tta.batch.events import Outcome
from selfhvd_tta.batch.plan import BatchPlan
from selfhvd_tta.batch.process import GRACE_S, WORKER, Processes, Request, Tell
from selfhvd_tta.errors import DeviceError, ExitCode, UsageError
from selfhvd_tta.events import Event, Note, Progress
from selfhvd_tta.job import job_folder

RETRIES = 3
POLL_S = 0.3
PROBE_S = 120.0
EXTRA = "pip install 'selfhvd-tta[cluster]'"
KILL_WITH_PARENT = "SELFHVD_TTA_KILL_WITH_PARENT"


class RayCrew:
    """Does the videos of a batch on a Ray cluster. A context manager that connects and disconnects.

    Args:
        plan: the batch.
        address: ``local`` starts a cluster on this machine, ``auto`` joins the one that this machine belongs to,
            ``ray://host:10001`` connects to one from outside.
        gpus: of one video; None: 1 if the cluster has any, else 0. A fraction lets several share one.
        cpus: of one video.
        jobs: videos at the same time at most; None: as many as the cluster has room for now.
        retries: how often a video whose worker was lost is begun or continued elsewhere.
        worker: command of the process for one video on its node; None for the usual one.

    Attributes:
        slots: videos at the same time.
        staged: files travel through a depot, because not every node sees the driver's folders.
        notes: lines for the user.

    Raises:
        UsageError: the extra ``cluster`` is not installed, or there is no such cluster.
        DeviceError: no video would ever find room on it.
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
        # Actors of the batch live where the head is: if that is lost, the cluster is.
        pinned: dict[str, Any] = {"num_cpus": 0}
        if any("node:__internal_head__" in n["Resources"] for n in nodes):
            pinned["resources"] = {"node:__internal_head__": 0.001}
        self.hub = ray.remote(_Hub).options(**pinned).remote()
        self.staged = not self._nodes_see_our_folders(nodes)
        self.depot = ray.remote(Depot).options(**pinned).remote() if self.staged else None
        self.task = ray.remote(_video).options(
            num_cpus=self.cpus, num_gpus=wanted, max_retries=self.retries, retry_exceptions=False
        )
        at_once = f"{self.slots} video{'s' * (self.slots > 1)} at a time"
        how = "files travel through the cluster" if self.staged else "all nodes see the folders"
        self.notes.append(f"Ray: {len(nodes)} node{'s' * (len(nodes) > 1)}, {at_once}, {how}")

    def _nodes_see_our_folders(self, nodes: list[dict[str, Any]]) -> bool:
        """Whether each node finds the inputs and a file that was just written into the output folder."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.plan.folder.mkdir(parents=True, exist_ok=True)
        token = self.plan.folder.resolve() / f".batch-{uuid.uuid4().hex}.tmp"
        token.write_text(token.name)
        paths = [str(task.source.resolve()) for task in self.plan.tasks if task.state == "to do"]
        probe = self.ray.remote(_sees)
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
                "Install the same selfhvd-tta and Python on every node, and look at 'ray status'.",
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
        """Cancel what is at work; each worker ends its process cleanly, which is waited for."""
        with self._lock:
            self._stopped = True
            refs = list(self._refs)
        # Ray gives up a cancelled task before its worker has, and the end of the session would kill that.
        with contextlib.suppress(self.ray.exceptions.RayError):
            for ref in refs:
                self.ray.cancel(ref)
            deadline = time.monotonic() + GRACE_S
            while time.monotonic() < deadline and self.ray.get(self.hub.busy.remote(), timeout=GRACE_S):
                time.sleep(POLL_S)


class _Hub:
    """What the videos tell, until the driver fetches it. Runs as a Ray actor; progress is thinned out."""

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {}
        self.attempts: dict[str, int] = {}
        self.at_work: set[str] = set()

    def begin(self, key: str, where: str) -> int:
        """An attempt begins; which one it is, from 1."""
        self.attempts[key] = self.attempts.get(key, 0) + 1
        self.at_work.add(key)
        number = self.attempts[key]
        text = f"at work on {where}" if number == 1 else f"its worker was lost: goes on at {where} (attempt {number})"
        self.tell(key, [Note(text, "info" if number == 1 else "warning")])
        return number

    def end(self, key: str) -> None:
        """The attempt has ended, and its process with it."""
        self.at_work.discard(key)

    def busy(self) -> bool:
        """Whether some attempt has not ended."""
        return bool(self.at_work)

    def tell(self, key: str, events: list[Event]) -> None:
        """Keep events; of a stage's progress the latest only."""
        kept = self.events.setdefault(key, [])
        for event in events:
            last = kept[-1] if kept else None
            if isinstance(event, Progress) and isinstance(last, Progress) and last.phase == event.phase:
                kept[-1] = event
            else:
                kept.append(event)

    def drain(self, key: str) -> list[Event]:
        """What was told since the last time."""
        return self.events.pop(key, [])


def _video(name: str, key: str, request: dict[str, Any], hub: Any, depot: Any, worker: Any, version: str) -> Outcome:
    """The task: one video on this node, in a process of its own."""
    import ray

    here = f"{ray.util.get_node_ip_address()}, process {os.getpid()}"
    attempt = ray.get(hub.begin.remote(key, here))
    try:
        return _attempt(name, key, request, hub, depot, worker, version, here, attempt)
    finally:
        hub.end.remote(key)


def _attempt(
    name: str,
    key: str,
    request: dict[str, Any],
    hub: Any,
    depot: Any,
    worker: Any,
    version: str,
    here: str,
    attempt: int,
) -> Outcome:
    import ray

    output = Path(request["output"])
    if selfhvd_tta.__version__ != version:
        message = f"{here} has selfhvd-tta {selfhvd_tta.__version__}, the batch {version}"
        hint = "Install the same version on every node."
        return Outcome(name, request["video"], request["output"], "failed", "", 0.0, message, hint, exit_code=2)
    if attempt > 1 and depot is None and output.exists() and not request["settings"]["output"]["overwrite"]:
        # It was not there when the batch began, and appears only when complete: the lost attempt had finished.
        return Outcome(name, request["video"], request["output"], "done", "finished by a worker that was lost then")
    with contextlib.ExitStack() as stack:
        teller = stack.enter_context(_Teller(hub, key))
        if depot is not None:
            client = DepotClient(lambda method, *args: ray.get(getattr(depot, method).remote(*args)), key)
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="selfhvd-tta-")))
            request = _localised(request, place)
            client.fetch(f"in/{Path(request['video']).name}", Path(request["video"]))
            output = Path(request["output"])
            output.parent.mkdir()
            mirror = Mirror(client, job_folder(output))
            if attempt > 1:
                mirror.restore()
            stack.enter_context(mirror)
        environment = dict(os.environ) | {KILL_WITH_PARENT: "1"}
        # The process must find the package that this one found.
        home = str(Path(selfhvd_tta.__file__).parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [home, environment.get("PYTHONPATH", "")]))
        processes = Processes(worker or WORKER, environment)
        outcome = _interruptible(processes, name, request, teller)
        if depot is not None and outcome.state == "done":
            for path in sorted(output.parent.iterdir()):
                if path.is_file() and not path.name.startswith("."):
                    client.send(path, f"out/{path.name}")
    return outcome


def _interruptible(processes: Processes, name: str, request: Request, tell: Tell) -> Outcome:
    """Work, and end the process cleanly when Ray cancels the task: that reaches no thread that waits for output."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(processes.work, name, request, tell)
        try:
            while not future.done():
                wait([future], timeout=POLL_S)
        except BaseException:
            # Ray cancels again every other second until the task has ended: that must not cut its clean end short.
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                processes.stop()
                wait([future], timeout=GRACE_S)
            finally:
                signal.signal(signal.SIGINT, before)
            raise
    return future.result()


class _Teller:
    """Hands events to the hub a few times a second, and waits while the hub is behind. A context manager."""

    def __init__(self, hub: Any, key: str) -> None:
        self.hub, self.key = hub, key
        self.waiting: list[Event] = []
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __call__(self, event: Event) -> None:
        """Tell one event, soon."""
        with self.lock:
            self.waiting.append(event)

    def __enter__(self) -> _Teller:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _run(self) -> None:
        import ray

        last = False
        while not last:
            last = self.ended.wait(POLL_S)
            with self.lock:
                events, self.waiting = self.waiting, []
            if events:
                ray.get(self.hub.tell.remote(self.key, events))


def _localised(request: dict[str, Any], place: Path) -> dict[str, Any]:
    """The request with paths below a folder of this node."""
    video, output = Path(request["video"]), Path(request["output"])
    local = request | {"video": str(place / "in" / video.name), "output": str(place / "out" / output.name)}
    if local.get("report"):
        local["report"] = str(place / "out" / Path(local["report"]).name)
    return local


def _deliver(client: DepotClient, output: Path) -> None:
    """Bring a result and what belongs to it from the depot to where it goes; the result last."""
    names = client.names("out")
    for name in sorted(names, key=lambda n: n == output.name):
        client.fetch(f"out/{name}", output.parent / name)


def _sees(token: str, paths: list[str]) -> bool:
    path = Path(token)
    return path.exists() and path.read_text() == path.name and all(map(os.path.exists, paths))


def _room(resources: dict[str, float], cpus: float, gpus: float) -> int:
    """Videos that a node has room for."""
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
        raise UsageError(f"--ray {address}: is no address of a cluster", "Use local, auto or ray://host:10001.")
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
    """Message and hint where a task ended without an outcome."""
    if isinstance(error, KeyboardInterrupt | ray.exceptions.TaskCancelledError):
        return "interrupted", ""
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "its node ran out of memory", "Raise --cpus-per-video, so that fewer videos share a node."
    if isinstance(error, ray.exceptions.WorkerCrashedError | ray.exceptions.NodeDiedError):
        return f"its worker was lost {retries + 1} times", "Look at the nodes' memory and 'ray status'."
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"the cluster failed: {lines[-1]}", "Look at 'ray status' and the logs of its node."

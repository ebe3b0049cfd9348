"""One training in a container of its own: when it is over the GPU and the memory are free again, and one that
crashes or grows without bounds takes nothing with it.

The container sees the data folder, at the very path it has here, and nothing else: no network, no devices
but the GPU, no rights. It says how it goes in JSON lines on its standard output; the bundle it makes is
offered by the service, which has the keys.
"""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gripwire import containers
from gripwire.errors import UserError
from gripwire.settings import KEYS
from gripwire_trainer import local_model
from gripwire_trainer.settings import BACKBONES, TrainerSettings
from gripwire_trainer.task import Say, Task

JOB = "gripwire.job"
"""The label of these containers; its value is the data folder they work on."""


@dataclass
class Outcome:
    """What the job told at its end. ``failures``: what went wrong after the bundle was there."""

    metrics: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


class Container:
    """A training under way. :meth:`stop` may be called from another thread."""

    def __init__(self, task: Task, image: str) -> None:
        self._task, self._image = task, image
        self._handle: Any = None
        self._stopped = False

    def run(
        self, say: Say, offer: Callable[[str], object] | None, sealed: Callable[[str], object]
    ) -> Outcome:
        """Train; as :func:`gripwire_trainer.job.run`, but ``offer`` gets the bundle's id.

        Raises:
            UserError: there is no such image, the training refused its data, or it died.
        """
        try:
            self._handle = _start(self._task, self._image)
            if self._stopped:  # while it was being made
                raise UserError("the trainer was stopped")
            return self._follow(say, offer, sealed)
        finally:
            self.stop()

    def stop(self) -> None:
        """End it, if it still runs, and leave nothing of it."""
        self._stopped = True
        if self._handle is not None:
            _remove(self._handle)

    def _follow(
        self, say: Say, offer: Callable[[str], object] | None, sealed: Callable[[str], object]
    ) -> Outcome:
        outcome, failed_offer = None, ""
        for event in _events(self._handle):
            match event:
                case {"say": [stage, part, metrics]}:
                    say(stage, part, metrics)
                case {"sealed": bundle}:
                    sealed(bundle)
                    failed_offer = _offered(offer, bundle)
                case {"error": text}:
                    raise UserError(text)
                case {"done": done}:
                    outcome = Outcome(**done)
        if outcome is None:
            raise UserError("the trainer was stopped" if self._stopped else self._last_words())
        if failed_offer:
            outcome.failures.insert(0, failed_offer)
        return outcome

    def _last_words(self) -> str:
        """Why a container ended without a result."""
        code = self._handle.wait()["StatusCode"]
        self._handle.reload()
        if self._handle.attrs["State"].get("OOMKilled"):
            return "the training's container ran out of memory; train fewer `views`, or give it more"
        said = self._handle.logs(stdout=False, tail=1).decode(errors="replace").strip()
        return f"the training's container died (exit code {code}): {said or 'it said nothing'}"


def _offered(offer: Callable[[str], object] | None, bundle: str) -> str:
    """Why the bundle is not known to serve; empty when it is, or was not to be offered."""
    try:
        if offer:
            offer(bundle)
    except UserError as e:
        return f"bundle {bundle} is not known to serve: {e}"
    return ""


def clean(data: Path) -> None:
    """Remove what a trainer that was killed has left running.

    Raises:
        UserError: no engine answers here.
    """
    for left in containers.engine().containers.list(all=True, filters={"label": f"{JOB}={data}"}):
        _remove(left)


def _start(task: Task, image: str) -> Any:
    import docker

    engine = containers.engine()
    order = {"target": str(task.target), "data": str(task.data), "settings": _portable(task)}
    # What trains needs no keys: an empty folder lies over them.
    hidden = {str(task.data / KEYS): "size=4k,mode=0700"} if (task.data / KEYS).is_dir() else {}
    gpus = [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])]
    try:
        engine.images.get(image)  # never fetched from anywhere
        return engine.containers.run(
            image,
            ["trainer", "job", json.dumps(order)],
            detach=True,
            labels={JOB: str(task.data)},
            volumes={_on_host(task.data): {"bind": str(task.data), "mode": "rw"}},
            user=f"{os.getuid()}:{os.getgid()}",
            network_mode="none",
            read_only=True,
            tmpfs={"/tmp": "size=1g,mode=1777"} | hidden,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            cpu_shares=128,  # an eighth of what the arm and the reward have: these come first
            oom_score_adj=500,  # and when memory runs out, this is what goes
            device_requests=gpus if "nvidia" in engine.info().get("Runtimes", {}) else None,
        )
    except docker.errors.ImageNotFound as e:
        raise UserError(
            f"there is no image {image} here: `docker compose build trainer`, or name another as `image` in "
            "[trainer]"
        ) from e
    except docker.errors.APIError as e:
        raise UserError(f"the engine does not start {image}: {e.explanation or e}") from e


def _portable(task: Task) -> dict[str, Any]:
    """The settings, if a container that sees only the data folder can have what they name."""
    name = task.settings.backbone
    backbone = None if name in BACKBONES else local_model.find(name)
    if backbone is not None:
        if not backbone.absolute().is_relative_to(task.data):
            raise UserError(
                f"the backbone {backbone} is outside the data folder, and the training's container sees "
                f"nothing else: move it below {task.data}"
            )
        return task.settings.model_dump(mode="json") | {"backbone": str(backbone.absolute())}
    return task.settings.model_dump(mode="json")


def _on_host(data: Path) -> str:
    """The data folder as the engine knows it: where this process runs in a container itself, what is mounted
    there."""
    import docker

    try:
        ours = containers.engine().containers.get(socket.gethostname())
    except docker.errors.NotFound:  # no container of this engine
        return str(data)
    for mount in ours.attrs["Mounts"]:
        if data.is_relative_to(mount["Destination"]):
            return str(Path(mount["Source"]) / data.relative_to(mount["Destination"]))
    raise UserError(f"{data} is not mounted from the host: a training in another container could not see it")


def _remove(handle: Any) -> None:
    import docker

    try:
        handle.remove(force=True, v=True)
    except docker.errors.APIError as e:
        if e.status_code not in (404, 409):  # gone, or on its way
            raise UserError(f"the engine does not remove {handle.name}: {e.explanation or e}") from e


def _events(handle: Any) -> Iterator[dict[str, Any]]:
    """The JSON objects the job prints, until its end."""
    rest = b""
    for chunk in handle.logs(stdout=True, stderr=False, stream=True, follow=True):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"{"):
                yield json.loads(line)


def work(order: str) -> int:
    """Inside the container: train what `order` says, and tell of it on standard output; the exit code."""
    from gripwire_trainer import job

    asked = json.loads(order)
    settings = TrainerSettings.model_validate(asked["settings"])

    whole = threading.Lock()  # progress is told from several threads, and a line must stay one

    def tell(**event: Any) -> None:
        with whole:
            print(json.dumps(event), flush=True)

    task = Task(Path(asked["target"]), Path(asked["data"]), settings)
    try:
        result = job.run(task, lambda *said: tell(say=said), None, lambda bundle: tell(sealed=bundle))
    except UserError as e:
        tell(error=str(e))
        return 1
    tell(done={"metrics": result.metrics, "seconds": result.seconds, "failures": result.failures})
    return 0

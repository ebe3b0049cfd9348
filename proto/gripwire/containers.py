"""The stack's containers, seen through Docker's own SDK."""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gripwire.errors import UserError

PROJECT = "gripwire"
"""What docker-compose.yml calls itself."""
SERVICE = "gripwire.service"
"""The label that names a container's service as the bus does: `robot`, `camera/gripper_cam`."""
_PROJECT, _COMPOSE_SERVICE = "com.docker.compose.project", "com.docker.compose.service"
_ANSWER_S = 180
"""Longer than the longest way to an end: a recorder that finishes a save."""


@functools.cache
def engine() -> Any:
    """A connection to the engine that `docker` uses here, $DOCKER_HOST included.

    Raises:
        UserError: the SDK is not installed, no engine answers, or it is not for this user.
    """
    try:
        import docker
    except ImportError as e:
        raise UserError(
            "Docker's Python SDK is not installed: `pip install docker`, or use `docker compose`"
        ) from e
    where = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    try:
        client = docker.from_env(timeout=_ANSWER_S)
        client.ping()
        return client
    except (docker.errors.DockerException, OSError) as e:
        if "Permission denied" in str(e) or isinstance(e, PermissionError):
            raise UserError(
                f"you may not use the Docker engine at {where}: `sudo usermod -aG docker $USER`, then log in "
                "anew (whoever may use it is as good as root on this machine)"
            ) from e
        raise UserError(
            f"no Docker engine answers at {where}: `sudo systemctl start docker`, or set DOCKER_HOST to "
            "the one that runs the stack"
        ) from e


@dataclass(frozen=True)
class Container:
    """One container of the stack. ``says``: the last line of its health check, or why it ended."""

    service: str
    name: str
    state: str
    health: str
    up_s: float | None
    restarts: int
    image: str
    says: str
    handle: Any

    @property
    def grace_s(self) -> int:
        """How long it may take to end: the ``stop_grace_period`` it was made with."""
        return int(self.handle.attrs["Config"].get("StopTimeout") or 10)


def of_project(project: str = PROJECT) -> list[Container]:
    """The containers of a compose project, running or not, by service.

    Raises:
        UserError: there are none, or no engine answers.
    """
    found = engine().containers.list(
        all=True, filters={"label": f"{_PROJECT}={project}"}, ignore_removed=True
    )
    if not found:
        raise UserError(
            f"there are no containers of the project `{project}`: `docker compose up -d` where its "
            "docker-compose.yml lies, or --project NAME"
        )
    return sorted((_container(c) for c in found), key=lambda c: c.service)


def of_service(service: str, project: str = PROJECT) -> Container:
    """The container of one service: `robot`, `camera`, `camera/gripper_cam`, or as compose calls it.

    Raises:
        UserError: there is none, or more than one.
    """
    there = of_project(project)
    found = [c for c in there if service in _names(c)]
    running = [c for c in found if c.state == "running"] or found
    if len(running) == 1:
        return running[0]
    known = ", ".join(c.service for c in there)
    if running:
        raise UserError(f"`{service}` could be {' or '.join(c.service for c in running)}: say which")
    raise UserError(f"no container of the service `{service}`; there are: {known}")


def _names(container: Container) -> set[str]:
    compose = container.handle.labels.get(_COMPOSE_SERVICE, "")
    return {container.service, container.service.partition("/")[0], compose}


def _container(handle: Any) -> Container:
    state, labels = handle.attrs["State"], handle.labels
    checks = state.get("Health") or {}
    return Container(
        service=labels.get(SERVICE) or labels.get(_COMPOSE_SERVICE, handle.name),
        name=handle.name,
        state=state["Status"],
        health=checks.get("Status", ""),
        up_s=_age_s(state["StartedAt"]) if state["Status"] == "running" else None,
        restarts=handle.attrs.get("RestartCount", 0),
        image=handle.attrs["Config"]["Image"],
        says=_says(state, checks),
        handle=handle,
    )


def _says(state: dict[str, Any], checks: dict[str, Any]) -> str:
    if state["Status"] != "running":
        why = "out of memory" if state.get("OOMKilled") else state.get("Error", "")
        return f"exit code {state.get('ExitCode', 0)}{f': {why}' if why else ''}"
    last = (checks.get("Log") or [{}])[-1]
    lines = str(last.get("Output", "")).strip().splitlines()
    return lines[-1] if lines else ""


def _age_s(started: str) -> float:
    """Of a time as the engine writes it, nanoseconds and all."""
    moment = datetime.fromisoformat(started[:19]).replace(tzinfo=UTC)
    return max(0.0, (datetime.now(UTC) - moment).total_seconds())


def lines(container: Container, last: int, follow: bool) -> Iterator[bytes]:
    """The end of a container's log, and with ``follow`` what comes after it."""
    yield from container.handle.logs(stream=True, follow=follow, tail=last)


def restart(container: Container) -> None:
    """End it in the time it has for that, and start it again.

    Raises:
        UserError: the engine does not, for example because a device is not plugged in.
    """
    import docker

    try:
        container.handle.restart(timeout=container.grace_s)
    except (docker.errors.APIError, OSError) as e:
        why = getattr(e, "explanation", None) or e
        raise UserError(
            f"{container.service} could not be started again: {why}; plug in what is missing, or correct "
            ".env and run `docker compose up -d`"
        ) from e

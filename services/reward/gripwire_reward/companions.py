"""What a frame is judged together with: the robot's state for the gate, and the frames of further cameras."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gripwire import clock
from gripwire.bus import Latest, Received
from gripwire.errors import UserError
from gripwire.messages import Frame, RobotState
from gripwire.service import Runtime
from gripwire_reward import gate
from gripwire_reward.decode import decode

STATE_FRESH_S = 0.5
"""An older state says nothing about this frame (it comes at 60 Hz)."""

SKEW_S = 0.1
"""Pictures of two cameras that were taken further apart do not show the same moment."""


class Companions:
    """Opens a reader for what is asked for, when it is first asked for."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._robot: Latest[RobotState] | None = None
        self._cameras: dict[str, Latest[Frame]] = {}

    def expect(self, cameras: Sequence[str], needs_robot: bool) -> None:
        """Begin to read these cameras, and the robot's state, so that the first frame finds them."""
        for name in cameras:
            if name not in self._cameras:
                self._cameras[name] = self._runtime.latest(f"camera/{name}", Frame)
        if needs_robot and self._robot is None:
            self._robot = self._runtime.latest("robot/state", RobotState)

    def gate(self, text: str) -> bool:
        """Whether the gate is open by the robot's newest state.

        Raises:
            UserError: that state is missing, old, not valid, or lacks what the gate asks for.
        """
        self.expect((), True)
        assert self._robot is not None
        return gate_open(text, self._robot.get(), clock.monotonic_ns())

    def frames(self, cameras: Sequence[str], beside: Received[Frame]) -> list[tuple[int, NDArray[np.uint8]]]:
        """``seq`` and picture of the newest frame of each camera, taken about when ``beside`` was.

        Raises:
            UserError: there is none, it is of another moment, or it is not valid.
        """
        self.expect(cameras, False)
        return [picture_beside(name, self._cameras[name].get(), beside) for name in cameras]


def gate_open(text: str, received: Received[RobotState] | None, now: int) -> bool:
    """Whether the gate is open by this state, the newest at ``now`` (CLOCK_MONOTONIC ns).

    Raises:
        UserError: there is none, it is old, not valid, or lacks what the gate asks for.
    """
    if received is None:
        raise UserError("the gate needs the robot's state, and none has come: is the robot service running?")
    age = (now - received.t_receive) / 1e9
    if age > STATE_FRESH_S:
        raise UserError(f"the gate needs the robot's state, and the last one is {age:.1f} s old")
    if not received.message.valid:
        why = received.message.reason or "the robot service does not vouch for it"
        raise UserError(f"the gate needs the robot's state, and it is not valid: {why}")
    try:
        return gate.parse(text).holds(received.message)
    except gate.MissingState as e:
        raise UserError(str(e)) from e


def picture_beside(
    camera: str, received: Received[Frame] | None, beside: Received[Frame]
) -> tuple[int, NDArray[np.uint8]]:
    """``seq`` and picture of a further camera's newest frame, taken about when ``beside`` was.

    Raises:
        UserError: there is none, it is of another moment, or it is not valid.
    """
    if received is None:
        raise UserError(f"no frame from camera {camera}, which the model wants too: does its service run?")
    message = received.message
    apart = abs(_taken_at(received) - _taken_at(beside)) / 1e9
    if apart > SKEW_S:
        raise UserError(f"the newest frame of camera {camera} was taken {apart:.1f} s apart from this one")
    if not message.valid:
        raise UserError(f"camera {camera}: {message.reason or 'the frame is not valid'}")
    return message.seq, decode(message, received.payload)


def _taken_at(received: Received[Frame]) -> int:
    same = received.message.host == clock.host_id()
    return received.message.t_capture if same else received.t_receive

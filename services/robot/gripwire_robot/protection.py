"""What keeps the motors from burning: heat, current, a gripper that presses. Pure: times in seconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gripwire_robot.settings import Robot

WARN_BELOW_C, CUT_ABOVE_C, COOLED_C = 5.0, 3.0, 2.0
"""Around ``max_temperature_c``: a warning so far below it, torque off so far above it (an STS3215 lets go by
itself at 70), and motion again when every motor is so far below it."""
SURE_S = 0.2
"""A temperature counts when it has been seen for so long: a single reading may be wrong."""
STILL = 1.0
"""Per cent that a gripper's jaws move at most while they press on something."""
PRESSING_MA = 400.0
"""From here on a gripper's motor presses; half its torque, which LeRobot allows it, is about 1200."""


@dataclass
class Verdict:
    """What must be done now."""

    faults: dict[str, str] = field(default_factory=dict)
    """By joint: what is wrong."""
    notes: dict[str, str] = field(default_factory=dict)
    hot: str = ""
    """Why nothing may move; empty: it may."""
    limp: bool = False
    """Torque must go: a motor is about to let go by itself."""
    hold: str = ""
    """Why the arm must hold where it is, told once."""


class Lasting:
    """Since when something has been so, by name."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def seconds(self, name: str, so: bool, now: float) -> float:
        """How long it has been so; 0 when it is not."""
        if not so:
            self._since.pop(name, None)
            return 0.0
        return now - self._since.setdefault(name, now)


class Protection:
    """Looks at every reading."""

    def __init__(self, settings: Robot) -> None:
        self._settings = settings
        self._lasting = Lasting()
        self._hot: set[str] = set()
        self._grip = Grip(settings)

    @property
    def relaxed(self) -> bool:
        """Whether the gripper holds something with less force than it could."""
        return self._grip.floor is not None

    def cap(self, goal: dict[str, float]) -> dict[str, float]:
        """The goal, with the gripper no further closed than what it holds needs."""
        if self._grip.floor is None or "gripper" not in goal:
            return goal
        return goal | {"gripper": max(goal["gripper"], self._grip.floor)}

    def see(
        self,
        now: float,
        position: Mapping[str, float],
        temperature: Mapping[str, float],
        current: Mapping[str, float],
        goal: Mapping[str, float],
        asked: Mapping[str, float],
    ) -> Verdict:
        """A reading of the joints that answer; the goal in force before (``asked``) and after limiting."""
        verdict = Verdict()
        self._heat(now, temperature, verdict)
        note = self._grip.see(now, position, current, goal, asked)
        if note:
            verdict.notes["gripper"] = note
        for joint, ma in current.items():
            pressing = joint == "gripper" and goal.get(joint, 0.0) < position.get(joint, 0.0)
            over = ma > self._settings.max_current_ma and not pressing  # that is the grip's business
            lasted = self._lasting.seconds(f"current {joint}", over, now)
            if lasted > self._settings.max_current_s:
                self._lasting.seconds(f"current {joint}", False, now)
                verdict.hold = (
                    f"{joint} drew {ma:.0f} mA for {lasted:.1f} s (`max_current_ma` is "
                    f"{self._settings.max_current_ma:g}): something blocks it"
                )
        return verdict

    def _heat(self, now: float, temperature: Mapping[str, float], verdict: Verdict) -> None:
        limit = self._settings.max_temperature_c
        for joint, celsius in temperature.items():
            over = self._lasting.seconds(f"hot {joint}", celsius > limit, now) >= SURE_S
            cut = self._lasting.seconds(f"cut {joint}", celsius >= limit + CUT_ABOVE_C, now) >= SURE_S
            verdict.limp |= cut
            if over:
                self._hot.add(joint)
            elif celsius <= limit - COOLED_C:
                self._hot.discard(joint)
            if joint in self._hot:
                verdict.faults[joint] = f"too hot: {celsius:.0f} C"
            elif celsius >= limit - WARN_BELOW_C:
                verdict.faults[joint] = f"hot: {celsius:.0f} C"
        if self._hot:
            who = ", ".join(f"{j} ({temperature.get(j, 0.0):.0f} C)" for j in sorted(self._hot))
            verdict.hot = f"{who} is too hot: let it cool below {limit - COOLED_C:.0f} C"


class Grip:
    """Jaws that press on something for longer than ``gripper_stall_s`` need not press so hard to keep it."""

    def __init__(self, settings: Robot) -> None:
        self._settings = settings
        self._lasting = Lasting()
        self._at = 0.0
        self.floor: float | None = None
        """Per cent open that the goal may not go below; None: it may go anywhere."""
        self._held = 0.0

    def see(
        self,
        now: float,
        position: Mapping[str, float],
        current: Mapping[str, float],
        goal: Mapping[str, float],
        asked: Mapping[str, float],
    ) -> str:
        """What is done about it, in words; empty: nothing."""
        if "gripper" not in position or "gripper" not in goal:
            return ""
        here = position["gripper"]
        moved = abs(here - self._at) > STILL
        if moved:
            self._at = here
        if self.floor is None:
            pressing = current.get("gripper", 0.0) > PRESSING_MA and goal["gripper"] < here - STILL
            stalled = self._lasting.seconds("stall", pressing and not moved, now)
            if stalled > self._settings.gripper_stall_s:
                self._held = here
                self.floor = max(here - self._settings.gripper_squeeze, 0.0)
        # What it held is gone when the jaws came to where they were allowed to, or were opened.
        elif here <= self.floor + STILL / 2 or asked.get("gripper", 0.0) > self._held:
            self.floor = None
            self._lasting.seconds("stall", False, now)
        if self.floor is None:
            return ""
        return f"holds something at {self._held:.0f} % and presses less"

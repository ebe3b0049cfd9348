"""What must be true of an arm before it is driven, each in words with its remedy.

Pure, but for reading a file: what the motors say comes in as data (:mod:`gripwire_robot.connect` gets it).
`gripwire robot check` lists all of it; `gripwire robot run` looks at the same when it starts, refuses what is
``fatal`` and warns of the rest.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from gripwire.errors import UserError
from gripwire.messages import JOINTS
from gripwire_robot import kinematics

STS3215 = 777
"""The model number of the motors that LeRobot's SO-101 driver is for."""
HOT_C = 60
"""Degrees Celsius from which a motor is reported as hot; an STS3215 lets go at 70."""
PLAUSIBLE = 15.0
"""Degrees by which the two ends of a calibrated range may be off together."""
_DEGREES_PER_STEP = 360 / 4095


@dataclass(frozen=True)
class Finding:
    """One check. ``text`` says what was found and, where it is not well, what to do."""

    check: str
    well: bool | None
    """None: it could not be looked at."""
    text: str
    fatal: bool = False
    """Whether the arm must not be driven like this."""


@dataclass(frozen=True)
class Ends:
    """A joint's calibration: registers of its motor, and entries of LeRobot's file; encoder steps."""

    homing_offset: int
    range_min: int
    range_max: int


_REGISTERS = {
    "homing_offset": "Homing_Offset",
    "range_min": "Min_Position_Limit",
    "range_max": "Max_Position_Limit",
}


@dataclass(frozen=True)
class Motor:
    """What a motor says about itself (Feetech's memory table of the STS3215)."""

    model: int
    firmware: tuple[int, int]
    ends: Ends
    volts: float
    most_volts: float
    """Its own upper limit, which tells the 7.4 V version from the 12 V one."""
    celsius: float
    alarms: str
    """In words; empty: none."""

    @classmethod
    def read(cls, eeprom: bytes, present: bytes, alarms: str) -> "Motor":
        """From registers 0 to 32 and 56 to 63."""

        def word(at: int) -> int:
            return int.from_bytes(eeprom[at : at + 2], "little")

        offset = word(31)
        return cls(
            model=word(3),
            firmware=(eeprom[0], eeprom[1]),
            ends=Ends((offset & 0x7FF) * (-1 if offset & 0x800 else 1), word(9), word(11)),
            volts=present[6] / 10,
            most_volts=eeprom[14] / 10,
            celsius=present[7],
            alarms=alarms,
        )


# --- the calibration file -----------------------------------------------------------------------------


def calibration(path: Path, remedy: str) -> dict[str, Ends]:
    """LeRobot's calibration file, by joint. ``remedy``: how to make a new one.

    Raises:
        UserError: it is missing, cannot be read, or says nothing usable about a joint.
    """
    try:
        entries = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"there is no calibration {path}: {remedy}") from None
    except (OSError, ValueError) as e:
        reason = e.strerror if isinstance(e, OSError) else "not whole JSON"
        raise UserError(f"the calibration {path} cannot be read ({reason}): restore it, or {remedy}") from e
    known = {joint: _ends(entries, joint) for joint in JOINTS}
    usable = {joint: ends for joint, ends in known.items() if ends and ends.range_min < ends.range_max}
    if wrong := [joint for joint in JOINTS if joint not in usable]:
        raise UserError(f"the calibration {path} says nothing usable about {', '.join(wrong)}: {remedy}")
    return usable


def _ends(entries: object, joint: str) -> Ends | None:
    entry = entries.get(joint) if isinstance(entries, dict) else None
    if not isinstance(entry, dict):
        return None
    values = [value for name in _REGISTERS if isinstance(value := entry.get(name), int)]
    return Ends(*values) if len(values) == len(_REGISTERS) else None


# --- the motors ---------------------------------------------------------------------------------------


def motors(found: Mapping[str, Motor], file: Mapping[str, Ends] | None) -> list[Finding]:
    """All there is to say about the motors that answered, beside the calibration file's content."""
    if not found:
        return [answering(found), *unseen("no motor answers")[1:], ranges(file)]
    return [
        answering(found), model(found), voltage(found), temperature(found), alarms(found), firmware(found),
        written(found, file), ranges(file),
    ]  # fmt: skip


def unseen(why: str) -> list[Finding]:
    """The same where nobody can look."""
    names = ("motors", "model", "voltage", "temperature", "alarms", "firmware", "calibration")
    return [Finding(name, None, why) for name in names]


def answering(found: Mapping[str, Motor]) -> Finding:
    missing = [f"{joint} (motor {i})" for i, joint in enumerate(JOINTS, 1) if joint not in found]
    if not missing:
        return Finding("motors", True, "all six answer")
    who = "no motor answers" if len(missing) == len(JOINTS) else f"no answer from {', '.join(missing)}"
    text = f"{who}; check its power supply and the cables between the motors"
    return Finding("motors", False, text, fatal=True)


def model(found: Mapping[str, Motor]) -> Finding:
    if wrong := [joint for joint, motor in found.items() if motor.model != STS3215]:
        text = f"{', '.join(wrong)} is no STS3215 motor; is this the right port?"
        return Finding("model", False, text, fatal=True)
    return Finding("model", True, "STS3215")


def alarms(found: Mapping[str, Motor]) -> Finding:
    sick: dict[str, list[str]] = {}
    for joint, motor in found.items():
        if motor.alarms:
            sick.setdefault(motor.alarms, []).append(joint)
    if not sick:
        return Finding("alarms", True, "none")
    told = "; ".join(f"{alarm}: {_named(joints)}" for alarm, joints in sick.items())
    remedy = "let it cool, look what blocks it, then switch its power off and on"
    if list(sick) == ["supply voltage"]:
        remedy = "the power supply is the wrong one, or its plug is loose"
    return Finding("alarms", False, f"{told}; {remedy}", fatal=True)


def _named(joints: Collection[str]) -> str:
    return "all six motors" if len(joints) == len(JOINTS) else ", ".join(joints)


def firmware(found: Mapping[str, Motor]) -> Finding:
    versions: dict[tuple[int, int], list[str]] = {}
    for joint, motor in found.items():
        versions.setdefault(motor.firmware, []).append(joint)
    if len(versions) == 1:
        return Finding("firmware", True, ".".join(map(str, next(iter(versions)))))
    text = "; ".join(f"{a}.{b} in {', '.join(joints)}" for (a, b), joints in sorted(versions.items()))
    return Finding(
        "firmware", False,
        f"{text}: LeRobot's own tools refuse motors with different firmware; "
        "bring them to one version with Feetech's FD software",
    )  # fmt: skip


def written(found: Mapping[str, Motor], file: Mapping[str, Ends] | None) -> Finding:
    """Whether the motors hold what the file says."""
    if file is None:
        return Finding("calibration", None, "without a calibration file there is nothing to compare")
    differ = [
        f"{joint} (its {register} is {getattr(motor.ends, name)}, the file's {getattr(file[joint], name)})"
        for joint, motor in found.items()
        for name, register in _REGISTERS.items()
        if getattr(motor.ends, name) != getattr(file[joint], name)
    ]
    if not differ:
        return Finding("calibration", True, "the motors hold the file's")
    more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
    return Finding(
        "calibration", False,
        f"the motors' calibration differs from the file's at {', '.join(differ[:3])}{more}: `gripwire robot "
        "run` writes the file's to them; if the file is another arm's, set `id` in [robot], or calibrate",
    )  # fmt: skip


def ranges(file: Mapping[str, Ends] | None) -> Finding:
    """Whether each joint was moved from stop to stop when it was calibrated: zero is the middle between."""
    if file is None:
        return Finding("ranges", None, "without a calibration file there are none")
    turned = {j: (file[j].range_max - file[j].range_min) * _DEGREES_PER_STEP for j in kinematics.RANGES}
    wrong = [
        f"{joint} ({turned[joint]:.0f} of about {2 * half:.0f} degrees)"
        for joint, half in kinematics.RANGES.items()
        if abs(turned[joint] - 2 * half) > PLAUSIBLE
    ]
    if not wrong:
        return Finding("ranges", True, "every joint was calibrated from stop to stop")
    return Finding(
        "ranges", False,
        f"not calibrated from stop to stop: {', '.join(wrong)}; its angles, and every place of the tip with "
        "them, are off by up to half of what is missing or too much: `gripwire robot calibrate`",
    )  # fmt: skip


@dataclass(frozen=True)
class _Supply:
    """A version of the STS3215 and what it may be fed, volts."""

    name: str
    low: float
    high: float


_74_V, _12_V = _Supply("7.4 V", 4.5, 8.4), _Supply("12 V", 9.0, 13.5)
"""The 7.4 V version works from 4 V on; the SO-101's parts list feeds it with 5 V."""


def voltage(found: Mapping[str, Motor]) -> Finding:
    kinds = {joint: _12_V if motor.most_volts >= 10 else _74_V for joint, motor in found.items()}
    much = {joint: motor.volts for joint, motor in found.items() if motor.volts > kinds[joint].high}
    little = {joint: motor.volts for joint, motor in found.items() if motor.volts < kinds[joint].low}
    if much:
        volts, kind = max(much.values()), kinds[next(iter(much))].name
        return Finding(
            "voltage", False,
            f"{volts:.1f} V is too much for {_named(much)}, by its own limit a {kind} motor: switch the "
            "supply off now and take the right one",
            fatal=True,
        )  # fmt: skip
    if little:
        volts, kind = min(little.values()), kinds[next(iter(little))].name
        return Finding(
            "voltage", False,
            f"{volts:.1f} V is too little for {_named(little)}, by its own limit a {kind} motor: check "
            "that it is the right supply, and its plug",
        )  # fmt: skip
    low, high = min(m.volts for m in found.values()), max(m.volts for m in found.values())
    text = f"{low:.1f} V" if low == high else f"{low:.1f} to {high:.1f} V"
    names = " and ".join(dict.fromkeys(kind.name for kind in kinds.values()))
    weak = ", from a 5 V supply: they have less torque than at 7.4 V" if high < 6.0 else ""
    return Finding("voltage", True, f"{text}, right for {names} motors{weak}")


def temperature(found: Mapping[str, Motor]) -> Finding:
    if hot := [f"{j} ({m.celsius:.0f} °C)" for j, m in found.items() if m.celsius >= HOT_C]:
        text = f"hot: {', '.join(hot)}; let it cool before it holds anything: at 70 °C a motor lets go"
        return Finding("temperature", False, text)
    return Finding("temperature", True, f"{max(m.celsius for m in found.values()):.0f} °C at most")

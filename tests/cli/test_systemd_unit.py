"""The unit for those without containers."""

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "deploy" / "gripwire.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    checkout = tmp_path / "gripwire"
    (checkout / ".venv/bin").mkdir(parents=True)
    command = checkout / ".venv/bin/gripwire"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    # Whose home it is does not matter to the check; that the command is there does.
    unit = tmp_path / "gripwire.service"
    unit.write_text(UNIT.read_text().replace("%h", str(tmp_path)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", str(unit)],
        env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "gripwire" in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


def test_its_grace_is_longer_than_that_of_any_service_of_gripwire_up() -> None:
    from gripwire import settings, supervise

    table = supervise.stack(settings.load(env={}), "robot")
    grace = next(line for line in UNIT.read_text().splitlines() if line.startswith("TimeoutStopSec="))
    assert int(grace.partition("=")[2]) > max(process.grace_s for process in table)

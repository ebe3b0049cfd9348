"""`gripwire stack` where there is no engine; tests/stack has it where there is one."""

from pathlib import Path

import pytest

from tests.helpers import run_here


def test_without_an_engine_it_says_so_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gripwire import containers

    containers.engine.cache_clear()
    nowhere = f"unix://{tmp_path}/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", nowhere)
    done = run_here(["stack", "status"], {}, capsys)
    assert done.returncode == 1
    assert f"no Docker engine answers at {nowhere}" in done.stderr
    assert "systemctl start docker" in done.stderr

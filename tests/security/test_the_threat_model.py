"""docs/security.md: every line of its table is shown by tests that exist; its settings mean what it says."""

import ast
import re
from pathlib import Path

from gripwire import keys, settings
from gripwire.keys import ROLES

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "security.md").read_text()


def _table(heading: str) -> list[list[str]]:
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def _tests(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_line_of_the_threat_model_is_shown_by_tests_that_exist() -> None:
    rows = _table("Threats")
    assert len(rows) > 20
    for threat, _, shown in rows:
        named = re.findall(r"`([^`]+)::([^`]+)`", shown)
        assert named, threat
        for file, test in named:
            assert test in _tests(file), f"{threat}: {file} has no {test}"


def test_the_roles_are_those_of_the_code() -> None:
    assert tuple(row[0].strip("`") for row in _table("A second machine")) == ROLES


def test_the_settings_for_two_machines_put_each_service_where_the_page_says(tmp_path: Path) -> None:
    robot_pc, gpu_box = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    hosts = {}
    for name, text in (("robot-pc", robot_pc), ("gpu-box", gpu_box)):
        (tmp_path / f"{name}.toml").write_text(text)
        (tmp_path / name).mkdir()
        keys.create(tmp_path / name / settings.KEYS)
        stack = settings.load(tmp_path / f"{name}.toml", {"data": tmp_path / name}, {})
        hosts[name] = {service: stack.topics.host(service) for service in ("robot", "reward", "trainer")}
    assert hosts["robot-pc"] == {"robot": "127.0.0.1", "reward": "127.0.0.1", "trainer": "gpu-box"}
    assert hosts["gpu-box"] == {"robot": "robot-pc", "reward": "robot-pc", "trainer": "gpu-box"}

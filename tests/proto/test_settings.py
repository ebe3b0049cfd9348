"""Settings: who beats whom, and errors that name the key and the place."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from gripwire import keys
from gripwire.errors import UserError
from gripwire.settings import Section, Settings, load
from gripwire.topics import Topics


@pytest.fixture(autouse=True)
def _a_folder_without_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Arm(Section):
    """A section as a service declares it."""

    port: str = "/dev/ttyACM0"
    rate_hz: float = 60.0
    mode: Literal["follow", "hold"] = "follow"
    limits: dict[str, float] = Field(default_factory=dict)


def _toml(folder: Path, text: str) -> Path:
    path = folder / "gripwire.toml"
    path.write_text(text)
    return path


def _refusal(path: Path | None = None, section: str = "robot", **how: dict) -> str:
    with pytest.raises(UserError) as refused:
        load(path, **({"env": {}} | how)).section(section, Arm)
    return str(refused.value)


def test_flags_beat_the_environment_which_beats_the_file_which_beats_the_defaults(tmp_path: Path) -> None:
    path = _toml(tmp_path, '[robot]\nport = "file"\nrate_hz = 10\nmode = "hold"\n')
    env = {"GRIPWIRE_ROBOT__PORT": "environment", "GRIPWIRE_ROBOT__RATE_HZ": "20"}
    settings = load(path, {"robot.port": "flag"}, env)
    assert settings.section("robot", Arm) == Arm(port="flag", rate_hz=20.0, mode="hold")


def test_a_flag_that_was_not_given_overrides_nothing(tmp_path: Path) -> None:
    settings = load(_toml(tmp_path, "port_base = 9000\n"), {"port_base": None, "data": None}, {})
    assert settings.bus.port_base == 9000


def test_a_variable_sets_a_key_of_a_section() -> None:
    settings = load(env={"GRIPWIRE_ROBOT__PORT": "/dev/ttyUSB3", "GRIPWIRE_ROBOT__LIMITS__GRIPPER": "5"})
    assert settings.section("robot", Arm) == Arm(port="/dev/ttyUSB3", limits={"gripper": 5.0})


def test_variables_of_other_programs_are_left_alone() -> None:
    env = {"GRIP": "x", "HOME": "/h", "GRIPWIRE_SUPERVISED": "1", "GRIPWIRE_LOG": "json"}
    assert load(env=env).bus.log == "json"


def test_an_unknown_key_names_file_and_line_and_the_keys_there_are(tmp_path: Path) -> None:
    path = _toml(tmp_path, 'port_base = 7700\n\n[robot]\n# the arm\nprot = "/dev/ttyACM1"\n')
    assert _refusal(path) == f"{path}:5: unknown key `robot.prot`; known: limits, mode, port, rate_hz"


def test_an_unknown_key_at_the_top_is_named_at_once(tmp_path: Path) -> None:
    path = _toml(tmp_path, "\nportbase = 7700\n")
    with pytest.raises(UserError, match=r"gripwire\.toml:2: unknown key `portbase`; known: bind, data, log"):
        load(path, env={})


def test_an_unknown_variable_is_named() -> None:
    assert _refusal(env={"GRIPWIRE_ROBOT__PROT": "x"}).startswith("$GRIPWIRE_ROBOT__PROT: unknown key")


def test_a_wrong_type_names_key_and_line(tmp_path: Path) -> None:
    path = _toml(tmp_path, '[robot]\nport = "a"\nrate_hz = "fast"\n')
    assert _refusal(path).startswith(f"{path}:3: `robot.rate_hz`: input should be a valid number")


def test_a_wrong_value_deep_in_a_table_names_its_own_line(tmp_path: Path) -> None:
    path = _toml(tmp_path, '[robot.limits]\nelbow_flex = 3\ngripper = "much"\n')
    assert _refusal(path).startswith(f"{path}:3: `robot.limits.gripper`:")


def test_a_wrong_choice_names_the_choices_and_a_wrong_flag_the_flag(tmp_path: Path) -> None:
    assert "'follow' or 'hold'" in _refusal(_toml(tmp_path, '[robot]\nmode = "fly"\n'))
    with pytest.raises(UserError, match=r"^--port-base: `port_base`: input should be less than"):
        load(flags={"port_base": 70000}, env={})


def test_bad_toml_names_file_and_line(tmp_path: Path) -> None:
    path = _toml(tmp_path, 'data = "x"\n[robot\n')
    with pytest.raises(UserError, match=rf"{path}: not valid TOML: .*line 2"):
        load(path, env={})


def test_a_settings_file_that_is_not_there_or_no_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such settings file; leave --config away"):
        load(tmp_path / "none.toml", env={})
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path, env={})


@pytest.mark.parametrize("text", ["[robt]\nport = 1\n", "[robt]\n", "robt = {port = 1}\n"])
def test_an_unknown_section_names_file_and_line_and_the_sections_there_are(tmp_path: Path, text: str) -> None:
    path = _toml(tmp_path, f"# a stack\n{text}")
    with pytest.raises(UserError, match=rf"{path}:2: unknown section \[robt\]; known: cameras, .*trainer"):
        load(path, env={})


def test_an_unknown_section_in_a_variable_is_named() -> None:
    with pytest.raises(UserError, match=r"\$GRIPWIRE_ROBT__PORT: unknown section \[robt\]"):
        load(env={"GRIPWIRE_ROBT__PORT": "x"})


def test_an_empty_section_means_its_defaults(tmp_path: Path) -> None:
    assert load(_toml(tmp_path, "[robot]\n"), env={}).section("robot", Arm) == Arm()


def test_cameras_keep_the_order_of_the_file_and_with_it_their_ports(tmp_path: Path) -> None:
    path = _toml(tmp_path, '[cameras.wrist]\nsource = 0\n[cameras.above]\n[cameras.front]\nsource = "x"\n')
    settings = load(path, env={"GRIPWIRE_CAMERAS__ABOVE__SOURCE": "/dev/video4"})
    assert settings.cameras == ("wrist", "above", "front")
    ports = [settings.topics[f"camera/{name}"].port - settings.bus.port_base for name in settings.cameras]
    assert ports == [10, 11, 12]


def test_without_cameras_there_is_gripper_cam() -> None:
    assert load(env={}).cameras == ("gripper_cam",)


def test_a_camera_may_come_from_the_environment_alone() -> None:
    assert load(env={"GRIPWIRE_CAMERAS__WRIST__SOURCE": "0"}).cameras == ("wrist",)


@pytest.mark.parametrize("name", ["Wrist", "a-b", "7up", "a/b", "x" * 40])
def test_a_camera_name_that_cannot_be_a_topic_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    path = _toml(tmp_path, f'\n[cameras."{name}"]\nsource = 0\n')
    with pytest.raises(UserError, match=rf"{path}:3: camera name `{name}`: use lower-case"):
        load(path, env={})


def test_a_camera_given_as_a_plain_value_is_told_how_to_write_it(tmp_path: Path) -> None:
    path = _toml(tmp_path, '[cameras]\nwrist = "/dev/video0"\n')
    with pytest.raises(UserError, match=r"gripwire\.toml:2: `cameras.wrist` is a section"):
        load(path, env={})


def test_too_many_cameras_are_refused(tmp_path: Path) -> None:
    path = _toml(tmp_path, "".join(f"[cameras.c{i}]\nsource = {i}\n" for i in range(9)))
    with pytest.raises(UserError, match="9 cameras, 8 at most"):
        load(path, env={})


def test_relative_data_is_taken_from_the_working_directory_not_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    path = _toml(tmp_path / "etc", 'data = "runs/today"\n')
    assert load(path, env={}).data == tmp_path / "runs" / "today"


def test_the_file_of_the_working_directory_is_read_unless_another_is_named(tmp_path: Path) -> None:
    _toml(tmp_path, "port_base = 9100\n")
    other = tmp_path / "other.toml"
    other.write_text("port_base = 9200\n")
    assert load(env={}).bus.port_base == 9100
    assert load(env={"GRIPWIRE_CONFIG": str(other)}).bus.port_base == 9200
    assert load(other, env={"GRIPWIRE_CONFIG": "gripwire.toml"}).bus.port_base == 9200


def test_a_child_process_sees_what_its_parent_saw(tmp_path: Path) -> None:
    path = _toml(tmp_path, "port_base = 9100\n[cameras.wrist]\nsource = 0\n")
    parent = load(path, {"data": tmp_path / "d", "port_base": 9300, "hosts.reward": "gpu-box"}, {})
    child: Settings = load(env=parent.environment())
    assert (child.data, child.bus, child.cameras) == (parent.data, parent.bus, parent.cameras)
    assert child.hosts == parent.hosts == {"reward": "gpu-box"}


def test_services_bind_where_bind_says_and_are_found_there() -> None:
    topics = load(env={"GRIPWIRE_BIND": "127.0.0.2"}).topics
    assert topics["reward"].binds == topics["reward"].endpoint == "tcp://127.0.0.2:7603"
    assert topics.control_binds("robot") == topics.control("robot") == "tcp://127.0.0.2:7640"


def test_hosts_say_where_each_service_is_found_and_not_where_it_binds(tmp_path: Path) -> None:
    path = _toml(tmp_path, '[cameras.wrist]\n[hosts]\nreward = "gpu-box"\ncamera = "10.0.0.7"\n')
    topics = load(path, env={"GRIPWIRE_HOSTS__DEFAULT": "robot-pc"}).topics
    assert (
        topics["reward"].endpoint == "tcp://gpu-box:7603" and topics.control("reward") == "tcp://gpu-box:7641"
    )
    assert topics["camera/wrist"].endpoint == "tcp://10.0.0.7:7610"
    assert topics["health/camera/wrist"].endpoint == "tcp://10.0.0.7:7628"
    assert topics["robot/state"].endpoint == "tcp://robot-pc:7601"
    assert {topic.binds.rpartition(":")[0] for topic in topics} == {"tcp://127.0.0.1"}


@pytest.mark.parametrize(
    ("bind", "plain"), [("127.0.0.2", "127.0.0.2"), ("0.0.0.0", "127.0.0.1"), ("eth0", "127.0.0.1")]
)
def test_what_knows_no_keys_is_bound_to_loopback_whatever_else_is_bound(
    tmp_path: Path, bind: str, plain: str
) -> None:
    keys.create(tmp_path / "keys")
    assert load(flags={"data": tmp_path, "bind": bind}, env={}).plain_bind == plain


def test_one_cannot_connect_to_a_wildcard_so_what_binds_to_it_is_found_on_loopback() -> None:
    topics = Topics(7600, bind="0.0.0.0")
    assert (topics["reward"].binds, topics["reward"].endpoint) == (
        "tcp://0.0.0.0:7603",
        "tcp://127.0.0.1:7603",
    )


@pytest.mark.parametrize("host", ['"gpu box"', '"tcp://gpu-box"', '"gpu-box:7603"', '""', "7", "{}"])
def test_what_cannot_be_a_host_is_refused_with_its_line(tmp_path: Path, host: str) -> None:
    path = _toml(tmp_path, f"[hosts]\nreward = {host}\n")
    with pytest.raises(UserError, match=rf"{path}:2: `hosts.reward` = .*give the name or the address"):
        load(path, env={})


def test_a_host_for_a_service_that_does_not_exist_is_refused_with_its_line(tmp_path: Path) -> None:
    path = _toml(tmp_path, '[hosts]\nrobt = "a"\n')
    with pytest.raises(
        UserError, match=rf"{path}:2: unknown key `hosts.robt`; known: camera, .*default, .*robot"
    ):
        load(path, env={})

"""Keys as files: whole or absent, never overwritten, never readable by others."""

import json
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from gripwire import keys
from gripwire.errors import UserError
from gripwire.keys import ROLES, Keys
from tests.helpers import run_here

OTHER, THIRD = "ab" * 32, "cd" * 32


@pytest.fixture
def own(tmp_path: Path) -> Keys:
    return keys.create(tmp_path / "keys")


def _gripwire(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str, **env: str
) -> tuple[int, str, str]:
    done = run_here(["keys", *arguments], {"GRIPWIRE_DATA": str(tmp_path)} | env, capsys)
    return done.returncode, done.stdout, done.stderr


def test_the_pair_is_readable_by_its_owner_alone_and_loads_as_it_was_made(own: Keys) -> None:
    path = own.folder / keys.PAIR
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = keys.load(own.folder)
    assert loaded and (loaded.public, loaded.secret) == (own.public, own.secret)
    assert keys.public_of(own.secret) == own.public and own.secret.hex() not in repr(own)


def test_a_pair_is_never_overwritten_unless_asked(own: Keys) -> None:
    with pytest.raises(UserError, match="has keys already; --replace makes new ones"):
        keys.create(own.folder)
    kept = keys.load(own.folder)
    assert kept and kept.public == own.public
    assert keys.create(own.folder, replace=True).public != own.public


def test_of_many_that_make_keys_at_once_one_does(tmp_path: Path) -> None:
    made: list[str] = []

    def make() -> None:
        with suppress(UserError):
            made.append(keys.create(tmp_path / "keys").public)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loaded = keys.load(tmp_path / "keys")
    assert loaded and made == [loaded.public]


def test_a_folder_without_keys_has_none(tmp_path: Path) -> None:
    assert keys.load(tmp_path / "keys") is None


def test_a_pair_that_everybody_can_read_is_refused_with_the_remedy(own: Keys) -> None:
    path = own.folder / keys.PAIR
    path.chmod(0o644)
    with pytest.raises(UserError, match=f"everybody on this machine can read it: `chmod 600 {path}`"):
        keys.load(own.folder)


@pytest.mark.parametrize("text", ["", "public = 1", 'public = "ab"\nsecret = "zz"', "\0"])
def test_a_broken_pair_is_refused_in_one_sentence(own: Keys, text: str) -> None:
    (own.folder / keys.PAIR).write_text(text)
    with pytest.raises(UserError, match="gripwire keys new --replace"):
        keys.load(own.folder)


def test_two_halves_of_different_pairs_are_noticed(own: Keys) -> None:
    (own.folder / keys.PAIR).write_text(f'public = "{OTHER}"\nsecret = "{own.secret.hex()}"\n')
    with pytest.raises(UserError, match="do not belong together"):
        keys.load(own.folder)


def test_a_machine_may_what_it_was_allowed_and_the_own_one_everything(own: Keys) -> None:
    keys.allow(own, "laptop", OTHER, ("watch", "label"))
    assert own.roles(OTHER) == ("watch", "label") and own.name(OTHER) == "laptop"
    assert own.roles(own.public) == ROLES
    assert own.roles(THIRD) == ()


def test_a_known_machine_with_a_new_key_keeps_its_roles_unless_others_are_named(own: Keys) -> None:
    keys.allow(own, "laptop", OTHER)
    assert own.roles(OTHER) == ("watch",)
    keys.allow(own, "laptop", None, ("watch", "train"), host="192.168.1.20")
    machine = keys.allow(own, "laptop", THIRD, replace=True)
    assert own.roles(THIRD) == ("watch", "train") and own.roles(OTHER) == ()
    assert machine.host == "192.168.1.20"


def test_the_list_is_read_again_when_it_changes_and_a_broken_one_lets_nobody_in(own: Keys) -> None:
    keys.allow(own, "laptop", OTHER, ("watch",))
    assert own.roles(OTHER) == ("watch",)
    keys.allow(own, "laptop", None, ("watch", "drive"))
    assert own.roles(OTHER) == ("watch", "drive")
    before = own.allowed.path.read_text()
    own.allowed.path.write_text("[machines.laptop]\nkey = 7\n")
    assert own.roles(OTHER) == () and own.roles(own.public) == ROLES
    own.allowed.path.write_text(before)
    assert own.roles(OTHER) == ("watch", "drive")
    keys.revoke(own, "laptop")
    assert own.roles(OTHER) == ()
    own.allowed.path.unlink()
    assert own.roles(OTHER) == ()


@pytest.mark.parametrize(
    "text", ["machines = 1", "machines.a = 1", 'machines.a = {key = "1", roles = [["watch"]]}']
)
def test_a_list_of_any_wrong_shape_lets_nobody_in_and_ends_nothing(own: Keys, text: str) -> None:
    own.allowed.path.write_text(text)
    assert own.roles(OTHER) == ()
    with pytest.raises(UserError, match="mend it"):
        keys.read_allowed(own.allowed.path)


@pytest.mark.parametrize(
    ("name", "key", "host", "why"),
    [
        ("../x", OTHER, "", "a machine's name is"),
        ("a b", OTHER, "", "a machine's name is"),
        ('x"]', OTHER, "", "a machine's name is"),
        ("box", "abc", "", "a key is 64 hexadecimal digits"),
        ("box", None, "", "box: not known yet: give its key"),
        ("laptop", THIRD, "", "laptop has another key here"),
        ("box", OTHER, "", "known here as laptop"),
        ("box", THIRD, "a b\n", "the name or the address"),
    ],
)
def test_what_cannot_be_allowed_is_refused_and_changes_nothing(
    own: Keys, name: str, key: str | None, host: str, why: str
) -> None:
    keys.allow(own, "laptop", OTHER, ("watch",))
    before = own.allowed.path.read_bytes()
    with pytest.raises(UserError, match=why):
        keys.allow(own, name, key, ("watch",), host)
    assert own.allowed.path.read_bytes() == before


def test_the_own_key_cannot_be_given_roles(own: Keys) -> None:
    with pytest.raises(UserError, match="this machine's own key"):
        keys.allow(own, "me", own.public, ("watch",))


def test_services_on_another_machine_must_show_that_machines_key(own: Keys) -> None:
    keys.allow(own, "gpu-box", OTHER, ("watch",))
    keys.allow(own, "laptop", THIRD, ("watch",), host="192.168.1.20")
    assert own.server("gpu-box") == OTHER and own.server("192.168.1.20") == THIRD
    assert own.server("reward") == own.server("127.0.0.1") == own.public  # a container of this machine


def test_two_machines_are_made_known_to_each_other_by_the_line_that_show_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    _gripwire(here, capsys, "new")
    _, line, _ = _gripwire(there, capsys, "new")
    code, _, said = _gripwire(
        here, capsys, "allow", "gpu-box", line.strip(), "--role", "train", "--host", "10.0.0.7"
    )
    assert code == 0 and "gpu-box may watch, train" in said
    _, out, _ = _gripwire(here, capsys, "list", "--json")
    (row,) = json.loads(out)["machines"]
    assert row == {"name": "gpu-box", "key": line.strip(), "roles": ["watch", "train"], "host": "10.0.0.7"}
    _gripwire(here, capsys, "revoke", "gpu-box")
    _, out, _ = _gripwire(here, capsys, "list", "--json")
    assert json.loads(out)["machines"] == []


def test_new_may_be_asked_for_again_and_again_with_if_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, first, _ = _gripwire(tmp_path, capsys, "new", "--if-missing")
    code, again, _ = _gripwire(tmp_path, capsys, "new", "--if-missing", "--json")
    assert code == 0 and json.loads(again)["public"] == first.strip()
    code, _, said = _gripwire(tmp_path, capsys, "new")
    assert code == 1 and "has keys already" in said


def test_keys_are_made_where_a_public_address_is_set_that_only_they_allow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, _ = _gripwire(tmp_path, capsys, "new", GRIPWIRE_BIND="0.0.0.0")
    assert code == 0 and keys.load(tmp_path / "keys")


def test_without_keys_the_commands_say_how_to_make_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = _gripwire(tmp_path, capsys, "show")
    assert code == 1 and "no keys yet: `gripwire keys new` makes them" in said

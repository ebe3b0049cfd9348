"""Settings: flags beat the environment beats ``gripwire.toml`` beats defaults.

An error names the key and where it was set: file and line, variable, or flag.
"""

import os
import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gripwire import keys
from gripwire.errors import UserError
from gripwire.topics import LOOPBACK, MAX_CAMERAS, PORT_SPAN, SERVICES, Topics

FILE_NAME = "gripwire.toml"
KEYS = "keys"
"""The folder under the data root that has them."""
ENV_PREFIX = "GRIPWIRE_"
CONFIG_VARIABLE = "GRIPWIRE_CONFIG"
_ENV_RESERVED = {"CONFIG", "LOG", "SUPERVISED"}
_SLOT = re.compile(r"^[a-z][a-z0-9_]{0,30}$")
_SECTIONS = {"cameras", "hosts", *SERVICES}


class Section(BaseModel):
    """Base of every section: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Bus(Section):
    """The top of gripwire.toml: what all services share."""

    data: Path = Field(Path("data"), description="root of everything gripwire writes")
    port_base: int = Field(7600, ge=1024, le=65535 - PORT_SPAN, description="first port of this stack")
    bind: str = Field("127.0.0.1", description="address that services bind to")
    log: Literal["auto", "text", "json"] = Field("auto", description="auto: text on a terminal, else JSON")


@dataclass
class _Value:
    value: Any
    origin: str


@dataclass
class Settings:
    """All settings by section, each value with the place it came from."""

    values: dict[tuple[str, ...], _Value] = field(default_factory=dict)
    path: Path | None = None

    @cached_property
    def bus(self) -> Bus:
        return self.section("", Bus)

    @cached_property
    def data(self) -> Path:
        """The data root, absolute. A relative one is taken from the working directory."""
        return self.bus.data.expanduser().absolute()

    @cached_property
    def topics(self) -> Topics:
        return Topics(self.bus.port_base, self.cameras, self.bus.bind, self.hosts, self.keys)

    @cached_property
    def keys(self) -> keys.Keys | None:
        """This machine's keys; None where the data folder has none, and nothing is encrypted."""
        return keys.load(self.data / KEYS)

    @cached_property
    def plain_bind(self) -> str:
        """Where what knows no keys binds: `bind` if that is loopback, else loopback all the same."""
        bind = self.bus.bind
        try:
            return bind if bind == "localhost" or ip_address(bind).is_loopback else LOOPBACK
        except ValueError:
            return LOOPBACK

    @cached_property
    def hosts(self) -> dict[str, str]:
        """Where services are found, by name; ``camera`` for all cameras, ``default`` for all not named."""
        known, found = {"camera", "default", *SERVICES}, dict[str, str]()
        for key, value in self.values.items():
            if key[0] != "hosts":
                continue
            name = ".".join(key[1:])
            if name not in known:
                raise UserError(
                    f"{value.origin}: unknown key `hosts.{name}`; known: {', '.join(sorted(known))}"
                )
            if not isinstance(value.value, str) or not keys.HOST.fullmatch(value.value):
                raise UserError(
                    f"{value.origin}: `hosts.{name}` = {value.value!r}: give the name or the address at "
                    "which that machine is reached"
                )
            found[name] = value.value
        return found

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """The camera slots, in order of the settings; ``gripper_cam`` when none is given."""
        names = tuple(dict.fromkeys(key[1] for key in self.values if key[0] == "cameras" and len(key) > 1))
        for name in names:
            where = self._origin("cameras", name)
            if not _SLOT.match(name):
                raise UserError(f"{where}: camera name `{name}`: use lower-case letters, digits and _")
            alone = self.values.get(("cameras", name))
            if alone is not None and alone.value != {}:
                raise UserError(
                    f"{where}: `cameras.{name}` is a section: write [cameras.{name}] and its keys"
                )
        if len(names) > MAX_CAMERAS:
            raise UserError(f"{self.path}: {len(names)} cameras, {MAX_CAMERAS} at most")
        return names or ("gripper_cam",)

    def section[S: Section](self, name: str, model: type[S]) -> S:
        """The section ``name`` (``robot``, ``cameras.gripper_cam``; empty: the top) as its model.

        Raises:
            UserError: a key that the model does not have, or a value it does not accept.
        """
        prefix = tuple(name.split(".")) if name else ()
        raw: dict[str, Any] = {}
        for key, value in self.values.items():
            if key[: len(prefix)] != prefix or len(key) == len(prefix):
                continue
            rest = key[len(prefix) :]
            if prefix == () and len(rest) > 1:
                continue  # belongs to a section
            node = raw
            for part in rest[:-1]:
                if not isinstance(node.get(part), dict):  # a variable below a key that is no table wins
                    node[part] = {}
                node = node[part]
            node[rest[-1]] = value.value
        try:
            return model.model_validate(raw)
        except ValidationError as e:
            first = e.errors()[0]
            loc = tuple(str(part) for part in first["loc"])
            raise UserError(self._explain(prefix, loc, first["type"], first["msg"], model)) from e

    def _explain(
        self, prefix: tuple[str, ...], loc: tuple[str, ...], kind: str, text: str, model: type[Section]
    ) -> str:
        where, key = self._origin(*prefix, *loc), ".".join((*prefix, *loc))
        if kind == "extra_forbidden":
            return f"{where}: unknown key `{key}`; known: {', '.join(sorted(model.model_fields))}"
        return f"{where}: `{key}`: {text[0].lower() + text[1:]}"

    def _origin(self, *key: str) -> str:
        for length in range(len(key), 0, -1):
            for known, value in self.values.items():
                if known[:length] == key[:length]:
                    return value.origin
        return str(self.path or FILE_NAME)

    def changed(self, values: dict[str, Any], without: Collection[str] = ()) -> "Settings":
        """The same with other values, by dotted key, and ``without`` some sections."""
        kept = {key: value for key, value in self.values.items() if key[0] not in without}
        new = {tuple(key.split(".")): _Value(v, f"--{key.replace('_', '-')}") for key, v in values.items()}
        return Settings(kept | new, self.path)

    def environment(self) -> dict[str, str]:
        """The bus settings as variables, so that a child process sees what this one sees."""
        env = {"GRIPWIRE_DATA": str(self.data), "GRIPWIRE_PORT_BASE": str(self.bus.port_base)}
        env["GRIPWIRE_BIND"] = self.bus.bind
        env |= {f"GRIPWIRE_HOSTS__{service.upper()}": host for service, host in self.hosts.items()}
        env[CONFIG_VARIABLE] = str(self.path) if self.path else ""
        return env


def load(
    config: Path | None = None, flags: dict[str, Any] | None = None, env: dict[str, str] | None = None
) -> Settings:
    """Read ``gripwire.toml`` (``config``, else $GRIPWIRE_CONFIG, else the working directory's, if any),
    then ``GRIPWIRE_*`` (``GRIPWIRE_ROBOT__PORT`` is ``[robot] port``), then ``flags`` by dotted key.

    Raises:
        UserError: the file is missing or not TOML, or names a section that does not exist.
    """
    env = dict(os.environ) if env is None else env
    settings = Settings()
    settings.path = _find(config, env)
    if settings.path:
        _read_file(settings)
    _read_environment(settings, env)
    for key, value in (flags or {}).items():
        if value is not None:
            path = tuple(key.split("."))
            settings.values[path] = _Value(value, f"--{path[-1].replace('_', '-')}")
    _ = settings.bus, settings.cameras, settings.hosts  # complain early
    _refuse_public(settings)
    return settings


def _refuse_public(settings: Settings) -> None:
    """Without keys nothing is encrypted or authenticated, and a `Goal` moves an arm."""
    if settings.plain_bind != settings.bus.bind and settings.keys is None:
        raise UserError(
            f"{settings._origin('bind')}: `bind` = {settings.bus.bind}: whoever reaches the ports could move "
            f"the arm, and {settings.data / KEYS} has no keys to tell who that is: `gripwire keys new` makes "
            "them; without keys only loopback is served"
        )


def _find(config: Path | None, env: dict[str, str]) -> Path | None:
    variable = env.get(CONFIG_VARIABLE)
    named = config or (Path(variable) if variable else None)
    if named is None:  # the variable set to nothing says: no file at all
        return Path(FILE_NAME) if Path(FILE_NAME).exists() and variable is None else None
    if not named.exists():
        raise UserError(f"{named}: no such settings file; leave --config away to use defaults")
    return named


def _read_file(settings: Settings) -> None:
    path = settings.path
    assert path is not None
    try:
        text = path.read_text()
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not valid TOML: {e}") from e
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {e.strerror}") from e
    lines = _lines(text)
    for key, value in _flatten(tree):
        origin = f"{path}:{lines.get(key, lines.get(key[:-1], 1))}"
        if (len(key) > 1 or value == {}) and key[0] not in _SECTIONS:
            origin = f"{path}:{lines.get(key[:1], lines.get(key, 1))}"
            raise UserError(f"{origin}: unknown section [{key[0]}]; known: {', '.join(sorted(_SECTIONS))}")
        if len(key) > 1 or value != {}:
            settings.values[key] = _Value(value, origin)


def _flatten(tree: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    out: list[tuple[tuple[str, ...], Any]] = []
    for key, value in tree.items():
        at = (*prefix, key)
        # An empty table is kept: `[cameras.wrist]` alone is a slot, `[robt]` alone a mistake.
        out += _flatten(value, at) if value and isinstance(value, dict) else [(at, value)]
    return out


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Where each key of a TOML text stands. Tables and dotted keys; inline tables get their key's line."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([^\[\]]+)\]", line):
            table = _parts(header[1])
            lines.setdefault(table, number)
        elif key := re.match(r"\s*([A-Za-z0-9_.\"'-]+)\s*=", line):
            lines.setdefault((*table, *_parts(key[1])), number)
    return lines


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _read_environment(settings: Settings, env: dict[str, str]) -> None:
    for variable, text in sorted(env.items()):
        if not variable.startswith(ENV_PREFIX):
            continue
        name = variable.removeprefix(ENV_PREFIX)
        if name in _ENV_RESERVED:
            if name == "LOG":
                settings.values[("log",)] = _Value(text, f"${variable}")
            continue
        key = tuple(part.lower() for part in name.split("__"))
        if len(key) > 1 and key[0] not in _SECTIONS:
            raise UserError(f"${variable}: unknown section [{key[0]}]")
        settings.values[key] = _Value(_parse(text), f"${variable}")


def _parse(text: str) -> Any:
    """A variable's text as TOML would read it; what TOML does not understand is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text

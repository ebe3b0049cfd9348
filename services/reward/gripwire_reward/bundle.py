"""The model bundle: a folder named by its content hash, written aside, never changed afterwards."""

import errno
import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gripwire.errors import UserError, no_space
from gripwire.files import fsync_dir, fsync_tree
from gripwire_reward.calibration import Calibration
from gripwire_reward.decision import DecisionRule
from gripwire_reward.preprocess import InputContract

MANIFEST = "bundle.json"
STAGED = ".new-"
"""How the names of folders begin that are not bundles yet."""
FORGOTTEN_S = 86400.0
"""So old, such a folder is what a process left that was killed: no staging takes so long."""
REQUIRED = ("model.onnx", "golden.npz")
ID_LENGTH = 20
MAX_MANIFEST, MAX_FILE = 8 * 2**20, 2 * 2**30
"""Bytes; a folder that claims more than a classifier can need is refused before it is read."""
_SUFFIXES = (".onnx", ".safetensors", ".npz", ".json", ".html", ".png")
"""Nothing that is unpickled or run can be part of a bundle."""
_ID = re.compile(rf"[0-9a-f]{{{ID_LENGTH}}}")


class FileEntry(BaseModel):
    """What a file of the bundle must be, byte for byte."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Metric(BaseModel):
    """A figure with its 95 % interval, where one can be given, and what it was taken over."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float | None = None
    high: float | None = None
    episodes: int | None = Field(None, description="number of held-out episodes behind the figure")


class TrainedOn(BaseModel):
    """Where the model comes from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    datasets: dict[str, str] = Field(default_factory=dict, description="dataset name -> hash of its videos")
    labels: dict[str, str] = Field(default_factory=dict, description="label file name -> sha256")
    code: str = Field("", description="sha256 over the trainer's and the reward package's sources")
    split: dict[str, list[str]] = Field(default_factory=dict, description="part -> `dataset/episode`")
    held_out: dict[str, int] = Field(
        default_factory=dict,
        description="hash of an episode's pictures -> the head it was held out from",
    )
    frames: int = 0
    seed: int = 0
    settings: dict[str, Any] = Field(default_factory=dict)


class Manifest(BaseModel):
    """bundle.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    kind: Literal["gripwire-reward-bundle"] = "gripwire-reward-bundle"
    created: str = Field("", description="UTC, ISO 8601")
    name: str = Field("", description="what a person calls it")
    inputs: list[InputContract] = Field(min_length=1)
    backbone: str = ""
    calibration: Calibration = Calibration()
    decision: DecisionRule = DecisionRule()
    drift_limit: float | None = Field(
        None, gt=0, description="a frame whose drift lies above is not valid; none: never"
    )
    golden_tolerance: float = Field(0.01, gt=0, description="largest allowed difference of a golden logit")
    trained_on: TrainedOn = TrainedOn()
    metrics: dict[str, Metric] = Field(default_factory=dict)
    note: str = Field("", description="what the metrics were taken on, and what they do not say")
    licence: str = ""
    files: dict[str, FileEntry] = Field(default_factory=dict, description="every other file of the folder")


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every byte has been verified."""

    id: str
    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        return self.path / name


def is_id(text: str) -> bool:
    """Whether it is a bundle's whole id."""
    return _ID.fullmatch(text) is not None


def identity(manifest_bytes: bytes) -> str:
    """A bundle's id: the start of the SHA-256 of bundle.json, which holds the hash of every other file."""
    return hashlib.sha256(manifest_bytes).hexdigest()[:ID_LENGTH]


@contextmanager
def staging(bundles: Path) -> Iterator[Path]:
    """A temporary folder under ``bundles`` to put a bundle's files into; hand it to :func:`seal`.

    Raises:
        UserError: the disk is full, or the folder cannot be written; nothing half-written is left behind.
    """
    aside: Path | None = None
    try:
        bundles.mkdir(parents=True, exist_ok=True)
        _sweep(bundles)
        aside = Path(tempfile.mkdtemp(dir=bundles, prefix=STAGED))
        yield aside
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(bundles) from e
        raise UserError(
            f"a bundle cannot be written under {bundles} ({e.strerror or e}); nothing half-written was left "
            "behind: check that folder and the process's limits"
        ) from e
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _sweep(bundles: Path) -> None:
    """Remove what processes that were killed a day ago or earlier had begun to stage."""
    for left in bundles.glob(f"{STAGED}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > FORGOTTEN_S:
                shutil.rmtree(left, ignore_errors=True)


def seal(aside: Path, manifest: Manifest) -> Bundle:
    """Give the staged folder its manifest, with hash and size of every file in it, and its name.

    A bundle of the same id is the same bundle: then the new copy is dropped.
    """
    entries = {path.name: _entry(path) for path in sorted(aside.iterdir())}
    sealed = manifest.model_copy(update={"files": entries})
    data = (sealed.model_dump_json(indent=1) + "\n").encode()
    bundle_id = identity(data)
    (aside / MANIFEST).write_bytes(data)
    return Bundle(bundle_id, publish(aside, bundle_id), sealed)


def publish(aside: Path, bundle_id: str) -> Path:
    """Flush the finished staging folder and give it its name in one step; the bundle's folder."""
    target = aside.parent / bundle_id
    if not target.exists():
        aside.chmod(0o755)  # mkdtemp makes it private; another user may run the reward service
        fsync_tree(aside)
        try:
            aside.rename(target)
        except OSError:
            if not target.exists():  # else: another process put the same bundle there first
                raise
        fsync_dir(target.parent)
    return target


def install(bundle: Bundle, bundles: Path) -> Path:
    """Copy a verified bundle that lies elsewhere to ``bundles``; its folder there.

    Raises:
        UserError: the disk is full; nothing half-written is left behind.
    """
    if not (bundles / bundle.id).exists():
        with staging(bundles) as aside:
            # File by file: copytree gathers its errors into one that no longer says that the disk is full.
            for name in (MANIFEST, *bundle.manifest.files):
                shutil.copyfile(bundle.file(name), aside / name)
            publish(aside, bundle.id)
    return bundles / bundle.id


def _entry(path: Path) -> FileEntry:
    return FileEntry(sha256=_sha256(path), size=path.stat().st_size)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find(bundle: str, bundles: Path, allow_path: bool = False) -> Path:
    """The folder of the bundle with this id under ``bundles``; with ``allow_path`` also any folder.

    An id may be shortened to a unique start of at least 6 characters. Paths never come over the wire, so a
    service leaves ``allow_path`` off: nothing but hexadecimal digits reaches the file system.

    Raises:
        UserError: nobody has it, or several fit.
    """
    if allow_path and (Path(bundle) / MANIFEST).is_file():
        return Path(bundle)
    if re.fullmatch(r"[0-9a-f]{6,}", bundle):
        fits = [path for path in bundles.glob(f"{bundle}*") if is_id(path.name) and not path.is_symlink()]
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise UserError(f"{bundle}: {len(fits)} bundles under {bundles} start so; give more of the id")
    what = "no folder with a bundle.json, and no bundle" if allow_path else "no bundle"
    raise UserError(
        f"{bundle[:80]!r}: {what} of that id under {bundles}; `gripwire trainer train` prints the id it "
        "writes"
    )


def load(path: Path) -> Bundle:
    """Read a bundle and verify every byte of it.

    Raises:
        UserError: something is missing, added or changed; the text names the file.
    """
    data, bundle_id = _read_manifest(path)
    manifest = parse(data, str(path / MANIFEST))
    for name in REQUIRED:
        if name not in manifest.files:
            raise UserError(f"{path / MANIFEST}: it does not list {name}; {_REMEDY}")
    present = {entry.name for entry in path.iterdir()} - {MANIFEST}
    if surplus := sorted(present - set(manifest.files)):
        raise UserError(f"{path / surplus[0]}: not part of this bundle; remove it, or {_REMEDY}")
    for name, entry in manifest.files.items():
        _verify(path, name, entry)
    return Bundle(bundle_id, path, manifest)


def parse(data: bytes, what: str) -> Manifest:
    """A bundle.json. ``what``: what it is, for a person.

    Raises:
        UserError: it is none.
    """
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the text"
        raise UserError(f"{what}: {where}: {first['msg']}; {_REMEDY}") from e


_REMEDY = "train again or copy the bundle again from where it was made"


def _read_manifest(path: Path) -> tuple[bytes, str]:
    file = path / MANIFEST
    if not file.is_file():
        raise UserError(
            f"{path}: not a bundle: it has no {MANIFEST}; name a folder that `gripwire trainer train` wrote"
        )
    if file.stat().st_size > MAX_MANIFEST:
        raise UserError(
            f"{file}: {file.stat().st_size} bytes is too large for a bundle's description; {_REMEDY}"
        )
    data = file.read_bytes()
    bundle_id = identity(data)
    if path.name != bundle_id:
        raise UserError(
            f"{file}: changed since it was written (the folder is named {path.name}, its content says "
            f"{bundle_id}); {_REMEDY}"
        )
    return data, bundle_id


def _verify(path: Path, name: str, entry: FileEntry) -> None:
    file = path / name
    if Path(name).name != name or file.is_symlink():
        raise UserError(f"{path / MANIFEST}: `{name[:80]}` is not a plain file of the folder; {_REMEDY}")
    if file.suffix not in _SUFFIXES:
        raise UserError(
            f"{file}: weights come as ONNX or safetensors, and a bundle has files of no other kind than "
            f"{', '.join(_SUFFIXES)}; {_REMEDY}"
        )
    if not file.is_file():
        raise UserError(f"{file}: missing; {_REMEDY}")
    size = file.stat().st_size
    if size != entry.size or size > MAX_FILE:
        raise UserError(f"{file}: {size} bytes, {entry.size} were written; {_REMEDY}")
    if _sha256(file) != entry.sha256:
        raise UserError(f"{file}: changed since it was written (its hash differs); {_REMEDY}")

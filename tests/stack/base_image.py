"""The image that the Dockerfile starts from: Docker's own, or where no registry can be reached one made here
of Debian's packages and the Python that runs the tests."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

OFFICIAL = "python:3.12-slim-bookworm"
OURS = "gripwire-test-base:3.12"
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
# What CPython's own extension modules are linked with.
_LIBRARIES = (
    "ca-certificates", "libssl3", "libffi8", "libsqlite3-0", "libbz2-1.0", "liblzma5", "libreadline8",
    "libncursesw6", "libexpat1", "zlib1g", "libuuid1", "netbase",
)  # fmt: skip


def base_image(environment: dict[str, str], folder: Path) -> str:
    """The name of an image that is there. Skips, and says why, where none can be had."""
    for name in (OFFICIAL, OURS):
        if _docker(environment, "image", "inspect", name).returncode == 0:
            return name
    if _docker(environment, "pull", "--quiet", OFFICIAL).returncode == 0:
        return OFFICIAL
    if shutil.which("debootstrap") is None:
        pytest.skip(f"{OFFICIAL} cannot be pulled, and there is no debootstrap to make a base image with")
    if sys.version_info[:2] != (3, 12):
        pytest.skip(f"{OFFICIAL} cannot be pulled, and the tests do not run on a Python 3.12 to make one of")
    root = folder / "base"
    try:
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={','.join(_LIBRARIES)}", "bookworm", str(root)],
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        if made.returncode != 0:
            pytest.skip(f"no base image: nothing to pull from, and debootstrap: {made.stdout[-300:]}")
        _add_python(root)
        _import(environment, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return OURS


def _add_python(root: Path) -> None:
    """This Python, moved to /usr/local: it finds its library beside itself."""
    here, there = Path(sys.base_prefix), root / "usr/local"
    (there / "bin").mkdir(parents=True, exist_ok=True)
    shutil.copy2(Path(sys._base_executable).resolve(), there / "bin/python3.12")  # type: ignore[attr-defined]
    for name in ("python3", "python"):
        (there / "bin" / name).symlink_to("python3.12")
    for library in (here / "lib").glob("libpython3.12.so*"):
        shutil.copy2(library, there / "lib", follow_symlinks=False)
    skipped = shutil.ignore_patterns("test", "idlelib", "tkinter", "config-*", "site-packages", "__pycache__")
    shutil.copytree(here / "lib/python3.12", there / "lib/python3.12", symlinks=True, ignore=skipped)
    (there / "lib/python3.12/site-packages").mkdir(exist_ok=True)
    # Whom this machine trusts, the image trusts: it may reach the package index through a proxy of its own.
    shutil.copy2(Path("/") / _CERTIFICATES, root / _CERTIFICATES)
    for command in (["ldconfig"], ["python3", "-m", "ensurepip"]):
        subprocess.run(["chroot", str(root), *command], check=True, capture_output=True)
    for rubbish in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / rubbish, ignore_errors=True)


def _import(environment: dict[str, str], root: Path) -> None:
    trusted = f"PIP_CERT=/{_CERTIFICATES} SSL_CERT_FILE=/{_CERTIFICATES}"
    with subprocess.Popen(
        ["tar", "-C", str(root), "--exclude=./proc/*", "--exclude=./sys/*", "--exclude=./dev/*", "-c", "."],
        stdout=subprocess.PIPE,
    ) as tar:
        subprocess.run(
            ["docker", "import", "--change",
             f"ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin {trusted}", "-", OURS],
            env=environment, stdin=tar.stdout, check=True, capture_output=True,
        )  # fmt: skip


def _docker(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["docker", *arguments], env=environment, capture_output=True, timeout=900)

"""The project's own source: nothing that turns data into code, and no shell."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("proto", "services", "plugins", "benchmarks", "scripts")
    for path in (ROOT / folder).rglob("*.py")
    if not {".venv", "build", "node_modules"} & set(path.relative_to(ROOT).parts)
)
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "commands", "pty"}
# The bench is a serial port to the robot service: a pseudo-terminal, and no shell behind it.
ALLOWED_MODULES = {("pty", "services/sim")}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load",
         "subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell"}  # fmt: skip


def findings(source: str, where: str = "") -> Iterator[str]:
    """What in a Python source runs data as code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            plain = isinstance(node, ast.Import)
            imported = [alias.name for alias in node.names] if plain else [node.module or ""]
            for name in imported:
                top = name.split(".")[0]
                if top in MODULES and not any(top == m and where.startswith(w) for m, w in ALLOWED_MODULES):
                    yield f"import {name}"
        elif isinstance(node, ast.Call):
            name, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name in CALLS or name.split(".")[-1] in ("getoutput", "read_pickle", "unsafe_load"):
                yield f"{name}()"
            if given.get("shell", "False") != "False":
                yield f"{name}(shell={given['shell']})"
            if name.endswith("torch.load") and given.get("weights_only") != "True":
                yield "torch.load without weights_only=True"
            for flag in {"allow_pickle", "trust_remote_code"} & given.keys():
                if given[flag] != "False":
                    yield f"{name}({flag}={given[flag]})"


def test_there_is_something_to_look_through() -> None:
    assert len(SOURCES) > 100


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import joblib as j", "eval('1')", "exec(x)",
        "os.system('ls')",
        "subprocess.run(x, shell=True)", "run(x, shell=flag)", "yaml.load(x)", "torch.load(f)",
        "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)", "__import__(name)",
        "AutoModel.from_pretrained(n, trust_remote_code=True)", "pd.read_pickle(f)",
    ],
)  # fmt: skip
def test_the_search_finds(source: str) -> None:
    assert list(findings(source))


def test_no_source_runs_data_as_code() -> None:
    found = {str(path): list(findings(path.read_text(), str(path.relative_to(ROOT)))) for path in SOURCES}
    assert {path: what for path, what in found.items() if what} == {}

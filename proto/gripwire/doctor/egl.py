"""EGL, by which the bench's camera draws without a display. Broken drivers crash: another process tries."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec

from gripwire.doctor.finding import Finding, Here
from gripwire.doctor.gpu import run

_DRAW = """
import os
os.environ["MUJOCO_GL"] = "egl"
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 48, 64)
renderer.update_scene(data)
picture = renderer.render()
from OpenGL import GL
print(GL.glGetString(GL.GL_RENDERER).decode(), picture.std() > 0, sep="|")
"""


def check(here: Here) -> Iterator[Finding]:
    """Only where the bench is installed: nothing else draws."""
    if find_spec("gripwire_sim") is None or find_spec("mujoco") is None:
        return
    yield judge(*run([sys.executable, "-c", _DRAW], 60), sys.platform)


def judge(code: int, out: str, system: str) -> Finding:
    """What came of drawing a ball. Pure."""
    said = out.strip().splitlines()[-1] if out.strip() else f"it ended with {code}"
    if code == 0 and said.endswith("|True"):
        return Finding("egl", "ok", f"the bench's camera draws by EGL ({said.partition('|')[0]})")
    if system != "linux":
        return Finding(
            "egl", "ok", "no EGL here, which only Linux has; the bench draws by the system's own OpenGL"
        )
    how = f"crashed with signal {-code}" if code < -1 else f"does not draw: {said[:160]}"
    return Finding(
        "egl", "warn", f"EGL {how}; the bench's camera paints simpler pictures of its own",
        "`sudo apt install libegl1 libgl1-mesa-dri libopengl0` (no GPU needed)",
    )  # fmt: skip

"""How the recordings under a desk lamp look: so101-nexus's pick scene as they show it, and shifts of that.

Camera, lamp and colours were fitted to the recorded frames with the arm posed as their joint states say.
The project's own bench (`gripwire_sim.picture`) draws without shadows, so that it keeps 30 pictures a second;
here a hard shadow is half of what the classifier sees, so this file sets the renderer up anew.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gripwire_sim.scene import CAMERA, CUBE_HALF, SEEN_BODIES

HEIGHT, WIDTH = 480, 640
FOV_DEG, PITCH_DEG = 57.36, -32.66
CAMERA_AT = (0.0, 0.055, -0.045)
_SHADOW_MAP = 1024

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """One episode's bench. Metres, degrees, light and colours 0..1; ``noise`` in grey levels of 255."""

    lamp_at: Triple
    lamp_aim: Triple
    lamp_rgb: Triple
    lamp_gloss: float
    fill_rgb: Triple
    ambient: float
    table_rgb: Triple
    cube_rgb: Triple
    gain: Triple
    """What the camera's exposure and white balance make of each channel."""
    noise: float
    cube_half: float = CUBE_HALF
    camera_shift: Triple = (0.0, 0.0, 0.0)
    camera_turn: Triple = (0.0, 0.0, 0.0)
    """Off the mount's pose: metres in the gripper's frame, degrees about the camera's own x, y, z."""


def _near(rng: np.random.Generator, values: Triple, spread: Triple | float) -> Triple:
    x, y, z = (np.array(values) + rng.normal(0, 1, 3) * np.array(spread)).tolist()
    return x, y, z


def _around(rng: np.random.Generator, values: Triple, low: Triple | float, high: Triple | float) -> Triple:
    x, y, z = (np.array(values) + rng.uniform(low, high, 3)).tolist()
    return x, y, z


def nominal(rng: np.random.Generator) -> Look:
    """As the recordings: the clamped lamp moves by a centimetre or two between episodes."""
    tint = np.array([rng.normal(1.04, 0.036), 1.0, rng.normal(1.0, 0.033)])
    return Look(
        lamp_at=_near(rng, (0.059, -0.342, 0.594), (0.009, 0.009, 0.010)),
        lamp_aim=(0.227, 0.017, 0.0),
        lamp_rgb=_triple(0.36 * np.array([1.077, 1.026, 1.0]) * tint),
        lamp_gloss=0.347,
        fill_rgb=(0.424, 0.394, 0.379),
        ambient=0.214,
        table_rgb=_near(rng, (0.613, 0.537, 0.387), (0.016, 0.016, 0.009)),
        cube_rgb=(0.642, 0.075, 0.067),
        gain=_near(rng, (0.966, 0.918, 0.881), (0.022, 0.023, 0.028)),
        noise=float(rng.uniform(2.1, 2.7)),
    )


def daylight(rng: np.random.Generator) -> Look:
    """Bright and cool, from a window on the other side; more of it comes from everywhere."""
    look = nominal(rng)
    return replace(
        look,
        lamp_at=_near(rng, (0.30, 0.75, 0.75), (0.08, 0.06, 0.05)),
        lamp_aim=(0.25, 0.0, 0.0),
        lamp_rgb=_triple(rng.normal(0.58, 0.03) * np.array([0.94, 1.0, 1.10])),
        fill_rgb=(0.46, 0.46, 0.48),
        ambient=0.30,
        gain=_near(rng, (0.93, 0.87, 0.99), 0.02),
        noise=2.0,
    )


def dim(rng: np.random.Generator) -> Look:
    """The lamp turned down and warmer, the camera's gain turned up: twice and more of the noise."""
    look = nominal(rng)
    return replace(
        look,
        lamp_rgb=_triple(np.array(look.lamp_rgb) * rng.uniform(0.50, 0.65) * np.array([1.15, 0.95, 0.65])),
        lamp_gloss=0.2,
        fill_rgb=_triple(np.array(look.fill_rgb) * rng.uniform(0.45, 0.6)),
        ambient=look.ambient * rng.uniform(0.5, 0.65),
        gain=_near(rng, (1.02, 0.90, 0.78), 0.03),
        noise=float(rng.uniform(6.0, 8.0)),
    )


def bump(rng: np.random.Generator) -> Look:
    """Someone knocked the camera: 2 to 5 mm and 2 to 5 degrees in a direction of its own for each episode."""
    shift = rng.normal(0, 1, 3)
    turn = rng.normal(0, 1, 3)
    return replace(
        nominal(rng),
        camera_shift=_triple(shift / np.linalg.norm(shift) * rng.uniform(0.002, 0.005)),
        camera_turn=_triple(turn / np.linalg.norm(turn) * rng.uniform(2.0, 5.0)),
    )


_CUBES: tuple[Triple, ...] = ((0.10, 0.30, 0.68), (0.10, 0.50, 0.16), (0.72, 0.40, 0.06), (0.66, 0.60, 0.56))


def cube(rng: np.random.Generator) -> Look:
    """Another cube: blue, green, orange or white, its edge 21 to 30 mm instead of 25."""
    colour = _CUBES[int(rng.integers(len(_CUBES)))]
    return replace(
        nominal(rng),
        cube_rgb=_around(rng, colour, -0.04, 0.04),
        cube_half=float(rng.choice([0.0105, 0.0115, 0.0140, 0.0150])),
    )


_TABLES: tuple[Triple, ...] = ((0.62, 0.62, 0.60), (0.30, 0.31, 0.33), (0.30, 0.46, 0.42), (0.46, 0.30, 0.20))


def table(rng: np.random.Generator) -> Look:
    """Another table top: light grey, dark grey, a green mat or dark wood."""
    colour = _TABLES[int(rng.integers(len(_TABLES)))]
    return replace(nominal(rng), table_rgb=_around(rng, colour, -0.03, 0.03))


CONDITIONS = {f.__name__: f for f in (nominal, daylight, dim, bump, cube, table)}


def _triple(values: NDArray[np.float64]) -> Triple:
    x, y, z = values.tolist()
    return x, y, z


class Studio:
    """Draws and develops pictures of poses under a look. Needs OpenGL (``MUJOCO_GL=egl``), one thread."""

    def __init__(self, look: Look, rng: np.random.Generator) -> None:
        import mujoco

        self._mujoco: Any = mujoco
        self._rng = rng
        self.model = _model()
        self._data = mujoco.MjData(self.model)
        self._renderer = mujoco.Renderer(self.model, HEIGHT, WIDTH)
        self.light(look)

    def light(self, look: Look) -> None:
        """Change to another look."""
        model, self._look, gain = self.model, look, np.array(look.gain)
        aim = np.array(look.lamp_aim) - look.lamp_at
        model.light_pos[0], model.light_dir[0] = look.lamp_at, aim / np.linalg.norm(aim)
        # The gain goes into the light, not onto the picture, so that what is too bright clips as in a camera.
        model.vis.headlight.ambient[:] = gain * look.ambient
        model.light_diffuse[0] = gain * look.lamp_rgb
        model.light_specular[0] = gain * look.lamp_gloss * look.lamp_rgb / look.lamp_rgb[1]
        model.light_diffuse[1] = gain * look.fill_rgb
        model.light_specular[1] = gain * 0.83 * look.fill_rgb[1]
        model.geom("floor").rgba[:3] = np.clip(look.table_rgb, 0, 1)
        model.geom("cube_geom").rgba[:3] = np.clip(look.cube_rgb, 0, 1)
        model.geom("cube_geom").size[:] = look.cube_half
        camera = model.camera(CAMERA)
        camera.pos[:] = np.array(CAMERA_AT) + look.camera_shift
        mount, turn = np.zeros(4), np.zeros(4)
        self._mujoco.mju_euler2Quat(mount, np.radians([PITCH_DEG, 0, 0]), "XYZ")
        self._mujoco.mju_euler2Quat(turn, np.radians(look.camera_turn), "XYZ")
        self._mujoco.mju_mulQuat(camera.quat, mount, turn)

    def draw(self, qpos: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The perfect picture of a pose: (480, 640, 3) RGB, valid until the next call."""
        self._data.qpos[:] = qpos
        self._mujoco.mj_forward(self.model, self._data)
        self._renderer.update_scene(self._data, camera=CAMERA)
        return self._renderer.render()

    def photograph(self, qpos: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The same with the sensor's noise."""
        noise = self._rng.normal(0, self._look.noise, (HEIGHT, WIDTH, 3)).astype(np.float32)
        return np.clip(self.draw(qpos) + noise, 0, 255).round().astype(np.uint8)

    def close(self) -> None:
        self._renderer.close()


def _model() -> Any:
    """so101-nexus's pick scene with its full meshes; of the arm only what the recordings draw."""
    import mujoco
    from so101_nexus import get_so101_mujoco_model_path
    from so101_nexus.object_slots import build_object_scene_xml
    from so101_nexus.objects import CubeObject
    from so101_nexus.scene import MUJOCO_SCENE_OPTION_XML, robot_material_ids

    path = Path(get_so101_mujoco_model_path())
    xml = build_object_scene_xml(
        [CubeObject(half_size=CUBE_HALF)],
        ["cube"],
        [0.5, 0.5, 0.5, 1.0],
        option_xml=MUJOCO_SCENE_OPTION_XML,
        robot_xml_path="robot.xml",
        model_name="bench",
    )
    assets = {f"assets/{mesh.name}": mesh.read_bytes() for mesh in (path.parent / "assets").glob("*.stl")}
    model = mujoco.MjModel.from_xml_string(xml, {"robot.xml": path.read_bytes(), **assets})
    model.mat_rgba[robot_material_ids(model)] = [1.01, 1.107, 0, 1]
    for geom in range(model.ngeom):
        if model.geom_group[geom] == 2 and model.body(model.geom_bodyid[geom]).name not in SEEN_BODIES:
            model.geom_group[geom] = 4  # drawn by nobody
    model.camera(CAMERA).fovy[:] = FOV_DEG
    model.vis.quality.offsamples, model.vis.quality.shadowsize = 0, _SHADOW_MAP
    model.vis.global_.offwidth, model.vis.global_.offheight = WIDTH, HEIGHT
    return model

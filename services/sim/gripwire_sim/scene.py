"""The MuJoCo model of the bench, and how a seed changes it.

so101-nexus describes the arm, its wrist camera, the table and the cube; this file compiles that description
with lighter meshes and draws what differs between two mornings at a real bench: where the cube lies, and how
the desk lamp, the table top and the cube look.
"""

import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import mujoco

CUBE_HALF = 0.0125
"""Half the cube's edge, metres."""
CAMERA = "wrist_cam"
SEEN_BODIES = {"gripper", "moving_jaw_so101_v1", "camera_mount"}
"""The parts of the arm that its own camera can see; drawing the rest took two thirds of the time."""
_GRID = 0.0010
"""How coarsely those are drawn, metres."""


@dataclass(frozen=True)
class Scene:
    """What a seed stands for. Lengths in metres, angles in radians, colours and light 0..1."""

    seed: int
    cube: tuple[float, float, float]
    cube_yaw: float
    cube_rgb: tuple[float, float, float]
    table_rgb: tuple[float, float, float]
    lamp_position: tuple[float, float, float]
    lamp_rgb: tuple[float, float, float]
    ambient: float

    @classmethod
    def draw(cls, seed: int) -> "Scene":
        """The scene of this seed, the same on every machine.

        The cube lies within 2.5 cm of (0.25, 0) along x and 4 cm along y, turned by up to 20 degrees. The
        lamp spreads modestly, since users clamp it so that the light stays put.
        """
        rng = np.random.default_rng([0x6772, seed])
        x, y = 0.25 + rng.uniform(-0.025, 0.025), rng.uniform(-0.04, 0.04)
        warmth, power = rng.uniform(-0.05, 0.05), rng.uniform(0.55, 0.75)
        wood = np.array([0.52, 0.47, 0.41]) * rng.uniform(0.8, 1.15) + rng.uniform(-0.03, 0.03, 3)
        cube = np.array([0.80, 0.10, 0.08]) + rng.uniform(-0.08, 0.08, 3)
        lamp = np.array([0.45, 0.35, 0.65]) + rng.uniform(-0.06, 0.06, 3)
        return cls(
            seed=seed,
            cube=(float(x), float(y), CUBE_HALF),
            cube_yaw=float(rng.uniform(-0.35, 0.35)),
            cube_rgb=_triple(np.clip(cube, 0, 1)),
            table_rgb=_triple(np.clip(wood, 0, 1)),
            lamp_position=_triple(lamp),
            lamp_rgb=_triple(power * np.array([1 + warmth, 1.0, 1 - warmth])),
            ambient=float(rng.uniform(0.22, 0.30)),
        )


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z


def build_model() -> "mujoco.MjModel":
    """Compile so101-nexus's pick scene (SO-101, one cube, wrist camera, floor) for the bench.

    Compiled from memory: so101-nexus's own compiler writes beside its assets, which an install may forbid.
    """
    import mujoco
    from so101_nexus.object_slots import build_object_scene_xml
    from so101_nexus.objects import CubeObject
    from so101_nexus.scene import MUJOCO_SCENE_OPTION_XML

    robot_xml, assets = _assets()
    xml = build_object_scene_xml(
        [CubeObject(half_size=CUBE_HALF)],
        ["cube"],
        [0.5, 0.5, 0.5, 1.0],
        option_xml=MUJOCO_SCENE_OPTION_XML,
        robot_xml_path="robot.xml",
        model_name="bench",
    )
    model = mujoco.MjModel.from_xml_string(xml, {"robot.xml": robot_xml, **assets})
    _mount_camera(model)
    for geom in range(model.ngeom):
        if model.geom_group[geom] == 2 and model.body(model.geom_bodyid[geom]).name not in SEEN_BODIES:
            model.geom_group[geom] = 4  # drawn by nobody
    model.vis.quality.offsamples = 0
    # An infinite, reflecting floor takes half of a software renderer's time; the camera sees 20 cm of it.
    model.geom("floor").size[:] = [0.6, 0.6, 0.1]
    model.vis.quality.numquads = 8
    model.vis.global_.offwidth, model.vis.global_.offheight = 640, 480
    model.vis.headlight.diffuse[:] = 0
    model.vis.headlight.specular[:] = 0
    return model


def _mount_camera(model: "mujoco.MjModel") -> None:
    """Pin the wrist camera to the real mount's measured pose, which so101-nexus otherwise randomises."""
    import mujoco

    quat = np.zeros(4)
    mujoco.mju_euler2Quat(quat, np.array([np.radians(-32.66), 0.0, 0.0]), "XYZ")
    camera = model.camera(CAMERA)
    camera.quat[:] = quat
    camera.pos[:] = [0.0, 0.055, -0.045]
    camera.fovy[:] = 48.5


def apply_scene(model: "mujoco.MjModel", scene: Scene, lamp: float = 1.0) -> None:
    """Give the model the scene's colours and light. ``lamp`` scales the lamp alone: 1 as it is, 0 off."""
    model.geom("floor").rgba[:3] = scene.table_rgb
    model.geom("cube_geom").rgba[:3] = scene.cube_rgb
    position = np.array(scene.lamp_position)
    aim = np.array([0.25, 0.0, 0.0]) - position
    model.light_pos[0] = position
    model.light_dir[0] = aim / np.linalg.norm(aim)
    model.light_cutoff[0] = 60.0
    model.light_exponent[0] = 2.0
    model.light_diffuse[0] = lamp * np.array(scene.lamp_rgb)
    model.light_specular[0] = 0.25 * lamp * np.array(scene.lamp_rgb)
    model.light_diffuse[1] = scene.ambient  # the room, from straight above
    model.light_specular[1] = 0
    model.vis.headlight.ambient[:] = scene.ambient


@cache
def _assets() -> tuple[bytes, dict[str, bytes]]:
    from so101_nexus import get_so101_mujoco_model_path

    path = Path(get_so101_mujoco_model_path())
    seen = {
        "sts3215_03a_v1.stl",
        "wrist_roll_follower_so101_v1.stl",
        "wrist_roll_follower_so101_camera_mount.stl",
        "moving_jaw_so101_v1.stl",
    }
    assets = {}
    for mesh in sorted((path.parent / "assets").glob("*.stl")):
        if mesh.name in seen:
            data = lighten(mesh.read_bytes(), _GRID)
        elif "_gripper_part" in mesh.name:  # what touches the cube: kept as it is
            data = mesh.read_bytes()
        else:
            data = _stl(_TETRAHEDRON)
        assets[f"assets/{mesh.name}"] = data
    return path.read_bytes(), assets


_STL = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_TETRAHEDRON = 0.01 * np.vstack([np.zeros(3), np.eye(3)])[[[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]]
"""Stands for a mesh that is never drawn: their files are 15 MB, and compiling them takes half a second."""


def _stl(triangles: NDArray[np.float64]) -> bytes:
    """Triangles (n, 3, 3) in metres as a binary STL."""
    out = np.zeros(len(triangles), dtype=_STL)
    out["corners"] = triangles
    return bytes(80) + struct.pack("<I", len(out)) + out.tobytes()


def lighten(stl: bytes, grid: float) -> bytes:
    """Simplify a binary STL with :func:`cluster`: the arm's CAD meshes have 20,000 to 50,000 triangles each,
    and a software renderer pays for every one."""
    count = struct.unpack_from("<I", stl, 80)[0]
    triangles = np.frombuffer(stl, dtype=_STL, offset=84, count=count)
    return _stl(cluster(triangles["corners"].astype(np.float64), grid))


def cluster(triangles: NDArray[np.float64], grid: float) -> NDArray[np.float64]:
    """Simplify triangles (n, 3, 3) by vertex clustering (Rossignac and Borrel, 1993).

    Corners that share a cell of ``grid`` metres become one, at their mean; triangles that collapse or repeat
    go.
    """
    corners = triangles.reshape(-1, 3)
    _, cell = np.unique(_key(np.floor(corners / grid)), return_inverse=True)
    size = np.bincount(cell)
    means = np.stack([np.bincount(cell, corners[:, axis]) / size for axis in range(3)], axis=1)
    faces = cell.reshape(-1, 3)
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])
    faces = faces[whole]
    # The same triangle may start at any of its corners; bring the smallest first without turning it over.
    first = faces.argmin(axis=1)
    faces = np.stack([faces[np.arange(len(faces)), (first + k) % 3] for k in range(3)], axis=1)
    return means[faces[np.unique(_key(faces), return_index=True)[1]]]


def _key(triples: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.int64]:
    """One number per row of three whole numbers, below 2**20 apart: numpy sorts numbers 20 times faster."""
    low = triples - triples.min(axis=0)
    return (low.astype(np.int64) << np.array([40, 20, 0])).sum(axis=1)

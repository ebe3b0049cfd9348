"""The camera's view without OpenGL, for machines that have none: triangles painted from far to near.

The geometry, the lens and the lights are the model's own; what is missing beside MuJoCo's renderer are the
highlights and the smooth shading of the cube. Painting far things first (Newell, Newell and Sancha, 1972)
needs no depth buffer as long as triangles are small, so the cube's faces are cut up.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gripwire_sim.scene import CAMERA, cluster

if TYPE_CHECKING:
    import mujoco

    from gripwire_sim.world import Snapshot, World

Array = NDArray[np.float64]

_GRID = 0.0015
"""How coarsely the gripper is painted, metres: every triangle costs two microseconds."""
_CUTS = 6
_NEAR = 0.004
_SUBPIXEL_BITS = 4
_TABLE_CELLS = 40
"""The table's shade is worked out at so many places across the picture and stretched between them."""


class Painter:
    """Draws the wrist camera's view. Same methods as :class:`gripwire_sim.picture.Renderer`."""

    def __init__(self, world: "World", width: int, height: int) -> None:
        import cv2
        import mujoco

        self._cv2: Any = cv2
        self._world, self._model = world, world.model
        self._data = mujoco.MjData(world.model)
        self._pixels = np.empty((height, width, 3), np.uint8)
        self._focal = height / 2 / np.tan(np.radians(self._model.camera(CAMERA).fovy[0]) / 2)
        self._camera = self._model.camera(CAMERA).id
        self._parts = [
            (geom, _triangles(self._model, geom))
            for geom in range(self._model.ngeom)
            if self._model.geom_group[geom] == 2 or self._model.geom(geom).name == "cube_geom"
        ]
        self._rays = self._make_rays()

    def draw(self) -> "tuple[Snapshot, NDArray[np.uint8]]":
        """The scene of this moment: (480, 640, 3) RGB, valid until the next call."""
        snapshot = self._world.expose(self._data)
        self._paint_table()
        corners, shades = self._visible()
        fill, bits, pixels = self._cv2.fillConvexPoly, _SUBPIXEL_BITS, self._pixels
        for triangle, shade in zip(corners, shades.tolist(), strict=True):
            fill(pixels, triangle, shade, 8, bits)
        return snapshot, pixels

    def close(self) -> None:
        """Nothing to let go of."""

    def _view(self) -> tuple[Array, Array]:
        """The camera's place and its axes as columns: right, up, backward."""
        return self._data.cam_xpos[self._camera], self._data.cam_xmat[self._camera].reshape(3, 3)

    def _visible(self) -> tuple[NDArray[np.int32], Array]:
        """Triangles that face the camera, far ones first: corners (n, 3, 2) in fixed point, shades (n, 3)."""
        place, axes = self._view()
        world_parts, colours = [], []
        for geom, triangles in self._parts:
            turn = self._data.geom_xmat[geom].reshape(3, 3)
            world_parts.append(triangles @ turn.T + self._data.geom_xpos[geom])
            colours.append(np.broadcast_to(_rgb(self._model, geom), (len(triangles), 3)))
        corners, colour = np.concatenate(world_parts), np.concatenate(colours)
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        seen = (corners - place) @ axes
        x, y, depth = seen[..., 0], seen[..., 1], -seen[..., 2]
        height, width = self._pixels.shape[:2]
        wide, high = depth * width / 2 / self._focal, depth * height / 2 / self._focal
        keep = ((corners[:, 0] - place) * normal).sum(1) < 0
        keep &= (depth > _NEAR).all(1) & (np.abs(x) < wide).any(1) & (np.abs(y) < high).any(1)
        order = np.flatnonzero(keep)
        order = order[np.argsort(-depth[order].mean(1))]
        shade = self._light(corners[order].mean(1), _unit(normal[order])) * colour[order]
        scale = self._focal / depth[order]
        at = np.stack([width / 2 + x[order] * scale, height / 2 - y[order] * scale], axis=-1)
        fixed = np.clip(at * (1 << _SUBPIXEL_BITS), -(1 << 18), 1 << 18).round().astype(np.int32)
        return fixed, 255 * np.clip(shade, 0, 1)

    def _light(self, at: Array, normal: Array) -> Array:
        """How much red, green and blue falls on places (..., 3) with these normals: OpenGL's fixed lights."""
        model = self._model
        to_lamp = _unit(model.light_pos[0] - at)
        beam = np.clip(-(to_lamp @ model.light_dir[0]), 0, 1)
        beam = np.where(beam > np.cos(np.radians(model.light_cutoff[0])), beam ** model.light_exponent[0], 0)
        lamp = beam * np.clip((normal * to_lamp).sum(-1), 0, None)
        room = np.clip(normal[..., 2], 0, None)
        return (
            model.vis.headlight.ambient
            + lamp[..., None] * model.light_diffuse[0]
            + room[..., None] * model.light_diffuse[1]
        )

    def _make_rays(self) -> Array:
        height, width = self._pixels.shape[:2]
        rows = _TABLE_CELLS * height // width
        x = (np.arange(_TABLE_CELLS) + 0.5) / _TABLE_CELLS * width - width / 2
        y = height / 2 - (np.arange(rows) + 0.5) / rows * height
        xs, ys = np.meshgrid(x / self._focal, y / self._focal)
        return np.stack([xs, ys, -np.ones_like(xs)], axis=-1)

    def _paint_table(self) -> None:
        place, axes = self._view()
        rays = self._rays @ axes.T
        hits = rays[..., 2] < -1e-3
        reach = np.where(hits, place[2] / np.where(hits, -rays[..., 2], 1), 0)
        at = place + reach[..., None] * rays
        up = np.broadcast_to([0.0, 0.0, 1.0], at.shape)
        inside = hits & (np.abs(at[..., :2]) < self._model.geom("floor").size[:2]).all(-1)
        shade = self._light(at, up) * self._model.geom("floor").rgba[:3] * inside[..., None]
        small = (255 * np.clip(shade, 0, 1)).astype(np.uint8)
        height, width = self._pixels.shape[:2]
        self._cv2.resize(small, (width, height), self._pixels, interpolation=self._cv2.INTER_LINEAR)


def _unit(v: Array) -> Array:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)


def _rgb(model: "mujoco.MjModel", geom: int) -> Array:
    material = model.geom_matid[geom]
    return model.mat_rgba[material, :3] if material >= 0 else model.geom_rgba[geom, :3]


def _triangles(model: "mujoco.MjModel", geom: int) -> Array:
    """The geom's surface as triangles (n, 3, 3) in its own frame, metres."""
    mesh = model.geom_dataid[geom]
    if mesh < 0:
        return _box(model.geom_size[geom])
    first, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    faces = model.mesh_face[first : first + count] + model.mesh_vertadr[mesh]
    return cluster(model.mesh_vert[faces].astype(float), _GRID)


def _box(half: Array) -> Array:
    """A box of these half edges, each face cut into small squares, each square into two triangles."""
    edge = np.linspace(-1, 1, _CUTS + 1)
    u, v = (grid.ravel() for grid in np.meshgrid(edge[:-1], edge[:-1], indexing="ij"))
    step = 2 / _CUTS
    square = np.array([[(0, 0), (1, 0), (1, 1)], [(0, 0), (1, 1), (0, 1)]]) * step  # 2 triangles, 3 corners
    flat = (np.stack([u, v], -1)[:, None, None] + square).reshape(-1, 3, 2)
    faces = []
    for axis in range(3):
        for side in (-1.0, 1.0):
            face = np.empty((len(flat), 3, 3))
            face[..., axis] = side
            face[..., (axis + 1) % 3], face[..., (axis + 2) % 3] = flat[..., 0], flat[..., 1]
            faces.append(face if side > 0 else face[:, ::-1])
    return np.concatenate(faces) * half

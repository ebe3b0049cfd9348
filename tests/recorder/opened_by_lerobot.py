"""Run in a process that has LeRobot: open the dataset ROOT, decode all of it row by row, send it to REPLY."""

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

ROOT, REPLY = globals()["ROOT"], globals()["REPLY"]

dataset = LeRobotDataset("local/test", root=ROOT, video_backend="pyav")  # a folder: never the Hub
columns: dict[str, list[np.ndarray]] = {}
pictures = []
for row in range(len(dataset)):
    item = dataset[row]
    image = item.pop("observation.images.gripper_cam").numpy() * 255
    pictures.append(image.reshape(3, 4, 60, 5, 64).mean(axis=(0, 2, 4)))
    item.pop("task")
    for name, value in item.items():
        columns.setdefault(name, []).append(value.numpy())
REPLY.send(
    {
        "fps": dataset.fps,
        "robot_type": dataset.meta.robot_type,
        "features": dict(dataset.meta.features),
        "lengths": list(dataset.meta.episodes["length"]),
        "tasks": list(dataset.meta.episodes["tasks"]),
        "columns": {name: np.stack(values).squeeze() for name, values in columns.items()},
        "pictures": np.stack(pictures),
    }
)
REPLY.close()

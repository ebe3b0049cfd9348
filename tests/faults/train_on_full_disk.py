"""A trainer and a reward service on a disk with little room: run below `on_small_disk` by test_disk_full.py.

`train_on_full_disk.py DATA DATASET STARTS PORT_BASE`: a bundle serves, a training fills DATA/bundles, what
both services then say is printed as one JSON object.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from gripwire import control, settings
from gripwire.bus import Latest, Publisher
from gripwire.messages import Frame, Health, ModelState, Offer, Reward, Train, TrainerState
from tests.helpers import ending, wait_for
from tests.reward import tiny
from tests.trainer import synthetic
from tests.trainer.synthetic import QUICK

ROOM = 256 * 1024


def shoot(camera: Publisher[Frame], over: threading.Event) -> None:
    picture = tiny.jpeg(tiny.picture(True))
    while not over.wait(1 / 30):
        frame = Frame(valid=True, camera="gripper_cam", width=tiny.WIDTH, height=tiny.HEIGHT, encoding="jpeg")
        camera.publish(frame, picture)


def main(data: Path, dataset: Path, starts: list[int | None], port_base: int) -> None:
    stack = settings.load(flags={"data": data, "port_base": port_base}, env={})
    served, over = tiny.make(data / "bundles").id, threading.Event()
    before = shutil.disk_usage(data / "bundles").used
    synthetic.write_labels(data / "labels", dataset, starts)
    env = os.environ | stack.environment() | {"GRIPWIRE_REWARD__SHADOW_S": "0"}
    topics = stack.topics
    with (
        ending() as started, Latest(topics["reward"], Reward) as rewards,
        Latest(topics["model"], ModelState) as model, Latest(topics["trainer"], TrainerState) as trainer,
        Latest(topics["health/trainer"], Health) as health, Publisher(topics["camera/gripper_cam"]) as camera,
    ):  # fmt: skip
        for service in ("reward", "trainer"):
            started.append(subprocess.Popen([sys.executable, "-m", "gripwire", service, "run"], env=env))
        shooting = threading.Thread(target=shoot, args=(camera, over))
        shooting.start()
        try:
            wait_for(model, lambda m: True)
            control.request(topics.control("reward"), "reward", Offer(bundle=served), timeout_s=60)
            wait_for(rewards, lambda r: r.valid and r.model == served)
            wait_for(health, lambda h: h.state == "ready", 120)
            order = Train(labels="labels", options=QUICK.model_dump())
            control.request(topics.control("trainer"), "trainer", order, timeout_s=60)
            state = wait_for(trainer, lambda m: m.done, 150)
            seen = rewards.get()
            reward = wait_for(rewards, lambda r: seen is not None and r.seq > seen.message.seq + 5)
            beat = wait_for(health, lambda h: "is full" in h.problem)
            print(json.dumps({
                "error": state.error, "health": [beat.state, beat.problem], "valid": reward.valid,
                "serves": reward.model == served, "served": served,
                "left": sorted(os.listdir(data / "bundles")),
                "used": shutil.disk_usage(data / "bundles").used - before,
            }))  # fmt: skip
        finally:
            over.set()
            shooting.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4]))

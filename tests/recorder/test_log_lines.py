"""While the real recorder records, the log lines of another service, and its capsule, name the episode."""

import json
import os
import subprocess
import sys
from collections.abc import Callable

from gripwire import control
from gripwire.bus import Queued
from gripwire.capsule import show
from gripwire.messages import Health, ModelState, SaveCapsule
from tests.cli.publishing import publishing
from tests.helpers import ending
from tests.recorder.rig import Bench, Rig

WAIT_S = 60.0
BUNDLE = "f25718f0162e0a66c804"


def test_another_service_s_lines_and_capsule_name_the_episode_that_the_recorder_records(
    rigs: Callable[..., tuple[Rig, Bench]],
) -> None:
    rig, _ = rigs()
    topics, folder = rig.settings.topics, rig.settings.data / "capsules"
    serving = ModelState(valid=True, serving=BUNDLE, epoch=5)
    with publishing(topics["model"], serving.model_copy, 10.0), ending() as started:
        capsule = subprocess.Popen(
            [sys.executable, "-m", "gripwire", "capsule", "run"],
            env=os.environ | rig.settings.environment(), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(capsule)
        with Queued(topics["health/capsule"], Health) as beats:
            while (beat := beats.receive(WAIT_S)) and beat.message.state != "ready":
                pass
        rig.start()
        control.request(topics.control("capsule"), "capsule", SaveCapsule(note="now"), WAIT_S)
        while not (line := json.loads(capsule.stderr.readline()))["message"].startswith("saved "):
            pass
        assert {key: line[key] for key in ("service", "episode", "model", "epoch")} == {
            "service": "capsule", "episode": "grasps/0", "model": BUNDLE, "epoch": 5,
        }  # fmt: skip
        (path,) = folder.glob("capsule-*.mcap")
        inside = show.read(path)
    assert inside.about["episode"] == "grasps/0" and inside.about["serving"] == BUNDLE
    assert inside.contents.counts["camera/gripper_cam"] > 5 and "gripwire" in inside.versions["recorder"]

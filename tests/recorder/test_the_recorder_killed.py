"""SIGKILL at any moment: nothing that was saved is lost, and recording goes on."""

import json
import random
import time

from gripwire.messages import StartEpisode, StopEpisode


def test_killed_while_saving_every_saved_episode_opens_and_the_next_is_added(rigs, open_with_lerobot):
    rig, _ = rigs()
    rng = random.Random(1)
    rig.record(0.5)
    known = 1
    for _ in range(6):
        rig.start(0.3)
        rig.ask(StopEpisode())
        # Anywhere between the last row and durable, which takes about a second here.
        rig.until(lambda e: e.state == "saving")
        rig.episode.wait(rng.uniform(0.0, 0.9), after=rig.episode.get())
        reported = rig.episode.get().message.saved
        rig.kill()
        rig.start_process()
        saved = json.loads((rig.datasets / "grasps" / "meta" / "info.json").read_text())["total_episodes"]
        assert saved >= known + reported - 1 and saved == len(rig.notes())
        known = saved
    assert rig.record(0.5).episode == known
    dataset = open_with_lerobot(rig.datasets / "grasps")
    assert len(dataset.lengths) == known + 1
    assert dataset.numbers == dataset.columns["gripwire.gripper_cam.seq"].tolist()
    assert sorted(path.name for path in rig.datasets.iterdir()) == [".recorder.lock", "grasps"]


def test_killed_while_recording_it_is_back_at_once_and_goes_on_in_the_same_dataset(rigs, open_with_lerobot):
    rig, _ = rigs()
    rig.record(0.5)
    rig.start(1.0)
    rig.kill()
    began = time.monotonic()
    rig.start_process()
    rig.ask(StartEpisode(task="grasp the cube", dataset="grasps"))
    assert time.monotonic() - began < 10
    rig.until(lambda e: e.state == "recording" and e.rows >= 5)
    assert rig.stop().episode == 1
    assert len(open_with_lerobot(rig.datasets / "grasps").lengths) == 2

"""Several topics through one thread."""

import time
from pathlib import Path

from gripwire.bus import Publisher
from gripwire.messages import Label
from gripwire.survey import Survey
from gripwire.topics import Topics

WAIT_S = 90.0

FLOOD = '''
"""Publishes rewards as fast as they can be packed, until it is killed."""
import sys, msgpack, zmq
socket = zmq.Context().socket(zmq.XPUB)
socket.bind(sys.argv[1])
seq = 0
while True:
    socket.send_multipart([b"reward\\0", msgpack.packb({"v": 1, "seq": seq, "boot": "flood"})])
    seq += 1
'''


def test_a_flood_on_one_topic_hides_neither_the_others_nor_the_end(
    launch, topics: Topics, tmp_path: Path
) -> None:
    script = tmp_path / "flood.py"
    script.write_text(FLOOD)
    launch(script, topics["reward"].endpoint)
    survey = Survey([topics["reward"], topics["label"]])
    with Publisher(topics["label"]) as labels:
        assert labels.wait_for_subscriber(WAIT_S)
        deadline = time.monotonic() + WAIT_S
        while not (flooded := survey.readers["reward"].gaps.lost > 1_000):
            assert time.monotonic() < deadline
            survey.listen(0.05)
        labels.publish(Label(success=True, by="ada"))
        heard: set[str] = set()
        while "label" not in heard and time.monotonic() < deadline:
            heard = {topic for topic, _ in survey.listen(0.05)}
    survey.close()
    assert flooded and heard == {"reward", "label"}

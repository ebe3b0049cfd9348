"""Several topics through one thread."""

import time
from pathlib import Path

import pytest

from gripwire.bus import Publisher
from gripwire.messages import Label
from gripwire.survey import Survey
from gripwire.topics import Topics

WAIT_S = 90.0

FLOOD = '''
"""Publishes rewards as fast as they can be packed, or what is none, until it is killed."""
import sys, msgpack, zmq
socket = zmq.Context().socket(zmq.XPUB)
socket.bind(sys.argv[1])
seq = 0
while True:
    reward = msgpack.packb({"v": 1, "seq": seq, "boot": "flood"})
    socket.send_multipart([b"reward\\0", reward if sys.argv[2] == "sense" else b"nonsense"])
    seq += 1
'''


@pytest.mark.parametrize("what", ["sense", "nonsense"])
def test_a_flood_on_one_topic_hides_neither_the_others_nor_the_end(
    launch, topics: Topics, tmp_path: Path, what: str
) -> None:
    script = tmp_path / "flood.py"
    script.write_text(FLOOD)
    launch(script, topics["reward"].endpoint, what)
    survey = Survey([topics["reward"], topics["label"]])
    flooded = survey.readers["reward"]
    with Publisher(topics["label"]) as labels:
        assert labels.wait_for_subscriber(WAIT_S)
        deadline = time.monotonic() + WAIT_S
        while max(flooded.gaps.lost, flooded.refused) < 1_000:
            assert time.monotonic() < deadline
            survey.listen(0.05)
        labels.publish(Label(success=True, by="ada"))
        heard: set[str] = set()
        while "label" not in heard and time.monotonic() < deadline:
            heard = {topic for topic, _ in survey.listen(0.05)}
    survey.close()
    assert "label" in heard

"""A recording is read while it is written, and as far as it goes when it was torn off."""

import pytest

from gripwire import clock
from gripwire.bus import Received
from gripwire.errors import UserError
from gripwire.messages import Frame, RobotState
from gripwire.recording.file import RecordingFile
from gripwire.recording.follow import Follower


def state(seq):
    message = RobotState(position={"gripper": seq / 3}, seq=seq, host=clock.host_id(), valid=True)
    message.t_publish = clock.monotonic_ns()
    return Received(message, None, message.t_publish)


def seqs(follower):
    return [recorded.message.seq for recorded in follower.more()]


@pytest.fixture
def written(tmp_path):
    """A recording of four parts of five messages each; where in the file each part ends."""
    file, ends = RecordingFile(tmp_path / "run.mcap"), []
    for part in range(4):
        for i in range(5):
            file.write("robot/state", state(5 * part + i))
        file.flush()
        ends.append(file.size())
    file.close()
    return tmp_path / "run.mcap", ends


def test_messages_come_as_soon_as_they_were_flushed_and_only_once(tmp_path):
    file = RecordingFile(tmp_path / "run.mcap")
    with Follower(file.path) as follower:
        assert seqs(follower) == []
        file.write("robot/state", state(0))
        assert seqs(follower) == []
        file.flush()
        assert seqs(follower) == [0] and seqs(follower) == []
        frame = Frame(camera="a", width=4, height=2, encoding="jpeg", seq=7)
        file.write("camera/a", Received(frame, b"jpeg", clock.monotonic_ns()))
        file.note("said", {"what": "well"})
        (recorded,) = follower.more()
        assert (recorded.topic, recorded.message.seq, recorded.payload) == ("camera/a", 7, b"jpeg")
        assert follower.notes["said"] == {"what": "well"} and not follower.finished
        file.close()
        assert seqs(follower) == [] and follower.finished


def test_of_a_torn_file_all_whole_parts_are_read_wherever_it_is_torn(written):
    path, ends = written
    content = path.read_bytes()
    for cut in range(ends[0], ends[3], 7):
        path.write_bytes(content[:cut])
        with Follower(path) as follower:
            whole = sum(end <= cut for end in ends)
            # The index behind a part may be what is missing: then the part itself is there.
            assert len(seqs(follower)) in (5 * whole, 5 * whole + 5)
            assert not follower.finished and follower.damaged == 0


def test_a_damaged_part_is_passed_over_and_counted(written):
    path, ends = written
    content = bytearray(path.read_bytes())
    middle = (ends[0] + ends[1]) // 2 - 100
    content[middle : middle + 20] = bytes(20)
    path.write_bytes(content)
    with Follower(path) as follower:
        assert seqs(follower) == [*range(5), *range(10, 20)]
        assert follower.finished and follower.damaged == 1


def test_what_is_no_recording_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        Follower(tmp_path / "none.mcap")
    (tmp_path / "photo.mcap").write_bytes(b"\xff\xd8 jpeg")
    with pytest.raises(UserError, match="is not an MCAP file"):
        Follower(tmp_path / "photo.mcap")

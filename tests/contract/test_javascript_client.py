"""The example in another language works with gripwire, where its libraries are installed."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gripwire.bus import Publisher
from gripwire.messages import Reward
from gripwire.topics import Topics
from tests.helpers import ending

WAIT_S = 30.0
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture
def client(topics: Topics) -> Iterator["subprocess.Popen[str]"]:
    if not (shutil.which("node") and (EXAMPLES / "node_modules" / "zeromq").exists()):
        pytest.skip("its libraries are not here: `npm install` in docs/examples, with Node.js")
    with ending() as started:
        process = subprocess.Popen(
            ["node", "reward.mjs", topics["reward"].endpoint], cwd=EXAMPLES, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        yield process


def test_javascript_follows_the_reward_counts_what_it_lost_and_takes_silence_for_no_success(
    client: "subprocess.Popen[str]", topics: Topics
) -> None:
    assert client.stdout is not None

    def line() -> str:
        assert client.stdout is not None
        said = client.stdout.readline().strip()
        return line() if said.startswith("no reward") else said

    with Publisher(topics["reward"]) as publisher:
        assert publisher.wait_for_subscriber(WAIT_S)
        publisher.publish(Reward(valid=True, probability=0.25, decision=False))
        assert line() == "success false probability 0.250"
        publisher.sent += 2
        publisher.publish(Reward(reason="no bundle"))
        assert (line(), line()) == ("2 rewards were lost", "no verdict: no bundle")
        publisher.publish(Reward(valid=True, probability=1.0, decision=True))
        assert line() == "success true probability 1.000"
    assert client.stdout.readline().startswith("no reward for a second: take it as no success")

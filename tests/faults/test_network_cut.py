"""The network between two hosts is cut, seen and unseen, and heals: what a reader and a client go through.

The hosts are namespaces with a cable between them, each with its own network, monotonic clock and boot id.
"""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.faults import table
from tests.faults.conftest import GROWTH_MIB
from tests.faults.two_hosts import HOURS_APART_S

CUT_S = 30.0 if table.IN_FULL else 5.0
HEALED_S = 5.0
PROMPT_S = 4.0
ALONE = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
MAY = "ip link add cable type veth peer name elbac && unshare --net --mount --time --monotonic 9 --fork true"


@pytest.fixture(scope="module")
def told() -> list[dict[str, Any]]:
    """What both hosts saw: of each other, and of each cut."""
    if sys.platform != "linux" or subprocess.run([*ALONE, "sh", "-c", MAY], capture_output=True).returncode:
        pytest.skip("this system does not let a process have a network and a clock of its own")
    script = Path(__file__).with_name("two_hosts.py")
    done = subprocess.run(
        [*ALONE, "--kill-child", sys.executable, str(script), str(CUT_S)],
        capture_output=True, text=True, timeout=60 + 4 * CUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_other_host_is_another_host_and_ages_are_not_made_from_two_clocks(
    told: list[dict[str, Any]],
) -> None:
    hosts, seen = told[0]["hosts"], told[0]
    assert hosts["there"] != hosts["here"]
    assert seen["received"] > 0 and seen["lost"] == 0
    assert 0 <= seen["greatest_age_ms"] < HOURS_APART_S * 100, "an age that is the difference of two clocks"


@pytest.mark.timeout(200)
def test_a_cut_network_heals_by_itself_what_was_lost_is_counted_and_nothing_old_comes_as_new(
    told: list[dict[str, Any]],
) -> None:
    assert [seen["cut"] for seen in told[1:]] == ["link down", "packets dropped"]
    for before, seen in pairwise(told):
        lost, span = seen["lost"] - before["lost"], seen["span"] - before["span"]
        assert seen["healing_s"] < HEALED_S
        assert seen["received"] + seen["lost"] == seen["span"], "the account of what was lost is wrong"
        assert seen["restarts"] == seen["refused"] == 0
        assert seen["oldest_s"] < 1.0, "what was published long ago came after the healing"
        asked = seen["asked"]
        assert "did not answer `NewEpisode`" in asked["text"] and asked["seconds"] < PROMPT_S
        assert seen["answered"] == {"text": "begun", "seconds": pytest.approx(0.0, abs=1.0)}
        assert seen["growth_mib"] < GROWTH_MIB
        table.note(
            f"network between two hosts cut for {CUT_S:g} s ({seen['cut']}), then healed",
            f"the reader is back within {HEALED_S:g} s, its losses counted; a client is told and works after",
            f"back after {seen['healing_s']:.1f} s, lost {lost} of {span} messages and counted each; "
            f"a command told after {asked['seconds']:.1f} s that nobody answers; publisher's memory "
            f"{seen['growth_mib']:+.1f} MiB",
        )

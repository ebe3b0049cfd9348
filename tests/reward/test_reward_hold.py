"""A consumer holds the model: offers wait, are named, and serve when it lets go. Shadows are compared."""

import json
import threading
import time

import numpy as np
import pytest

from gripwire import clock
from gripwire.errors import UserError
from gripwire.messages import Command, Freeze, Offer, Override, Rollback, Thaw
from gripwire.settings import _Value
from gripwire_reward.keeper import Lease
from tests.reward import tiny
from tests.reward.bench import Bench


def _offer(bench: Bench, gain: float) -> str:
    made = tiny.make(bench.settings.data / "bundles", gain=gain)
    bench.ask(Offer(bundle=made.id))
    return made.id


def test_while_it_is_held_an_offer_waits_is_named_and_serves_after_the_thaw(bench: Bench) -> None:
    first = bench.serve()
    assert first in bench.ask(Freeze(by="run 3", lease_s=60))
    assert bench.until(lambda: [s for s in bench.states if s.frozen_by])[0].frozen_by == "run 3"
    second = _offer(bench, 9.0)
    waiting = bench.state("waiting", second)
    assert (waiting.waiting, waiting.serving) == (second, first) and "held by run 3" in waiting.reason
    assert bench.verdict(bench.send(True)).model == first
    assert second in bench.ask(Thaw(by="run 3"))
    now = bench.state("serving", second)
    assert (now.waiting, now.frozen_by, now.epoch) == ("", "", 2)


def test_a_lease_that_is_not_renewed_ends_by_itself(bench: Bench) -> None:
    bench.serve()
    bench.ask(Freeze(by="run 3", lease_s=1.5))
    second = _offer(bench, 9.0)
    bench.state("waiting", second)
    assert bench.state("serving", second).frozen_by == ""


def test_a_renewal_lengthens_the_hold_and_only_its_holder_renews(bench: Bench) -> None:
    bench.serve()
    bench.ask(Freeze(by="run 3", lease_s=5))
    bench.ask(Freeze(by="run 3", lease_s=500))
    assert bench.service._serving.keeper.held.left_s > 400
    with pytest.raises(UserError, match="held by run 3 for another"):
        bench.ask(Freeze(by="run 4"))
    with pytest.raises(UserError, match="held by run 3, not by run 4"):
        bench.ask(Thaw(by="run 4"))
    bench.ask(Thaw(force=True))
    assert bench.service._serving.keeper.held is None


def test_rollback_and_overrides_need_force_while_it_is_held(bench: Bench) -> None:
    first, _ = bench.serve(), bench.serve(gain=9.0)
    bench.ask(Freeze(by="run 3"))
    for command in (Rollback(), Override(threshold=0.9)):
        with pytest.raises(UserError, match="--force"):
            bench.ask(command)
    bench.ask(Rollback(force=True))
    assert bench.state("rolled_back", first).frozen_by == "run 3"
    bench.ask(Override(threshold=0.9, force=True))
    bench.until(lambda: bench.service._serving.state.epoch == 4)


@pytest.mark.parametrize("command", [Rollback(), Override(threshold=0.9)], ids=["rollback", "override"])
def test_a_hold_that_was_confirmed_stops_what_was_asked_for_before_and_not_done_yet(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    _, second = bench.serve(), bench.serve(gain=9.0)
    keeper, go_on = bench.service._serving.keeper, threading.Event()
    carry_out = keeper._carry_out
    monkeypatch.setattr(keeper, "_carry_out", lambda request: (go_on.wait(10), carry_out(request)))
    bench.ask(command)
    assert f"{second}, epoch 2, is held by run 3" in bench.ask(Freeze(by="run 3"))
    go_on.set()
    assert "run 3 holds the model by now" in bench.state("refused").reason
    now = bench.verdict(bench.send(True))
    assert (now.model, now.epoch) == (second, 2)


def test_a_hold_right_after_a_release_is_remembered_as_well(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.serve()
    bench.ask(Freeze(by="run 3", lease_s=60))
    file = bench.settings.data / "runs/reward/serving.json"
    bench.until(lambda: json.loads(file.read_text())["lease"])
    keeper, go_on = bench.service._serving.keeper, threading.Event()
    carry_out = keeper._carry_out
    monkeypatch.setattr(keeper, "_carry_out", lambda request: (go_on.wait(10), carry_out(request)))
    bench.ask(Thaw(by="run 3"))
    bench.ask(Freeze(by="run 3", lease_s=60))
    go_on.set()
    bench.stop()  # what was asked for is carried out before it ends
    assert json.loads(file.read_text())["lease"]["by"] == "run 3"
    bench.start()


def test_hold_waiting_bundle_and_epoch_survive_a_restart(bench: Bench) -> None:
    first = bench.serve()
    bench.ask(Freeze(by="run 3", lease_s=60))
    second = _offer(bench, 9.0)
    bench.state("waiting", second)
    bench.stop()
    bench.start()
    again = bench.state("serving", first)
    assert (again.frozen_by, again.waiting, again.epoch) == ("run 3", second, 1)
    bench.ask(Thaw(by="run 3"))
    assert bench.state("serving", second).epoch == 2


def test_a_hold_from_before_the_machine_was_started_anew_is_over(bench: Bench) -> None:
    far = clock.monotonic_ns() + 10**15
    assert Lease(by="run 3", until=far, host=clock.host_id()).left_s > 1e5
    assert Lease(by="run 3", until=far, host="another boot").left_s == 0


def test_a_waiting_bundle_that_is_broken_meanwhile_is_refused_once(bench: Bench) -> None:
    first = bench.serve()
    bench.ask(Freeze(by="run 3"))
    second = _offer(bench, 9.0)
    bench.state("waiting", second)
    bench.stop()
    (bench.settings.data / "bundles" / second / "model.onnx").write_bytes(b"torn")
    bench.start()
    bench.state("serving", first)
    bench.ask(Thaw(by="run 3"))
    refused = bench.state("refused", second)
    assert refused.waiting == "" and refused.serving == first
    remembered = json.loads((bench.settings.data / "runs/reward/serving.json").read_text())
    assert remembered["waiting"] == ""


def test_before_it_serves_an_offer_is_compared_on_live_frames_and_what_differs_is_listed(
    bench: Bench,
) -> None:
    bench.stop()
    bench.settings.values[("reward", "shadow_s")] = _Value(2.0, "gripwire.toml")
    bench.start()
    bench.serve()
    contrary = _offer(bench, -8.0)
    bench.state("accepted", contrary)
    shown = [bench.send(True, i) for i in range(5)]
    verdicts = [bench.verdict(frame) for frame in shown]
    assert all(v.decision or v.above for v in verdicts)  # the old one serves meanwhile
    served = bench.state("serving", contrary)
    assert 1 <= served.shadow_frames <= 5
    assert len(served.disagreements) == served.shadow_frames
    assert {d.frame_seq for d in served.disagreements} <= {f.seq for f in shown}
    assert all(d.serving > 0.5 > d.offered for d in served.disagreements)


def test_a_bundle_whose_numbers_are_not_finite_is_refused_and_the_old_one_misses_no_frame(
    bench: Bench,
) -> None:
    first = bench.serve()
    made = tiny.make(bench.settings.data / "bundles", gain=float(np.float32(3e38)))
    bench.ask(Offer(bundle=made.id))
    frames = [bench.send(True, i) for i in range(10)]
    assert [bench.verdict(f).model for f in frames] == [first] * 10
    assert bench.state("refused", made.id).serving == first


@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_a_clock_that_jumps_by_an_hour_changes_no_interval(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    bench.serve()
    bench.ask(Freeze(by="run 3", lease_s=60))
    before = [bench.verdict(bench.send(True, i)) for i in range(4)][-1]
    wall, wall_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: wall() + jump_s)
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + jump_s * 10**9)
    after = bench.verdict(bench.send(True, 9))
    assert abs((after.t_wall - before.t_wall) / 1e9 - jump_s) < 30  # it did jump
    assert after.valid and after.decision and after.stages_ms["receive"] < 30_000
    assert 0 < bench.service._serving.keeper.held.left_s <= 60
    assert bench.runtime.problems == ""

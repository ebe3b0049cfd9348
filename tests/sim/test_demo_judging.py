"""What the demo counts as right, missed and doubled: pure functions."""

from gripwire.messages import Frame, Reward
from gripwire_sim.demo import judge, plan, truth_labels

PERIOD = 33_000_000


def _frame(i: int) -> Frame:
    return Frame(
        boot="cam", seq=i, t_capture=i * PERIOD, exposure_seq=100 + i, camera="c", width=1, height=1,
        encoding="jpeg", valid=True,
    )  # fmt: skip


def _reward(i: int, above: bool, valid: bool = True, decision: bool = False) -> Reward:
    return Reward(
        frame_boot="cam", frame_seq=i, t_capture=i * PERIOD, t_publish=i * PERIOD + 9_000_000, above=above,
        valid=valid, decision=decision, probability=0.9 if above else 0.1,
    )  # fmt: skip


def _episode(rewards: list[Reward], truth: list[bool]) -> judge.Episode:
    return judge.episode(
        plan.Planned("push", 1),
        [_frame(i) for i in range(len(truth))],
        {(r.frame_boot, r.frame_seq): r for r in rewards},
        {100 + i: t for i, t in enumerate(truth)},
    )


def test_a_frame_without_a_reward_or_with_an_invalid_one_is_wrong() -> None:
    episode = _episode([_reward(0, False), _reward(1, False, valid=False)], [False, False, False])
    assert [p.right for p in episode.points] == [True, False, False]


def test_a_decision_in_a_failed_episode_is_a_false_success_and_in_another_is_not() -> None:
    decided = [_reward(0, True, decision=True)]
    assert _episode(decided, [False]).false_success
    assert not _episode(decided, [True]).false_success


def test_onset_error_is_first_frame_above_less_first_true_frame() -> None:
    late = _episode([_reward(i, i >= 3) for i in range(5)], [False, True, True, True, True])
    assert round(late.onset_error_s or 0, 3) == 0.066
    assert _episode([_reward(0, False)], [False]).onset_error_s is None


def test_ticks_count_every_frame_that_has_no_reward_or_two() -> None:
    frames = [_frame(i) for i in range(6)]
    rewards = [_reward(i, False) for i in (0, 1, 1, 4, 5)]
    ticks = judge.ticks(frames, rewards, 0, 10 * PERIOD)
    assert (ticks.frames, ticks.missed, ticks.doubled) == (6, 2, 1)
    assert round(ticks.largest_gap_s, 3) == 0.099
    assert judge.percentile(ticks.latency_ms, 50) == 9.0


def test_truth_becomes_labels_in_the_standard_format() -> None:
    f, t = False, True
    assert truth_labels.episode_label([f, f]) is None
    assert truth_labels.episode_label([f, t, t]) == {"success_start": 1}
    assert truth_labels.episode_label([t, f, t, t]) == {"ranges": [[0, 0], [2, None]]}
    assert truth_labels.episode_label([f, t, t, f]) == {"ranges": [[1, 2]]}


def test_fresh_seeds_are_apart_from_training_seeds_and_half_or_more_are_failures() -> None:
    for seed in (0, 1, 7):
        trained, judged = plan.training(seed), plan.fresh(seed)
        assert not {p.seed for p in trained} & {p.seed for p in judged}
        assert len(trained) >= 16 and len(judged) >= 8
        assert sum(not p.should_succeed for p in judged) * 2 >= len(judged)

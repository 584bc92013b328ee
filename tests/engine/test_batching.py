"""Tests of imagine_core.engine.batching."""

from __future__ import annotations

from collections import Counter

from imagine_core.engine.batching import (
    LONGEST_PATIENCE,
    PATIENCE,
    REMEMBERED,
    SAMPLES,
    FairShare,
    RowLimit,
    RowLimits,
)


def feed(limit: RowLimit, seconds_per_forward: dict[int, float]) -> None:
    """Run forwards of the size that `limit` asks for, enough for a verdict and not for another."""
    for _ in range(PATIENCE):
        limit.record(limit.rows, seconds_per_forward[limit.rows])


def test_the_limit_grows_while_rows_get_cheaper() -> None:
    limit = RowLimit(most=16)
    feed(limit, {2: 2.0, 4: 3.0, 8: 5.0, 16: 9.0})
    assert limit.rows == 16


def test_the_limit_returns_to_the_last_size_that_paid() -> None:
    limit = RowLimit(most=16)
    feed(limit, {2: 2.0, 4: 3.0, 8: 6.0, 16: 1.0})
    assert limit.rows == 4


def test_the_limit_stays_at_its_start_where_sharing_never_pays() -> None:
    limit = RowLimit()
    feed(limit, {2: 2.0, 4: 4.0})
    assert limit.rows == 2


def test_the_first_forward_of_a_size_is_not_judged() -> None:
    limit = RowLimit(most=4)
    for seconds in (90.0, *[2.0] * SAMPLES):
        limit.record(2, seconds)
    assert limit.rows == 4
    for seconds in (90.0, *[3.0] * SAMPLES):
        limit.record(4, seconds)
    assert limit.rows == 4


def test_forwards_much_smaller_than_the_limit_say_nothing_about_it() -> None:
    limit = RowLimit(first=8)
    for _ in range(10):
        limit.record(2, 1.0)
    assert limit.rows == 8


def test_a_size_that_did_not_fit_is_never_tried_again() -> None:
    limit = RowLimit(first=8)
    limit.shrink(8)
    for _ in range(3):
        feed(limit, {4: 0.1, 2: 1.0})
        assert limit.rows <= 4


def test_a_verdict_from_a_busy_moment_is_put_right() -> None:
    limit = RowLimit(most=8)
    feed(limit, {2: 2.0, 4: 8.0})
    assert limit.rows == 2
    quiet = {2: 2.0, 4: 3.0, 8: 5.0}
    for _ in range(3):
        feed(limit, quiet)
    assert limit.rows == 8
    later = {2: 2.0, 4: 3.0, 8: 9.0}
    for _ in range(3):
        feed(limit, later)
    assert limit.rows == 4


def test_a_verdict_that_proves_right_is_put_to_the_test_ever_less_often() -> None:
    limit = RowLimit(most=8)
    sizes = []
    for _ in range(10_000):
        sizes.append(limit.rows)
        limit.record(limit.rows, {2: 2.0, 4: 3.0, 8: 9.0}[limit.rows])
    others = [at for at, rows in enumerate(sizes) if rows != 4]
    assert len(others) < 0.02 * len(sizes)
    assert others[-1] > len(sizes) - 2 * LONGEST_PATIENCE  # not for good even then


def test_turns_are_shared_by_cost_and_nobody_starves() -> None:
    share, cost, used = FairShare(), {"big": 3.0, "small": 1.0}, Counter[str]()
    for _ in range(400):
        key = str(share.pick(["big", "small"]))
        share.charge(key, cost[key])
        used[key] += int(cost[key])
    assert abs(used["big"] - used["small"]) <= 4


def test_a_key_that_was_away_does_not_catch_up_on_turns() -> None:
    share = FairShare()
    for _ in range(100):
        share.pick(["a"])
        share.charge("a", 1.0)
    turns = []
    for _ in range(10):
        key = share.pick(["a", "b"])
        share.charge(key, 1.0)
        turns.append(key)
    assert turns.count("a") >= 4


def test_limits_are_kept_by_key_and_the_oldest_forgotten() -> None:
    limits = RowLimits()
    limits["first"].shrink(2)
    assert limits["first"].rows == 1
    for number in range(REMEMBERED):
        assert limits[number].rows == 2
    assert len(limits) == REMEMBERED
    assert limits["first"].rows == 2


def test_a_limit_set_by_hand_holds_for_every_key() -> None:
    limits = RowLimits(6)
    feed(limits["a"], {6: 0.1})
    assert limits["a"].rows == limits["b"].rows == 6

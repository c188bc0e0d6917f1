"""Cohorts: times and events in, decisions out. No threads, no clocks."""

import random
from copy import deepcopy
from dataclasses import replace

import pytest
from conftest import CUT, segments

from huscf_flwr.runner.cohorts import Cohorts, Decision, share
from huscf_flwr.runner.patience import Patience
from huscf_flwr.runner.seats import Seat, Seats
from huscf_flwr.runner.session import Session, SessionPlan
from huscf_flwr.runner.together import Together
from huscf_flwr.wire.channel import IterationLost
from huscf_flwr.wire.frames import FrameKey

PATIENCE, GRACE = 60.0, 20.0
HALF, OTHER_HALF = object(), object()
"""Cohorts only ask whether two clients have the same half."""


def cohorts(size: int | None) -> Cohorts:
    return Cohorts(size, Patience(PATIENCE), GRACE)


def seats(*iterations: int, half: object = HALF, first: int = 0, ready: bool = True) -> list[Seat]:
    """Clients that are there since second 0, in these iterations of five."""
    return [
        Seat(first + k, half, iterations=5, iteration=i, joined=True, ready=ready)  # type: ignore
        for k, i in enumerate(iterations)
    ]


def begun(decision: Decision) -> list[int]:
    """Who is in the iteration."""
    return [seat.client for seat in decision.begin]


def late(decision: Decision) -> list[int]:
    """Who is given up."""
    return [seat.client for seat in decision.late]


def do(decision: Decision, now: float = 0.0) -> None:
    """The iteration, in no time; all are ready for the next one at once."""
    for seat in decision.begin:
        seat.iteration += 1
        seat.since = now


def be_ready(seat: Seat, now: float) -> None:
    seat.joined = seat.ready = True
    seat.lagging, seat.since = False, now


@pytest.mark.parametrize(
    ("clients", "size", "sizes"),
    [
        (9, 4, [3, 3, 3]),
        (8, 4, [4, 4]),
        (10, 4, [4, 3, 3]),
        (3, 4, [3]),
        (3, 1, [1, 1, 1]),
        (7, None, [7]),
    ],
)
def test_cohorts_of_an_iteration_are_equally_large(
    clients: int, size: int | None, sizes: list[int]
) -> None:
    found = []
    while left := clients - sum(found):
        found.append(share(left, size))
    assert found == sizes


def test_a_cohort_begins_as_soon_as_it_is_complete() -> None:
    """It does not matter who is not ready yet, and who never came."""
    some, rules = seats(*[0] * 6, ready=False), cohorts(2)
    some[0].joined = False
    be_ready(some[4], 1)
    assert rules.next(Seats(some), 3) == Decision(wait_s=PATIENCE - 2)
    be_ready(some[1], 4)
    assert begun(rules.next(Seats(some), 4)) == [1, 4]


def test_those_who_are_there_are_waited_for_and_those_who_never_came_are_not() -> None:
    some, rules = seats(0, 0, 0), cohorts(4)
    some[1].ready = some[2].joined = some[2].ready = False
    assert rules.next(Seats(some), 1) == Decision(wait_s=PATIENCE - 1)
    be_ready(some[1], 2)
    assert begun(rules.next(Seats(some), 2)) == [0, 1]


def test_a_round_begins_together_if_its_clients_come_soon() -> None:
    some, rules = (
        seats(0, 0, 0, ready=False),
        Cohorts(4, Patience(PATIENCE), GRACE, {0, 1, 2}, 10.0),
    )
    some[1].joined = some[2].joined = False
    be_ready(some[0], 20)
    assert rules.next(Seats(some), 21) == Decision(wait_s=9.0)
    be_ready(some[1], 25)
    assert rules.next(Seats(some), 25) == Decision(wait_s=5.0)
    do(decision := rules.next(Seats(some), 30), 30)  # one never came
    assert begun(decision) == [0, 1]
    assert begun(rules.next(Seats(some), 30)) == [0, 1]
    be_ready(some[2], 31)
    assert begun(rules.next(Seats(some), 31)) == [2]  # and is not waited for any more
    others = seats(0, 0, ready=False)
    others[1].joined = False
    be_ready(others[0], 20)
    be_ready(others[1], 24)
    assert begun(rules.next(Seats(others), 24)) == [0, 1]


def test_devices_are_waited_for_that_came_last_time() -> None:
    together = Together()
    plans = [SessionPlan(str(k), k, HALF, None, 5, device=k != 3) for k in range(4)]  # type: ignore
    assert together.awaited(plans) == {0, 1, 2}
    some = seats(5, 5, 0, 5)
    some[2].joined = False
    together.ended(some)
    assert together.awaited(plans) == {0, 1}
    together.ended(seats(5, 5, 5, 5))
    assert together.awaited(plans) == {0, 1, 2}


def test_nothing_is_due_while_nobody_is_ready() -> None:
    """However long that takes: it is not for the cohorts to end a round."""
    assert cohorts(2).next(Seats(seats(0, 0, ready=False)), 10 * PATIENCE) == Decision()
    assert cohorts(None).next(Seats([]), 0) == Decision()


def test_a_cohort_of_all_waits_once_for_those_who_never_came() -> None:
    some, rules = seats(0, 0, 0, 0, ready=False), cohorts(None)
    some[2].joined = some[3].joined = False
    be_ready(some[0], 10)
    be_ready(some[1], 15)
    assert rules.next(Seats(some), 15) == Decision(wait_s=PATIENCE - 5)
    assert rules.next(Seats(some), 10 + PATIENCE - 1) == Decision(wait_s=1)
    first = rules.next(Seats(some), 10 + PATIENCE)
    assert (begun(first), late(first), first.absent) == ([0, 1], [], 2)
    do(first, 80)
    second = rules.next(Seats(some), 80)
    assert (begun(second), second.absent) == ([0, 1], 0)
    do(second, 81)
    # Who comes now is waited for like anybody else.
    be_ready(some[2], 82)
    caught_up = []
    while some[2].iteration < 2:
        caught_up.append(begun(decision := rules.next(Seats(some), 82)))
        do(decision, 82)
    assert caught_up == [[2], [2]]
    assert begun(rules.next(Seats(some), 83)) == [0, 1, 2]


def test_a_cohort_of_all_begins_when_the_last_one_comes() -> None:
    some, rules = seats(0, 0), cohorts(None)
    some[1].joined = some[1].ready = False
    assert not rules.next(Seats(some), 5).begin
    be_ready(some[1], 5)
    assert rules.next(Seats(some), 5) == Decision(begin=some)


@pytest.mark.parametrize("size", [1, 2, None])
def test_nobody_is_ahead_of_who_is_there(size: int | None) -> None:
    """Client 1 has one more to do before the others go on, ready as they are."""
    some, rules = seats(1, 0, 1), cohorts(size)
    some[1].ready = False
    assert rules.next(Seats(some), 7) == Decision(wait_s=PATIENCE - 7)
    be_ready(some[1], 8)
    decision = rules.next(Seats(some), 8)
    assert begun(decision) == [1]
    do(decision, 9)
    assert begun(rules.next(Seats(some), 9)) == {1: [0], 2: [0, 1], None: [0, 1, 2]}[size]


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("heard_of", [0.0, 30.0])
def test_who_is_late_is_waited_for_as_long_as_it_may_take(ahead: int, heard_of: float) -> None:
    """Since it was heard of or since the first was ready, whichever was later."""
    some, rules = seats(ahead, 0, ahead), cohorts(None)
    some[0].since, some[2].since = 20, 25
    some[1].ready, some[1].since = False, heard_of
    end = max(20, heard_of) + PATIENCE
    assert rules.next(Seats(some), end - 1) == Decision(wait_s=1)
    decision = rules.next(Seats(some), end)
    assert late(decision) == [1]
    # Those ahead need a decision of their own.
    assert begun(decision) == ([] if ahead else [0, 2])
    some[1].lagging = True
    assert begun(rules.next(Seats(some), end)) == [0, 2]


def test_who_was_given_up_holds_nobody_until_it_is_back() -> None:
    some, rules = seats(0, 0), cohorts(None)
    some[1].lagging, some[1].ready = True, False
    for _ in range(3):
        decision = rules.next(Seats(some), 1)
        assert begun(decision) == [0]
        do(decision, 1)
    be_ready(some[1], 2)
    for _ in range(3):
        decision = rules.next(Seats(some), 2)
        assert begun(decision) == [1]
        do(decision, 2)
    assert begun(rules.next(Seats(some), 3)) == [0, 1]


@pytest.mark.parametrize("size", [2, None])
def test_who_failed_or_finished_holds_nobody(size: int | None) -> None:
    some, rules = seats(3, 0, 5, 0, ready=False), cohorts(size)
    some[1].failed = some[3].failed = True
    some[3].joined = False
    be_ready(some[0], 1)
    assert rules.next(Seats(some), 1) == Decision(begin=some[:1])


def test_each_half_of_the_server_has_cohorts_of_its_own_in_turns() -> None:
    some = seats(*[0] * 3) + seats(*[0] * 2, half=OTHER_HALF, first=3)
    rules, order = cohorts(2), []
    for _ in range(6):
        order.append(begun(decision := rules.next(Seats(some), 0)))
        do(decision)
    assert order == [[0, 1], [2], [3, 4]] * 2
    # One of the first half is not ready: the other half goes on by one iteration, not by two.
    some[0].ready = some[1].ready = False
    order = []
    while (decision := rules.next(Seats(some), 1)).begin:
        order.append(begun(decision))
        do(decision, 1)
    assert order == [[3, 4]]
    assert decision == Decision(wait_s=PATIENCE - 1)


def test_those_of_another_half_who_never_came_are_not_waited_for() -> None:
    some = seats(0) + seats(0, half=OTHER_HALF, first=1)
    some[1].joined = some[1].ready = False
    assert begun(cohorts(None).next(Seats(some), 0)) == [0]


@pytest.mark.parametrize("patience_s", [PATIENCE, 5.0])
def test_a_broken_connection_may_be_broken_for_so_long(patience_s: float) -> None:
    """For the grace, or for the patience if that is less; a decision is due when it ends."""
    rules = Cohorts(None, Patience(patience_s), GRACE)
    end = 100 + min(GRACE, patience_s)
    some = seats(0, 0, ready=False)
    some[1].gone_at = 100
    assert rules.next(Seats(some), 101) == Decision(wait_s=end - 101)
    be_ready(some[0], 102)
    assert rules.next(Seats(some), 102).wait_s == end - 102
    assert rules.gone(Seats(some), end - 0.5) == []
    assert rules.gone(Seats(some), end) == some[1:]
    assert rules.next(Seats(some), end + 1).wait_s == 0
    some[1].failed = True
    assert rules.gone(Seats(some), end + 1) == []


def test_who_owes_a_frame_of_a_running_iteration_is_waited_for() -> None:
    some, rules = seats(1, 1), cohorts(4)
    assert rules.missing(some, 2, asked_at=100, now=101) == Decision(wait_s=PATIENCE - 1)
    some[1].gone_at = 90
    assert rules.missing(some, 2, asked_at=100, now=101) == Decision(wait_s=90 + GRACE - 101)
    assert rules.missing(some, 2, asked_at=100, now=100 + PATIENCE) == Decision(late=some)


def test_a_frame_that_comes_too_late_is_a_sign_of_life() -> None:
    """Its sender is there again, and is waited for from then on."""
    session = Session(1, SessionPlan("0", 0, segments(), CUT, 5))
    session.connect(0)
    session.lose("was late")
    assert not session.seat.there
    with pytest.raises(IterationLost):
        session.admit(FrameKey(1, 0, 0), 70)
    assert session.seat.there and session.seat.since == 70


@pytest.mark.parametrize(
    ("clients", "size", "begins"), [(20, 4, 25), (9, 4, 15), (5, None, 5), (3, 1, 15)]
)
def test_everyone_does_everything_evenly(clients: int, size: int | None, begins: int) -> None:
    some, rules, count = seats(*[0] * clients), cohorts(size), 0
    while (decision := rules.next(Seats(some), 0)).begin:
        do(decision)
        done = [seat.iteration for seat in some]
        assert max(done) - min(done) <= 1
        count += 1
    assert [seat.iteration for seat in some] == [5] * clients
    assert count == begins


@pytest.mark.parametrize("size", [1, 3, None])
@pytest.mark.parametrize("seed", range(5))
def test_rounds_in_which_much_goes_wrong_end_evenly(seed: int, size: int | None) -> None:
    """Clients come late, are slow, vanish and come back: all others do all, side by side."""
    chance, rules, now = random.Random(seed), cohorts(size), 0.0
    some = seats(*[0] * 4, ready=False) + seats(*[0] * 3, half=OTHER_HALF, first=4, ready=False)
    for seat in some:
        seat.joined = False
    ready_at = {seat.client: chance.choice([1.0, 5.0, 200.0]) for seat in some}
    vanishing, kept = chance.choice(some), Seats(some)
    while not all(seat.finished for seat in some):
        for seat in some:
            if not seat.ready and ready_at[seat.client] <= now and not seat.finished:
                be_ready(seat, now)
        for seat in rules.gone(kept, now):
            seat.failed = True
        afresh = Seats(replace(seat) for seat in some)
        expected = deepcopy(rules).next(afresh, now)
        decision = rules.next(kept, now)
        assert begun(decision) == begun(expected) and late(decision) == late(expected)
        assert decision.wait_s == expected.wait_s
        for seat in decision.late:
            seat.lagging = True
        for seat in decision.begin:
            others = [s for s in some if s.there and s.iteration < seat.iteration]
            assert seat.ready and not others and seat.half is decision.begin[0].half
            assert seat.iteration == decision.begin[0].iteration
        for seat in decision.begin:
            seat.iteration += 1
            seat.ready, seat.since = False, now
            ready_at[seat.client] = now + chance.choice([0.5, 1.0, 2.0, 90.0])
            if seat is vanishing and seat.iteration == 3:
                seat.gone_at, ready_at[seat.client] = now, float("inf")
        if decision.begin or decision.late:
            continue
        coming = [ready_at[s.client] for s in some if not s.ready and not s.finished]
        ends = [] if decision.wait_s is None else [now + decision.wait_s]
        assert min(coming + ends) < float("inf"), "everybody waits for ever"
        now = max(now, min([at for at in coming if at > now] + ends))
    assert [seat.iteration for seat in some if seat is not vanishing] == [5] * 6
    assert vanishing.failed and vanishing.iteration == 3


def test_a_frame_takes_no_longer_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many seats there are, only that of its sender is looked at."""
    looked_at: list[Seat] = []
    finished = Seat.finished.fget
    assert finished is not None

    def watched(seat: Seat) -> bool:
        looked_at.append(seat)
        return bool(finished(seat))

    some, rules = seats(*[0] * 1000, ready=False), cohorts(4)
    kept = Seats(some)
    rules.next(kept, 0)
    monkeypatch.setattr(Seat, "finished", property(watched))
    for place in (900, 100, 500):
        be_ready(some[place], 1)
        assert not rules.gone(kept, 1) and not rules.next(kept, 1).begin
    assert set(looked_at) == {some[900], some[100], some[500]} and len(looked_at) < 20
    be_ready(some[300], 1)
    assert begun(rules.next(kept, 1)) == [100, 300, 500, 900]


def test_nobody_is_waited_for_much_longer_than_is_usual() -> None:
    """Five times the median of the same exchange, two seconds at least, never beyond the limit."""
    patience = Patience(PATIENCE)
    for _ in range(15):
        patience.took(1, 0.01)
    assert patience.seconds(1) == PATIENCE and patience.beyond(1, 50) == 0  # too few to say
    patience.took(1, 30)
    assert patience.seconds(1) == 2 and patience.seconds(0) == PATIENCE
    assert patience.beyond(1, 0.05) == 0 and patience.beyond(1, 0.65) == pytest.approx(0.6)
    for _ in range(200):
        patience.took(1, 1.0)
        patience.took(2, 20.0)
    assert patience.seconds(1) == 5 and patience.seconds(2) == PATIENCE
    assert patience.account_s(range(3), iterations=2) == 42
    assert patience.account_s(range(1), iterations=9) == 5


def test_who_never_came_is_waited_for_however_fast_those_are_who_are_there() -> None:
    """And who is there and late, no longer than is usual."""
    rules, some = cohorts(None), seats(2, 2, 0)
    for _ in range(20):
        rules.patience.took(0, 0.01)
    some[1].ready = some[2].joined = some[2].ready = False
    assert rules.next(Seats(some), 1) == Decision(wait_s=1.0)
    assert rules.next(Seats(some), 2) == Decision(late=[some[1]])
    some[1].lagging = True
    assert rules.next(Seats(some), 3) == Decision(wait_s=PATIENCE - 3)
    assert rules.next(Seats(some), PATIENCE) == Decision(begin=[some[0]], late=[], absent=1)

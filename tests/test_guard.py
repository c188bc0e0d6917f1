"""What one client of an iteration can do is bounded by the others; no nets, no runs."""

import math
import random
from collections import Counter

import pytest
import torch

from huscf_flwr.defences.beliefs import Beliefs
from huscf_flwr.defences.guard import Guard, Usual, UsualFrames
from huscf_flwr.tensors import Checked, Tensors

USUAL: UsualFrames = [{"fake": Usual(level=0.5, tolerance=2.0)}]


def sent(seed: int, times: float = 1.0) -> Checked:
    random = torch.Generator().manual_seed(seed)
    return Checked({"fake": times * 0.5 * torch.randn((32, 3, 4), generator=random)})


def rms(tensors: Tensors) -> float:
    return float(tensors["fake"].square().mean().sqrt())


class TestBeliefs:
    @pytest.mark.parametrize(
        ("beliefs", "low"),
        [
            ((0.5, 0.4, 0.45, 0.1), {3}),
            ((0.5, 0.4, 0.45, 0.17), set()),
            ((0.19, 0.18, 0.19, 0.01), set()),  # of nets that know nothing
            ((0.5, 0.1), set()),
            ((0.5, 0.3, 0.99), set()),  # of whom the last would like the second to be refused
        ],
    )
    def test_who_is_below_the_others_by_hand(
        self, beliefs: tuple[float, ...], low: set[int]
    ) -> None:
        found, group = Beliefs(random.Random()), range(len(beliefs))
        for look in range(3):
            assert not found.outliers(group)
            for client, belief in enumerate(beliefs):
                found.add(client, belief + 0.01 * (look - 1))
        assert found.outliers(group) == low
        assert not found.outliers([*group, 7, 8])  # a quarter of whom are not known
        found.begin_round()
        assert not found.outliers(group)

    def test_all_are_looked_at_when_nobody_knows(self) -> None:
        found, taken, looks = Beliefs(random.Random()), [], Counter[int]()
        for _ in range(400):
            due = found.due(range(4))
            taken.append(tuple(sorted(due)))
            looks.update(due)
            for client in due:
                found.add(client, 0.5)
        assert len(set(taken)) > 4
        assert all(3 < count < 40 for count in looks.values())


class TestGuard:
    def test_who_is_in_line_keeps_every_bit(self) -> None:
        guard, usual = Guard(), dict.fromkeys(range(4), USUAL)
        requests = {client: sent(client, 7.0 + client) for client in range(4)}  # times untrained
        for _ in range(3):
            found = guard.bounded(0, requests, usual, usual, "GENERATE")
        assert all(found[client]["fake"] is requests[client]["fake"] for client in range(4))

    def test_one_that_is_not_is_cut_and_then_refused(self) -> None:
        guard, usual = Guard(), dict.fromkeys(range(4), USUAL)
        seen = []
        for step in range(6):
            requests = {client: sent(8 * step + client) for client in range(4)}
            requests[2] = Checked({"fake": 1e6 * requests[2]["fake"]})
            found = guard.bounded(0, requests, usual, usual, "GENERATE")
            assert all(found[client]["fake"] is requests[client]["fake"] for client in (0, 1, 3))
            seen.append(found.get(2))
        cut = [tensors for tensors in seen if tensors is not None]
        assert 3 < len(cut) < 6
        usual_now = sorted(rms(requests[client]) for client in (0, 1, 3))[1]
        assert rms(cut[-1]) == pytest.approx(2 * usual_now, rel=0.25)
        assert guard.refused.keys() == {2}
        assert "times as large as the most that is usual, in GENERATE" in guard.refused[2]
        guard.begin_round()
        assert not guard.refused and not guard.clipped

    def test_the_first_of_all_is_held_against_what_is_usual(self) -> None:
        for clients in (2, 3):
            usual = dict.fromkeys(range(clients), USUAL)
            found = Guard().bounded(0, {1: sent(0, 1e6)}, usual, usual, "GENERATE")
            assert rms(found[1]) == pytest.approx(2.0 * 0.5)

    def test_one_alone_is_not_bounded(self) -> None:
        request = {0: sent(0, 1e4)}
        found = Guard().bounded(0, request, {0: USUAL}, [0], "GENERATE")
        assert found[0]["fake"] is request[0]["fake"]

    def test_one_of_two_cannot_make_the_other_look_large(self) -> None:
        """By sending next to nothing; what is usual has a voice then."""
        guard, usual = Guard(), dict.fromkeys(range(2), USUAL)
        for step in range(20):
            requests = {0: sent(step), 1: sent(step, 1e-6)}
            found = guard.bounded(0, requests, usual, usual, "GENERATE")
            assert found[0]["fake"] is requests[0]["fake"]

    def test_one_exchange_of_an_iteration_is_enough_to_be_refused(self) -> None:
        usual: UsualFrames = [*USUAL, *USUAL, *USUAL, *USUAL, *USUAL, *USUAL]
        guard, by_client = Guard(), dict.fromkeys(range(4), usual)
        for step in range(60):
            requests = {client: sent(8 * step + client) for client in range(4)}
            if step % 6 == 5:
                requests[2] = sent(step, -1e3)
            guard.bounded(step % 6, requests, by_client, by_client, "ONE")
        assert guard.refused.keys() == {2}

    def test_one_sample_is_cut_before_it_can_cut_the_others(self) -> None:
        requests = {client: sent(client) for client in range(3)}
        requests[1]["fake"][0] *= 100
        requests[1] = Checked(requests[1])
        guard, usual = Guard(), dict.fromkeys(range(3), USUAL)
        found = guard.bounded(0, requests, usual, usual, "GENERATE")
        assert torch.equal(found[1]["fake"][1:], requests[1]["fake"][1:])
        assert float(found[1]["fake"][0].square().mean().sqrt()) == pytest.approx(3.0, rel=0.2)
        assert guard.clipped == {1: 1} and not guard.refused

    def test_clients_of_one_half_are_compared_with_each_other(self) -> None:
        """Three whose gradients are a tenth of everybody else's bound a fourth among them."""
        guard, usual = Guard(), dict.fromkeys(range(12), USUAL)
        others = {client: sent(client, 10.0) for client in range(8)}
        guard.bounded(0, others, usual, others, "GENERATE")
        mine = {client: sent(client) for client in (8, 9, 10)} | {11: sent(11, 10.0)}
        found = guard.bounded(0, mine, usual, mine, "GENERATE")
        assert rms(found[11]) < 0.3 * rms(mine[11])

    def test_who_sends_other_gradients_than_it_should_is_looked_at_until_it_is_refused(
        self,
    ) -> None:
        guard, due = Guard(), {"fake": torch.ones(4, 3)}
        assert guard.spot_checked(range(4)) == {0, 1, 2, 3}  # in their first iteration
        seen = []
        for _ in range(1000):
            spot_checked = guard.spot_checked(range(4))
            seen.append(spot_checked)
            for client in spot_checked - guard.refused.keys():
                sign = -1 if client == 2 else 1
                rows = guard.rows(4)
                sent = {"fake": sign * due["fake"]}
                given = {"fake": due["fake"][rows]}
                guard.spot_check(client, sent, given, rows, "GENERATOR_STEP", range(4))
        assert guard.refused.keys() == {2}
        assert guard.refused[2].startswith("sent gradients that are not those")
        assert 0 < sum(0 in spot_checked for spot_checked in seen) < 60
        guard.begin_round()
        assert 2 in guard.spot_checked(range(4)) and not guard.refused

    @pytest.mark.parametrize(
        ("expected", "sent", "refused"),
        [(1e-12, 1e-12, False), (1e-12, -1e-12, True), (1.0, 0.0, True), (0.0, 1e-9, False)],
    )
    def test_gradients_of_next_to_nothing_point_somewhere(
        self, expected: float, sent: float, refused: bool
    ) -> None:
        """As those of a discriminator that is sure do; where they are nothing, they do not."""
        guard, ones = Guard(), torch.ones(4, 3)
        for _ in range(3):
            given = {"fake": expected * ones}
            rows, sends = torch.arange(4), {"fake": sent * ones}
            guard.spot_check(0, sends, given, rows, "JUDGE_GRADIENT", range(1))
        assert bool(guard.refused) is refused

    @pytest.mark.parametrize("others", [2, 7])
    @pytest.mark.parametrize(
        ("usual", "own", "refused"),
        [(0.9, 0.05, True), (0.05, 0.03, False), (0.05, 0.0, True), (0.05, -0.05, True)],
    )
    def test_where_gradients_point_is_compared_with_where_others_do(
        self, others: int, usual: float, own: float, refused: bool
    ) -> None:
        """They all point elsewhere when nets have moved far, as those of honest clients do."""
        guard, everybody = Guard(0), range(others + 1)
        cosines = {client: usual for client in everybody} | {others: own}
        looks = 0
        for _ in range(600):
            for client in guard.spot_checked(everybody) - guard.refused.keys():
                looks += 1
                cosine = cosines[client]
                sent = torch.tensor([[cosine, math.sqrt(1 - cosine**2)]])
                due, rows = {"fake": torch.tensor([[1.0, 0.0]])}, torch.arange(1)
                guard.spot_check(client, {"fake": sent}, due, rows, "GENERATOR_STEP", everybody)
        assert guard.refused.keys() == ({others} if refused else set())
        assert looks < 0.2 * 600 * len(everybody)

    def test_whom_it_looks_at_follows_from_a_seed(self) -> None:
        one, same, other = Guard(1), Guard(1), Guard(2)
        drawn = [[guard.spot_checked([0]) for _ in range(2000)] for guard in (one, same, other)]
        assert drawn[0] == drawn[1] != drawn[2]

    def test_goes_on_where_it_was(self) -> None:
        first, usual = Guard(), dict.fromkeys(range(3), USUAL)
        first.bounded(
            0, {client: sent(client, 9.0) for client in range(3)}, usual, usual, "GENERATE"
        )
        second = Guard()
        second.restore(first.state())
        request = {0: sent(0, 1e3)}
        once, again = (g.bounded(0, request, usual, usual, "GENERATE") for g in (first, second))
        assert torch.equal(once[0]["fake"], again[0]["fake"])

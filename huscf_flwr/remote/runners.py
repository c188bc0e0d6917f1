"""The strategy's end: runners elsewhere, used as one runner is.

Clients are dealt anew in every round to the runners that are there: as many to each, and those
that train with one half of the server together, as far as that goes. A half whose clients are at
several runners is trained jointly by these, see `joint`.
"""

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from huscf_flwr.defences.elsewhere import guard_facts, known_facts, learn
from huscf_flwr.defences.guard import Guard
from huscf_flwr.defences.guarded import Guarded
from huscf_flwr.errors import UserError, cause
from huscf_flwr.nets import NetSpec
from huscf_flwr.nets.trained import load_whole, whole_state
from huscf_flwr.procedure import ServerHalf
from huscf_flwr.remote.control import Control, RoundFailed, RunnerLost
from huscf_flwr.remote.kit import RunnerKit
from huscf_flwr.remote.messages import Message, named
from huscf_flwr.remote.peers import Meeting, address_of
from huscf_flwr.runner.pace import Pace, Progress
from huscf_flwr.runner.session import SessionOutcome, SessionPlan
from huscf_flwr.runner.settings import RunnerSettings
from huscf_flwr.split.segments import Segments

log = logging.getLogger("huscf_flwr.strategy")

_AGAIN_SECONDS = 1.0
_ASK_SECONDS = 60.0
"""For an answer that takes a moment."""


class Place(NamedTuple):
    """Where a client finds its runner, and what that shows."""

    address: str
    certificate: str


@dataclass(frozen=True)
class Job:
    """What all runners of a run have to know.

    Attributes
    ----------
    spec, batch_size, learning_rate: of the nets.
    settings: how runners batch and wait.
    largest_frame: bytes of the tensors of a frame, at most.
    every: iterations of a runner between meetings; 1: gradients are added up in each.
    wire: how frames are written, by the run key.
    """

    spec: NetSpec
    batch_size: int
    learning_rate: float
    settings: RunnerSettings
    largest_frame: int
    every: int
    wire: str = "float32"


@dataclass
class _Runner:
    """One of them, while it is there."""

    control: Control
    place: Place
    clients: list[int] = field(default_factory=list)
    halves: list[int] = field(default_factory=list)


class RemoteRunners:
    """All runners of a run."""

    def __init__(
        self,
        addresses: Sequence[str],
        kit: RunnerKit,
        wait_s: float,
        warn: Callable[[str], None],
    ) -> None:
        """Nobody is dialled before `begin`.

        Parameters
        ----------
        addresses: `host:port` of each one's control.
        kit: what they and we know each other by.
        wait_s: how long one is waited for where all are gone.
        warn: called with one line about each client that is dropped.
        """
        self._addresses = addresses
        self._kit = kit
        self._wait_s = wait_s
        self._warn = warn
        self._runners: dict[str, _Runner] = {}
        self._changed = threading.Lock()
        self._lost: RunnerLost | None = None
        self._round = 0
        self._halves: list[Segments] = []
        self._guard: Guard | None = None
        self._echoes = 0
        self.pace: Pace | None = None
        """What iterations have taken so far, on average over runners; None before the second."""

    def begin(self, job: Job) -> None:
        """Dial all of them; raises `UserError` if one is not there, or cannot do this job."""
        self._job = job
        for lost in self._connect():
            raise UserError(str(lost))
        log.info("runners: %s", ", ".join(self._runners))

    def place_of(self, client: int) -> Place:
        """Where a client of the open round finds its runner; raises `RunnerLost`."""
        return next(r.place for r in self._serving().values() if client in r.clients)

    def echo(self, seconds: float) -> tuple[Place, str]:
        """Where a client measures its link, and with which token; the runners take turns.

        Raises
        ------
        RunnerLost: the one whose turn it is has gone in this moment.
        UserError: none comes.
        """
        runners = list(self._there().values())
        runner = runners[self._echoes % len(runners)]
        self._echoes += 1
        answer = runner.control.ask(Message("echo", {"seconds": seconds}), _ASK_SECONDS)
        return runner.place, str(answer.facts["token"])

    def measure(self, cohort: int) -> float:
        """Operations per second of the slowest, for a cohort of so many."""
        requests = dict.fromkeys(self._runners, Message("measure", {"cohort": cohort}))
        answers = self._ask(requests).values()
        return min(float(answer.facts["flops_per_s"]) for answer in answers)

    def open_round(self, round_: int, plans: Iterable[SessionPlan]) -> None:
        """Let the runners that are there expect these clients, until `close_round`.

        Raises
        ------
        RunnerLost: one has gone in this moment.
        UserError: none comes, or the halves are of a kind that runners elsewhere do not know.
        """
        for one in self._connect():
            log.warning("%s: its clients train with the others", one)
        self._there()
        self._round = round_
        in_order = sorted(plans, key=lambda plan: plan.client)
        wrapped = list(dict.fromkeys(plan.half for plan in in_order))
        self._halves = [_segments(half) for half in wrapped]
        self._guard = next((half.guard for half in wrapped if isinstance(half, Guarded)), None)
        key_of = {half: key for key, half in enumerate(wrapped)}
        shards = self._deal(sorted(in_order, key=lambda plan: key_of[plan.half]))
        for address, own in shards.items():
            self._runners[address].clients = [plan.client for plan in own]
            self._runners[address].halves = sorted({key_of[plan.half] for plan in own})
        served = [key for address in shards for key in self._runners[address].halves]
        common = [key for key in range(len(wrapped)) if served.count(key) > 1]
        meetings = self._meetings(list(shards)) if common else {}
        self._ask(
            {
                address: self._opening(address, own, key_of, common, meetings.get(address))
                for address, own in shards.items()
            }
        )

    def close_round(self) -> list[SessionOutcome]:
        """End the round: how each client fared. The server's halves are as they are after it.

        Raises
        ------
        RunnerLost: a runner is gone, and with it the round: nothing has changed here.
        """
        requests, due = {}, set(range(len(self._halves)))
        for address, runner in self._serving().items():
            own = sorted(due.intersection(runner.halves))
            requests[address] = Message("close", {"halves": own})
            due.difference_update(own)
        if not requests:
            return []
        answers = self._ask(requests, self._job.settings.round_timeout)
        outcomes = []
        for address, answer in answers.items():
            self._tell(answer)
            for key in requests[address].facts["halves"]:
                load_whole(self._halves[key], answer.part(f"half-{key}"))
            if self._guard is not None:
                learn(self._guard, answer.facts["guard"])
            results = answer.part("result")
            outcomes += [
                SessionOutcome(client, iterations, results.get(str(client)), failure)
                for client, iterations, failure in answer.facts["outcomes"]
            ]
        paces = [Pace(*a.facts["pace"]) for a in answers.values() if a.facts["pace"]]
        if paces:
            self.pace = Pace(*(fmean(values) for values in zip(*paces, strict=True)))
        for runner in self._serving().values():
            runner.clients, runner.halves = [], []
        return sorted(outcomes, key=lambda outcome: outcome.client)

    def progress(self) -> Progress:
        """Where the open round stands; of runners that are not lost."""
        found = []
        for address, runner in self._serving().items():
            with contextlib.suppress(RunnerLost, UserError):  # which the end of the round says
                answer = runner.control.ask(Message("progress"), _ASK_SECONDS)
                self._tell(answer)
                found.append((address, answer.facts))
        note = "; ".join(f"{address}: {facts['note']}" for address, facts in found)
        done = sum(facts["done"] for _, facts in found)
        return Progress(done, sum(facts["planned"] for _, facts in found), note)

    def close(self) -> None:
        """Part with all of them."""
        with self._changed:
            parted, self._runners = self._runners, {}
        for runner in parted.values():
            runner.control.close()

    # Helpers

    def _connect(self) -> list[RunnerLost]:
        """Dial those that are not there; who still is not, and why."""
        with self._changed:
            self._lost = None
            missing = [a for a in self._addresses if a not in self._runners]
        with ThreadPoolExecutor(len(self._addresses)) as pool:
            found = list(pool.map(self._dial, missing))
        dialled = {r.control.address: r for r in found if isinstance(r, _Runner)}
        with self._changed:
            there = self._runners | dialled
            self._runners = {a: there[a] for a in self._addresses if a in there}
        return [lost for lost in found if isinstance(lost, RunnerLost)]

    def _there(self) -> dict[str, _Runner]:
        """The runners that are there; where there is none, one is waited for."""
        deadline = time.monotonic() + self._wait_s
        while not (there := self._runners):
            lost = self._connect()
            if lost and time.monotonic() > deadline:
                raise UserError(f"{lost[0]}, and so for {self._wait_s:g} s")
            time.sleep(_AGAIN_SECONDS)
        return there

    def _dial(self, address: str) -> _Runner | RunnerLost:
        control = Control(address, self._kit, partial(self._gone, address))
        try:
            begun = control.ask(Message("begin", asdict(self._job)), _ASK_SECONDS).facts
            return _Runner(control, Place(begun["address"], begun["certificate"]))
        except RunnerLost as lost:
            control.close()
            return lost
        except BaseException:
            control.close()
            raise

    def _gone(self, address: str, lost: RunnerLost) -> None:
        """A runner is gone: the others do not wait for it, if it had a part in the open round."""
        with self._changed:
            runner = self._runners.pop(address, None)
        if runner is not None:
            runner.control.close()
            if runner.clients:
                self._give_up(lost)

    def _give_up(self, lost: RunnerLost) -> None:
        """The round is lost: part with all, so that nobody is waited for."""
        with self._changed:
            self._lost = self._lost or lost
        self.close()

    def _serving(self) -> dict[str, _Runner]:
        """Those with clients in the open round; raises `RunnerLost` where that is lost."""
        with self._changed:
            if self._lost is not None:
                raise self._lost
            return {a: runner for a, runner in self._runners.items() if runner.clients}

    def _ask(
        self, requests: Mapping[str, Message], seconds: float = _ASK_SECONDS
    ) -> dict[str, Message]:
        """Ask several at once; raises what the first that failed raised, and parts with all."""
        with self._changed:
            if self._lost is not None:
                raise self._lost
            controls = {address: self._runners[address].control for address in requests}
        with ThreadPoolExecutor(len(controls)) as pool:
            asked = {a: pool.submit(c.ask, requests[a], seconds) for a, c in controls.items()}
        errors = [e for e in (one.exception() for one in asked.values()) if e is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, RoundFailed)):
            if isinstance(error, RunnerLost):
                self._give_up(error)
                self._serving()
            raise error
        return {address: one.result() for address, one in asked.items()}

    def _deal(self, plans: Sequence[SessionPlan]) -> dict[str, list[SessionPlan]]:
        """As many of these to each runner, in their order; who gets none is left out."""
        parts = np.array_split(np.arange(len(plans)), len(self._runners))
        shards = {a: [plans[i] for i in p] for a, p in zip(self._runners, parts, strict=True)}
        return {address: own for address, own in shards.items() if own}

    def _meetings(self, addresses: Sequence[str]) -> dict[str, Meeting]:
        """Where these runners find each other, by torch.distributed."""
        hosts = {}
        for address in addresses:
            try:
                hosts[address] = address_of(address.rpartition(":")[0])
            except OSError as error:
                raise RunnerLost(f"{address}: its host has no address: {cause(error)}") from None
        first = hosts[addresses[0]]
        asked = {addresses[0]: Message("rendezvous", {"host": first})}
        port = self._ask(asked)[addresses[0]].facts["port"]
        name, seconds = secrets.token_hex(16), self._job.settings.round_timeout
        return {
            address: Meeting(name, rank, len(hosts), hosts[address], first, port, seconds)
            for rank, address in enumerate(hosts)
        }

    def _opening(
        self,
        address: str,
        plans: Sequence[SessionPlan],
        key_of: Mapping[ServerHalf, int],
        common: Sequence[int],
        meeting: Meeting | None,
    ) -> Message:
        runner = self._runners[address]
        halves = sorted({*runner.halves, *common})
        tensors: dict[str, Tensor] = {}
        for key in halves:
            tensors |= named(f"half-{key}", whole_state(self._halves[key]))
        facts: dict[str, Any] = {
            "round": self._round,
            "iterations": plans[0].iterations,
            "halves": halves,
            "common": common,
            "meeting": meeting and asdict(meeting),
            "every": self._job.every,
            "clients": [
                {
                    "client": plan.client,
                    "token": plan.token,
                    "half": key_of[plan.half],
                    "cut": str(plan.place),
                    "device": plan.device,
                }
                for plan in plans
            ],
            "guard": self._guard and guard_facts(self._guard, runner.clients),
        }
        known = {p.client: p.half.known[p.client] for p in plans if isinstance(p.half, Guarded)}
        facts["known"], nets = known_facts(known)
        facts["nets"] = len(nets)
        for number, net in enumerate(nets):
            tensors |= named(f"net-{number}", net)
        return Message("open", facts, tensors)

    def _tell(self, answer: Message) -> None:
        for warning in answer.facts["warnings"]:
            self._warn(warning)


def _segments(half: ServerHalf) -> Segments:
    """The half itself, guarded or not; raises `UserError` if a runner elsewhere has no such."""
    own = half.half if isinstance(half, Guarded) else half
    if type(own) is not Segments:
        raise UserError(
            f"runners: a runner elsewhere computes split nets, and no {type(own).__name__}: leave "
            "runners empty with this strategy"
        )
    return own

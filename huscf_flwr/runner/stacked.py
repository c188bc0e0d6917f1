"""Clients of this process that are computed as one, in groups: a task for each group.

For GPUs: there it is launching operations that takes time, and waiting for values. What goes in
and comes out is as if they were computed one after the other.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from typing import Any

import torch

from huscf_flwr.procedure import (
    ClientTraining,
    StackedHalf,
    Stacker,
    Steps,
    advance,
    check_answer,
)
from huscf_flwr.runner.session import Session
from huscf_flwr.tensors import TensorError, Tensors, looked_at
from huscf_flwr.wire.channel import SessionError

Sent = Mapping[int, "Future[Tensors | None]"]
"""By client: what it sends next, or None if its iteration is over; or what is wrong with it."""


class Groups:
    """Those clients of a round whose halves can be stacked, in groups that share iterations."""

    def __init__(
        self,
        sessions: Mapping[int, Session],
        clients: Mapping[int, ClientTraining],
        workers: Executor,
        stacker: Stacker | None,
    ) -> None:
        """Of all `clients`; without a `stacker` none of them can."""
        self._sessions = sessions
        self._clients = clients
        self._workers = workers
        self._stacker = stacker
        self._kinds: dict[int, Hashable] = {}
        for client, part in clients.items():
            if stacker is not None and type(part) is ClientTraining:  # others may have other steps
                kind = stacker.kind(part.half)
                if kind is not None:
                    self._kinds[client] = kind
        self._group_of: dict[int, _Group] = {}
        self._open: set[_Group] = set()

    def go_on(self, answers: Mapping[int, Tensors], starts: Mapping[int, int]) -> Sent:
        """Let those clients of these that can be stacked do what `_Drive` lets others do.

        Who was in the last exchange and is not in `answers` has left.
        """
        sent: Sent = {k: Future() for k in sorted({*answers, *starts}) if k in self._kinds}
        answered = dict.fromkeys(self._group_of[client] for client in sent if client in answers)
        for group in self._open - answered.keys():
            group.close()
        self._open = {*answered}
        ended = [
            self._task(sent, group.members, self._answer, group, answers, starts, sent)
            for group in answered
        ]
        for kind in dict.fromkeys(self._kinds[client] for client in sent if client in starts):
            members = [k for k in sent if k in starts and self._kinds[k] == kind]
            self._task(sent, members, self._begin, members, starts, sent, ended)
        return sent

    def _task(
        self, sent: Sent, members: Iterable[int], work: Callable[..., None], *given: Any
    ) -> "Future[None]":
        """Have this done; what it raises is what is wrong with each of these clients."""

        def done() -> None:
            try:
                work(*given)
            except BaseException as error:
                for client in members:
                    if client in sent and not sent[client].done():
                        sent[client].set_exception(error)

        return self._workers.submit(done)

    def _answer(
        self,
        group: "_Group",
        answers: Mapping[int, Tensors],
        starts: Mapping[int, int],
        sent: Sent,
    ) -> None:
        found = group.answer(answers)
        _tell({k: v for k, v in found.items() if v is not None or k not in starts}, sent)

    def _begin(
        self,
        members: Sequence[int],
        starts: Mapping[int, int],
        sent: Sent,
        ended: Sequence["Future[None]"],
    ) -> None:
        wait(ended)  # which were submitted before this: they are done or run
        batches: dict[int, Any] = {}
        for client in members:
            if not sent[client].done():  # or its last iteration has failed in the end
                try:
                    batches[client] = self._clients[client].batches(starts[client])
                except Exception as error:
                    sent[client].set_exception(error)
        if batches:
            group = self._group(tuple(batches))
            self._open.add(group)
            _tell(group.begin(list(batches.values())), sent)

    def _group(self, members: tuple[int, ...]) -> "_Group":
        """That of these clients: the one they are in, or a new one."""
        before = {self._group_of.get(client) for client in members}
        group = before.pop()
        if before or group is None or group.members != members:
            assert self._stacker is not None
            half = self._stacker.stack([self._clients[client].half for client in members])
            group = _Group(half, {k: (self._clients[k], self._sessions[k]) for k in members})
            self._group_of.update(dict.fromkeys(members, group))
        return group


Found = Mapping[int, Tensors | Exception | None]
"""By client, what its future will hold."""


def _tell(found: Found, sent: Sent) -> None:
    for client, it in found.items():
        if isinstance(it, Exception):
            sent[client].set_exception(it)
        else:
            sent[client].set_result(it)


class _Group:
    """Clients whose halves are stacked, in the order of the rows."""

    def __init__(
        self, half: StackedHalf, clients: Mapping[int, tuple[ClientTraining, Session]]
    ) -> None:
        self.members = tuple(clients)
        self._half = half
        self._clients = clients
        self._there = set(clients)
        self._results: Sequence[Any] = ()
        self._steps: Steps = self._iteration(())

    def begin(self, batches: Sequence[Any]) -> Found:
        """Begin an iteration; what each client sends."""
        self._steps = self._iteration(batches)
        return self._looked_at(advance(self._steps))

    def _iteration(self, batches: Sequence[Any]) -> Steps:
        self._results = yield from self._half.iteration(batches)

    def answer(self, answers: Mapping[int, Tensors]) -> Found:
        """Go on; what each client sends that is still there, None if the iteration is over."""
        for client in self._there - answers.keys():
            self._leave(client)
        some = answers[min(self._there)]  # for the rows of those who have left
        each = [answers.get(client, some) for client in self.members]
        # A copy: answers are parts of what the server's graph and others need.
        own = {
            name: torch.stack([answer[name] for answer in each]).to(self._half.device)
            for name in some
        }
        return self._looked_at(advance(self._steps, own), own)

    def close(self) -> None:
        """All have left: hold nothing of an iteration."""
        self._steps.close()

    def _looked_at(self, request: Tensors | None, answer: Tensors | None = None) -> Found:
        """Check what all send, and what they were answered: together, or it would take longer."""
        stacked = [tensors for tensors in (answer, request) if tensors is not None]
        found: dict[int, Tensors | Exception | None] = {}
        for row, checked in enumerate(looked_at(*stacked)):
            client = self.members[row]
            if client not in self._there:
                continue
            part, session = self._clients[client]
            try:
                if answer is not None:
                    check_answer(checked[0], session.specs[session.exchange - 1], part.half.dtype)
                if request is not None:
                    found[client] = _request(session, checked[-1])
                else:
                    part.results.append(self._results[row])
                    found[client] = None
            except (TensorError, SessionError) as error:
                self._leave(client)
                found[client] = error
        return found

    def _leave(self, client: int) -> None:
        self._there.discard(client)
        self._half.leave(self.members.index(client))


def _request(session: Session, tensors: Tensors) -> Tensors:
    try:
        return session.check(session.due, tensors)
    except TensorError as error:
        raise SessionError(str(error)) from None

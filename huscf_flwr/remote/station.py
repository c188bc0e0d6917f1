"""The runner's end: what it does for one run, round by round."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from huscf_flwr.defences.elsewhere import findings, guard_of, known_of
from huscf_flwr.defences.guard import Guard
from huscf_flwr.defences.guarded import Guarded
from huscf_flwr.errors import UserError, cause
from huscf_flwr.nets import NetSpec, State, initial_state, net_shapes
from huscf_flwr.nets.trained import load_whole, whole_state
from huscf_flwr.planning.measure import server_flops_per_s
from huscf_flwr.procedure import ServerHalf
from huscf_flwr.remote.joint import EveryFew, JoinedHalf, Joint, Lockstep
from huscf_flwr.remote.messages import Message, named
from huscf_flwr.remote.peers import Meeting, Peers, Rendezvous
from huscf_flwr.runner.runner import Runner
from huscf_flwr.runner.session import SessionPlan
from huscf_flwr.runner.settings import RunnerSettings
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.segments import Segments, all_segments
from huscf_flwr.system.cpu import cores, torch_device, use_threads
from huscf_flwr.wire.codings import CODINGS
from huscf_flwr.wire.frame_server import FrameServer

log = logging.getLogger(__name__)


@dataclass
class _OpenRound:
    halves: dict[int, Segments]
    clients: list[int]
    guard: Guard | None
    joint: Joint | None
    peers: Peers | None


class Station:
    """Serves one run; see `control.Answering`."""

    def __init__(self, bind: str, address: str, device: str) -> None:
        """Nothing is opened before the run says what it is.

        Parameters
        ----------
        bind: `host:port` where clients' frames come in; port 0 takes a free one.
        address: `host:port` that clients dial; empty: `bind` with the port that it got.
        device: where torch computes.
        """
        self._bind, self._address, self._device = bind, address, device
        self._runner: Runner | None = None
        self._frames: FrameServer | None = None
        self._rendezvous: Rendezvous | None = None
        self._round: _OpenRound | None = None
        self._warnings: list[str] = []
        self._abandoned = threading.Event()

    def answer(self, request: Message) -> Message:
        """See `control.Answering`."""
        asked: dict[str, Callable[[Message], Message]] = {
            "begin": self._begin,
            "measure": self._measure,
            "echo": self._echo,
            "rendezvous": self._meet,
            "open": self._open,
            "progress": self._progress,
            "close": self._close,
        }
        if request.kind not in asked:
            raise UserError(f"asked for {request.kind}: it is of another version")
        return asked[request.kind](request)

    def abandon(self) -> None:
        """See `control.Answering`."""
        self._abandoned.set()
        if self._round is not None and self._round.peers is not None:
            self._round.peers.abandon()

    def close(self) -> None:
        """See `control.Answering`."""
        self.abandon()
        if self._runner is not None:
            self._runner.close()
        if self._frames is not None:
            self._frames.close()
        if self._round is not None and self._round.peers is not None:
            self._round.peers.close()

    # What it is asked for

    def _begin(self, request: Message) -> Message:
        """Say where clients find this runner; from now on, it listens to them."""
        facts = request.facts
        self._spec = NetSpec(**facts["spec"])
        self._batch_size, self._rate = facts["batch_size"], facts["learning_rate"]
        net_shapes(self._spec)  # now, if it cannot be built
        self._runner = Runner(RunnerSettings(**facts["settings"]), self._warn)
        try:
            coding = CODINGS[facts["wire"]]
            self._frames = FrameServer(self._runner, self._bind, facts["largest_frame"], coding)
        except UserError:
            raise UserError(
                f"--clients {self._bind}: cannot be bound: the port is in use, or the host is not "
                "this machine's"
            ) from None
        host = self._bind.rpartition(":")[0]
        address = self._address or f"{host}:{self._frames.port}"
        log.info("clients dial %s", address)
        return Message("begun", {"address": address, "certificate": self._frames.certificate})

    def _measure(self, request: Message) -> Message:
        """Its speed as the server."""
        spare = self._segments(initial_state(self._spec, 0))
        use_threads(cores())
        cohort = int(request.facts["cohort"])
        speed = server_flops_per_s(spare, self._spec, self._batch_size, cohort)
        return Message("measured", {"flops_per_s": speed})

    def _echo(self, request: Message) -> Message:
        """A token for a client that measures its link."""
        return Message("echo", {"token": self._running.echo_token(request.facts["seconds"])})

    def _meet(self, request: Message) -> Message:
        """Open the place where this round's runners find each other."""
        try:
            self._rendezvous = Rendezvous(request.facts["host"])
        except OSError as error:
            raise UserError(f"{request.facts['host']} is not its own: {cause(error)}") from None
        return Message("rendezvous", {"port": self._rendezvous.port})

    def _open(self, request: Message) -> Message:
        """Open a round: the server's halves, who trains with them, and what guards them."""
        facts = request.facts
        halves = {key: self._segments(request.part(f"half-{key}")) for key in facts["halves"]}
        joint, peers = None, None
        if facts["meeting"] is not None:
            peers = Peers(Meeting(**facts["meeting"]))
            common = {key: halves[key] for key in facts["common"]}
            every = facts["every"]
            joint = Lockstep(common, peers) if every == 1 else EveryFew(common, peers, every)
        clients = [client["client"] for client in facts["clients"]]
        self._round = _OpenRound(halves, clients, None, joint, peers)
        if self._abandoned.is_set():
            self.abandon()
        served: dict[int, ServerHalf] = dict(halves)
        if joint is not None:
            served = {key: JoinedHalf(half, joint, key) for key, half in halves.items()}
        if facts["guard"] is not None:
            guard = self._round.guard = guard_of(facts["guard"])
            nets = [request.part(f"net-{number}") for number in range(facts["nets"])]
            known = known_of(facts["known"], nets, self._spec)
            for key, half in served.items():
                peers_of = [c["client"] for c in facts["clients"] if c["half"] == key]
                served[key] = Guarded(half, guard, known, peers_of)
        plans = [
            SessionPlan(
                client["token"],
                client["client"],
                served[client["half"]],
                Cut.parse(client["cut"]),
                facts["iterations"],
                client["device"],
            )
            for client in facts["clients"]
        ]
        self._running.open_round(facts["round"], plans, joint.idle if joint else None)
        log.info("round %d: %d clients", facts["round"], len(plans))
        return Message("open")

    def _progress(self, request: Message) -> Message:
        """Where the round stands."""
        return Message("progress", {**vars(self._running.progress()), "warnings": self._said()})

    def _close(self, request: Message) -> Message:
        """Close the round: how its clients fared, and the halves that are asked for."""
        outcomes = self._running.close_round()
        closed, self._round, self._rendezvous = self._round, None, None
        if closed is None:
            raise UserError("no round is open")
        if closed.joint is not None and closed.peers is not None:
            try:
                closed.joint.close()
            finally:
                closed.peers.close()
        results = {str(o.client): o.result for o in outcomes if o.result is not None}
        tensors = named("result", results)
        for key in request.facts["halves"]:
            tensors |= named(f"half-{key}", whole_state(closed.halves[key]))
        pace = self._running.pace
        facts = {
            "outcomes": [[o.client, o.iterations, o.failure] for o in outcomes],
            "pace": pace and list(pace),
            "guard": closed.guard and findings(closed.guard, closed.clients),
            "warnings": self._said(),
        }
        return Message("closed", facts, tensors)

    # Helpers

    @property
    def _running(self) -> Runner:
        if self._runner is None:
            raise UserError("a run has to begin first")
        return self._runner

    def _segments(self, state: State) -> Segments:
        made = all_segments(
            self._spec,
            state,
            batch_size=self._batch_size,
            learning_rate=self._rate,
            device=torch_device(self._device),
        )
        load_whole(made, state)
        return made

    def _warn(self, warning: str) -> None:
        log.warning(warning)
        self._warnings.append(warning)

    def _said(self) -> list[str]:
        """Warnings that the strategy has not been told of."""
        said, self._warnings = self._warnings, []
        return said

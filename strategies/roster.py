"""Who takes part in a run: waiting for clients, asking who they are, numbering them."""

import itertools
import logging
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from flwr.common import Config, GetPropertiesIns, Scalar
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy

from huscf_flwr.config import RunConfig
from huscf_flwr.defences.sizes import counted_sizes
from huscf_flwr.errors import UserError
from huscf_flwr.report.records import ClientInfo
from huscf_flwr.split.cuts import Cut
from strategies.answers import Properties, checked_properties
from strategies.failures import StrategyError

log = logging.getLogger("huscf_flwr.strategy")

ChooseCuts = Callable[[list[ClientInfo]], Mapping[int, Cut | None]]
Present = dict[ClientProxy, ClientInfo]
_LISTED = 100  # clients that the log names one by one


class Roster:
    """The clients met so far, by Flower's id, and those left out because they cannot train.

    Clients are numbered by partition id; where nodes have none, by what the run that this one goes
    on from called the node, or by the lowest free number. A node is its key, where it has one.
    """

    def __init__(
        self,
        config: RunConfig,
        question: Callable[[], Config],
        choose_cuts: ChooseCuts,
        at_a_time: int,
        known: Mapping[str, int] | None = None,
        partitions: int = 0,
    ) -> None:
        """Nobody is asked before `gather`.

        Parameters
        ----------
        config: the run config.
        question: what clients are told when they are asked who they are.
        choose_cuts: called with all new clients, in the order of their numbers.
        at_a_time: how many are asked at once; they may measure themselves then.
        known: numbers by Flower's id of nodes that were there in the run before.
        partitions: how many clients that dealt its data to, if it did.
        """
        self._config = config
        self._question = question
        self._choose_cuts = choose_cuts
        self._at_a_time = at_a_time
        self._known = dict(known or {})
        self._domains = {source.name for source in config.sources(".")}
        self.partitions = partitions
        """Of the data that is dealt, as the run before or the first client says; 0: none is."""
        self._unusable: set[str] = set()
        self._sizes: dict[str, int] = {}  # as stated
        self.clients: dict[str, ClientInfo] = {}

    def gather(self, manager: ClientManager) -> Present:
        """Wait for as many clients as the config or their partitions say, and meet them.

        Raises
        ------
        UserError: too few appear in time, none can train, or dealt data is wrong for all.
        """
        log.info("waiting for clients, for %g s at most", self._config.start_timeout)
        expected = self._config.num_clients
        self._wait_for(expected or 1, manager)
        partitions = self._meet(manager)
        if not expected:
            self._wait_for(partitions if partitions > 0 else 2, manager)
        found = self.present(manager)
        for info in itertools.islice(found.values(), _LISTED):
            log.info(
                "client %d: %d images%s%s",
                info.number,
                info.size,
                f" of {info.domain}" if info.domain else " of its own",
                f", cut {info.cut}" if info.cut else "",
            )
        if len(found) > _LISTED:
            log.info("and %d clients more", len(found) - _LISTED)
        return found

    def present(self, manager: ClientManager, without: Collection[int] = ()) -> Present:
        """The clients that are connected now and can train, in the order of their numbers.

        Newcomers are met first. Where nobody is connected, waits for one. Those of the numbers
        `without` are left out, unless there is nobody else.

        Raises
        ------
        UserError: nobody who can train is there within the start timeout.
        """
        found = self._usable(manager)
        if not found:
            self._wait_for(1, manager)
            found = self._usable(manager)
        if not found:
            raise UserError("no client that can train is connected: the lines above say why")
        return {p: info for p, info in found.items() if info.number not in without} or found

    def drawn(self, present: Present, server_round: int) -> Present:
        """Those of the clients that are there who take part in a round: `fraction-fit` of them.

        By lots that each has for the round, whoever else is there.
        """
        count = self._config.taking_part(len(present))
        if count >= len(present):
            return present
        highest = max(info.number for info in present.values())
        lots = np.random.default_rng((self._config.seed, server_round)).random(highest + 1)
        last = sorted(lots[info.number] for info in present.values())[count - 1]
        return {p: info for p, info in present.items() if lots[info.number] <= last}

    def connected(self, manager: ClientManager) -> Present:
        """The clients met before that are connected now, in the order of their numbers."""
        proxies = list(manager.all().values())  # Flower's own dict changes as nodes come and go
        usable = [p for p in proxies if p.cid in self.clients and p.cid not in self._unusable]
        return {proxy: self.clients[proxy.cid] for proxy in sorted(usable, key=self.number_of)}

    def number_of(self, proxy: ClientProxy) -> int:
        """The number of a client met before."""
        return self.clients[proxy.cid].number

    def leave_out(self, number: int, reason: str) -> None:
        """Have nothing more to do with a client."""
        cid = next(cid for cid, info in self.clients.items() if info.number == number)
        self._leave_out(cid, f"client {number}", reason)

    def _usable(self, manager: ClientManager) -> Present:
        self._meet(manager)
        return self.connected(manager)

    def _wait_for(self, count: int, manager: ClientManager) -> None:
        manager.wait_for(count, int(self._config.start_timeout))
        present = manager.num_available()
        if present < count:
            raise UserError(
                f"only {present} of {count} clients appeared within "
                f"start-timeout={self._config.start_timeout:g} s"
            )

    def _meet(self, manager: ClientManager) -> int:
        """Ask clients not met before who they are; the number of partitions they know of.

        Who gives no answer is asked again the next time.
        """
        known = {*self.clients, *self._unusable}
        new = sorted((p for p in list(manager.all().values()) if p.cid not in known), key=_cid)
        if not new:
            return -1
        with ThreadPoolExecutor(min(len(new), self._at_a_time)) as pool:
            answers = list(zip(new, pool.map(self._ask, new), strict=True))
        good: dict[str, Properties] = {}
        for proxy, answer in answers:
            if answer is None:
                continue
            try:
                good[proxy.cid] = self._checked(answer)
            except ValueError as error:
                if "error" in answer and answer.get("partition", -1) != -1 and not self.clients:
                    raise UserError(str(error)) from None  # what is dealt is wrong for all
                self._leave_out(proxy.cid, "a client", error)
        if good and self.clients:
            self._join_late(self._numbered(good))
        elif good:
            self.clients = self._with_cuts(self._numbered(good))
        self._count_sizes({cid: who.size for cid, who in good.items()})
        return max((part[1] for part in (p.part for p in good.values()) if part), default=-1)

    def _ask(self, proxy: ClientProxy) -> Mapping[str, Scalar] | None:
        ins = GetPropertiesIns({**self._config.found, **self._question()})
        try:
            return proxy.get_properties(ins, self._config.start_timeout, 0).properties
        except Exception as error:  # whatever it is, the others go on
            log.warning("a client gives no answer, and will be asked again: %s", error)
            return None

    def _checked(self, answer: Mapping[str, Scalar]) -> Properties:
        found = checked_properties(answer, self._domains)
        if found.domain and found.part:
            self.partitions = self.partitions or found.part[1]
            if found.part[1] != self.partitions:
                raise ValueError(
                    f"partitions={found.part[1]}, but the others' data is dealt in "
                    f"{self.partitions}"
                )
        return found

    def _numbered(self, found: Mapping[str, Properties]) -> dict[str, ClientInfo]:
        """Clients as the strategy knows them, without cuts, in the order of their numbers."""
        taken = {info.number for info in self.clients.values()}
        new: dict[str, ClientInfo] = {}
        # Those whose number is known first, so that nobody else takes it.
        own = {c: who.part[0] if who.part else self._known.get(c, -1) for c, who in found.items()}
        away = {n for c, n in self._known.items() if c not in own}
        for cid, who in sorted(found.items(), key=lambda item: own[item[0]] < 0):
            number = own[cid]
            if number < 0 or number in taken:
                kept = taken | away  # by those who may come back
                number = next(n for n in range(len(kept) + 1) if n not in kept)
            taken.add(number)
            part = who.part if who.domain else None
            new[cid] = ClientInfo(number, who.size, who.domain, who.device, part=part)
        return dict(sorted(new.items(), key=lambda item: item[1].number))

    def _join_late(self, new: Mapping[str, ClientInfo]) -> None:
        """Take in clients together or, where something is wrong with one of them, one by one."""
        try:
            self.clients |= self._with_cuts(new)
        except StrategyError:
            raise
        except UserError as error:
            for cid, info in new.items():
                if len(new) > 1:
                    self._join_late({cid: info})
                else:
                    self._leave_out(cid, f"client {info.number}", error)

    def _with_cuts(self, new: Mapping[str, ClientInfo]) -> dict[str, ClientInfo]:
        cuts = self._choose_cuts(list(new.values()))
        return {cid: replace(info, cut=cuts[info.number]) for cid, info in new.items()}

    def _count_sizes(self, stated: Mapping[str, int]) -> None:
        """Keep sizes, of clients old and new, to what they may count for, as more are known."""
        if not self._config.defences:
            return
        self._sizes |= {cid: size for cid, size in stated.items() if cid in self.clients}
        counted = counted_sizes(self._sizes)
        for cid in stated.keys() & counted.keys():
            if counted[cid] < self._sizes[cid]:
                log.warning(
                    "client %d says it has %d images: it counts for %d, five times the median",
                    self.clients[cid].number,
                    self._sizes[cid],
                    counted[cid],
                )
        self.clients = {c: replace(i, size=counted[c]) for c, i in self.clients.items()}

    def _leave_out(self, cid: str, who: str, error: Exception | str) -> None:
        log.warning("%s is left out: %s", who, error)
        self._unusable.add(cid)


def _cid(proxy: ClientProxy) -> str:
    return proxy.cid

"""A guard for clients whose server's half is computed on another machine, and what it found.

There it compares clients with each other that are served there. Facts are what JSON can hold.
"""

from collections.abc import Collection, Mapping
from typing import Any

from huscf_flwr.defences.guard import Guard, Usual
from huscf_flwr.defences.guarded import Known
from huscf_flwr.defences.levels import whole_nets
from huscf_flwr.nets import NetSpec, State
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.spot_check import SpotCheck

Facts = dict[str, Any]


def guard_facts(guard: Guard, clients: Collection[int]) -> Facts:
    """What a guard elsewhere has to know of these clients when a round begins."""
    return {
        "levels": [
            [key, client, level]
            for key, levels in guard.state().items()
            for client, level in levels.items()
            if client in clients
        ],
        "met": sorted(guard.met.intersection(clients)),
        "suspects": sorted(guard.suspects.intersection(clients)),
    }


def guard_of(facts: Facts) -> Guard:
    """A guard that knows this; nobody can know whom it looks at by lot."""
    guard = Guard()
    guard.restore(_levels(facts))
    guard.met, guard.suspects = set(facts["met"]), set(facts["suspects"])
    return guard


def findings(guard: Guard, clients: Collection[int]) -> Facts:
    """What a guard has come to know of these clients in a round."""
    return {
        **guard_facts(guard, clients),
        "refused": list(guard.refused.items()),
        "clipped": list(guard.clipped.items()),
    }


def learn(guard: Guard, facts: Facts) -> None:
    """Take over what one elsewhere has found of its clients."""
    known = guard.state()
    for key, levels in _levels(facts).items():
        known[key] = {**known.get(key, {}), **levels}
    guard.restore(known)
    guard.met |= set(facts["met"])
    guard.refused |= dict(facts["refused"])
    guard.clipped.update(dict(facts["clipped"]))


def _levels(facts: Facts) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for key, client, level in facts["levels"]:
        found.setdefault(key, {})[client] = level
    return found


def known_facts(known: Mapping[int, Known]) -> tuple[Facts, list[State]]:
    """What is known of clients, and the whole nets that they are checked by."""
    nets: list[Any] = []
    facts: Facts = {}
    for client, own in known.items():
        checker = None
        if isinstance(own.checker, SpotCheck):
            if all(own.checker.nets is not other for other in nets):
                nets.append(own.checker.nets)
            index = next(i for i, other in enumerate(nets) if other is own.checker.nets)
            checker = [index, str(own.checker.cut), own.checker.fooled]
        usual = [{name: [u.level, u.tolerance] for name, u in of.items()} for of in own.usual]
        facts[str(client)] = {"usual": usual, "group": own.group, "checker": checker}
    return facts, [dict(own.state_dict()) for own in nets]


def known_of(facts: Facts, states: Collection[State], spec: NetSpec) -> dict[int, Known]:
    """What `known_facts` was given."""
    nets = [whole_nets(spec, state) for state in states]
    found = {}
    for client, own in facts.items():
        checker = None
        if own["checker"] is not None:
            index, cut, fooled = own["checker"]
            checker = SpotCheck(spec, nets[index], Cut.parse(cut), fooled)
        usual = [{name: Usual(*two) for name, two in of.items()} for of in own["usual"]]
        found[int(client)] = Known(usual, checker, own["group"])
    return found

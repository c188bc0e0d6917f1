"""The client that a strategy works with.

A device starts a process for every message, which loads what its client needs and no more: clients
of known strategies are found here, without the strategy.
"""

import importlib

from huscf_flwr.clients.base import GANClient

CLIENTS = {
    "huscf": "split:SplitGANClient",
    "fedgan": "whole:WholeGANClient",
    "clustered-fedgan": "whole:ObservedGANClient",
    "mdgan": "discriminating:MDGANClient",
    "fedsplitgan": "discriminating:FedSplitGANClient",
    "pflgan": "mixing:MixingGANClient",
    "hflgan": "two_generators:TwoGeneratorsClient",
}
"""Module in `huscf_flwr.clients` and class, by the run key `strategy`."""


def client_of(strategy: str) -> type[GANClient]:
    """The client class of the strategy that the run key `strategy` names.

    Raises
    ------
    UserError: there is no such strategy.
    """
    if strategy in CLIENTS:
        module, _, name = CLIENTS[strategy].partition(":")
        found: type[GANClient] = getattr(
            importlib.import_module(f"huscf_flwr.clients.{module}"), name
        )
        return found
    from strategies import load_strategy  # one's own, which brings all that strategies are made of

    return load_strategy(strategy).client_class

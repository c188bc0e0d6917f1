"""The Flower ClientApp."""

from huscf_flwr.system import cpu  # isort: skip  (before torch)

import functools
import itertools

from flwr.app import Context
from flwr.client import Client, ClientApp

from huscf_flwr.clients.of_strategy import client_of
from huscf_flwr.config import RunConfig
from huscf_flwr.system.caller import calling_folder
from huscf_flwr.system.logs import show_own_lines
from huscf_flwr.system.own_modules import HOME, look_in
from huscf_flwr.system.processes import age_s

_messages = itertools.count()


_called_from = functools.cache(calling_folder)  # it looks at all processes


def client_fn(context: Context) -> Client:
    """The client that the run's strategy works with, on this node."""
    config = RunConfig.from_mapping(context.run_config)
    if ":" in config.strategy + config.net:  # of one's own
        look_in(HOME, _called_from())
    if "data" in context.node_config:  # whoever runs the node reads its log
        show_own_lines()
    client = client_of(config.strategy)(context)
    if next(_messages) == 0:  # a device's process is for this message
        client.startup_s = age_s()
    return client.to_client()


app = ClientApp(client_fn=client_fn)
cpu.settle_memory()

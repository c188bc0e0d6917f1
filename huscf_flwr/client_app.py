"""The Flower ClientApp."""

from huscf_flwr.system import cpu  # isort: skip  (before torch)

from flwr.app import Context
from flwr.client import Client, ClientApp

from huscf_flwr.clients.of_strategy import client_of
from huscf_flwr.config import RunConfig


def client_fn(context: Context) -> Client:
    """The client that the run's strategy works with, on this node."""
    config = RunConfig.from_mapping(context.run_config)
    return client_of(config.strategy)(context).to_client()


app = ClientApp(client_fn=client_fn)
cpu.keep_freed_memory()

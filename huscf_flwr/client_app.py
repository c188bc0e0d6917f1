"""The Flower ClientApp."""

from huscf_flwr.system import cpu  # isort: skip  (before torch)

from flwr.app import Context
from flwr.client import Client, ClientApp

from huscf_flwr.config import RunConfig
from strategies import load_strategy


def client_fn(context: Context) -> Client:
    """The client that the run's strategy works with, on this node."""
    config = RunConfig.from_mapping(context.run_config)
    return load_strategy(config.strategy).client_class(context).to_client()


app = ClientApp(client_fn=client_fn)
cpu.keep_freed_memory()

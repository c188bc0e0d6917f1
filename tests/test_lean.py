"""What a device's process loads: it is started anew for every message."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, images, tiny, write_npz

from huscf_flwr.clients.of_strategy import CLIENTS, client_of
from strategies import STRATEGIES

_BARE = """
import sys
import torch, grpc, flwr.app, flwr.client
"""
_PRINT = """
print(*sorted({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)))
"""
_CLIENTS = """
import huscf_flwr.client_app
from huscf_flwr.clients.of_strategy import CLIENTS, client_of
for name in CLIENTS:
    client_of(name)
"""
_ROUND = """
import sys
import huscf_flwr.client_app
from flwr.app import Context, RecordDict
from huscf_flwr.clients.of_strategy import client_of
from huscf_flwr.config import RunConfig
from huscf_flwr.nets import initial_state, to_arrays
config = RunConfig.from_mapping({settings!r})
context = Context(1, 7, {{"data": {data!r}}}, RecordDict(), config.as_dict())
client = client_of("fedgan")(context)
assert client.get_properties({{}})["size"] == 24
told = {{"client": 0, "round": 1, "iterations": 1, "run": "7"}}
client.fit(to_arrays(initial_state(config.net_spec, 0)), told)
"""


def loaded(code: str) -> set[str]:
    """Packages in a process of its own that has run this, without those of Python itself."""
    ran = subprocess.run(
        [sys.executable, "-c", code + _PRINT],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    return {name for name in ran.stdout.split() if not name.startswith("_cython_")}


@pytest.fixture(scope="module")
def bare() -> set[str]:
    return loaded(_BARE)


def test_clients_load_little_more_than_torch_flwr_and_grpc(bare: set[str]) -> None:
    assert loaded(_BARE + _CLIENTS) - bare == {"huscf_flwr", "psutil", "safetensors"}


def test_nor_does_a_round(bare: set[str], tmp_path: Path) -> None:
    settings = tiny(strategy="fedgan").as_dict()
    data = str(write_npz(tmp_path / "own.npz", images(30)))
    code = _ROUND.format(settings=settings, data=data)
    assert loaded(code) - bare <= {"huscf_flwr", "psutil", "safetensors", "PIL"}


def test_a_client_is_that_of_its_strategy() -> None:
    assert {name: client_of(name) for name in CLIENTS} == {
        name: strategy.client_class for name, strategy in STRATEGIES.items()
    }
    assert client_of("strategies.fedgan:FedGAN") is client_of("fedgan")

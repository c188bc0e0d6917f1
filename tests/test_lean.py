"""What a device's process loads: it is started anew for every message."""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from conftest import PROJECT, images, tiny, write_npz
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def _of_a_device() -> set[str]:
    """Distributions that the group `device` brings, by their normalised names."""
    with (PROJECT / "pyproject.toml").open("rb") as file:
        group = tomllib.load(file)["dependency-groups"]["device"]
    found: set[str] = set()
    due = [Requirement(line) for line in group]
    while due:
        requirement = due.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate()):
            continue
        found.add(name)
        due += [Requirement(line) for line in metadata.requires(name) or ()]
    return found


_WITHOUT = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        missing = name.partition(".")[0] in {missing!r}
        return None if missing else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Without, sys.meta_path)
"""
_ALL_MESSAGES = """
from huscf_flwr.nets import GEN, select_blocks
client.evaluate(
    to_arrays(select_blocks(initial_state(config.net_spec, 0), {GEN: range(9)})),
    {"client": 0, "utility": True},
)
split = client_of("huscf")(context)
assert split.get_properties({"runner-address": ""})["flops-per-s"] > 0
"""


def test_a_device_needs_no_more_than_its_group(tmp_path: Path) -> None:
    device = _of_a_device()
    assert not device & {"ray", "matplotlib", "tensorboard"}
    packages = metadata.packages_distributions()
    missing = {
        module
        for module, distributions in packages.items()
        if not {canonicalize_name(one) for one in distributions} & device
    } - {"huscf_flwr", "strategies", "simulations"}
    data = str(write_npz(tmp_path / "own.npz", images(30)))
    settings = tiny(strategy="fedgan", devices="measured", image_noise=0.0).as_dict()
    round_ = _ROUND.format(settings=settings, data=data)
    found = loaded(_WITHOUT.format(missing=missing) + round_ + _ALL_MESSAGES)
    assert "sklearn" in found and not found & missing
    own = (
        'from huscf_flwr.clients.of_strategy import client_of\nclient_of("strategies.huscf:HuSCF")'
    )
    assert not loaded(_WITHOUT.format(missing=missing) + own) & missing  # as one of a user's own


def test_a_client_is_that_of_its_strategy() -> None:
    assert {name: client_of(name) for name in CLIENTS} == {
        name: strategy.client_class for name, strategy in STRATEGIES.items()
    }
    assert client_of("strategies.fedgan:FedGAN") is client_of("fedgan")

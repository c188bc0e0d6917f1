"""What a node draws: from the run's seed in simulation, from a secret of its own on a device."""

import stat
from pathlib import Path

import pytest
import torch
from flwr.app import Context, RecordDict

from huscf_flwr.clients.secret import own_secret
from huscf_flwr.clients.whole import WholeGANClient
from huscf_flwr.config import RunConfig
from huscf_flwr.data.batches import Batch
from huscf_flwr.data.draws import Purpose, secretly
from huscf_flwr.errors import UserError
from huscf_flwr.nets import initial_state, to_arrays
from tests.conftest import images, tiny, write_npz


def first_batch(config: RunConfig, node: dict[str, str | int], run: int = 1) -> Batch:
    """What a client begins its first round with."""
    context = Context(run, 7, node, RecordDict(), config.as_dict())  # type: ignore[arg-type]
    parameters = to_arrays(initial_state(config.net_spec, 0))
    told = {"client": 0, "round": 1, "iterations": 1}
    batch: Batch = WholeGANClient(context).begin(parameters, told).batches(0)
    return batch


def on_another_machine(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setenv("XDG_STATE_HOME", str(folder))


def test_nobody_who_knows_the_seed_knows_what_a_device_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(seed=5)
    node: dict[str, str | int] = {"data": str(write_npz(tmp_path / "own.npz", images(30)))}
    on_another_machine(monkeypatch, tmp_path / "a")
    mine, again, later = (first_batch(config, node, run) for run in (1, 1, 2))
    on_another_machine(monkeypatch, tmp_path / "b")
    theirs = first_batch(config, node)
    for field in ("images", "latent"):
        assert torch.equal(getattr(mine, field), getattr(again, field))
        assert not torch.equal(getattr(mine, field), getattr(later, field))
        assert not torch.equal(getattr(mine, field), getattr(theirs, field))
    dealt = {"partition-id": 0, "num-partitions": 2}
    repeated = [first_batch(tiny(seed=5, domains="digits", num_classes=10), dealt) for _ in "ab"]
    assert all(torch.equal(a, b) for a, b in zip(*(batch[:4] for batch in repeated), strict=True))


def test_a_secret_is_for_its_user_alone_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_another_machine(monkeypatch, tmp_path)
    secret = own_secret()
    (file,) = (tmp_path / "huscf-flwr").iterdir()
    assert own_secret() == secret == file.read_bytes() and len(secret) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_bytes(b"short")
    with pytest.raises(UserError, match="is no secret of 32 bytes"):
        own_secret()
    on_another_machine(monkeypatch, file)
    with pytest.raises(UserError, match="its secret cannot be kept in"):
        own_secret()


def test_draws_of_each_purpose_run_and_client_are_their_own() -> None:
    secret = b"0" * 32
    found = {
        secretly(secret, run, client)(purpose, index).integers(2**63)
        for run in (1, 2)
        for client in (1, 2)
        for purpose in Purpose
        for index in (0, 1)
    }
    assert len(found) == 2 * 2 * len(Purpose) * 2

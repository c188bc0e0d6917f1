"""Runs whose cuts are planned: for the devices of a file, for stated and for measured ones."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BATCH, LocalChannel, dial, images, running, segments, tiny, write_npz
from flwr.app import Context, RecordDict

from huscf_flwr.clients.split import SplitGANClient
from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError
from huscf_flwr.nets import net_shapes
from huscf_flwr.planning.measure import measure_client
from huscf_flwr.report.records import ClientInfo
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.exchanges import Exchange
from huscf_flwr.wire.channel import SessionError
from huscf_flwr.wire.frame_server import FrameServer
from huscf_flwr.wire.frames import Frame, FrameKey
from simulations.engine import Engine
from strategies.devices import ClientDevices
from strategies.planner import CutPlanner

pytestmark = pytest.mark.usefixtures("few_steps")

FAST, SLOW = (1e12, 1e9), (1e5, 1e9)
FLEET = """
server = {flops-per-s = 1e9, link-bytes-per-s = 1e9}
profiles = [
  {name = "fast", flops-per-s = 1e12, link-bytes-per-s = 1e9},
  {name = "slow", flops-per-s = 1e5, link-bytes-per-s = 1e9},
]
"""
MOST, LEAST = Cut(2, 2, 2, 2), Cut(1, 1, 1, 1)


def config(**settings: Any) -> RunConfig:
    one_domain = {
        "num_clients": 4,
        "num_server_rounds": 1,
        "clusters": "auto",
        "domains": "one.npz",
    }
    return tiny(**{**one_domain, **settings})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_npz(tmp_path / "one.npz", images(40))
    (tmp_path / "fleet.toml").write_text(FLEET)
    return tmp_path


def planner(folder: Path, speed: float = 1e9, **settings: Any) -> CutPlanner:
    run_config = config(**settings)
    devices = ClientDevices(run_config, str(folder))
    return CutPlanner(run_config, net_shapes(run_config.net_spec), devices, lambda n: speed)


def client(number: int, speeds: tuple[float, float] | None = None, **device: Any) -> ClientInfo:
    keys = ("flops-per-s", "link-bytes-per-s")
    return ClientInfo(number, 10, "", {**dict(zip(keys, speeds or (), strict=False)), **device})


def test_a_run_takes_its_cuts_from_the_plan_for_a_file(folder: Path) -> None:
    """The server is slow: fast devices hold all they can; those that are slower still, least."""
    made = Engine(config(devices="fleet.toml"), str(folder)).run()
    with (made / "clusters.csv").open() as file:
        cuts = sorted(row["cut"] for row in csv.DictReader(file))
    assert cuts == [str(LEAST)] * 2 + [str(MOST)] * 2
    latency = json.loads((made / "summary.json").read_text())["latency"]
    assert latency["predicted_s"] > 1 > latency["measured_s"] > 0  # such devices would be slow
    assert latency["predicted_for"] == "the devices of fleet.toml"


def test_clients_in_this_process_measure_themselves(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="huscf_flwr"):
        made = Engine(config(devices="measured"), str(folder)).run()
    latency = json.loads((made / "summary.json").read_text())["latency"]
    assert 0 < latency["predicted_s"] < 10 * latency["measured_s"]
    assert latency["predicted_for"] == "measured devices"
    assert any("planned cuts for measured devices" in line for line in caplog.messages)
    (line,) = [line for line in caplog.messages if "s measured, " in line]
    assert "s predicted" in line


def test_listed_cuts_need_no_plan_and_no_devices(folder: Path) -> None:
    given = planner(folder, cuts="1-2-1-2,2-2-2-2", devices="no-such-file")
    assert given.choose([client(0), client(1), client(4)]) == {
        0: Cut(1, 2, 1, 2),
        1: MOST,
        4: Cut(1, 2, 1, 2),
    }
    assert given.plan is None


@pytest.mark.parametrize(("cohort", "planned"), [("all", 9), ("4", 3), ("20", 9)])
def test_a_run_plans_for_the_clients_that_share_an_iteration(
    cohort: str, planned: int, folder: Path
) -> None:
    made = planner(folder, devices="fleet.toml", cohort=cohort)
    made.choose([client(number) for number in range(9)])
    assert made.plan is not None and made.plan.cohort == planned


def test_a_plan_counts_the_bytes_that_the_wire_carries(folder: Path) -> None:
    made = {wire: planner(folder, devices="fleet.toml", wire=wire) for wire in ("float32", "int8")}
    for one in made.values():
        one.choose([client(number) for number in range(4)])
    plans = {wire: one.plan for wire, one in made.items()}
    assert plans["float32"] is not None and plans["int8"] is not None
    sizes = [plan.costs.gen.output_bytes.sum() for plan in plans.values() if plan is not None]
    assert sizes[1] == pytest.approx(sizes[0] / 4, rel=0.05)


def test_a_node_states_its_speeds_or_its_profile(folder: Path) -> None:
    def properties(**node: Any) -> dict[str, Any]:
        context = Context(
            run_id=0,
            node_id=1,
            node_config={"data": str(folder / "one.npz"), **node},
            state=RecordDict(),
            run_config=config().as_dict(),
        )
        return SplitGANClient(context).get_properties({})

    stated = properties(**{"flops-per-s": 5e9, "link-bytes-per-s": 2})
    assert (stated["flops-per-s"], stated["link-bytes-per-s"]) == (5e9, 2)
    assert properties(profile="phone")["profile"] == "phone"
    half = properties(**{"flops-per-s": 5e9})
    assert half["error"] == "this node's --node-config: lacks link-bytes-per-s"


def test_stated_measured_and_dealt_devices_are_planned_together(folder: Path) -> None:
    """Numbers as stated, names from the file, the rest dealt; the server measures itself."""
    made = planner(folder, speed=2e9, devices="fleet.toml")
    cuts = made.choose(
        [
            client(0, FAST),
            client(1, SLOW),
            client(2, profile="slow"),
            client(3, FAST, **{"overhead-s": 0.0}),
            client(4),
        ]
    )
    assert (cuts[0], cuts[1], cuts[2], cuts[3]) == (MOST, LEAST, LEAST, MOST)
    assert made.plan is not None and made.plan.fleet.server.flops_per_s == 2e9
    # Who comes later gets the cut of the group it is most like, and nobody else's changes.
    assert made.choose([client(9, (9e11, 2e9)), client(7, (2e6, 1e9))]) == {9: MOST, 7: LEAST}


@pytest.mark.parametrize(
    ("settings", "info", "message"),
    [
        ({"devices": "fleet.toml"}, client(5, profile="tablet"), 'client 5: profile "tablet"'),
        ({"devices": "measured"}, client(3), "client 3 did not measure its device"),
        ({"devices": "measured"}, client(0, profile="x"), "names no file of profiles"),
        (
            {"devices": "fleet.toml"},
            client(2, (0.0, 1.0)),
            "client 2: flops-per-s=0 must be",
        ),
    ],
)
def test_impossible_devices_end_the_run(
    settings: dict[str, str], info: ClientInfo, message: str, folder: Path
) -> None:
    with pytest.raises(UserError, match=message):
        planner(folder, **settings).choose([info])


def test_a_device_is_measured_over_both_channels() -> None:
    """Even while a round is open; and nobody without the token gets an echo."""
    spec_of_run = config().net_spec
    with running(segments()) as runner:
        server = FrameServer(runner, "127.0.0.1:0")
        try:
            runner.open_round(1, [])
            for channel in (
                LocalChannel(runner, runner.echo_token(60)),
                dial(server, runner.echo_token(60)),
            ):
                frame = Frame(FrameKey(0, 0, Exchange.JUDGE), {"fake": torch.rand(3, 2)})
                answer = channel.exchange(frame)
                assert answer.key == frame.key
                assert torch.equal(answer.tensors["fake"], frame.tensors["fake"])
                found = measure_client(channel, spec_of_run, BATCH, "cpu")
                assert found.flops_per_s > 0 and found.link_bytes_per_s > 0
                assert found.overhead_s >= 0
                with pytest.raises(SessionError):
                    channel.exchange(Frame(frame.key, {"fake": torch.full((2,), torch.nan)}))
                channel.close()
            stranger = dial(server, "guess")
            with pytest.raises(SessionError, match="unknown token"):
                stranger.exchange(frame)
            stranger.close()
        finally:
            server.close()


def test_whose_devices_have_no_room_is_left_out_of_federated_split_gans(folder: Path) -> None:
    """Others train, and an iteration should take as long as their devices do."""
    (folder / "fleet.toml").write_text(
        FLEET.replace(
            '1e9},\n  {name = "slow"',
            '1e9, devices = [{capacity = 9, time-factor = 1}]},\n  {name = "slow"',
        )
    )
    engine = Engine(
        config(strategy="fedsplitgan", devices="fleet.toml", output_dir="out"), str(folder)
    )
    engine.run()
    rows = list(csv.DictReader((folder / "out" / "clusters.csv").open()))
    slow = [
        n
        for n, p in engine.strategy.devices.profiles(
            list(engine.strategy.roster.clients.values())
        ).items()
        if p.name == "slow"
    ]
    assert len(slow) == 2 and {int(row["client"]) for row in rows} == set(slow)
    latency = json.loads((folder / "out" / "summary.json").read_text())["latency"]
    passes = 7 / 3 * engine.strategy.costs.disc.pass_flops / 1e5
    assert latency["predicted_s"] == pytest.approx(passes, rel=0.01)

"""Planning the cuts: costs, the latency model, the search, and the command."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SHAPES
from PIL import Image

from huscf_flwr.cli import main
from huscf_flwr.errors import UserError
from huscf_flwr.nets import NetSpec, net_shapes
from huscf_flwr.planning.costs import BlockCosts, NetCosts, net_costs
from huscf_flwr.planning.devices import (
    Fleet,
    Profile,
    fleet_of,
    grouped,
    read_devices,
)
from huscf_flwr.planning.latency import (
    backward_table,
    feedback_seconds,
    forward_table,
    iteration_seconds,
    net_seconds,
    passes_seconds,
    server_times,
    unsplit_seconds,
)
from huscf_flwr.planning.plan import alternatives, make_plan
from huscf_flwr.planning.search import genetic, search_cuts

PAPERS_NET = NetSpec(image_size=28, channels=1, num_classes=10, width=64)


def costs_of(flops: list[float], sizes: list[float]) -> BlockCosts:
    return BlockCosts(np.array(flops, float), np.array(sizes, float), np.full(len(flops), 10))


def random_fleet(groups: int, seed: int, clients: int = 1) -> Fleet:
    random = np.random.default_rng(seed)
    speeds, links = 10 ** random.uniform(8.5, 11.2, groups), 10 ** random.uniform(7, 9, groups)
    profiles = [
        Profile(f"box-{i}", float(speed), float(link))
        for i, (speed, link) in enumerate(zip(speeds, links, strict=True))
    ]
    return grouped(Profile("server", 672e9, 1e9), profiles * clients)[0]


def paper_fleet(clients: int) -> Fleet:
    return fleet_of(read_devices("paper"), clients)


def test_costs_are_those_worked_out_by_hand() -> None:
    """Operations of each block's layers, a multiply-add as two; outputs of 64 float32 samples."""
    costs = net_costs(PAPERS_NET, 64)
    by_hand = {
        "gen": [
            2 * 110 * 12544,  # linear
            2 * 256 * 128 * 4 * 4 * 7 * 7,  # transposed: every input pixel meets the kernel
            2 * 128 * 128 * 3 * 3 * 14 * 14,
            2 * 128 * 64 * 4 * 4 * 14 * 14,
            2 * 64 * 1 * 3 * 3 * 28 * 28,
        ],
        "disc": [
            2 * 2 * 64 * 4 * 4 * 14 * 14,  # the label is a second channel
            2 * 64 * 128 * 4 * 4 * 7 * 7,
            2 * 128 * 128 * 3 * 3 * 7 * 7,
            2 * 128 * 256 * 4 * 4 * 3 * 3,
            2 * 2304,
        ],
    }
    assert costs.gen.forward_flops.tolist() == [64 * f for f in by_hand["gen"]]
    assert costs.disc.forward_flops.tolist() == [64 * f for f in by_hand["disc"]]
    sizes = [256 * 7 * 7, 128 * 14 * 14, 128 * 14 * 14, 64 * 28 * 28, 28 * 28]
    assert costs.gen.output_bytes.tolist() == [64 * 4 * size for size in sizes]
    assert (costs.gen.backward_flops == 2 * costs.gen.forward_flops).all()


def test_a_pass_of_two_clients_through_three_blocks_by_hand() -> None:
    """Blocks of 100, 400 and 200 operations; 60 and 80 bytes between them; one block at each end.

    Forward: client A (100 per s, 10 byte/s) computes block 0 in 1 s and sends in 6 s; B (50 per s,
    30 byte/s) in 2 s and 2 s. The server (200 per s) starts at 7 with both; 800 operations take
    4 s. Returning 80 bytes takes A 8 s, and B, whose link is faster than the server's 20 byte/s,
    4 s; block 2 takes A 2 s and B 4 s. So A is done at 21, B at 19.
    Backward: twice the operations, the same bytes. A computes in 4 s and sends 80 bytes in 8 s, B
    in 8 s and 80/30 s. The server works from 12 to 20. 60 bytes return to A in 6 s, to B in 3 s;
    block 0 takes A 2 s and B 4 s: A is done at 28, B at 27.
    """
    costs = costs_of([100, 400, 200], [60, 80, 4])
    fleet = Fleet(
        (Profile("A", 100, 10), Profile("B", 50, 30)), np.ones(2), Profile("server", 200, 20)
    )
    ends = np.ones((1, 2, 2), int)
    started, finished, seconds = server_times(
        forward_table(costs, fleet), ends[..., 0], ends[..., 1]
    )
    assert (started[0, 1], finished[0, 1], seconds[0]) == (7, 11, 21)
    started, finished, seconds = server_times(
        backward_table(costs, fleet), ends[..., 1], ends[..., 0]
    )
    assert (started[0, 1], finished[0, 1], seconds[0]) == (12, 20, 28)
    assert net_seconds(costs, fleet, ends).tolist() == [49]
    both = iteration_seconds(NetCosts(costs, costs), fleet, np.ones((1, 2, 4), int))
    assert both.tolist() == [49 + 3 * 49]
    # Whole nets: 700 operations forward, 1400 backward, in 1 + 3 passes; B needs 8400 / 50 s.
    nets = NetCosts(costs, costs)
    assert unsplit_seconds(nets, fleet) == 168
    # With another generator: 2 + 5 passes.
    assert unsplit_seconds(nets, fleet, gen=2, disc=5) == 294
    # A generator on the server: 4 bytes of images; two batches there take 2 * 2100 / 200 = 21 s; B
    # gets both in 0.4 s, needs 126 s for three passes, and sends one in 4/30 s.
    three, two = (passes_seconds(nets.disc, fleet, passes) for passes in (3, 2))
    slow = feedback_seconds(nets, fleet, batches=2, given=2, disc_s=three)
    assert slow == pytest.approx(21 + 0.4 + 126 + 4 / 30)
    fast = feedback_seconds(nets, fleet, batches=1, given=1, disc_s=two)
    assert fast == pytest.approx(10.5 + 0.2 + 84 + 4 / 30)


def test_clients_enter_and_leave_at_their_own_cuts() -> None:
    """Five blocks of 10 operations on a server of 10 per s; links that take no time.

    A (10 per s, two clients) holds one block at each end, B (1 per s) two. B's first two blocks
    take 20 s; meanwhile A's are through block 1 at 1 + 2 = 3. Block 2 starts with B at 20 and
    takes three clients 3 s, so B leaves at 23 and ends at 43; A's block 3 is done at 25.
    """
    costs = costs_of([10] * 5, [0] * 5)
    fleet = Fleet(
        (Profile("A", 10, 1), Profile("B", 1, 1)), np.array([2.0, 1.0]), Profile("server", 10, 1)
    )
    first = last = np.array([[1, 2]])
    started, finished, seconds = server_times(forward_table(costs, fleet), first, last)
    assert started[0, 1:4].tolist() == [1, 20, 23]
    assert finished[0, 1:4].tolist() == [3, 23, 25]
    assert seconds.tolist() == [43]


def test_overhead_counts_once_a_pass() -> None:
    costs = NetCosts(costs_of([1] * 3, [0] * 3), costs_of([1] * 3, [0] * 3))
    server = Profile("server", 1, 1)
    cuts = np.ones((1, 1, 4), int)
    plain, slow = (
        iteration_seconds(costs, Fleet((Profile("A", 1, 1, s),), np.ones(1), server), cuts)[0]
        for s in (0, 5)
    )
    assert slow - plain == 8 * 5


def test_many_plans_at_once_are_each_computed_alone() -> None:
    fleet, costs = paper_fleet(80), net_costs(PAPERS_NET, 64)
    cuts = np.random.default_rng(0).integers(1, 3, (50, 7, 4))
    together = iteration_seconds(costs, fleet, cuts)
    assert together.tolist() == [iteration_seconds(costs, fleet, cut[None])[0] for cut in cuts]


@pytest.mark.parametrize("seed", range(5))
def test_exhaustive_over_groups_is_the_best_of_all_plans(seed: int) -> None:
    """Even of those in which devices of a group differ, as the search's text says."""
    costs = net_costs(PAPERS_NET, 64)
    fleet = random_fleet(2, seed, clients=3)
    found, _ = search_cuts(costs, net_shapes(PAPERS_NET), fleet, search="exhaustive")
    alone = Fleet(tuple(p for p in fleet.profiles for _ in range(3)), np.ones(6), fleet.server)
    choices = np.array(list(itertools.product((1, 2), repeat=2)))
    ends = choices[np.array(list(itertools.product(range(4), repeat=6)))]
    least = (
        net_seconds(costs.gen, alone, ends).min() + 3 * net_seconds(costs.disc, alone, ends).min()
    )
    assert iteration_seconds(costs, fleet, found[None])[0] == pytest.approx(least, rel=1e-12)


@pytest.mark.parametrize("clients", [80, 100])
def test_the_papers_fleet_is_planned_as_well_by_genetic_search(clients: int) -> None:
    fleet = paper_fleet(clients)
    exhaustive = make_plan(PAPERS_NET, 64, fleet, search="exhaustive")
    assert (exhaustive.search, make_plan(PAPERS_NET, 64, fleet).search) == ("exhaustive",) * 2
    for seed in range(5):
        genetic_plan = make_plan(PAPERS_NET, 64, fleet, search="genetic", seed=seed)
        assert genetic_plan.latency_s <= exhaustive.latency_s * (1 + 1e-12)
        assert genetic_plan.seconds < 2
    assert exhaustive.seconds < 1
    others = alternatives(exhaustive, net_shapes(PAPERS_NET))
    assert len(others) == 7 and all(s > exhaustive.latency_s for s in others.values())


def test_a_thousand_devices_of_a_thousand_kinds() -> None:
    fleet = random_fleet(1000, seed=1)
    plan = make_plan(PAPERS_NET, 64, fleet)
    assert (plan.search, len(plan.cuts)) == ("genetic", 1000)
    assert plan.seconds < 20
    common = np.array([[cut] * 1000 for cut in itertools.product((1, 2), repeat=4)])
    assert plan.latency_s < iteration_seconds(plan.costs, fleet, common).min()
    assert len(plan.lines()) < 30


def test_the_same_seed_finds_the_same_plan_and_no_common_cut_is_better() -> None:
    """Even with a population that has hardly evolved."""
    fleet, costs = random_fleet(40, seed=2), net_costs(PAPERS_NET, 64).gen
    once, again = (
        genetic(costs, (2, 2), fleet, np.random.default_rng(7), 20, 3) for _ in range(2)
    )
    assert (once == again).all()
    common = np.array([[ends] * 40 for ends in itertools.product((1, 2), repeat=2)])
    assert net_seconds(costs, fleet, once[None])[0] <= net_seconds(costs, fleet, common).min()


def test_nets_with_a_single_cut_and_with_many_are_planned() -> None:
    fleet = random_fleet(3, seed=0)
    three = costs_of([10e6] * 3, [1e6] * 3)
    nine = costs_of([10e6] * 9, [1e6] * 9)
    for search in ("exhaustive", "genetic"):
        net = net_shapes(NetSpec(image_size=16, channels=1, num_classes=2, width=2))
        shapes = type(net)(net.gen[:3], (net.disc * 2)[:9], net.latent_size)
        cuts, _ = search_cuts(NetCosts(three, nine), shapes, fleet, search=search)
        assert (cuts[:, :2] == 1).all() and cuts.max() <= 4
        if search == "exhaustive":
            best = iteration_seconds(NetCosts(three, nine), fleet, cuts[None])[0]
    assert iteration_seconds(NetCosts(three, nine), fleet, cuts[None])[0] <= best * 1.01


def test_a_plans_times_add_up() -> None:
    plan = make_plan(PAPERS_NET, 64, paper_fleet(80))
    found = plan.schedule()
    assert found.seconds == pytest.approx(plan.latency_s, rel=1e-12)
    assert ((found.device_s + found.link_s + found.server_s) <= found.seconds * (1 + 1e-12)).all()
    assert (plan.times_s() > 0).all() and (plan.times_s() < plan.latency_s).all()
    assert max(span.end_s for span in found.spans) == pytest.approx(found.seconds)
    by_lane = [[s for s in found.spans if s.group == group] for group in (None, *range(7))]
    for lane in by_lane:
        assert all(one.end_s <= two.start_s + 1e-9 for one, two in itertools.pairwise(lane)), (
            "a lane does one thing at a time"
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "papper"], 'devices "papper": No such file or directory; it must be paper'),
        (["--devices", "paper", "--clients", "0"], "0 clients: there must be at least one"),
        (["--devices", "paper", "--cohort", "0"], "--cohort 0: must be at least 1"),
        (["--devices", "paper", "--width", "0"], "width=0: must be a whole number, at least 1"),
        (
            ["--devices", "paper", "--batch-size", "1"],
            "--batch-size 1 --seed 0: must be at least 2",
        ),
        (["--devices", "paper", "--search", "best"], 'search "best": must be one of auto'),
        (["--devices", "paper", "--net", "nope"], 'net="nope" is not registered'),
        (["--devices", "paper", "--plot", "/proc/none/x.png"], "--plot /proc/none/x.png: "),
        (["--devices", "paper", "--plot", "x.doc"], "--plot x.doc: "),
    ],
)
def test_wrong_arguments_get_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("huscf: ") and message in line


def test_exhaustive_refuses_more_groups_than_it_can_try() -> None:
    costs, fleet = net_costs(PAPERS_NET, 64), random_fleet(12, seed=0)
    with pytest.raises(UserError, match=r"12 groups of equal devices with 4 .*use genetic"):
        search_cuts(costs, SHAPES, fleet, search="exhaustive")


def test_the_command_prints_json_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "timeline.png"
    command = ["plan", "--devices", "paper", "--clients", "80", "--compare", "--json"]
    assert main([*command, "--plot", str(picture)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"latency_s", "seconds", "search", "groups", "alternatives"}
    assert sum(group["clients"] for group in found["groups"]) == 80
    ends = ["gen_head", "gen_tail", "disc_head", "disc_tail"]
    assert list(found["groups"][0]) == ["profile", "clients", *ends]
    cuts = np.array([[[group[key] for key in ends] for group in found["groups"]]])
    seconds = iteration_seconds(net_costs(PAPERS_NET, 64), paper_fleet(80), cuts)[0]
    assert found["latency_s"] == pytest.approx(seconds)
    with Image.open(picture) as drawn:
        assert drawn.width > 1000 and len(drawn.convert("RGB").getcolors(2**20) or []) > 20


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--devices", "paper", "--batch-size", "1024"]) == 0
    assert "one iteration of 7 clients" in capsys.readouterr().out
    assert main(["plan", "--devices", "paper", "--clients", "80", "--cohort", "4"]) == 0
    assert "one iteration of 4 clients" in capsys.readouterr().out
    assert main(["plan", "--devices", "paper", "--compare"]) == 0
    printed = capsys.readouterr().out
    assert "device-1 (0.48 GFLOP/s, 50 MB/s)         1     1    1      1    1" in printed
    assert "whole nets on every client (FedGAN, PFL-GAN-style)" in printed

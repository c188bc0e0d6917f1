"""What is done for all clients together is not done for each; some of them may take part."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import images, tiny, write_npz

from huscf_flwr.errors import UserError
from huscf_flwr.split.segments import Segments
from simulations.engine import Engine
from strategies import HuSCF, base

pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_npz(tmp_path / "one.npz", images(200))
    return tmp_path


def engine(folder: Path, **settings: Any) -> Engine:
    defaults = {"domains": "one.npz", "cuts": "1-1-1-1", "clusters": "1", "num_server_rounds": 1}
    return Engine(tiny(**{**defaults, **settings}), str(folder))


def test_parameters_are_packed_and_the_server_s_copied_once_for_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()
    pack, copy = base.ndarrays_to_parameters, Segments.state

    def packing(arrays: Any) -> Any:
        calls["packed"] += 1
        return pack(arrays)

    def copying(segments: Segments) -> Any:
        calls["copied"] += 1
        return copy(segments)

    monkeypatch.setattr(base, "ndarrays_to_parameters", packing)
    monkeypatch.setattr(Segments, "state", copying)
    found = []
    for clients in (3, 12):
        calls.clear()
        engine(folder, num_clients=clients).run()
        found.append(dict(calls))
    assert found[0] == found[1] and found[0].keys() == {"packed", "copied"}


def test_a_part_of_the_clients_trains_and_is_probed(folder: Path) -> None:
    made = engine(folder, num_clients=12, fraction_fit=0.25, clusters="auto", num_server_rounds=3)
    strategy, probed = made.strategy, []
    assert isinstance(strategy, HuSCF)
    aggregate = strategy.aggregate_evaluate

    def watched(*args: Any) -> Any:
        found = aggregate(*args)
        probed.append(set(strategy._probing.found))
        return found

    strategy.aggregate_evaluate = watched  # type: ignore[method-assign]
    run = made.run()
    with (run / "clusters.csv").open() as file:
        rows = list(csv.DictReader(file))
    rounds = [{int(r["client"]) for r in rows if r["round"] == str(n)} for n in (1, 2, 3)]
    assert [len(clients) for clients in rounds] == [3, 3, 3]
    assert len(set.union(*rounds)) > 3
    # When the warm-up has ended, those who have trained, and each time those of the next round.
    assert probed[0] == rounds[0] | rounds[1] and probed[-1] == set.union(*rounds)


def test_who_is_drawn_depends_on_nobody_else(folder: Path) -> None:
    made = engine(folder, num_clients=12, fraction_fit=0.5)
    made.run()
    roster = made.strategy.roster
    present: Any = dict(enumerate(roster.clients.values()))
    drawn = roster.drawn(present, 2)
    assert len(drawn) == 6 and drawn == roster.drawn(present, 2) != roster.drawn(present, 3)
    fewer = {proxy: info for proxy, info in present.items() if proxy in drawn or proxy % 2}
    assert set(roster.drawn(fewer, 2)) <= set(drawn)


def test_no_more_than_all_can_take_part() -> None:
    with pytest.raises(UserError, match=r"fraction-fit=1\.5: must be at most 1"):
        tiny(fraction_fit=1.5)

"""Answers of clients at the strategy's door: what is wrong leaves its sender out, and only it."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from conftest import SPEC
from flwr.common import (
    Code,
    EvaluateRes,
    FitRes,
    GetPropertiesRes,
    Parameters,
    Scalar,
    Status,
    ndarrays_to_parameters,
)
from flwr.server import SimpleClientManager
from flwr.server.client_proxy import ClientProxy

from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError
from huscf_flwr.nets import initial_state, net_shapes, to_arrays
from strategies.answers import checked_properties, checked_scores, checked_update
from strategies.devices import ClientDevices
from strategies.planner import CutPlanner
from strategies.roster import Roster

OK = Status(Code.OK, "")
STATE = initial_state(SPEC, 0)
OWN = {"partition": -1, "partitions": -1, "size": 10, "domain": ""}
DEALT = {"partition": 1, "partitions": 4, "size": 10, "domain": "digits"}
METRICS = {
    "generator-loss": 0.7,
    "discriminator-loss": 1.4,
    "peak-memory-mb": 300.0,
    "startup-seconds": 2.5,
    "training-seconds": 4.0,
}
SCORES = {
    "image_score": 1.5,
    "image_score_real": 2.5,
    "frechet_distance_classifier": 3.0,
    "frechet_distance_classifier_real": 1.0,
    "kernel_distance_classifier": 0.2,
    "kernel_distance_classifier_real": 0.1,
    "missing_classes": 0,
}


def test_good_answers_pass() -> None:
    properties = checked_properties({**DEALT, "overhead-s": 0.1, "other": 1}, {"digits"})
    assert (properties.size, properties.part) == (10, (1, 4))
    assert properties.device == {"overhead-s": 0.1}
    assert checked_properties(OWN, {"digits"}).part is None
    back = checked_update(FitRes(OK, ndarrays_to_parameters(to_arrays(STATE)), 10, METRICS), STATE)
    assert back.state.keys() == STATE.keys() and back.peak_memory_mb == 300
    assert (back.startup_s, back.training_s) == (2.5, 4.0)
    scores = checked_scores(3, EvaluateRes(OK, 3.0, 5, {**SCORES, "accuracy": 0.5}))
    assert (scores.client, scores.images, scores.values["accuracy"]) == (3, 5, 0.5)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, "partition=None must be a whole number"),
        ({**OWN, "size": 1}, "size=1 must be a whole number, at least 2"),
        ({**OWN, "size": math.inf}, "size=inf must be a whole number"),
        ({**DEALT, "partition": 7, "partitions": 2}, "partition=7 must be below partitions=2"),
        ({**DEALT, "domain": "../x"}, r"domain='\.\./x' must be one of digits, or empty"),
        ({**DEALT, "partition": -1}, "domain='digits' is dealt to partitions"),
        ({**OWN, "error": "no data"}, "no data"),
    ],
)
def test_impossible_properties(answer: Mapping[str, Scalar], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_properties(answer, {"digits"})


def _bytes(*tensors: bytes) -> Callable[[list[np.ndarray]], Parameters]:
    return lambda arrays: Parameters(list(tensors), "numpy.ndarray")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: ndarrays_to_parameters(a[:-1]), "arrays that were due: ValueError"),
        (lambda a: ndarrays_to_parameters([a[0][:-1], *a[1:]]), "was due"),
        (lambda a: ndarrays_to_parameters([a[0] * 1e25, *a[1:]]), "values from .*e\\+25"),
        (lambda a: ndarrays_to_parameters([a[0] * np.nan, *a[1:]]), "values from nan"),
        (_bytes(b"PK\x03\x04 and no archive"), "BadZipFile"),
        (_bytes(b"\x93NUMPY\x01\x00\x08\x00{'descr("), "arrays that were due"),
        (_bytes(b""), "arrays that were due: EOFError"),
    ],
)
def test_parameters_that_cannot_be_used(spoil: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_update(FitRes(OK, spoil(to_arrays(STATE)), 10, METRICS), STATE)


@pytest.mark.parametrize("value", [math.nan, "0.7", None])
@pytest.mark.parametrize("name", METRICS)
def test_metrics_that_are_no_numbers(name: str, value: Any) -> None:
    parameters = ndarrays_to_parameters(to_arrays(STATE))
    with pytest.raises(ValueError, match=f"{name}={value!r} must be a finite number"):
        checked_update(FitRes(OK, parameters, 10, {**METRICS, name: value}), STATE)


@pytest.mark.parametrize(
    ("found", "images", "message"),
    [
        ({"details": 1.0}, 5, "'details' is not one of the scores"),
        ({"image_score": math.nan}, 5, "image_score=nan must be a finite number"),
        ({"kernel_distance_classifier_real": None}, 5, "_real=None must be a finite number"),
        ({"missing_classes": -1}, 5, "missing_classes=-1 must be"),
        ({}, 0, "scores of 0 images"),
    ],
)
def test_impossible_scores(found: Mapping[str, Scalar], images: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_scores(0, EvaluateRes(OK, 1.0, images, {**SCORES, **found}))


# Meeting them


class Node(ClientProxy):
    """Answers what it is made with; an exception is raised, once."""

    def __init__(self, cid: str, answer: Mapping[str, Scalar], fails: bool = False) -> None:
        super().__init__(cid)
        self.answer, self.fails = dict(answer), fails

    def get_properties(self, ins: Any, timeout: Any, group_id: Any) -> GetPropertiesRes:
        if self.fails:
            self.fails = False
            raise ConnectionError("the line is bad")
        return GetPropertiesRes(OK, self.answer)

    get_parameters = fit = evaluate = reconnect = None  # type: ignore[assignment]


FAST = {"flops-per-s": 1e9, "link-bytes-per-s": 1e8, "overhead-s": 0.0}


def meeting(
    *nodes: Node, known: Mapping[str, int] | None = None
) -> tuple[Roster, SimpleClientManager]:
    own = {"num_classes": 3, "channels": 1, "width": 2}
    config = RunConfig(num_clients=len(nodes), devices="measured", **own)
    planner = CutPlanner(
        config, net_shapes(config.net_spec), ClientDevices(config, "."), lambda cohort: 1e9
    )
    manager = SimpleClientManager()
    for node in nodes:
        manager.register(node)
    return Roster(config, dict, planner.choose, at_a_time=4, known=known), manager


def test_latecomers_that_cannot_train_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    roster, manager = meeting(Node("a", {**OWN, **FAST}), Node("b", {**OWN, **FAST}))
    assert len(roster.gather(manager)) == 2
    for cid, answer in {
        "c": {**OWN, "profile": "phone"},
        "d": {**OWN, **FAST, "overhead-s": math.nan},
        "e": {},
        "f": {**OWN, **FAST},
        "g": OWN,
    }.items():
        manager.register(Node(cid, answer))
    with caplog.at_level(logging.WARNING, logger="huscf_flwr"):
        numbers = [info.number for info in roster.present(manager).values()]
        assert len(roster.present(manager)) == len(numbers) == 3  # and nobody is asked again
    assert {proxy.cid for proxy in roster.present(manager)} == {"a", "b", "f"}
    left_out = sorted(line for line in caplog.messages if "is left out: " in line)
    assert len(left_out) == 4 == len(set(left_out))
    assert left_out[0].startswith("a client is left out: partition=None")
    for line, problem in zip(
        left_out[1:],
        ('"phone", but devices="measured"', "overhead-s=nan must be", "did not measure"),
        strict=True,
    ):
        assert line.startswith("client ") and problem in line


def test_at_the_first_meeting_an_impossible_device_ends_the_run() -> None:
    roster, manager = meeting(Node("a", {**OWN, **FAST}), Node("b", {**OWN, "profile": "phone"}))
    with pytest.raises(UserError, match='client 1 has the profile "phone"'):
        roster.gather(manager)


def test_a_client_is_its_node_and_not_its_order_of_arrival() -> None:
    """In a run that goes on, those of the run before have their numbers, there or not."""
    nodes = [Node(cid, {**OWN, **FAST}) for cid in "adc"]
    roster, manager = meeting(*nodes, known={"c": 0, "b": 1, "a": 2})
    roster.gather(manager)
    assert {p.cid: roster.number_of(p) for p in nodes} == {"a": 2, "d": 3, "c": 0}
    late = Node("b", {**OWN, **FAST})
    manager.register(late)
    assert roster.present(manager)[late].number == 1


def test_who_gives_no_answer_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    roster, manager = meeting(Node("a", {**OWN, **FAST}))
    roster.gather(manager)
    manager.register(Node("b", {**OWN, **FAST}, fails=True))
    with caplog.at_level(logging.WARNING, logger="huscf_flwr"):
        assert len(roster.present(manager)) == 1
    assert any("no answer, and will be asked again: the line is bad" in m for m in caplog.messages)
    assert len(roster.present(manager)) == 2


def test_dealt_data_has_one_number_of_partitions(caplog: pytest.LogCaptureFixture) -> None:
    roster, manager = meeting(Node("a", {**DEALT, **FAST}))
    roster.gather(manager)
    manager.register(Node("b", {**DEALT, **FAST, "partition": 8, "partitions": 9}))
    with caplog.at_level(logging.WARNING, logger="huscf_flwr"):
        assert len(roster.present(manager)) == 1
    assert any("partitions=9, but the others' data is dealt in 4" in m for m in caplog.messages)

"""What is asked of clients and what they answer, checked at the door."""

from collections.abc import Iterable, Mapping

import numpy as np
from flwr.common import EvaluateIns, EvaluateRes, ndarrays_to_parameters

from huscf_flwr.nets import GEN, State, from_arrays, to_arrays
from huscf_flwr.records import ClientInfo, ClientScores
from huscf_flwr.split.frames import check_values


def checked_state(expected: State, arrays: list[np.ndarray]) -> State:
    """The blocks that a client returned, as a state.

    Parameters
    ----------
    expected: a state with the names, shapes and dtypes that are due.
    arrays: the values, in the order of their names.

    Raises
    ------
    ValueError: they do not fit, or a value is not a number or too large.
    """
    if len(arrays) != len(expected):
        raise ValueError(f"{len(arrays)} arrays where {len(expected)} were due")
    state = from_arrays(list(expected), arrays)
    for name, value in state.items():
        due = expected[name]
        if value.shape != due.shape or value.dtype != due.dtype:
            raise ValueError(
                f"{name} is {value.dtype} {tuple(value.shape)} where "
                f"{due.dtype} {tuple(due.shape)} was due"
            )
        if value.is_floating_point():
            check_values(value, name)
    return state


def scoring_instructions(info: ClientInfo, model: State, utility: bool) -> EvaluateIns:
    """Send a client the generator of `model`, to be scored on its own held-out images.

    `utility` asks for a classifier trained on generated images, too.
    """
    generator = {name: value for name, value in model.items() if name.startswith(f"{GEN}.")}
    return EvaluateIns(
        ndarrays_to_parameters(to_arrays(generator)),
        {"client": info.number, "utility": utility},
    )


def returned_scores(
    results: Mapping[int, EvaluateRes], asked: Iterable[int]
) -> tuple[list[ClientScores], dict[int, str]]:
    """The good scores in the clients' order; and why the other clients that were asked have none.

    `results` is by client number.
    """
    scores: list[ClientScores] = []
    reasons: dict[int, str] = {}
    for number in sorted({*asked, *results}):
        if number not in results:
            reasons[number] = f"client {number} returned no scores"
            continue
        result = results[number]
        try:
            scores.append(ClientScores.checked(number, result.num_examples, result.metrics))
        except (TypeError, ValueError) as error:
            reasons[number] = f"client {number} returned bad scores: {error}"
    return scores, reasons

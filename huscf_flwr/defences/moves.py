"""How far clients' blocks moved in a round: who moved much farther than others counts no more.

Clients that take as many steps with the same optimiser move about as far, whatever their data is;
and the median of their distances is nobody's to choose, as long as most are honest. Honest clients
of very unequal data stay within the limits, and then nothing is changed. Pure functions on states.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from huscf_flwr.nets import State

Moves = Mapping[str, float]
"""How far each block moved, by the names of `moves`."""

STATISTICS = " statistics"
"""What the name of a block ends with where what batch norm has seen is meant."""

_LIMITS = {False: (2.0, 10.0), True: (5.0, 50.0)}
"""Times the median that a move, of parameters or statistics, is cut to; and that is too far."""

_FEWEST = 3
_STILL = 1e-6  # moves below this are none


def moves(before: State, after: State) -> dict[str, float]:
    """The root mean square over each block's parameters, and over its batch norm's statistics.

    Numbers that are no floating-point values are left out.
    """
    squares: defaultdict[str, list[np.ndarray]] = defaultdict(list)
    for name, value in after.items():
        if value.is_floating_point():
            change = np.subtract(value.numpy(), before[name].numpy(), dtype=np.float64)
            squares[_block(name)].append(np.square(change, out=change).ravel())
    return {block: float(np.sqrt(np.concatenate(v).mean())) for block, v in squares.items()}


def usual_moves(moved: Iterable[Moves]) -> dict[str, float]:
    """The median over clients, of blocks that three clients or more have moved.

    Of other blocks the largest of these medians, of parameters or of statistics: with the same
    optimiser, blocks move about as far as each other.
    """
    by_block: defaultdict[str, list[float]] = defaultdict(list)
    for of_client in moved:
        for block, distance in of_client.items():
            by_block[block].append(distance)
    found = {
        block: max(float(np.median(distances)), _STILL)
        for block, distances in sorted(by_block.items())
        if len(distances) >= _FEWEST
    }
    for block in by_block.keys() - found.keys():
        alike = [d for other, d in found.items() if _limits(other) == _limits(block)]
        if alike:
            found[block] = max(alike)
    return found


def too_far(moved: Moves, usual: Moves) -> str | None:
    """In what a client is out of line, or None."""
    for block in sorted(moved.keys() & usual.keys()):
        times = moved[block] / usual[block]
        if times > _limits(block)[1]:
            return f"moved {block} {times:.3g} times as far as is usual"
    return None


def bounded(before: State, after: State, moved: Moves, usual: Moves) -> State:
    """A client's blocks, brought back to where they moved a few times as far as is usual.

    The same ones, if they did not move farther. `moved` is what `moves` says of the two.
    """
    scales = {
        block: _limits(block)[0] * usual[block] / moved[block]
        for block in moved.keys() & usual.keys()
        if moved[block] > _limits(block)[0] * usual[block]
    }
    if not scales:
        return after
    return {
        name: before[name] + scales[_block(name)] * (value - before[name])
        if value.is_floating_point() and _block(name) in scales
        else value
        for name, value in after.items()
    }


def _block(name: str) -> str:
    block = ".".join(name.split(".")[:2])
    return block + STATISTICS if name.rpartition(".")[2].startswith("running_") else block


def _limits(block: str) -> tuple[float, float]:
    return _LIMITS[block.endswith(STATISTICS)]

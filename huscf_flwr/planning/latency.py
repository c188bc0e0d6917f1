"""How long one training iteration of a fleet takes, predicted. Pure functions, many plans at once.

Both nets are passed through forward and backward. In a pass, a client computes the blocks it
holds at one end of the net and sends what comes out; the server runs its blocks one after the
other, each once it has what all clients that enter there send; a client takes over again where its
blocks at the other end begin. A pass ends when the last client is done.

Where the devices hold blocks is an array of *ends*, `(P, G, 2)` for P plans and G groups of equal
devices: how many blocks a device of the group holds at the head and at the tail of one net.
"""

from dataclasses import dataclass

import numpy as np

from huscf_flwr.planning.costs import DISC_PASSES, GEN_PASSES, BlockCosts, NetCosts
from huscf_flwr.planning.devices import Fleet

_CELLS = 2**17  # plans times groups that are computed at once: what fits the processor's cache


@dataclass(frozen=True, eq=False)
class PassTable:
    """The times of one pass that do not depend on the plan, in its order of L blocks.

    The last block of the net is the first of a backward pass.

    Attributes
    ----------
    compute_s: (L, G) for a device to compute the first b blocks, b = 0 to L - 1.
    send_s: (L, G) for it to send what the first b blocks give.
    return_s: (L, G) for what the last b blocks take to reach it.
    complete_s: (L, G) for it to compute the last b blocks.
    server_s: (L,) for the server to run a block for one client.
    clients: (G,) devices of each group.
    """

    compute_s: np.ndarray
    send_s: np.ndarray
    return_s: np.ndarray
    complete_s: np.ndarray
    server_s: np.ndarray
    clients: np.ndarray


def forward_table(costs: BlockCosts, fleet: Fleet) -> PassTable:
    """The times of a pass from a net's head to its tail."""
    return _table(costs.forward_flops, costs.output_bytes[:-1], fleet)


def backward_table(costs: BlockCosts, fleet: Fleet) -> PassTable:
    """The times of a pass of gradients from the tail to the head, as large as the activations."""
    return _table(costs.backward_flops[::-1], costs.output_bytes[-2::-1], fleet)


def _table(flops: np.ndarray, boundary_bytes: np.ndarray, fleet: Fleet) -> PassTable:
    """`flops` is (L,) in the pass's order, `boundary_bytes` (L - 1,) passes between blocks."""
    speed, link = fleet.flops_per_s, fleet.link_bytes_per_s
    down = np.minimum(link, fleet.server.link_bytes_per_s)
    overhead_s = fleet.overhead_s / 2  # at either end
    return PassTable(
        compute_s=_before(flops)[:-1, None] / speed + overhead_s,
        send_s=np.append(0.0, boundary_bytes)[:, None] / link,
        return_s=np.append(0.0, boundary_bytes[::-1])[:, None] / down,
        complete_s=_before(flops[::-1])[:-1, None] / speed + overhead_s,
        server_s=flops / fleet.server.flops_per_s,
        clients=fleet.clients,
    )


def _before(flops: np.ndarray) -> np.ndarray:
    return np.append(0.0, np.cumsum(flops))


def server_times(
    table: PassTable, first: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """When the server starts and finishes each block, and when the pass ends.

    Parameters
    ----------
    table: the times of the pass.
    first, last: (P, G) blocks that the devices hold where the pass begins, and where it ends.

    Returns
    -------
    started_s, finished_s: (P, L), finished as soon as started where a block is not the server's.
    seconds: (P,) until the latest client is done.
    """
    plans, length = len(first), len(table.server_s)
    arrive_s, after_s = table.compute_s + table.send_s, table.return_s + table.complete_s
    started, finished = np.zeros((plans, length)), np.zeros((plans, length))
    served = np.zeros((plans, length))
    entering, leaving = np.zeros((plans, length)), np.zeros((plans, length))
    for held in range(1, int(first.max()) + 1):
        there = (first == held).astype(float)
        served[:, held:] += (there @ table.clients)[:, None]
        entering[:, held] = (there * arrive_s[held]).max(axis=1)
    for held in range(1, int(last.max()) + 1):
        there = (last == held).astype(float)
        served[:, length - held :] -= (there @ table.clients)[:, None]
        leaving[:, length - held - 1] = (there * after_s[held]).max(axis=1)
    ready = np.zeros(plans)
    for block in range(length):
        started[:, block] = np.maximum(ready, entering[:, block])
        ready = finished[:, block] = started[:, block] + served[:, block] * table.server_s[block]
    return started, finished, (finished + leaving).max(axis=1)


def net_seconds(costs: BlockCosts, fleet: Fleet, ends: np.ndarray) -> np.ndarray:
    """(P,) seconds of one forward and one backward pass through a net; `ends` is (P, G, 2)."""
    forward, backward = forward_table(costs, fleet), backward_table(costs, fleet)
    seconds = np.empty(len(ends))
    rows = max(1, _CELLS // ends.shape[1])
    for begin in range(0, len(ends), rows):
        heads, tails = ends[begin : begin + rows, :, 0], ends[begin : begin + rows, :, 1]
        seconds[begin : begin + rows] = (
            server_times(forward, heads, tails)[2] + server_times(backward, tails, heads)[2]
        )
    return seconds


def iteration_seconds(costs: NetCosts, fleet: Fleet, cuts: np.ndarray) -> np.ndarray:
    """(P,) seconds of a whole training iteration.

    `cuts` is (P, G, 4): gen_head, gen_tail, disc_head, disc_tail of each group.
    """
    (gen, gen_passes), (disc, disc_passes) = costs.with_passes()
    generator_s = gen_passes * net_seconds(gen, fleet, cuts[..., :2])
    discriminator_s = disc_passes * net_seconds(disc, fleet, cuts[..., 2:])
    return np.asarray(generator_s + discriminator_s)


def unsplit_seconds(
    costs: NetCosts, fleet: Fleet, *, gen: int = GEN_PASSES, disc: int = DISC_PASSES
) -> float:
    """Seconds of an iteration where every client trains whole nets on its own.

    `gen` and `disc` are the passes through each, forward and backward alike.
    """
    gen_s, disc_s = passes_seconds(costs.gen, fleet, gen), passes_seconds(costs.disc, fleet, disc)
    return float((gen_s + disc_s).max())


def passes_seconds(costs: BlockCosts, fleet: Fleet, passes: int) -> np.ndarray:
    """(G,) seconds of passes through a whole net on a device, each forward and backward."""
    return np.asarray(passes * (costs.pass_flops / fleet.flops_per_s + 2 * fleet.overhead_s))


def feedback_seconds(
    costs: NetCosts, fleet: Fleet, *, batches: int, given: int, disc_s: np.ndarray
) -> float:
    """Seconds of an iteration where the server has the generator, and clients discriminators.

    Parameters
    ----------
    costs, fleet: of the net, and of the clients that share the iteration.
    batches: how many the server generates.
    given: how many of them each client gets; it sends gradients of the size of one back.
    disc_s: (G,) that a client computes; nan where it takes no part.
    """
    images = float(costs.gen.output_bytes[-1])
    down = np.minimum(fleet.link_bytes_per_s, fleet.server.link_bytes_per_s)
    client_s = given * images / down + disc_s + images / fleet.link_bytes_per_s
    server_s = batches * costs.gen.pass_flops / fleet.server.flops_per_s
    return float(np.nan_to_num(client_s).max() + server_s)

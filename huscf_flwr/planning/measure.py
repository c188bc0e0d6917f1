"""Finding out what a device can do: its speed in split training, and its link to the runner.

What is timed is the real thing. A client computes its half of training iterations and exchanges
the real frames with the runner, which sends them back as they are; the server computes its half
for a whole cohort. So whatever an iteration needs besides multiplying (batch norm, optimiser,
copies, waking threads) is in the figures, in the units of the latency model.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from huscf_flwr.data.batches import Batch, BatchStream, LabelledImages
from huscf_flwr.data.draws import seeded
from huscf_flwr.nets import DISC, GEN, NetShapes, NetSpec, initial_state, net_shapes
from huscf_flwr.planning.costs import PASSES, NetCosts, net_costs
from huscf_flwr.procedure import advance, exchanged_bytes
from huscf_flwr.split.cuts import Cut, client_blocks, end_limits
from huscf_flwr.split.exchanges import exchange_specs
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from huscf_flwr.split.segments import Segments
from huscf_flwr.tensors import Shapes
from huscf_flwr.wire.channel import Channel
from huscf_flwr.wire.codings import EXACT, Coding
from huscf_flwr.wire.frames import Frame, FrameKey

_SECONDS = 1.0  # that a measurement of computing takes, at least
_SLOW = 2.0  # seconds after which one step has to do
_LINK_BYTES = 4 * 2**20  # that a measurement of the link sends, and receives, at most
_LINK_SECONDS = 3.0  # after which it ends, on slow links
_MEASURING = FrameKey(0, 0, 0)  # of all its frames


class Measured(NamedTuple):
    """A client's speeds, and the seconds that a pass through a net takes it besides."""

    flops_per_s: float
    link_bytes_per_s: float
    overhead_s: float


def measure_client(
    channel: Channel, spec: NetSpec, batch_size: int, device: str, coding: Coding = EXACT
) -> Measured:
    """Measure this device and its link, with as few and with as many blocks as a cut allows.

    `channel` must be one with a token of `Runner.echo_token`; it writes frames in `coding`.

    Raises
    ------
    SessionError: the runner cannot be reached.
    """
    shapes, costs = net_shapes(spec), net_costs(spec, batch_size)
    specs = {cut: exchange_specs(cut, shapes, batch_size) for cut in _extremes(shapes)}
    sizes = {cut: exchanged_bytes(of_cut, torch.float32, coding) for cut, of_cut in specs.items()}
    frames = [size for of_cut in sizes.values() for size in of_cut]
    link = _link_bytes_per_s(channel, round(sum(frames) / len(frames)), coding)
    state, batches = initial_state(spec, seed=0), _stream(spec, shapes, batch_size)
    steps = []
    for cut in sizes:
        half = HeadsAndTails(
            spec, shapes, cut, state, learning_rate=1e-4, batch_size=batch_size, device=device
        )
        steps.append(functools.partial(_exchange, channel, half, batches[0]))
    flops = [client_flops(costs, cut, shapes) for cut in sizes]
    sent_s = [sum(of_cut) / link for of_cut in sizes.values()]
    speed, overhead_s = speed_from(flops, sent_s, _times(steps, device))
    return Measured(speed, link, overhead_s)


def speed_from(
    flops: Sequence[float], sent_s: Sequence[float], seconds: Sequence[float]
) -> tuple[float, float]:
    """Operations per second, and seconds per pass besides, of iterations that took `seconds`.

    The line through an iteration with few and one with many operations, less what sending took;
    where noise makes that impossible, or there is one measurement, the mean with no overhead.
    """
    computing_s = [max(s - sent, s / 10) for s, sent in zip(seconds, sent_s, strict=False)]
    if len(computing_s) == 2 and computing_s[1] > computing_s[0]:
        speed = (flops[1] - flops[0]) / (computing_s[1] - computing_s[0])
        overhead_s = computing_s[0] - flops[0] / speed
        if overhead_s >= 0:
            return speed, overhead_s / PASSES
    return sum(flops[: len(computing_s)]) / sum(computing_s), 0.0


def server_flops_per_s(segments: Segments, spec: NetSpec, batch_size: int, cohort: int) -> float:
    """Speed of this process as the server, for a cohort; trains the segments on constants."""
    shapes, costs = net_shapes(spec), net_costs(spec, batch_size)
    flops, steps = [], []
    for cut in reversed(_extremes(shapes)):
        steps.append(functools.partial(_serve, segments, dict.fromkeys(range(cohort), cut)))
        flops.append(cohort * (costs.iteration_flops - client_flops(costs, cut, shapes)))
    seconds = _times(steps, segments.device.type)
    return sum(flops[: len(seconds)]) / sum(seconds)


def _serve(segments: Segments, cuts: Mapping[int, Cut]) -> None:
    """The server's half of an iteration; clients have one cut, and send constants."""
    iteration = segments.iteration(cuts)
    for number, spec in enumerate(segments.exchanges(cuts[0])):
        iteration.answer(number, dict.fromkeys(cuts, _constant(spec.sent)))
        iteration.step(number)


def _exchange(channel: Channel, half: HeadsAndTails, batch: Batch) -> None:
    """A client's half of an iteration; the runner echoes its frames, answers are constants.

    In all exchanges of an iteration together, as many bytes return as are sent.
    """
    steps = half.iteration(batch)
    request = advance(steps)
    for spec in half.exchanges:
        channel.exchange(Frame(_MEASURING, request or {}))
        request = advance(steps, _constant(spec.returned))


def client_flops(costs: NetCosts, cut: Cut, shapes: NetShapes) -> float:
    """Operations of a client with this cut in an iteration."""
    own = client_blocks(cut, shapes)
    return sum(
        passes * float((net.forward_flops + net.backward_flops)[list(own[name])].sum())
        for (net, passes), name in zip(costs.with_passes(), (GEN, DISC), strict=True)
    )


def _link_bytes_per_s(channel: Channel, size: int, coding: Coding) -> float:
    """Speed of the way to the runner and back, with frames of so many bytes."""
    values = size / coding.size((1, size), torch.float32) * size
    frame = Frame(_MEASURING, {"fake": torch.zeros(1, round(values) + 1)})
    channel.exchange(frame)  # the first one dials
    count, started = 0, time.perf_counter()
    while True:
        channel.exchange(frame)
        count += 1
        seconds = time.perf_counter() - started
        if count >= 2 and (count * size >= _LINK_BYTES or seconds >= _LINK_SECONDS):
            return 2 * count * size / seconds


def _extremes(shapes: NetShapes) -> tuple[Cut, Cut]:
    """As little as possible on the client, and as much as possible."""
    return Cut(1, 1, 1, 1), Cut(*end_limits(shapes))


def _times(steps: Sequence[Callable[[], object]], device: str) -> list[float]:
    """Mean seconds of each step, done in turns; where the first is slow, it is the only one."""

    def timed(step: Callable[[], object]) -> float:
        started = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    warm_up = timed(steps[0])
    if warm_up > _SLOW:
        return [warm_up]
    for step in steps[1:]:
        step()
    turns: list[list[float]] = []
    while sum(map(sum, turns)) < _SECONDS:
        turns.append([timed(step) for step in steps])
    return [float(seconds) for seconds in np.mean(turns, axis=0)]


def _constant(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Activations or gradients to compute with: how long that takes is not a matter of values."""
    return {name: torch.full(tuple(shape), 1e-3) for name, shape in shapes.items()}


def _stream(spec: NetSpec, shapes: NetShapes, batch_size: int) -> BatchStream:
    images = torch.zeros(
        (batch_size, spec.channels, spec.image_size, spec.image_size), dtype=torch.uint8
    )
    data = LabelledImages(images, torch.arange(batch_size) % spec.num_classes)
    return BatchStream(
        data, batch_size=batch_size, latent_size=shapes.latent_size, draws=seeded(0, 0)
    )

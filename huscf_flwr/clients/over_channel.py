"""A client's round over a channel: what its half of the procedure yields, and what it is sent."""

from huscf_flwr.procedure import ClientTraining, advance, check_answer
from huscf_flwr.wire.channel import Channel, IterationLost
from huscf_flwr.wire.frames import Frame, FrameKey


def train_over(channel: Channel, client: ClientTraining, round_: int) -> None:
    """Train all iterations of a round; those that went on without this client are left out.

    Parameters
    ----------
    channel: an open channel to the runner; the caller closes it.
    client: its part in the round.
    round_: number of the round, for the frames' headers.

    Raises
    ------
    SessionError: the runner ended this session, or cannot be reached any more.
    TensorError: the runner answered with what was not due.
    """
    for index in range(client.iterations):
        try:
            _iteration(channel, client, FrameKey(round_, index, 0))
        except IterationLost:  # too late for the others; the next iteration is a new start
            client.half.abandon()


def _iteration(channel: Channel, client: ClientTraining, first: FrameKey) -> None:
    half, steps = client.half, client.steps(first.iteration)
    request = advance(steps)
    for number, spec in enumerate(half.exchanges):
        if request is None:
            raise TypeError(f"the client's half has ended before exchange {spec.name}")
        answer = channel.exchange(Frame(first._replace(exchange=number), request)).tensors
        check_answer(answer, spec, half.dtype)
        request = advance(steps, {name: t.to(half.device) for name, t in answer.items()})
    if request is not None:
        raise TypeError("the client's half goes on after the last exchange")

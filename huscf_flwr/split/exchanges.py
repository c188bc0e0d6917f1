"""The six exchanges of a training iteration of HuSCF, and what they hold for a cut."""

import enum

from huscf_flwr.nets import NetShapes
from huscf_flwr.procedure import ExchangeSpec
from huscf_flwr.split.cuts import Cut


class Exchange(enum.IntEnum):
    """The exchanges, in their order."""

    GENERATE = 0
    """Generator head's output; the segment's output."""
    DISCRIMINATE = 1
    """Discriminator head's outputs for fake and real; the segment's outputs."""
    DISCRIMINATOR_STEP = 2
    """Gradients at those segment outputs; gradients at those head outputs. The segment steps."""
    JUDGE = 3
    """Discriminator head's output for fake; the segment's output."""
    JUDGE_GRADIENT = 4
    """Gradient at that segment output; gradient at that head output. No step."""
    GENERATOR_STEP = 5
    """Gradient at the generator segment's output; gradient at the head's. The segment steps."""


def exchange_specs(cut: Cut, shapes: NetShapes, batch_size: int) -> tuple[ExchangeSpec, ...]:
    """What a client with this cut sends and gets back, exchange by exchange."""
    gen, disc = cut.gen(shapes), cut.disc(shapes)
    gen_in = {"fake": (batch_size, *shapes.gen[gen.head - 1])}
    gen_out = {"fake": (batch_size, *shapes.gen[gen.tail - 1])}
    head = (batch_size, *shapes.disc[disc.head - 1])
    tail = (batch_size, *shapes.disc[disc.tail - 1])
    both_in, both_out = {"fake": head, "real": head}, {"fake": tail, "real": tail}
    fake_in, fake_out = {"fake": head}, {"fake": tail}
    passed = {
        Exchange.GENERATE: (gen_in, gen_out),
        Exchange.DISCRIMINATE: (both_in, both_out),
        Exchange.DISCRIMINATOR_STEP: (both_out, both_in),
        Exchange.JUDGE: (fake_in, fake_out),
        Exchange.JUDGE_GRADIENT: (fake_out, fake_in),
        Exchange.GENERATOR_STEP: (gen_out, gen_in),
    }
    return tuple(ExchangeSpec(exchange.name, *passed[exchange]) for exchange in Exchange)

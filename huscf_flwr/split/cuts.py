"""Where each net is cut between a client and the server.

Source: the paper's heterogeneous U-shaped split. A client keeps the first blocks (*head*) and the
last blocks (*tail*) of both nets; the blocks between (*segment*) run on the server.
"""

from dataclasses import astuple, dataclass, fields
from typing import NamedTuple

from huscf_flwr.errors import UserError
from huscf_flwr.nets import DISC, GEN, NetShapes


class Span(NamedTuple):
    """One net cut in three: blocks `[0, head)`, `[head, tail)` and `[tail, length)`."""

    head: int
    tail: int
    length: int

    @property
    def client(self) -> tuple[int, ...]:
        """Indices of the blocks on the client."""
        return (*range(self.head), *range(self.tail, self.length))

    @property
    def server(self) -> range:
        """Indices of the blocks on the server."""
        return range(self.head, self.tail)


@dataclass(frozen=True, order=True)
class Cut:
    """How many blocks a client holds at each end of each net; at least one, never the middle."""

    gen_head: int
    gen_tail: int
    disc_head: int
    disc_tail: int

    def __str__(self) -> str:
        return "-".join(str(value) for value in astuple(self))

    @property
    def gen_ends(self) -> str:
        """The generator's part of it, as in `1-2`."""
        return f"{self.gen_head}-{self.gen_tail}"

    def gen(self, shapes: NetShapes) -> Span:
        """The generator, cut."""
        return Span(self.gen_head, len(shapes.gen) - self.gen_tail, len(shapes.gen))

    def disc(self, shapes: NetShapes) -> Span:
        """The discriminator, cut."""
        return Span(self.disc_head, len(shapes.disc) - self.disc_tail, len(shapes.disc))

    def check(self, shapes: NetShapes) -> None:
        """Raise `UserError` unless each end has a block and the middle ones are the server's."""
        ends = zip(fields(self), astuple(self), end_limits(shapes), strict=True)
        for field, value, limit in ends:
            net = field.name.split("_")[0]
            blocks = len(shapes.gen if net == GEN else shapes.disc)
            name = "generator" if net == GEN else "discriminator"
            if not 1 <= value <= limit:
                problem = "takes the middle block from the server" if value > limit else "is empty"
                allowed = "1" if limit == 1 else f"1 to {limit}"
                raise UserError(
                    f"cut {field.name}={value} {problem}: a {name} of {blocks} blocks "
                    f"allows {field.name} {allowed}"
                )

    @classmethod
    def parse(cls, text: str) -> "Cut":
        """Read `gen_head-gen_tail-disc_head-disc_tail`, as in `1-2-1-2`; `UserError` otherwise."""
        parts = text.strip().split("-")
        if len(parts) != 4 or not all(part.isdecimal() for part in parts):
            raise UserError(
                f'cuts="{text.strip()}": a cut is four numbers of blocks, '
                "gen_head-gen_tail-disc_head-disc_tail, as in 1-2-1-2"
            )
        return cls(*(int(part) for part in parts))


def middle(length: int) -> int:
    """The block that always stays on the server."""
    return length // 2


def end_limits(shapes: NetShapes) -> tuple[int, int, int, int]:
    """The most blocks a client may hold at each of the four ends."""
    gen, disc = len(shapes.gen), len(shapes.disc)
    return middle(gen), gen - middle(gen) - 1, middle(disc), disc - middle(disc) - 1


def read_cuts(text: str, shapes: NetShapes) -> list[Cut]:
    """The cuts in a comma separated list, which are dealt to the clients in turn.

    Raises
    ------
    UserError: `text` is no list of cuts, or one of them is impossible for this net.
    """
    cuts = [Cut.parse(part) for part in text.split(",")]
    for cut in cuts:
        cut.check(shapes)
    return cuts


def client_blocks(cut: Cut, shapes: NetShapes) -> dict[str, tuple[int, ...]]:
    """Indices of the blocks a client with this cut holds, per net."""
    return {GEN: cut.gen(shapes).client, DISC: cut.disc(shapes).client}

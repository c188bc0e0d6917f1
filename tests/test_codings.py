"""What is left of values that were sent in fewer bytes."""

import pytest
import torch
from conftest import encode
from torch import Tensor

from huscf_flwr.wire.codings import CODINGS, passed
from huscf_flwr.wire.frames import Frame, FrameError, FrameKey, decode

KEY = FrameKey(3, 2, 1)
BOUNDS = {"float32": 0.0, "bfloat16": 2.0**-8, "int8": 1 / 127}
"""The largest error, by the largest magnitude of a sample."""


def values(*shape: int) -> Tensor:
    """Of very unequal magnitude, within samples and among them."""
    random = torch.Generator().manual_seed(0)
    found = torch.randn(shape, generator=random) * torch.randn(shape, generator=random).exp()
    return found * 10.0 ** torch.arange(-4, shape[0] - 4).view(-1, *[1] * (len(shape) - 1))


@pytest.mark.parametrize("wire", CODINGS)
@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((6, 4, 3, 5), torch.channels_last),
        ((6, 4, 3, 5), torch.contiguous_format),
        ((6, 12), torch.contiguous_format),
        ((6,), torch.contiguous_format),
        ((0, 3), torch.contiguous_format),
    ],
)
def test_values_arrive_within_a_bound_and_in_the_bytes_that_are_counted(
    wire: str, shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    coding, sent = CODINGS[wire], values(*shape).contiguous(memory_format=layout)
    empty = len(encode(Frame(KEY, {"fake": torch.empty(0, *shape[1:])}), coding))
    data = encode(Frame(KEY, {"fake": sent, "real": -sent}), coding)
    assert len(data) - 2 * coding.size(shape, sent.dtype) < 2 * empty
    got = decode(data, coding).tensors
    for name, due in (("fake", sent), ("real", -sent)):
        assert (got[name].shape, got[name].stride()) == (due.shape, due.stride())
        error = (got[name] - due).flatten(1).abs() if len(shape) > 1 else (got[name] - due).abs()
        largest = due.flatten(1).abs() if len(shape) > 1 else due.abs()
        if due.numel():
            bound = BOUNDS[wire] * largest.view(len(due), -1).amax(1) * 1.0001
            assert (error.view(len(due), -1).amax(1) <= bound).all()


def test_int8_loses_nothing_on_average_and_keeps_zero() -> None:
    """Most of a gradient is smaller than a level: rounded to the nearest, it would be lost."""
    sent = torch.full((1, 1000), 0.003)
    sent[0, :2] = torch.tensor([1.0, 0.0])
    found = torch.stack([passed(sent, CODINGS["int8"], seed) for seed in range(200)])
    assert found[:, 0, 1].count_nonzero() == 0
    spread = (0.003 / 127) ** 0.5 / (200 * 998) ** 0.5  # of the mean, at most
    assert abs(found[:, 0, 2:].mean().item() - 0.003) < 4 * spread


@pytest.mark.parametrize("wire", CODINGS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_does_not_become_one(wire: str, bad: float) -> None:
    sent = values(3, 8)
    sent[1, 5] = bad
    got = passed(sent, CODINGS[wire], 0)
    assert not got[1, 5].isfinite()
    assert got[[0, 2]].isfinite().all()


def test_a_frame_in_another_coding_is_none() -> None:
    sent = Frame(KEY, {"fake": values(6, 8)})
    for wire, coding in CODINGS.items():
        for other, read in CODINGS.items():
            if wire != other:
                with pytest.raises(FrameError, match="unreadable frame"):
                    decode(encode(sent, coding), read)

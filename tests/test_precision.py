"""Nets that compute in bfloat16: the same split and unsplit, and near those in float32."""

import copy
import json
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import BATCH, CUT, OTHER, RATE, SHAPES, SPEC, bytes_of, stream, tiny
from torch import Tensor, nn

from huscf_flwr.errors import UserError
from huscf_flwr.nets import (
    Blocks,
    NetSpec,
    PartialGAN,
    each_output,
    initial_state,
    register_net,
    run_blocks,
    select_blocks,
)
from huscf_flwr.nets.generator import load_generator
from huscf_flwr.nets.unsplit import UnsplitTrainer
from huscf_flwr.procedure import advance
from huscf_flwr.split.cuts import Cut
from huscf_flwr.split.exchanges import Exchange
from huscf_flwr.split.heads_and_tails import HeadsAndTails
from huscf_flwr.split.segments import all_segments
from simulations.engine import Engine

IN_BFLOAT16 = replace(SPEC, precision="bfloat16")


def unsplit(spec: NetSpec) -> UnsplitTrainer:
    return UnsplitTrainer(spec, SHAPES, initial_state(SPEC, 0), learning_rate=RATE)


@pytest.mark.parametrize("cut", [CUT, OTHER, Cut(1, 1, 1, 1), Cut(2, 2, 2, 2)], ids=str)
def test_split_is_unsplit(cut: Cut) -> None:
    """To the last bit: what crosses is float32, which holds all that bfloat16 does."""
    whole, state = unsplit(IN_BFLOAT16), initial_state(SPEC, 0)
    half = HeadsAndTails(IN_BFLOAT16, SHAPES, cut, state, learning_rate=RATE, batch_size=BATCH)
    server = all_segments(IN_BFLOAT16, state, batch_size=BATCH, learning_rate=RATE)
    for index in range(2):
        whole.iteration(stream(0)[index])
        iteration, steps = server.iteration({0: cut}), half.iteration(stream(0)[index])
        request = advance(steps)
        for exchange in Exchange:
            assert request is not None
            answer = iteration.answer(exchange, {0: request})[0]
            assert {t.dtype for t in (*request.values(), *answer.values())} == {torch.float32}
            iteration.step(exchange)
            request = advance(steps, {name: value.clone() for name, value in answer.items()})
    assert iteration.results[0].dtype == torch.float32
    served = {"gen": cut.gen(SHAPES).server, "disc": cut.disc(SHAPES).server}
    joined = {**half.nets.state_dict(), **select_blocks(server.state(), served)}
    assert bytes_of(joined) == bytes_of(whole.nets.state_dict())


def test_it_is_near_float32_and_is_not_that() -> None:
    one, other = unsplit(SPEC), unsplit(IN_BFLOAT16)
    losses = [trainer.iteration(stream(0)[0]) for trainer in (one, other)]
    assert losses[0] != losses[1]
    assert losses[1].discriminator == pytest.approx(losses[0].discriminator, rel=0.02)
    assert losses[1].generator == pytest.approx(losses[0].generator, rel=0.02)
    assert {p.dtype for p in other.nets.parameters()} == {torch.float32}


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("strategy", ["huscf", "mdgan", "fedsplitgan", "pflgan", "hflgan"])
def test_runs_train_and_score_in_it(strategy: str, folder: Path) -> None:
    """With a probe, defences, audits of clients, and what a generator's file says."""
    audits = {"audit_every": 1} if strategy == "huscf" else {}
    config = tiny(
        strategy=strategy, precision="bfloat16", num_server_rounds=3, output_dir="run", **audits
    )
    Engine(config, str(folder)).run()
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert (summary["rounds"], summary["clients"]) == (3, config.num_clients)
    generator = load_generator(next((folder / "run").glob("generator-*.safetensors")))
    assert generator.spec.precision == "bfloat16"
    assert generator.sample(4, seed=0)[0].dtype == torch.float32


def test_nothing_depends_on_where_a_net_is_cut_whatever_its_blocks_begin_with() -> None:
    """A sum computes in what it gets: bfloat16, were it handed from block to block."""

    @register_net("residual")
    def residual(spec: NetSpec) -> Blocks:
        return Blocks([_Residual() for _ in range(3)], [_Residual()], latent_size=8)

    spec = replace(IN_BFLOAT16, net="residual")
    blocks = list(PartialGAN(spec, initial_state(spec, 0), gen=range(3), disc=()).gen.values())
    inputs = torch.randn(16, 8)
    whole = run_blocks(blocks, inputs)
    cut = run_blocks(blocks[1:], run_blocks(blocks[:1], inputs))
    assert whole.dtype == torch.float32
    assert torch.equal(whole, cut) and torch.equal(whole, each_output(blocks, inputs)[-1])


def test_a_copy_of_a_net_computes_with_its_own_parameters_and_goes_with_it() -> None:
    nets = PartialGAN(IN_BFLOAT16, initial_state(SPEC, 0), gen=(), disc=[1])
    other, inputs = copy.deepcopy(nets.disc["1"]), torch.randn(4, *SHAPES.disc[0])
    for parameter in other.parameters():
        parameter.data.zero_()
    assert not torch.equal(other(inputs), nets.disc["1"](inputs))
    gone = weakref.ref(other)
    del other, parameter
    assert gone() is None  # without looking for garbage


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        out: Tensor = inputs + self.layer(inputs)
        return out


def test_only_what_there_is() -> None:
    with pytest.raises(UserError, match="precision='float8': must be float32 or bfloat16"):
        replace(SPEC, precision="float8")

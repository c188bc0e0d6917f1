"""What a strategy needs to go on after a round: saved each round, read by the key `resume`."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch

from huscf_flwr.errors import UserError
from huscf_flwr.nets import State
from huscf_flwr.system.files import replacing

_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """The server's side of a run after a round.

    Attributes
    ----------
    round: the last finished round.
    models: the whole net of each cluster.
    assignment: cluster of each client.
    servers: the server's blocks and their optimisers' state, by cluster, or one for all; empty
        where clients train whole nets.
    probe: what clusters were found by, where they were: the discriminator's first blocks, and as
        `activations/<client>` what they make of a client's images.
    """

    round: int
    models: dict[int, State]
    assignment: dict[int, int]
    servers: dict[int, State] = field(default_factory=dict)
    probe: State = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write `round-XXX.safetensors` and remove all but the newest two."""
        tensors: State = {}
        kinds = (("server", self.servers), ("model", self.models), ("probe", {0: self.probe}))
        for kind, states in kinds:
            for cluster, state in states.items():
                tensors |= {f"{kind}-{cluster}:{name}": value for name, value in state.items()}
        # Clusters may share the server's blocks; a file holds every tensor apart.
        tensors = {name: value.clone() for name, value in tensors.items()}
        facts = {"round": self.round, "assignment": self.assignment}
        path = folder / f"round-{self.round:03d}.safetensors"
        with replacing(path) as aside:
            safetensors.torch.save_file(tensors, aside, metadata={"facts": json.dumps(facts)})
        for old in _files(folder)[:-_KEPT]:
            old.unlink()


def checkpoint_to_resume(run_folder: Path, like: State, rounds: int) -> Checkpoint:
    """The last checkpoint of a run, to go on from.

    Parameters
    ----------
    run_folder: of that run.
    like: a whole net as it has to be, by names and shapes.
    rounds: how many there shall be in the end.

    Raises
    ------
    UserError: it has none or one that cannot be read, trained another net, or has all the rounds.
    """
    checkpoint = _newest(run_folder)
    expected = {name: value.shape for name, value in like.items()}
    for model in checkpoint.models.values():
        if {name: value.shape for name, value in model.items()} != expected:
            raise UserError(f'resume="{run_folder}": that run trained another net')
    if checkpoint.round >= rounds:
        raise UserError(
            f'resume="{run_folder}": that run has {checkpoint.round} rounds; '
            "num-server-rounds must be above that to go on"
        )
    return checkpoint


def _newest(run_folder: Path) -> Checkpoint:
    files = _files(run_folder / "checkpoints")
    if not files:
        raise UserError(f'resume="{run_folder}": no checkpoint in it')
    try:
        with safetensors.safe_open(files[-1], framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            parts: dict[str, dict[int, State]] = {"server": {}, "model": {}, "probe": {}}
            for name in file.keys():  # noqa: SIM118
                part, _, rest = name.partition(":")
                kind, _, cluster = part.partition("-")
                parts[kind].setdefault(int(cluster), {})[rest] = file.get_tensor(name)
        assignment = {int(client): int(label) for client, label in facts["assignment"].items()}
        return Checkpoint(
            int(facts["round"]),
            parts["model"],
            assignment,
            parts["server"],
            parts["probe"].get(0, {}),
        )
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{files[-1]}: cannot be read as a checkpoint: {error}") from None


def _files(folder: Path) -> list[Path]:
    """Checkpoints in the order of their rounds."""
    files = folder.glob("round-*.safetensors")
    return sorted(files, key=lambda file: int(file.stem.removeprefix("round-")))

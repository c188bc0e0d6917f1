"""What a strategy needs to go on after a round: saved each round, read by the key `resume`."""

import contextlib
import logging
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError, no_such_file
from huscf_flwr.keys import read_toml
from huscf_flwr.nets import State
from huscf_flwr.nets.generator import Generator, generator_from
from huscf_flwr.nets.saved import BrokenFile, load_tensors, save_tensors

log = logging.getLogger(__name__)

_KEPT = 2
_KINDS = ("model", "server", "client", "probe")


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
    clients: what clients go on with that have something of their own, by number.
    probe: what clusters were found by, where they were: the discriminator's first blocks, and as
        `activations/<client>` what they make of a client's images.
    cuts: of each client, as text; empty where clients train whole nets.
    nodes: number of each client that is known by its node alone, by Flower's id.
    trained_in: cluster that clients have trained in since clusters are known, by number.
    guard: how large what clients send has been, see `defences.guard.Guard.state`.
    strategy: the class that wrote it.
    partitions: how many clients the data was dealt to; 0 where it was their own.
    """

    round: int
    models: dict[int, State]
    assignment: dict[int, int]
    servers: dict[int, State] = field(default_factory=dict)
    clients: dict[int, State] = field(default_factory=dict)
    probe: State = field(default_factory=dict)
    cuts: dict[int, str] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)
    trained_in: dict[int, int] = field(default_factory=dict)
    guard: dict[str, dict[int, float]] = field(default_factory=dict)
    strategy: str = ""
    partitions: int = 0

    def save(self, folder: Path) -> None:
        """Write `round-XXX.safetensors` and remove all but the newest two.

        Raises
        ------
        OSError: it cannot be written; those before are still there.
        """
        tensors: State = {}
        parts = (self.models, self.servers, self.clients, {0: self.probe})
        for kind, states in zip(_KINDS, parts, strict=True):
            for cluster, state in states.items():
                tensors |= {f"{kind}-{cluster}:{name}": value for name, value in state.items()}
        facts = {
            "round": self.round,
            "assignment": self.assignment,
            "cuts": self.cuts,
            "nodes": self.nodes,
            "trained_in": self.trained_in,
            "guard": self.guard,
            "strategy": self.strategy,
            "partitions": self.partitions,
        }
        save_tensors(folder / f"round-{self.round:03d}.safetensors", tensors, facts)
        for old in _files(folder)[:-_KEPT]:
            old.unlink()


def client_states(run_folder: Path) -> Path:
    """Where clients on this machine keep theirs."""
    return run_folder / "checkpoints" / "clients"


def states_of_clients(run_folder: Path, before: Path | None) -> dict[str, str]:
    """What clients have to know to keep their state after a round, and to find it again.

    The run has a name for that, the same when it goes on. It is in a file of its own, as two runs
    are equal in all others.

    Parameters
    ----------
    run_folder: of this run, which has begun.
    before: folder of the run that it goes on from, or None.
    """
    name = secrets.token_hex(8)
    with contextlib.suppress(OSError):  # then clients begin afresh, now or when this run goes on
        if before is not None:
            name = (client_states(before) / "run").read_text().strip()
        (client_states(run_folder) / "run").write_text(name)
    return {
        "run": name,
        "state-dir": str(client_states(run_folder)),
        "resume-dir": str(client_states(before)) if before is not None else "",
    }


def checkpoint_to_resume(
    run_folder: Path, strategies: Collection[str], like: State, rounds: int
) -> Checkpoint:
    """The last good checkpoint of a run, to go on from; what is wrong with later ones is logged.

    Parameters
    ----------
    run_folder: of that run.
    strategies: classes whose runs can be gone on with.
    like: a whole net as it has to be, by names and shapes.
    rounds: how many there shall be in the end.

    Raises
    ------
    UserError: it has none that is good, is of another strategy, trained another net, or has all
        the rounds.
    """
    try:
        checkpoint = last_checkpoint(run_folder)
    except UserError as error:
        raise UserError(f'resume="{run_folder}": {error}') from None
    if checkpoint.strategy not in strategies:
        raise UserError(
            f'resume="{run_folder}": not a run of this strategy, but of {checkpoint.strategy}'
        )
    expected = {name: value.shape for name, value in like.items()}
    for model in checkpoint.models.values():
        if {name: value.shape for name, value in model.items()} != expected:
            raise UserError(f'resume="{run_folder}": that run trained another net')
    if checkpoint.round >= rounds:
        raise UserError(
            f'resume="{run_folder}": that run has {checkpoint.round} rounds; '
            "num-server-rounds must be above that to go on"
        )
    log.info("going on after round %d of %s", checkpoint.round, run_folder)
    return checkpoint


def last_checkpoint(run_folder: Path) -> Checkpoint:
    """The last good one of a run; what is wrong with later ones is logged.

    Raises
    ------
    UserError: there is none; the message does not name the folder.
    """
    files = _files(run_folder / "checkpoints")
    if not files:
        raise UserError("no checkpoint in it")
    for file in reversed(files):
        try:
            found = _read(file)
        except BrokenFile as error:
            problem = f"{file}: {error}"
            log.warning("a checkpoint is left out: %s", problem)
        else:
            return found
    raise UserError(f"no good checkpoint in it: {problem}")


def generator_at(file: Path, cluster: int | None, net: str = "") -> Generator:
    """The generator of a cluster as it was after the round of a checkpoint.

    Parameters
    ----------
    file: the checkpoint, where its run left it: what the net is, the run's config.toml says.
    cluster: which; None where there is one only.
    net: see `load_generator`.

    Raises
    ------
    UserError: see `load_generator`; or there is no such cluster, or several and none is named.
    """
    if not file.exists():
        raise no_such_file(file)
    try:
        models = _read(file).models
    except BrokenFile as error:
        raise UserError(f"{file}: {error}") from None
    clusters = ", ".join(map(str, sorted(models)))
    if cluster is None and len(models) > 1:
        raise UserError(f"{file}: has clusters {clusters}: --cluster says of which")
    chosen = min(models) if cluster is None else cluster
    if chosen not in models:
        raise UserError(f"{file}: has no cluster {chosen}, but {clusters}")
    keys = read_toml(str(file.absolute().parents[1] / "config.toml"))
    config = RunConfig.from_mapping(keys)
    return generator_from(file, config.net_spec, models[chosen], net, config.sound)


def _read(file: Path) -> Checkpoint:
    tensors, facts = load_tensors(file)
    try:
        parts: dict[str, dict[int, State]] = {kind: {} for kind in _KINDS}
        for name, value in tensors.items():
            part, _, rest = name.partition(":")
            kind, _, cluster = part.partition("-")
            parts[kind].setdefault(int(cluster), {})[rest] = value
        return Checkpoint(
            int(facts["round"]),
            parts["model"],
            {int(client): int(label) for client, label in facts["assignment"].items()},
            parts["server"],
            parts["client"],
            parts["probe"].get(0, {}),
            {int(client): str(cut) for client, cut in facts["cuts"].items()},
            {str(node): int(client) for node, client in facts["nodes"].items()},
            {int(client): int(label) for client, label in facts["trained_in"].items()},
            {
                str(key): {int(client): float(level) for client, level in levels.items()}
                for key, levels in facts["guard"].items()
            },
            str(facts["strategy"]),
            int(facts["partitions"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BrokenFile(f"not what a checkpoint holds: {error}") from None


def _files(folder: Path) -> list[Path]:
    """Checkpoints in the order of their rounds."""
    files = folder.glob("round-*.safetensors")
    return sorted(files, key=lambda file: int(file.stem.removeprefix("round-")))

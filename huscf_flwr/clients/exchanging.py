"""A client that exchanges tensors with the runner in every iteration."""

from flwr.common import Config

from huscf_flwr.clients.base import GANClient
from huscf_flwr.clients.over_channel import train_over
from huscf_flwr.procedure import ClientTraining
from huscf_flwr.wire.channel import Channel
from huscf_flwr.wire.tls_channel import TlsChannel


class ExchangingGANClient(GANClient):
    """Dials the runner, and trains what its `half` exchanges."""

    def train(self, part: ClientTraining, config: Config) -> None:
        channel = self.open_channel(config)
        try:
            train_over(channel, part, int(config["round"]))
        finally:
            channel.close()

    def open_channel(self, config: Config) -> Channel:
        """The way to the runner: `config` has runner-address, runner-certificate and token."""
        return TlsChannel(
            str(config["runner-address"]),
            str(config["token"]),
            str(config["runner-certificate"]),
            dial_timeout=self.config.straggler_timeout,
            round_timeout=self.config.round_timeout,
            coding=self.config.coding,
        )

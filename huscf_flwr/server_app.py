"""The Flower ServerApp."""

from huscf_flwr.system import cpu  # isort: skip  (before torch)

import logging

from flwr.app import Context
from flwr.server import ServerApp, ServerAppComponents, ServerConfig

from huscf_flwr.config import RunConfig
from huscf_flwr.deploy.serve import in_deployment
from huscf_flwr.errors import UserError
from huscf_flwr.report.writer import RunReport
from huscf_flwr.system.caller import calling_folder
from huscf_flwr.system.logs import set_up_logging
from huscf_flwr.system.own_modules import HOME, look_in

_MANY = 1024  # clients that are talked to at a time: all of them


class _OneLine(logging.Filter):
    """Shows a `UserError` that ends the run as one line, where Flower would add a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, UserError):
            record.msg, record.args, record.exc_info = "the run failed: %s", (str(error),), None
        return True


def server_fn(context: Context) -> ServerAppComponents:
    """Build the server of one run from its run config."""
    set_up_logging()
    base_dir = calling_folder()
    look_in(HOME, base_dir)
    from strategies import chosen
    from strategies.server import GANServer

    config = in_deployment(RunConfig.from_mapping(context.run_config)).settled(base_dir)
    strategy_class, config = chosen(config)
    report = RunReport(config, base_dir)
    server = GANServer(strategy_class(config, report, base_dir), max_workers=_MANY)
    rounds = ServerConfig(config.num_server_rounds, round_timeout=config.round_timeout)
    return ServerAppComponents(server=server, config=rounds)


logging.getLogger("flwr").addFilter(_OneLine())
app = ServerApp(server_fn=server_fn)
cpu.settle_memory()

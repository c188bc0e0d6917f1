"""The server of a deployment: Flower's SuperLink for this machine, the gateway for the others."""

import json
import logging
import os
import secrets
import shlex
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import httpx
import uvicorn
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from huscf_flwr.config import RunConfig
from huscf_flwr.deploy import kits
from huscf_flwr.deploy.gateway import gateway
from huscf_flwr.errors import UserError, cause
from huscf_flwr.system.files import allow_many_files
from huscf_flwr.system.processes import end_left

log = logging.getLogger(__name__)

_RUNNER = "HUSCF_RUNNER"
"""In the environment of what a server runs: where its runner is, and a word of its own."""
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_AT_A_TIME = 4


def serve(kit: Path) -> None:
    """Run the server of this kit until the process is told to end.

    Raises
    ------
    UserError: this is no server's kit, a port is in use, or Flower does not start.
    """
    kit = kit.resolve()
    keys = _device_keys(kit)
    host, port = _address(kit)
    home = kit / kits.FLOWER
    home.mkdir(mode=0o700, exist_ok=True)
    _write_connection(home, kit, port + kits.SUPERLINK)
    trusted = ssl.create_default_context(cafile=str(kit / kits.AUTHORITY))
    url = f"https://127.0.0.1:{port + kits.SUPERLINK}"
    allow_many_files()
    signal.signal(signal.SIGTERM, _exit)
    with _superlink(kit, home, host, port) as superlink:
        _wait_for(superlink, url, trusted, home)
        _register(kit, home, keys)
        log.info("%d devices may join, at %s:%d", len(keys), host, port)
        log.info(
            "a run is started on this machine, in the folder of the app, with\n\n"
            '    FLWR_HOME=%s flwr run . %s --stream --run-config "num-clients=%d"\n',
            shlex.quote(str(home)),
            kits.CONNECTION,
            len(keys),
        )
        # A device that sends slowly keeps its connection for as long.
        client = httpx.AsyncClient(
            base_url=url, verify=trusted, timeout=60.0, limits=httpx.Limits()
        )
        server = uvicorn.Server(
            uvicorn.Config(
                gateway(client, keys.values()),
                host="0.0.0.0",
                port=port,
                ssl_certfile=kit / kits.CERTIFICATE,
                ssl_keyfile=kit / kits.KEY,
                log_level="warning",
                access_log=False,
            )
        )
        threading.Thread(target=_end_with, args=(superlink, server), daemon=True).start()
        try:
            server.run()
        except SystemExit:
            if not server.started:
                raise UserError(f"port {port} is in use") from None
            raise
        if superlink.poll() is not None:
            raise UserError(f"Flower's SuperLink has ended: {home / 'superlink.log'} says why")


def in_deployment(config: RunConfig) -> RunConfig:
    """A run config with the addresses of the runner, where the server of a kit runs this process
    and nothing else is said.
    """
    if _RUNNER not in os.environ or config.runner_address:
        return config
    bind, address, _ = os.environ[_RUNNER].split()
    return replace(config, runner_bind=bind, runner_address=address)


def _address(kit: Path) -> tuple[str, int]:
    """Host and port at which devices reach the server."""
    try:
        host, _, port = (kit / kits.ADDRESS).read_text().strip().rpartition(":")
        return host, int(port)
    except (OSError, ValueError) as error:
        raise UserError(f"{kit / kits.ADDRESS}: {cause(error)}") from None


def _device_keys(kit: Path) -> dict[str, ec.EllipticCurvePublicKey]:
    """The public keys of the devices, by name."""
    keys: dict[str, ec.EllipticCurvePublicKey] = {}
    try:
        files = sorted((kit / kits.NODES).glob("*.pub"))
        if not files:
            raise UserError(f"{kit}: no server's kit with devices: huscf provision makes one")
        for file in files:
            key = serialization.load_ssh_public_key(file.read_bytes())
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise UserError(f"{file}: not a key that huscf provision makes")
            keys[file.stem] = key
        return keys
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{kit}: {cause(error)}") from None


def _write_connection(home: Path, kit: Path, port: int) -> None:
    """Tell `flwr` on this machine of the SuperLink."""
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{kits.CONNECTION}"\n\n[superlink.{kits.CONNECTION}]\n'
        f'address = "127.0.0.1:{port}"\n'
        f"root-certificates = {json.dumps(str(kit / kits.AUTHORITY), ensure_ascii=False)}\n"
    )


def _environment(home: Path) -> dict[str, str]:
    """Of Flower's programs: their own home, and nothing that phones out."""
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    return {**quiet, **os.environ, "FLWR_HOME": str(home)}


def _program(name: str) -> str:
    """A program of this environment, whether or not it is activated."""
    return str(Path(sys.executable).with_name(name))


@contextmanager
def _superlink(kit: Path, home: Path, host: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    runner = f"0.0.0.0:{port + 1} {host}:{port + 1} {secrets.token_hex(8)}"
    command = [
        *(_program("flower-superlink"), "--host", "127.0.0.1"),
        *("--port", str(port + kits.SUPERLINK), "--enable-supernode-auth"),
        *("--ssl-ca-certfile", str(kit / kits.AUTHORITY)),
        *("--ssl-certfile", str(kit / kits.CERTIFICATE)),
        *("--ssl-keyfile", str(kit / kits.KEY)),
        *("--database", str(home / "superlink.db")),
        "--disable-runtime-dependency-installation",
    ]
    environment: Mapping[str, str] = {**_environment(home), _RUNNER: runner}
    with (home / "superlink.log").open("ab") as output:
        started = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            started.kill()
        end_left(_RUNNER, runner)  # what it had started, if it was killed: it holds ports


def _wait_for(
    superlink: subprocess.Popen[bytes], url: str, trusted: ssl.SSLContext, home: Path
) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            httpx.get(f"{url}/health", verify=trusted, timeout=2.0)
            return
        except httpx.HTTPError:
            if superlink.poll() is not None or time.monotonic() > deadline:
                log_file = home / "superlink.log"
                raise UserError(
                    f"Flower's SuperLink does not start: {log_file} says why"
                ) from None
            time.sleep(0.2)


def _register(kit: Path, home: Path, devices: Iterable[str]) -> None:
    """Tell the SuperLink of the devices that it does not know yet."""

    def register(name: str) -> None:
        done = subprocess.run(
            [
                *(_program("flwr"), "supernode", "register"),
                *(str(kit / kits.NODES / f"{name}.pub"), kits.CONNECTION),
            ],
            env=_environment(home),
            capture_output=True,
            text=True,
        )
        said = done.stdout + done.stderr
        if done.returncode and "already in use" not in said:
            raise UserError(f"{name} cannot be registered: {said.strip()}")

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        list(pool.map(register, devices))


def _end_with(superlink: subprocess.Popen[bytes], server: uvicorn.Server) -> None:
    superlink.wait()
    server.should_exit = True


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)

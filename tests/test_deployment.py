"""A deployment with kits, as real processes on this machine; and strangers who reach its ports."""

import base64
import contextlib
import csv
import datetime
import json
import os
import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.config import parse_config_args
from programs import SMALL, deployment, flwr_run

from huscf_flwr.cli import main
from huscf_flwr.deploy.kits import make_kits
from huscf_flwr.errors import UserError
from huscf_flwr.system.certificates import new_device_key


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_kit_has_what_its_machine_needs_and_nothing_of_another(tmp_path: Path) -> None:
    kits = make_kits(tmp_path, "192.0.2.7", 2)
    assert [kit.name for kit in kits] == ["server", "node-1", "node-2"]
    found = {kit.name: files_of(kit) for kit in kits}
    secrets = {
        "server": found["server"]["server.key"],
        "node-1": found["node-1"]["key"],
        "node-2": found["node-2"]["key"],
    }
    for kit in kits:
        assert kit.stat().st_mode & 0o777 == 0o700
        for name, content in found[kit.name].items():
            assert not (kit / name).stat().st_mode & 0o077
            others = [secret for owner, secret in secrets.items() if owner != kit.name]
            assert not any(secret in content for secret in others)
    private = [c for files in found.values() for c in files.values() if b"PRIVATE KEY" in c]
    assert sorted(private) == sorted(secrets.values())  # the authority's is nowhere
    assert make_kits(tmp_path, "192.0.2.7", 3) == [tmp_path / "node-3"]
    assert files_of(tmp_path / "node-1") == found["node-1"]
    keys = tmp_path / "server" / "nodes"
    (keys / "node-2.pub").rename(keys / "node-2.pub.out")
    assert make_kits(tmp_path, "192.0.2.7", 3) == []  # who was shut out stays out
    with pytest.raises(UserError, match=r"has kits for the server at 192\.0\.2\.7:9092"):
        make_kits(tmp_path, "192.0.2.8", 3)


@pytest.mark.parametrize("more", ["", 'image-epsilon=2400 label-epsilon=2.0 profile="phone"'])
def test_a_device_starts_with_its_data_and_what_it_insists_on(more: str, tmp_path: Path) -> None:
    (_, kit) = make_kits(tmp_path / "kits", "192.0.2.7", 1)
    data = tmp_path / "own data"
    data.mkdir()
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "flower-supernode").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (programs / "flower-supernode").chmod(0o700)
    path = f"{programs}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "NODE_CONFIG": more}
    started = subprocess.run(
        [kit / "start", data, "--port", "9096"], env=environment, capture_output=True, text=True
    )
    words = started.stdout.splitlines()
    assert words[-2:] == ["--port", "9096"], started.stderr
    found = parse_config_args([words[words.index("--node-config") + 1]])
    due: dict[str, object] = {"data": str(data)}
    if more:
        due |= {"image-epsilon": 2400, "label-epsilon": 2.0, "profile": "phone"}
    assert found == due


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--server", "a b", "--nodes", "1"], "--server a b: not a host name"),
        (["--server", "2001:db8::1", "--nodes", "1"], "listens on IPv4 only"),
        (["--server", "here", "--nodes", "0"], "--nodes 0: must be at least 1"),
        (["--server", "here", "--nodes", "1", "--port", "65534"], "--port 65534: must be"),
    ],
)
def test_what_cannot_be_provisioned_is_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["provision", *arguments, "--out", str(tmp_path / "kits")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "kits").exists()


def test_what_is_no_servers_kit_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tmp_path)]) == 1
    assert f"{tmp_path}: no server's kit with devices" in capsys.readouterr().err
    (server, *_) = make_kits(tmp_path, "here", 1)
    rsa = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAQQ nobody"
    (server / "nodes" / "node-2.pub").write_text(rsa)
    assert main(["serve", str(server)]) == 1
    (server / "nodes" / "node-2.pub").unlink()
    (server / "address").write_text("here")
    assert main(["serve", str(server)]) == 1
    assert f"{server / 'address'}: " in capsys.readouterr().err


@pytest.mark.timeout(900)
@pytest.mark.fault("strangers at all ports that devices reach", lost="nothing")
def test_a_run_of_two_devices_and_strangers_who_get_nowhere(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rounds; the server has neither device's file nor a domain's name. Rivals train, too."""
    with deployment(tmp_path, 2) as running:
        _strangers(tmp_path, running.port)
        monkeypatch.setenv("FLWR_HOME", str(running.home))
        keys = {"num-clients": 2, "cohort": "all", "output-dir": str(tmp_path / "out")}
        log = flwr_run(tmp_path, {**SMALL, **keys, "scoring": "standard"})
        for strategy in ("mdgan", "fedsplitgan"):
            rival = {"strategy": strategy, "num-server-rounds": 1}
            rival["output-dir"] = str(tmp_path / strategy)
            text = flwr_run(tmp_path, {**SMALL, **keys, **rival})
            assert (tmp_path / strategy / "summary.json").exists(), text
            summary = json.loads((tmp_path / strategy / "summary.json").read_text())
            assert (summary["rounds"], summary["clients"]) == (1, 2)
    assert (tmp_path / "out" / "summary.json").exists(), log
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["rounds"], summary["clients"], summary["domains"]) == (2, 2, {})
    assert summary["adjusted_rand_index"] is None
    assert "planned cuts for measured devices" in log  # the nodes have data of their own
    assert summary["latency"]["predicted_s"] > 0 < summary["latency"]["measured_s"]
    assert sum(found["clients"] for found in summary["clusters_scores"].values()) == 2
    with (tmp_path / "out" / "clusters.csv").open() as file:
        rows = list(csv.DictReader(file))
    places = [(row["round"], row["client"]) for row in rows]
    assert places == [("1", "0"), ("1", "1"), ("2", "0"), ("2", "1")]
    assert len(list((tmp_path / "out" / "samples").glob("*.png"))) >= 2
    assert "secret" not in log


def _strangers(folder: Path, port: int) -> None:
    """Who has no key of the deployment can reach nothing behind the gateway, and who has one,
    nothing but what devices need.
    """
    kits = folder / "kits"
    trusted = ssl.create_default_context(cafile=str(kits / "node-1" / "ca.pem"))
    own = serialization.load_ssh_private_key((kits / "node-1" / "key").read_bytes(), None)
    foreign = serialization.load_ssh_private_key(new_device_key("x").private, None)
    assert isinstance(own, ec.EllipticCurvePrivateKey)
    assert isinstance(foreign, ec.EllipticCurvePrivateKey)
    now = datetime.datetime.now(datetime.UTC)
    tries = {
        "nothing": ({}, 401),
        "a foreign key": (_signed(foreign, foreign, now), 401),
        "a device's public key alone": (_signed(foreign, own, now), 401),
        "signed an hour ago": (_signed(own, own, now - datetime.timedelta(hours=1)), 401),
    }
    with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusted) as client:
        for headers, status in tries.values():
            for call in ("pull-messages", "register-node", "get-fab"):
                assert client.post(f"/v1/fleet/{call}", headers=headers).status_code == status
        for path in (
            *("/v1/control/start-run", "/v1/control/list-runs", "/v1/runtime/pull-task-input"),
            *("/docs", "/openapi.json", "/health", "/v1/fleet/..%2fcontrol%2fstart-run"),
        ):
            for headers in ({}, _signed(own, own, now)):
                assert client.post(path, headers=headers).status_code == 404
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        plain.sendall(b"POST /v1/control/list-runs HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert plain.recv(100) == b""


def _signed(
    signer: ec.EllipticCurvePrivateKey, shown: ec.EllipticCurvePrivateKey, at: datetime.datetime
) -> dict[str, str]:
    """What a device adds to its calls."""
    public = shown.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signature = signer.sign(at.isoformat().encode(), ec.ECDSA(hashes.SHA256()))
    return {
        "flwr-public-key": base64.b64encode(public).decode(),
        "flwr-timestamp": at.isoformat(),
        "flwr-signature": base64.b64encode(signature).decode(),
    }

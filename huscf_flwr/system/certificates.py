"""Keys and certificates: what proves who a server or a device is.

The runner's certificate is made for one run. Whoever is told of it over a connection that they
trust trusts what holds its key, and nothing else: no authority, no host name, and no clock, as
devices may not know what time it is. A deployment's server has a certificate of the deployment's
own authority, and every device a key.
"""

import datetime
import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_ALWAYS = (
    datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC),
    datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC),
)
_DAYS = 3650


class Certificate(NamedTuple):
    """A certificate that is to be shown, and the key that is not; both as PEM."""

    public: bytes
    key: bytes


class DeviceKey(NamedTuple):
    """A device's key pair, as OpenSSH writes them, which is how Flower reads them."""

    public: bytes
    private: bytes


def self_signed(name: str) -> Certificate:
    """A certificate for `name` that nobody vouches for, and that never ends."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, name, key, _ALWAYS, vouches=True)
    return _signed(builder.add_extension(_names([name]), critical=False), key, key)


def new_authority(name: str) -> Certificate:
    """What vouches for others, for ten years."""
    key = ec.generate_private_key(ec.SECP384R1())
    return _signed(_builder(name, name, key, _years(), vouches=True), key, key)


def issue(authority: Certificate, hosts: Sequence[str]) -> Certificate:
    """A server's certificate, good for all these names and addresses, for ten years."""
    issuer = x509.load_pem_x509_certificate(authority.public)
    signer = serialization.load_pem_private_key(authority.key, password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    name = issuer.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    key = ec.generate_private_key(ec.SECP384R1())
    builder = _builder("server", str(name), key, _years(), vouches=False)
    return _signed(builder.add_extension(_names(hosts), critical=False), key, signer)


def new_device_key(comment: str) -> DeviceKey:
    """A key pair on the curve that Flower asks for."""
    key = ec.generate_private_key(ec.SECP384R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    return DeviceKey(public + f" {comment}\n".encode(), private)


def _years() -> tuple[datetime.datetime, datetime.datetime]:
    """From a day ago, as clocks differ, for ten years."""
    now = datetime.datetime.now(datetime.UTC)
    return now - datetime.timedelta(days=1), now + datetime.timedelta(days=_DAYS)


def _builder(
    subject: str,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    good: tuple[datetime.datetime, datetime.datetime],
    *,
    vouches: bool,
) -> x509.CertificateBuilder:
    """`vouches`: for others, or for itself; what is trusted as a root has to say so."""
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(good[0])
        .not_valid_after(good[1])
        .add_extension(
            x509.BasicConstraints(ca=vouches, path_length=0 if vouches else None),
            critical=True,
        )
    )


def _signed(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
) -> Certificate:
    return Certificate(
        builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    found: list[x509.GeneralName] = []
    for host in hosts:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            found.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(found)

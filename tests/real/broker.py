"""A real broker: mosquitto, in a folder of its own, with or without TLS and a password."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import aiomqtt
from aiomqtt import ProtocolVersion
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from otsd.demo.broker import _hash, find_mosquitto
from tests.daemon import free_port

_PATIENCE = 15


class Mosquitto:
    """A mosquitto to `kill`, `start` again, `freeze` and `thaw`; retained messages survive."""

    def __init__(
        self,
        folder: Path,
        *,
        tls: bool = False,
        password: str | None = None,
        rules: Sequence[str] = (),
    ) -> None:
        """With a ``password`` the user is ``otsd``; ``rules`` are lines of an access list."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.tls = tls
        self.username = None if password is None else "otsd"
        self.password = password
        self.process: subprocess.Popen[bytes] | None = None
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {'true' if password is None else 'false'}",
            "persistence true",
            f"persistence_location {folder}/",
            "log_dest stdout",
            # it takes a user of its own otherwise, who cannot read the folder
            *(["user root"] if os.geteuid() == 0 else []),
        ]
        if password is not None:
            self.set_password(password)
            lines.append(f"password_file {folder / 'passwords'}")
        if tls:
            self.ca_file = folder / "ca.pem"
            certify(folder)
            lines += [f"certfile {folder / 'server.pem'}", f"keyfile {folder / 'server.key'}"]
        if rules:
            (folder / "rules").write_text("\n".join(rules) + "\n")
            lines.append(f"acl_file {folder / 'rules'}")
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")

    def set_password(self, password: str) -> None:
        """Write the password down; mosquitto reads it when it starts, or is told to."""
        (self.folder / "passwords").write_text(f"otsd:{_hash(password)}\n")

    @property
    def settings(self) -> dict[str, str]:
        """What otsd is told of it, as TOML values by key."""
        settings = {"mqtt.host": '"127.0.0.1"', "mqtt.port": str(self.port)}
        if self.password is not None:
            settings |= {"mqtt.username": '"otsd"', "mqtt.password": f'"{self.password}"'}
        if self.tls:
            settings |= {"mqtt.tls": "true", "mqtt.ca_file": f'"{self.ca_file}"'}
        return settings

    def client(
        self, protocol: ProtocolVersion = ProtocolVersion.V5, identifier: str | None = None
    ) -> aiomqtt.Client:
        """Return a client that is not connected yet."""
        context = ssl.create_default_context(cafile=self.ca_file) if self.tls else None
        return aiomqtt.Client(
            "127.0.0.1",
            self.port,
            username=self.username,
            password=self.password,
            protocol=protocol,
            identifier=identifier,
            tls_context=context,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.thaw()
        self.kill()

    def command(self) -> list[str]:
        """Return what is run."""
        program = find_mosquitto()
        assert program is not None, "mosquitto is missing: scripts/tools mosquitto"
        return [str(program), "-c", str(self.folder / "mosquitto.conf")]

    async def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        async with asyncio.timeout(_PATIENCE):
            while True:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.01)

    def kill(self) -> None:
        """End it at once: what it kept in memory only is lost."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(_PATIENCE)

    def stop(self) -> None:
        """End it in order: what it retains is on disk."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(_PATIENCE)

    def freeze(self) -> None:
        """Stop it from answering, with its connections open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)


def certify(folder: Path) -> None:
    """Make a certificate authority and a certificate of it for 127.0.0.1 alone."""
    now = dt.datetime.now(dt.UTC)

    def name(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("Test authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )

    def write(path: Path, data: bytes) -> None:
        path.write_bytes(data)

    pem = serialization.Encoding.PEM
    authority = ec.generate_private_key(ec.SECP256R1())
    is_authority = x509.BasicConstraints(ca=True, path_length=None)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    root = (
        builder("Test authority", authority)
        .add_extension(is_authority, critical=True)
        .add_extension(usage, critical=True)
        .sign(authority, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    server = (
        builder("127.0.0.1", key)
        .add_extension(address, critical=False)
        .sign(authority, hashes.SHA256())
    )
    write(folder / "ca.pem", root.public_bytes(pem))
    write(folder / "server.pem", server.public_bytes(pem))
    private = serialization.PrivateFormat.PKCS8
    no_password = serialization.NoEncryption()
    write(folder / "server.key", key.private_bytes(pem, private, no_password))

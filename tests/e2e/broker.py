"""The broker under test: development certificates, a generated configuration, start, readiness, stop."""

import os
import re
import shlex
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from process import Failure, Process

BINARY = Path(os.environ["SHANGMQ_BIN"]).resolve()
CERTS = Path("gm-certs/dev")


@dataclass(frozen=True)
class Endpoint:
    """A way to the broker: what carries MQTT (tcp, ws), what secures it (None, tls1.2, tls1.3, rfc8998, tlcp), whether the
    client shows certificates, and the port."""

    carrier: str
    security: str
    mutual: bool
    port: int

    def __str__(self):
        name = self.security or "plain"
        return ("ws+" if self.carrier == "ws" else "") + name + ("+mutual" if self.mutual else "")


class Ports:
    """Ports that were free a moment ago, all different."""

    def __init__(self, count):
        sockets = [socket.socket() for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        self.numbers = [one.getsockname()[1] for one in sockets]
        for one in sockets:
            one.close()


SECURE = """
[listeners.{kind}.{name}]
bind = "127.0.0.1:{port}"
protocols = ["tls", "rfc8998", "tlcp"]

[listeners.{kind}.{name}.ssl_options]
certificates = [
    {{ certfile = "{certs}/server-ecdsa.crt", keyfile = "{certs}/server-ecdsa.key" }},
    {{ certfile = "{certs}/server-rsa.crt", keyfile = "{certs}/server-rsa.key" }},
]
cacertfile = "{certs}/ecdsa-ca.crt"
{verify}

[listeners.{kind}.{name}.rfc8998_options]
certfile = "{certs}/server-sm2.crt"
keyfile = "{certs}/server-sm2.key"
cacertfile = "{certs}/sm2-ca.crt"
{verify}

[listeners.{kind}.{name}.tlcp_options]
sign_certfile = "{certs}/server-sign.crt"
sign_keyfile = "{certs}/server-sign.key"
enc_certfile = "{certs}/server-enc.crt"
enc_keyfile = "{certs}/server-enc.key"
cacertfile = "{certs}/sm2-ca.crt"
{verify}
"""

PLAIN = """
[node]
data_dir = "{data}"

[mqtt]
max_packet_size = "2MB"

[auth]
allow_anonymous = true
no_match = "allow"

[listeners.tcp.default]
bind = "127.0.0.1:{tcp}"

[listeners.ws.default]
bind = "127.0.0.1:{ws}"
"""

ONE_WAY = 'verify = "verify_none"'
MUTUAL = 'verify = "verify_peer"\nfail_if_no_peer_cert = true'


class DevelopmentBroker:
    """`shangmq start` without a configuration: it makes certificates and prints commands. Only the ports are moved, so that
    nothing else on this machine is in the way."""

    def __init__(self, work):
        self.work = work
        env = dict(os.environ)
        for kind in ("tcp", "ssl", "ws", "wss"):
            env[f"SHANGMQ_LISTENERS__{kind.upper()}__DEFAULT__BIND"] = "127.0.0.1:0"
        self.process = Process([BINARY, "start"], cwd=work, env=env)
        try:
            self.process.wait_line(lambda line: re.search(r"\bready\b", line), timeout=60)
        except Failure:
            self.process.kill()
            raise

    def commands(self):
        """The printed commands by title: {title: {"sub": argv, "pub": argv}}."""
        found, title = {}, None
        for line in self.process.output:
            if line.startswith("# "):
                title = line[2:]
            elif title and line.startswith("  ") and (words := shlex.split(line)) and words[1:2] in (["sub"], ["pub"]):
                found.setdefault(title, {})[words[1]] = words
        return found

    def port(self, listener):
        """Where a listener such as `ssl:default` listens."""
        pattern = re.compile(rf'listening listener="{listener}" address=127\.0\.0\.1:(\d+)')
        return next(int(found[1]) for line in self.process.output if (found := pattern.search(line)))

    def stop(self):
        return self.process.terminate()


class Broker:
    """The broker with a generated configuration: a plain listener, a WebSocket, and secured ones with and without client certificates."""

    def __init__(self, work, certs, env=None):
        self.work, self.certs = work, certs
        ports = Ports(6).numbers
        self.tcp, self.ws, self.ssl, self.ssl_mutual, self.wss, self.wss_mutual = ports
        # Not `data`, which the development broker in the same directory holds.
        text = PLAIN.format(data=work / "configured-data", tcp=self.tcp, ws=self.ws)
        for kind, name, port, verify in (
            ("ssl", "default", self.ssl, ONE_WAY),
            ("ssl", "mutual", self.ssl_mutual, MUTUAL),
            ("wss", "default", self.wss, ONE_WAY),
            ("wss", "mutual", self.wss_mutual, MUTUAL),
        ):
            text += SECURE.format(kind=kind, name=name, port=port, verify=verify, certs=certs)
        config = work / "generated.toml"
        config.write_text(text)
        self.process = Process([BINARY, "start", "--config", config], cwd=work, env=env)
        self._wait_for(ports)

    def _wait_for(self, ports, timeout=30):
        deadline = time.monotonic() + timeout
        for port in ports:
            while True:
                if not self.process.running():
                    raise Failure(f"the broker did not start: {self.process}")
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        self.process.kill()
                        raise Failure(f"nothing listens on port {port}: {self.process}") from None
                    time.sleep(0.05)

    def endpoint(self, carrier, security=None, mutual=False):
        port = {
            ("tcp", False, False): self.tcp,
            ("ws", False, False): self.ws,
            ("tcp", True, False): self.ssl,
            ("tcp", True, True): self.ssl_mutual,
            ("ws", True, False): self.wss,
            ("ws", True, True): self.wss_mutual,
        }[(carrier, security is not None, mutual)]
        return Endpoint(carrier, security, mutual, port)

    def ca(self, security):
        return self.certs / ("sm2-ca.crt" if security in ("rfc8998", "tlcp") else "ecdsa-ca.crt")

    def stop(self):
        return self.process.terminate()

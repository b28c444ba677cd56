"""The third-party clients, and the broker's own, behind one interface: commands that publish a file or print what arrives.

Every subscriber comes to print one line `MESSAGE topic qos retain hex` for each message; `ready` tells the line by which it says that
its subscription is acknowledged.
"""

import os
import sys
from pathlib import Path

from broker import BINARY

HERE = Path(__file__).resolve().parent
NODE_MODULES = HERE.parent.parent / ".tools" / "node" / "node_modules"


class Peer:
    name = ""
    env = None

    def __init__(self, broker):
        self.broker = broker

    def ready(self, line):
        return line == "READY"

    def message(self, line):
        """(topic, qos, retain, payload), or None for any other line."""
        if not line.startswith("MESSAGE "):
            return None
        topic, qos, retain, payload = (line.split(" ") + [""])[1:5]
        return topic, int(qos), retain in ("1", "true"), bytes.fromhex(payload)


class Mosquitto(Peer):
    """mosquitto_pub and mosquitto_sub of Debian: libmosquitto over the system's OpenSSL."""

    name = "mosquitto"

    def _options(self, endpoint):
        assert endpoint.carrier == "tcp"
        options = ["-h", "localhost", "-p", str(endpoint.port)]
        if endpoint.security:
            version = {"tls1.2": "tlsv1.2", "tls1.3": "tlsv1.3"}[endpoint.security]
            options += ["--cafile", str(self.broker.ca(endpoint.security)), "--tls-version", version]
        if endpoint.mutual:
            certs = self.broker.certs
            options += ["--cert", str(certs / "client-ecdsa.crt"), "--key", str(certs / "client-ecdsa.key")]
        return options

    def publish(self, endpoint, topic, file, qos=0, retain=False, extra=()):
        command = ["mosquitto_pub", *self._options(endpoint), "-t", topic, "-q", str(qos), *(["-r"] if retain else []), *extra]
        return command + (["-f", str(file)] if file else ["-n"])

    def subscribe(self, endpoint, topic, qos=0, count=1, extra=()):
        # -d says when SUBACK has come; stdbuf, so that it says so at once.
        return ["stdbuf", "-oL", "mosquitto_sub", *self._options(endpoint), "-t", topic, "-q", str(qos), "-C", str(count), "-d",
                "-F", "MESSAGE %t %q %r %x", *extra]

    def ready(self, line):
        return line.startswith("Subscribed (mid: ")


class Paho(Peer):
    """paho-mqtt of PyPI: its own MQTT and WebSocket code over Python's ssl module."""

    name = "paho"

    def _options(self, endpoint):
        options = ["--port", str(endpoint.port), "--carrier", endpoint.carrier]
        if endpoint.security:
            options += ["--tls", endpoint.security, "--ca", str(self.broker.ca(endpoint.security))]
        if endpoint.mutual:
            certs = self.broker.certs
            options += ["--cert", str(certs / "client-ecdsa.crt"), "--key", str(certs / "client-ecdsa.key")]
        return options

    def program(self):
        return [sys.executable, str(HERE / "paho_peer.py")]

    def publish(self, endpoint, topic, file, qos=0, retain=False, extra=()):
        command = [*self.program(), "pub", *self._options(endpoint), "--topic", topic, "--qos", str(qos)]
        return command + (["--retain"] if retain else []) + (["--file", str(file)] if file else []) + list(extra)

    def subscribe(self, endpoint, topic, qos=0, count=1, extra=()):
        return [*self.program(), "sub", *self._options(endpoint), "--topic", topic, "--qos", str(qos), "--count", str(count), *extra]


class MqttJs(Paho):
    """MQTT.js of npm, over Node's tls and the ws package."""

    name = "mqtt.js"
    env = dict(os.environ, NODE_PATH=str(NODE_MODULES))

    def program(self):
        return ["node", str(HERE / "mqttjs_peer.js")]


class Rumqttc(Paho):
    """rumqttc of crates.io, MQTT 3.1.1 over plain TCP."""

    name = "rumqttc"

    def _options(self, endpoint):
        assert endpoint.carrier == "tcp" and not endpoint.security
        return ["--port", str(endpoint.port)]

    def program(self):
        return [os.environ["RUMQTTC_CLIENT"]]


class Cli(Peer):
    """The broker's own `pub` and `sub`, the only client here that speaks every protocol."""

    name = "shangmq"

    def _options(self, endpoint):
        options = ["-h", "localhost", "-p", str(endpoint.port)] + (["--ws"] if endpoint.carrier == "ws" else [])
        security, certs = endpoint.security, self.broker.certs
        if security:
            options += ["--protocol", security, "--cafile", str(self.broker.ca(security))]
        if endpoint.mutual and security == "tlcp":
            for half in ("sign", "enc"):
                options += [f"--{half}-cert", str(certs / f"client-{half}.crt"), f"--{half}-key", str(certs / f"client-{half}.key")]
        elif endpoint.mutual:
            kind = "sm2" if security == "rfc8998" else "ecdsa"
            options += ["--cert", str(certs / f"client-{kind}.crt"), "--key", str(certs / f"client-{kind}.key")]
        return options

    def publish(self, endpoint, topic, file, qos=0, retain=False, extra=()):
        command = [str(BINARY), "pub", *self._options(endpoint), "-t", topic, "-q", str(qos), *(["-r"] if retain else []), *extra]
        return command + (["-f", str(file)] if file else ["-n"])

    def subscribe(self, endpoint, topic, qos=0, count=1, extra=()):
        return [str(BINARY), "sub", *self._options(endpoint), "-t", topic, "-q", str(qos), "-C", str(count), "-d",
                "-F", "MESSAGE %t %q %r %x", *extra]

    def ready(self, line):
        return "suback" in line.lower()


class GmTlcp(Peer):
    """A TLCP client in pure Rust that shares no code with Tongsuo. One suite of it interoperates; docs/tlcp.md says why."""

    name = "gm-tlcp"
    suite = "E013"

    def _options(self, endpoint, suite=None):
        assert endpoint.security == "tlcp"
        certs = self.broker.certs
        options = ["--address", f"127.0.0.1:{endpoint.port}", "--suite", suite or self.suite, "--ca", str(certs / "sm2-ca.crt"),
                   "--server-certificate", str(certs / "server-sign.crt")]
        if endpoint.mutual:
            for half in ("sign", "enc"):
                options += [f"--{half}-cert", str(certs / f"client-{half}.crt"), f"--{half}-key", str(certs / f"client-{half}.key")]
        return options

    def publish(self, endpoint, topic, file, qos=0, suite=None):
        return [os.environ["GM_TLCP_CLIENT"], *self._options(endpoint, suite), "--qos", str(qos), "publish", topic, str(file)]

    def subscribe(self, endpoint, topic, qos=0, count=1, extra=()):
        return [os.environ["GM_TLCP_CLIENT"], *self._options(endpoint), "--qos", str(qos), "--count", str(count), "subscribe", topic]

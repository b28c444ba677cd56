"""Clients that must be refused, and that nobody else notices it."""

from peers import Cli, Mosquitto, Paho
from process import Failure
from run import expect


def tests(development, broker):
    mosquitto, paho, cli = Mosquitto(broker), Paho(broker), Cli(broker)
    found = []
    for peer, security in ((mosquitto, "tls1.2"), (mosquitto, "tls1.3"), (paho, "tls1.3"), (cli, "rfc8998"), (cli, "tlcp")):
        mutual = broker.endpoint("tcp", security, mutual=True)
        # The port that demands certificates, and a client that has none.
        bare = type(mutual)("tcp", security, False, mutual.port)
        found.append((f"{peer.name} over {security} without a certificate is refused where one is demanded, and others go on",
                      lambda context, peer=peer, bare=bare: refused(context, peer, bare)))
    for peer, security, wrong in ((mosquitto, "tls1.3", "sm2-ca.crt"), (cli, "tlcp", "ecdsa-ca.crt"), (cli, "rfc8998", "ecdsa-ca.crt")):
        found.append((f"{peer.name} over {security} refuses the broker when it trusts another CA",
                      lambda context, peer=peer, security=security, wrong=wrong: distrusts(context, peer, security, wrong)))
    found.append(("plain MQTT on a TLS port is refused, and TLS on a plain port too", wrong_port))
    found.append(("a client certificate of another CA is refused", other_ca))
    return found


def fails(context, command, env=None):
    process = context.owner.start(command, cwd=context.work, env=env)
    code = process.wait_exit(20)
    if code == 0:
        raise Failure(f"succeeded: {process}")
    return process


def refused(context, peer, endpoint):
    witness = context.subscribe(Mosquitto(context.broker), context.broker.endpoint("tcp"), "refused/#", count=1)
    fails(context, peer.publish(endpoint, "refused/x", context.file(b"no"), qos=1), peer.env)
    context.publish(Cli(context.broker), context.broker.endpoint("tcp", "tlcp", mutual=True), "refused/y", b"yes", qos=1)
    expect(witness.next()[3], b"yes", "the only message that was let in")


def distrusts(context, peer, security, wrong):
    endpoint = context.broker.endpoint("tcp", security)
    command = peer.publish(endpoint, "distrust/x", context.file(b"x"), qos=1)
    command[command.index("--cafile") + 1] = str(context.broker.certs / wrong)
    fails(context, command)


def wrong_port(context):
    broker, mosquitto = context.broker, Mosquitto(context.broker)
    plain, secured = broker.endpoint("tcp"), broker.endpoint("tcp", "tls1.3")
    fails(context, mosquitto.publish(type(plain)("tcp", None, False, secured.port), "wrong/x", context.file(b"x"), qos=1))
    fails(context, mosquitto.publish(type(plain)("tcp", "tls1.3", False, plain.port), "wrong/x", context.file(b"x"), qos=1))


def other_ca(context):
    broker, cli = context.broker, Cli(context.broker)
    command = cli.publish(broker.endpoint("tcp", "tls1.3", mutual=True), "wrong/x", context.file(b"x"), qos=1)
    for name in ("cert", "key"):
        suffix = {"cert": "crt", "key": "key"}[name]
        command[command.index(f"--{name}") + 1] = str(broker.certs / f"client-rsa.{suffix}")
    fails(context, command)

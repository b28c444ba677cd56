"""Retained messages, wills, sessions that outlive a connection, large payloads, versions of MQTT: as clients of other makers see them."""

import hashlib
import signal

from peers import Cli, Mosquitto, MqttJs, Paho
from process import Failure
from run import expect

MEBIBYTE = 1024 * 1024


def tests(development, broker):
    mosquitto, paho, mqttjs, cli = Mosquitto(broker), Paho(broker), MqttJs(broker), Cli(broker)
    tcp, tls12, tls13 = broker.endpoint("tcp"), broker.endpoint("tcp", "tls1.2"), broker.endpoint("tcp", "tls1.3")
    tlcp, wss, wss_tlcp = broker.endpoint("tcp", "tlcp"), broker.endpoint("ws", "tls1.3"), broker.endpoint("ws", "tlcp")
    rfc8998 = broker.endpoint("tcp", "rfc8998")
    found = []
    for peer, endpoint in ((mosquitto, tls13), (paho, wss), (mqttjs, tls12), (cli, tlcp)):
        found.append((f"{peer.name} over {endpoint} gets a retained message at its subscription, until it is cleared",
                      lambda context, peer=peer, endpoint=endpoint: retained(context, peer, endpoint)))
    for peer, endpoint, options in (
        (mosquitto, tls13, ["--will-topic", "will/mosquitto", "--will-payload", "gone", "--will-qos", "1"]),
        (paho, wss, ["--will-topic", "will/paho", "--will-payload", "gone"]),
        (cli, tlcp, ["--will-topic", "will/shangmq", "--will-payload", "gone", "--will-qos", "1"]),
    ):
        found.append((f"the will of {peer.name} over {endpoint} is published when it is killed",
                      lambda context, peer=peer, endpoint=endpoint, options=options: will(context, peer, endpoint, options)))
    for peer, endpoint, options in (
        (mosquitto, tls12, ["-c", "-i", "kept-mosquitto"]),
        (paho, tls13, ["--persistent", "--id", "kept-paho"]),
        (mqttjs, wss, ["--persistent", "--id", "kept-js"]),
        (cli, tlcp, ["-c", "-i", "kept-shangmq"]),
    ):
        found.append((f"a persistent session of {peer.name} over {endpoint} keeps what comes while it is away",
                      lambda context, peer=peer, endpoint=endpoint, options=options: session(context, peer, endpoint, options)))
    for (publisher, out), (subscriber, into) in (
        ((mosquitto, tcp), (cli, tlcp)),
        ((cli, tlcp), (mosquitto, tls13)),
        ((paho, wss), (cli, rfc8998)),
        ((cli, rfc8998), (mqttjs, wss)),
        ((mqttjs, tls12), (cli, wss_tlcp)),
    ):
        found.append((f"1 MiB crosses from {publisher.name} over {out} to {subscriber.name} over {into}",
                      lambda context, a=publisher, b=out, c=subscriber, d=into: large(context, a, b, c, d)))
    for version in ("mqttv31", "mqttv311", "mqttv5"):
        found.append((f"mosquitto speaks {version} over tls1.3",
                      lambda context, version=version: versions(context, mosquitto, tls13, version)))
    return found


def retained(context, peer, endpoint):
    topic = f"retained/{peer.name}"
    context.publish(peer, endpoint, topic, b"kept", qos=1, retain=True)
    expect(context.subscribe(peer, endpoint, topic, qos=1).next(), (topic, 1, True, b"kept"), "the retained message")
    context.publish(peer, endpoint, topic, None, qos=1, retain=True)
    # The next message that a new subscriber sees is the one published after it, so nothing is retained any more.
    later = context.subscribe(peer, endpoint, topic, qos=1)
    context.publish(peer, endpoint, topic, b"live", qos=1)
    expect(later.next(), (topic, 1, False, b"live"), "the first message after clearing")


def will(context, peer, endpoint, options):
    watcher = context.subscribe(Mosquitto(context.broker), context.broker.endpoint("tcp"), f"will/{peer.name}", qos=1)
    dying = context.subscribe(peer, endpoint, "will/unused", extra=options)
    dying.process.child.send_signal(signal.SIGKILL)
    expect(watcher.next(), (f"will/{peer.name}", 1, False, b"gone"), "the will")


def session(context, peer, endpoint, options):
    topic = f"session/{peer.name}"
    first = context.subscribe(peer, endpoint, topic, qos=1, count=1, extra=options)
    context.publish(peer, endpoint, topic, b"first", qos=1)
    expect(first.next(), (topic, 1, False, b"first"), "the message while connected")
    first.process.expect_success()
    cli, other = Cli(context.broker), context.broker.endpoint("tcp", "rfc8998")
    for payload in (b"second", b"third"):
        context.publish(cli, other, topic, payload, qos=1)
    again = context.owner.start(peer.subscribe(endpoint, topic, qos=1, count=2, extra=options), cwd=context.work, env=peer.env)
    for payload in (b"second", b"third"):
        line = again.wait_line(lambda line: peer.message(line) is not None)
        expect(peer.message(line), (topic, 1, False, payload), "the message that waited")
    again.expect_success()


def large(context, publisher, out, subscriber, into):
    topic = f"large/{publisher.name}/{subscriber.name}/{into.carrier}"
    payload = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(MEBIBYTE // 32))
    waiting = context.subscribe(subscriber, into, topic, qos=1)
    context.publish(publisher, out, topic, payload, qos=1)
    found = waiting.next(30)
    if found[3] != payload:
        raise Failure(f"{len(found[3])} of {len(payload)} bytes came, not the ones that were sent")


def versions(context, peer, endpoint, version):
    subscriber = context.subscribe(peer, endpoint, "version/x", qos=2, extra=["-V", version, "-i", f"v-{version}"])
    context.publish(peer, endpoint, "version/x", b"x", qos=2, extra=["-V", version])
    expect(subscriber.next(), ("version/x", 2, False, b"x"), "the message")

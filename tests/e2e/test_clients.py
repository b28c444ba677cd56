"""Each client of another maker, in each version of MQTT that it speaks, through everything a client does: connect, the three QoS,
retained messages, a will, a session that is kept, a shared subscription. Over plain TCP; the other areas cross transports."""

import signal

from peers import Cli, Mosquitto, MqttJs, Paho, Rumqttc
from run import expect


class Client:
    """A peer in one version of MQTT, with the options by which it asks for things."""

    def __init__(self, peer, version, plain=(), persistent=(), will=()):
        self.peer, self.version = peer, version
        self.plain, self.persistent, self.will = list(plain), list(persistent), list(will)
        self.name = f"{peer.name}, MQTT {version}"
        # Part of topics and identifiers.
        self.word = f"{peer.name}-{version}".replace(".", "")


def clients(broker):
    mosquitto, paho, mqttjs, rumqttc = Mosquitto(broker), Paho(broker), MqttJs(broker), Rumqttc(broker)
    found = []
    for version, word, expiry in (("3.1", "mqttv31", []), ("3.1.1", "mqttv311", []), ("5.0", "mqttv5", ["-x", "600"])):
        found.append(Client(
            mosquitto, version, ["-V", word], ["-c", "-i", f"clients-m-{word}", *expiry],
            ["--will-topic", "{topic}", "--will-payload", "gone", "--will-qos", "1"],
        ))
    will = ["--will-topic", "{topic}", "--will-payload", "gone"]
    for peer in (paho, mqttjs):
        for version, level in (("3.1.1", "4"), ("5.0", "5")):
            persistent = ["--persistent", "--id", f"clients-{peer.name}-{level}"]
            found.append(Client(peer, version, ["--version", level], persistent, will))
    found.append(Client(rumqttc, "3.1.1", [], ["--persistent", "--id", "clients-rumqttc"], will))
    return found


def tests(development, broker):
    tcp = broker.endpoint("tcp")
    found = []
    for client in clients(broker):
        for what, test in (
            ("crosses QoS 0, 1 and 2", crosses), ("gets a retained message", retained), ("leaves a will", will),
            ("finds its session again", session), ("takes its turn in a shared subscription", shared),
        ):
            found.append((f"{client.name} {what}", lambda context, client=client, test=test: test(context, client, tcp)))
    return found


def crosses(context, client, tcp):
    for qos in (0, 1, 2):
        topic = f"clients/{client.word}/{qos}"
        subscriber = context.subscribe(client.peer, tcp, topic, qos=qos, extra=client.plain)
        payload = bytes(range(256)) * 4
        context.publish(client.peer, tcp, topic, payload, qos=qos, extra=client.plain)
        expect(subscriber.next(), (topic, qos, False, payload), f"the message of QoS {qos}")
        subscriber.process.expect_success()


def retained(context, client, tcp):
    topic = f"clients/{client.word}/retained"
    context.publish(client.peer, tcp, topic, b"kept", qos=1, retain=True, extra=client.plain)
    found = context.subscribe(client.peer, tcp, topic, qos=1, extra=client.plain).next()
    expect(found, (topic, 1, True, b"kept"), "the retained message")
    context.publish(client.peer, tcp, topic, None, qos=1, retain=True, extra=client.plain)
    later = context.subscribe(client.peer, tcp, topic, qos=1, extra=client.plain)
    context.publish(client.peer, tcp, topic, b"live", qos=1, extra=client.plain)
    expect(later.next(), (topic, 1, False, b"live"), "the first message after clearing")


def will(context, client, tcp):
    topic = f"clients/{client.word}/will"
    watcher = context.subscribe(Cli(context.broker), tcp, topic, qos=1)
    options = [option.format(topic=topic) for option in client.will]
    dying = context.subscribe(client.peer, tcp, f"{topic}/unused", extra=client.plain + options)
    dying.process.child.send_signal(signal.SIGKILL)
    expect(watcher.next(), (topic, 1, False, b"gone"), "the will")


def session(context, client, tcp):
    topic = f"clients/{client.word}/session"
    options = client.plain + client.persistent
    first = context.subscribe(client.peer, tcp, topic, qos=2, extra=options)
    context.publish(client.peer, tcp, topic, b"first", qos=2, extra=client.plain)
    expect(first.next(), (topic, 2, False, b"first"), "the message while connected")
    first.process.expect_success()
    for payload in (b"second", b"third"):
        context.publish(client.peer, tcp, topic, payload, qos=2, extra=client.plain)
    command = client.peer.subscribe(tcp, topic, qos=2, count=2, extra=options)
    again = context.owner.start(command, cwd=context.work, env=client.peer.env)
    for payload in (b"second", b"third"):
        line = again.wait_line(lambda line: client.peer.message(line) is not None)
        expect(client.peer.message(line), (topic, 2, False, payload), "the message that waited")
    again.expect_success()


def shared(context, client, tcp):
    topic = f"clients/{client.word}/shared"
    members = [context.subscribe(client.peer, tcp, f"$share/e2e/{topic}", qos=1, count=2, extra=client.plain) for _ in range(2)]
    sent = [b"one", b"two", b"three", b"four"]
    for payload in sent:
        context.publish(client.peer, tcp, topic, payload, qos=1, extra=client.plain)
    # Each message to one member, and each member its turn.
    found = [[member.next()[3] for _ in range(2)] for member in members]
    expect(sorted(found), sorted([[b"one", b"three"], [b"two", b"four"]]), "the messages of both members")
    for member in members:
        member.process.expect_success()

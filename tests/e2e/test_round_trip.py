"""Every client over every transport it has: what it publishes with QoS 0, 1 and 2 comes back to a client of its own kind."""

from peers import Cli, Mosquitto, MqttJs, Paho
from run import expect

TLS = ["tls1.2", "tls1.3"]
GM = ["rfc8998", "tlcp"]


def ways(broker):
    """(peer, endpoint) for everything that is claimed to work."""
    plain, ws = broker.endpoint("tcp"), broker.endpoint("ws")
    for peer in (Mosquitto(broker), Paho(broker), MqttJs(broker), Cli(broker)):
        yield peer, plain
        carriers = ["tcp"]
        if not isinstance(peer, Mosquitto):
            yield peer, ws
            carriers.append("ws")
        for carrier in carriers:
            for security in TLS + (GM if isinstance(peer, Cli) else []):
                yield peer, broker.endpoint(carrier, security)
                yield peer, broker.endpoint(carrier, security, mutual=True)


def tests(development, broker):
    return [
        (f"{peer.name} over {endpoint}: QoS 0, 1 and 2 come back as published",
         lambda context, peer=peer, endpoint=endpoint: comes_back(context, peer, endpoint))
        for peer, endpoint in ways(broker)
    ]


def comes_back(context, peer, endpoint):
    subscriber = context.subscribe(peer, endpoint, "round/+", qos=2, count=3)
    for qos in (0, 1, 2):
        payload = f"{peer.name} {endpoint} {qos} ✓".encode()
        context.publish(peer, endpoint, f"round/{qos}", payload, qos=qos)
        expect(subscriber.next(), (f"round/{qos}", qos, False, payload), "the message")
    subscriber.process.expect_success()

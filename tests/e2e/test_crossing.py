"""Messages cross between every kind of client: each publishes once, and each receives what all of them published."""

from peers import Cli, GmTlcp, Mosquitto, MqttJs, Paho
from run import expect


def kinds(broker):
    return [
        (Mosquitto(broker), broker.endpoint("tcp")),
        (Mosquitto(broker), broker.endpoint("tcp", "tls1.2")),
        (Mosquitto(broker), broker.endpoint("tcp", "tls1.3", mutual=True)),
        (Paho(broker), broker.endpoint("ws", "tls1.3")),
        (MqttJs(broker), broker.endpoint("ws", "tls1.2")),
        (Cli(broker), broker.endpoint("tcp", "rfc8998")),
        (Cli(broker), broker.endpoint("tcp", "tlcp")),
        (Cli(broker), broker.endpoint("tcp", "tlcp", mutual=True)),
        (Cli(broker), broker.endpoint("ws", "tlcp")),
        (GmTlcp(broker), broker.endpoint("tcp", "tlcp")),
    ]


def tests(development, broker):
    return [
        (f"what {peer.name} publishes over {endpoint} reaches clients of every kind",
         lambda context, peer=peer, endpoint=endpoint: reaches_all(context, peer, endpoint))
        for peer, endpoint in kinds(broker)
    ]


def reaches_all(context, publisher, endpoint):
    topic = f"crossing/{publisher.name}/{endpoint}".replace("+", "-")
    subscribers = [(peer, way, context.subscribe(peer, way, topic, qos=1)) for peer, way in kinds(context.broker)]
    payload = b"crossing \x00\xff" + str(endpoint).encode()
    context.publish(publisher, endpoint, topic, payload, qos=1)
    for peer, way, subscriber in subscribers:
        expect(subscriber.next(), (topic, 1, False, payload), f"what {peer.name} over {way} received")

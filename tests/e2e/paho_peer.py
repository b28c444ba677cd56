"""Publishes a file or prints what arrives, with paho-mqtt. See peers.py for the lines it prints."""

import argparse
import ssl
import sys
import time
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

parser = argparse.ArgumentParser()
parser.add_argument("action", choices=["pub", "sub"])
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--carrier", choices=["tcp", "ws"], default="tcp")
parser.add_argument("--tls", choices=["tls1.2", "tls1.3"])
parser.add_argument("--ca")
parser.add_argument("--cert")
parser.add_argument("--key")
parser.add_argument("--topic", required=True)
parser.add_argument("--qos", type=int, default=0)
parser.add_argument("--count", type=int, default=1)
parser.add_argument("--file")
parser.add_argument("--retain", action="store_true")
parser.add_argument("--id", default="")
parser.add_argument("--persistent", action="store_true", help="keep the session, print what comes without subscribing if it was kept")
parser.add_argument("--will-topic")
parser.add_argument("--will-payload", default="")
parser.add_argument("--version", type=int, choices=[3, 4, 5], default=4)
options = parser.parse_args()

client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2, client_id=options.id, protocol=options.version,
    transport="websockets" if options.carrier == "ws" else "tcp",
    **({} if options.version == 5 else {"clean_session": not options.persistent}),
)
if options.carrier == "ws":
    client.ws_set_options(path="/mqtt")
if options.tls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(options.ca)
    version = ssl.TLSVersion.TLSv1_2 if options.tls == "tls1.2" else ssl.TLSVersion.TLSv1_3
    context.minimum_version = context.maximum_version = version
    if options.cert:
        context.load_cert_chain(options.cert, options.key)
    client.tls_set_context(context)
if options.will_topic:
    client.will_set(options.will_topic, options.will_payload, qos=1)

left = options.count
code = None


def end(status):
    global code
    code = status
    client.disconnect()


def on_connect(client, userdata, flags, reason, properties):
    if reason.is_failure:
        print(f"refused: {reason}", flush=True)
        end(1)
    elif options.action == "pub":
        payload = Path(options.file).read_bytes() if options.file else b""
        client.publish(options.topic, payload, options.qos, options.retain)
    elif flags.session_present:
        print("READY", flush=True)
    else:
        client.subscribe(options.topic, options.qos)


def on_subscribe(client, userdata, mid, reasons, properties):
    if any(reason.is_failure for reason in reasons):
        print(f"refused: {reasons}", flush=True)
        end(1)
    else:
        print("READY", flush=True)


def on_message(client, userdata, message):
    global left
    print(f"MESSAGE {message.topic} {message.qos} {int(message.retain)} {message.payload.hex()}", flush=True)
    left -= 1


client.on_connect = on_connect
client.on_subscribe = on_subscribe
client.on_message = on_message
if options.action == "pub":
    client.on_publish = lambda *_: end(0)
wishes = {}
if options.version == 5 and options.persistent:
    kept = Properties(PacketTypes.CONNECT)
    kept.SessionExpiryInterval = 600
    wishes = {"clean_start": False, "properties": kept}
client.connect("localhost", options.port, keepalive=30, **wishes)
deadline = time.monotonic() + 60
# paho leaves the loop by itself once the socket is closed; what is queued is sent before.
while time.monotonic() < deadline:
    if client.loop(0.2) != mqtt.MQTT_ERR_SUCCESS:
        break
    # Only here is the last message acknowledged: inside the callback it is not yet, and would be sent again to the next connection.
    if options.action == "sub" and left == 0 and code is None:
        end(0)
sys.exit(1 if code is None else code)

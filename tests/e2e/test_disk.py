"""A broker whose disk becomes read-only or full under its clients: real file systems, mounted for the test where root may do that."""

import os
import shutil
import socket
import struct
import subprocess
import threading
import time

from broker import Broker
from process import Failure
from run import Skip, expect

IMAGE_BYTES = 64 << 20
# Of the small file system; the database of a broker that holds little takes about one.
SMALL = "size=8m"
PATIENCE = 20
SUCCESS, NO_SUBSCRIBERS, UNSPECIFIED_ERROR, SERVER_UNAVAILABLE, QUOTA_EXCEEDED = 0x00, 0x10, 0x83, 0x88, 0x97
CONNACK, PUBLISH, PUBACK, SUBACK, DISCONNECT = 2, 3, 4, 9, 14


def tests(development, broker):
    return [
        ("a file system that becomes read-only under the broker ends acknowledgements and nothing else, and takes nothing that was acknowledged", read_only),
        ("a broker whose file system is full goes on without a restart when there is space", full),
    ]


class Mounted:
    """A file system at `place`, unmounted when the processes of the test have ended."""

    def __init__(self, context, place, *arguments):
        self.place = place
        place.mkdir(exist_ok=True)
        self.mount(*arguments)
        context.owner.processes.append(self)

    def mount(self, *arguments):
        done = subprocess.run(["mount", *arguments, str(self.place)], capture_output=True, text=True)
        if done.returncode != 0:
            raise Skip(f"nothing can be mounted here: {done.stderr.strip().splitlines()[0]}")

    def kill(self):
        subprocess.run(["umount", str(self.place)], capture_output=True)


def needs(*programs):
    if os.geteuid() != 0:
        raise Skip("only root may mount file systems")
    for program in programs:
        if shutil.which(program) is None:
            raise Skip(f"{program} is not installed")


class Client:
    """MQTT 5 over plain TCP, packet by packet."""

    def __init__(self, port, name, expiry=0, clean=True):
        self.socket = socket.create_connection(("127.0.0.1", port), 5)
        self.socket.settimeout(PATIENCE)
        self.buffer = b""
        properties = b"\x11" + struct.pack(">I", expiry)
        self.send(0x10, text("MQTT") + bytes([5, 2 if clean else 0]) + b"\x00\x00" + bytes([len(properties)]) + properties + text(name))
        kind, body = self.receive()
        expect(kind, CONNACK, f"the answer to CONNECT of {name}")
        self.connected = body[1]

    def send(self, first, body):
        length, left = b"", len(body)
        while True:
            left, digit = divmod(left, 128)
            length += bytes([digit | (128 if left else 0)])
            if not left:
                break
        self.socket.sendall(bytes([first]) + length + body)

    def receive(self):
        """The kind of the next packet and its body; (None, b"") at the end of the stream."""
        while True:
            packet = self.packet()
            if packet:
                return packet
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                more = b""
            except TimeoutError:
                raise Failure(f"no packet within {PATIENCE} s") from None
            if not more:
                return None, b""
            self.buffer += more

    def packet(self):
        length, shift, position = 0, 0, 1
        while True:
            if position >= len(self.buffer):
                return None
            digit = self.buffer[position]
            length |= (digit & 127) << shift
            shift, position = shift + 7, position + 1
            if not digit & 128:
                break
        if len(self.buffer) < position + length:
            return None
        kind, body = self.buffer[0] >> 4, self.buffer[position:position + length]
        self.buffer = self.buffer[position + length:]
        return kind, body

    def subscribe(self, topic, qos):
        self.send(0x82, b"\x00\x01\x00" + text(topic) + bytes([qos]))
        kind, body = self.receive()
        expect((kind, body[-1]), (SUBACK, qos), f"the answer to SUBSCRIBE to {topic}")

    def publish(self, topic, payload, number=0):
        """With QoS 1, or with QoS 0 without a number."""
        self.send(0x32 if number else 0x30, text(topic) + (struct.pack(">H", number) if number else b"") + b"\x00" + payload)

    def answer(self):
        """How a message was answered: the kind of packet and its reason code."""
        kind, body = self.receive()
        reason = body[2:3] if kind == PUBACK else body[:1]
        return kind, reason[0] if reason else SUCCESS

    def message(self):
        """The payload of the next message, which is acknowledged."""
        kind, body = self.receive()
        expect(kind, PUBLISH, "the packet of a message")
        # Of QoS 1 those that are for a durable session, with an identifier; the others without.
        topic = struct.unpack(">H", body[:2])[0]
        rest = body[2 + topic:]
        if body[2:2 + topic].startswith(b"disk/kept"):
            self.send(0x40, rest[:2])
            rest = rest[2:]
        return rest[1 + rest[0]:]

    def end(self):
        self.socket.close()


def text(words):
    return struct.pack(">H", len(words)) + words.encode()


class Publisher:
    """Publishes with QoS 1, one message after the other, until one is refused or the connection ends."""

    def __init__(self, port, size):
        self.client, self.size = Client(port, "publisher"), size
        expect(self.client.connected, SUCCESS, "CONNACK of the publisher")
        self.acknowledged, self.outcome, self.stopping = [], None, False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        number = 0
        while not self.stopping:
            number += 1
            self.client.publish("disk/kept", self.payload(number), number)
            self.outcome = self.client.answer()
            if self.outcome != (PUBACK, SUCCESS):
                return
            self.acknowledged.append(number)

    def payload(self, number):
        return b"%08d" % number + bytes(self.size)

    def wait_for(self, count):
        deadline = time.monotonic() + PATIENCE
        while len(self.acknowledged) < count:
            if not self.thread.is_alive() or time.monotonic() > deadline:
                raise Failure(f"{len(self.acknowledged)} of {count} messages were acknowledged, the last answer was {self.outcome}")
            time.sleep(0.01)

    def end(self):
        """How it ended."""
        self.thread.join(PATIENCE)
        if self.thread.is_alive():
            raise Failure(f"a publisher waits for an answer that does not come; {len(self.acknowledged)} messages were acknowledged")
        self.client.end()
        return self.outcome


def keep_session(port):
    kept = Client(port, "kept", expiry=3600)
    expect(kept.connected, SUCCESS, "CONNACK of a durable session")
    kept.subscribe("disk/kept", 1)
    kept.end()


def expect_kept(port, acknowledged):
    """Every message that was acknowledged waits in the session, in order."""
    kept = Client(port, "kept", expiry=3600, clean=False)
    expect(kept.connected, SUCCESS, "CONNACK of the session that was kept")
    for number in acknowledged:
        expect(int(kept.message()[:8]), number, "the number of the next message that was acknowledged")
    kept.end()


def expect_qos_0(port, live, payload):
    publisher = Client(port, "plain")
    expect(publisher.connected, SUCCESS, "CONNACK without a durable session")
    publisher.publish("disk/live", payload)
    expect(live.message(), payload, "a message with QoS 0")
    publisher.end()


def publish_once(port, payload=b"00000000"):
    client = Client(port, "once")
    client.publish("disk/kept", payload, 1)
    answer = client.answer()
    client.end()
    return answer


def started(context):
    broker = Broker(context.work, context.broker.certs)
    context.owner.processes.append(broker.process)
    return broker


def under_load(context, size, first):
    """A broker, a client that gets what is live, and a publisher of messages of this size that has got the first acknowledged."""
    broker = started(context)
    keep_session(broker.tcp)
    live = Client(broker.tcp, "live")
    live.subscribe("disk/live", 0)
    publisher = Publisher(broker.tcp, size)
    publisher.wait_for(first)
    return broker, live, publisher


def read_only(context):
    needs("mkfs.ext4", "e2fsck", "mount")
    image, data = context.work / "image", context.work / "configured-data"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True, capture_output=True)
    mounted = Mounted(context, data, "-o", "loop,errors=remount-ro", str(image))
    device = os.path.realpath(f"/sys/dev/block/{os.major(data.stat().st_dev)}:{os.minor(data.stat().st_dev)}").rpartition("/")[2]

    broker, live, publisher = under_load(context, 100, 50)
    expect_qos_0(broker.tcp, live, b"before")

    # An error that the kernel finds, after which it takes no write, though files are open for writing; `mount -o remount,ro` would wait for those.
    trigger = f"/sys/fs/ext4/{device}/trigger_fs_error"
    if not os.path.exists(trigger):
        raise Skip(f"this kernel has no {trigger}")
    with open(trigger, "w") as file:
        file.write("on behalf of a test")
    expect(mounted_as(data), "ro", "how the file system is mounted after an error")

    outcome = publisher.end()
    if outcome not in ((DISCONNECT, UNSPECIFIED_ERROR), (PUBACK, UNSPECIFIED_ERROR)):
        raise Failure(f"the publisher's last message was answered with {outcome}")
    broker.process.wait_line(lambda line: " ERROR " in line and "the store failed" in line and "Read-only file system" in line)
    expect(publish_once(broker.tcp), (PUBACK, UNSPECIFIED_ERROR), "the answer to a message for a durable session")
    refused = Client(broker.tcp, "another", expiry=3600)
    expect(refused.connected, SERVER_UNAVAILABLE, "CONNACK of a new durable session")
    expect_qos_0(broker.tcp, live, b"meanwhile")
    broker.process.terminate(60)

    expect(mounted_as(data), "ro", "how the file system was mounted to the end")
    mounted.kill()
    subprocess.run(["e2fsck", "-y", str(image)], capture_output=True)
    mounted.mount("-o", "loop", str(image))
    again = started(context)
    expect_kept(again.tcp, publisher.acknowledged)
    expect(publish_once(again.tcp), (PUBACK, SUCCESS), "the answer to a message after the restart")
    expect(again.stop(), 0, "the exit code of the broker")


def mounted_as(place):
    """`rw` or `ro`: whether the kernel lets it be written to."""
    try:
        (place / "probe").touch()
        return "rw"
    except OSError:
        return "ro"


def full(context):
    needs("mount")
    data = context.work / "configured-data"
    Mounted(context, data, "-t", "tmpfs", "-o", SMALL, "tmpfs")
    broker, live, publisher = under_load(context, 4096, 20)

    ballast = data / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
    broker.process.wait_line(lambda line: " ERROR " in line and "the store cannot be written" in line and "No space left" in line)
    expect(publish_once(broker.tcp), (PUBACK, QUOTA_EXCEEDED), "the answer to a message for a durable session")
    refused = Client(broker.tcp, "another", expiry=3600)
    if refused.connected == SUCCESS:
        raise Failure("a new durable session was taken without space for it")
    expect_qos_0(broker.tcp, live, b"meanwhile")
    waiting = len(publisher.acknowledged)
    ballast.unlink()

    # The message that waited is acknowledged, and those after it.
    publisher.wait_for(waiting + 20)
    publisher.stopping = True
    expect(publisher.end(), (PUBACK, SUCCESS), "the answer to the last message")
    expect_kept(broker.tcp, publisher.acknowledged)
    expect(broker.stop(), 0, "the exit code of the broker")

"""A broker whose clock is set forward and back by a day while clients are connected, by way of libfaketime: what is measured in time goes on
as if nothing had happened, and certificates are judged by the clock."""

import datetime
import os
import re
import signal
import socket
import time
from pathlib import Path

from broker import Broker
from peers import Mosquitto
from process import Failure
from run import expect

DAY = 24 * 3600
V5 = ["-V", "mqttv5"]
# Shorter than what the jumps take, in seconds of the real clock; mosquitto takes no shorter keep-alive.
KEEP_ALIVE = 5
WILL_DELAY = 4
HOUR = "3600"


def tests(development, broker):
    return [("a clock that is set forward and back by a day moves no keep-alive, will or expiry, and certificates expire by it", jumps)]


class Clock:
    """What the broker takes for the time of day."""

    def __init__(self, work):
        library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
        if library is None:
            raise Failure("faketime is not installed; scripts/preflight e2e names the package")
        self.file = work / "clock"
        self.set(0)
        self.env = dict(
            os.environ, LD_PRELOAD=str(library), FAKETIME_TIMESTAMP_FILE=str(self.file), FAKETIME_NO_CACHE="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
        )

    def set(self, seconds):
        written = self.file.with_suffix(".new")
        written.write_text(f"{seconds:+d}\n")
        written.replace(self.file)
        self.offset = seconds


def jumps(context):
    clock = Clock(context.work)
    broker = Broker(context.work, context.broker.certs, clock.env)
    context.owner.processes.append(broker.process)
    peer, tcp, mutual = Mosquitto(broker), broker.endpoint("tcp"), broker.endpoint("tcp", "tls1.3", mutual=True)
    expect_clock(broker, clock)

    kept = ["-c", "-x", HOUR, "-i", "kept", *V5]
    expiring = [*V5, "-D", "publish", "message-expiry-interval", HOUR]
    first = context.subscribe(peer, tcp, "clock/kept", qos=1, count=1, extra=kept)
    context.publish(peer, tcp, "clock/kept", b"first", qos=1)
    expect(first.next(), ("clock/kept", 1, False, b"first"), "the message before the jumps")
    first.process.expect_success()
    context.publish(peer, tcp, "clock/kept", b"queued", qos=1, extra=expiring)
    context.publish(peer, tcp, "clock/retained", b"kept", qos=1, retain=True, extra=expiring)
    alive = context.subscribe(peer, tcp, "clock/alive", qos=1, count=1, extra=["-k", str(KEEP_ALIVE), *V5])
    watcher = context.subscribe(peer, tcp, "clock/will/#", qos=1, count=2, extra=V5)

    for name, offset in (("forward", DAY), ("back", -DAY)):
        topic = f"clock/will/{name}"
        will = ["--will-topic", topic, "--will-payload", "gone", "--will-qos", "1", "-D", "will", "will-delay-interval", str(WILL_DELAY)]
        dying = context.subscribe(peer, tcp, "clock/unused", extra=[*V5, "-x", "60", *will])
        dying.process.child.send_signal(signal.SIGKILL)
        dying.process.wait_exit()
        began = time.monotonic()
        clock.set(offset)
        expect_clock(broker, clock)
        expect(watcher.next(), (topic, 1, False, b"gone"), f"the will over a jump {name}")
        took = time.monotonic() - began
        if took < WILL_DELAY - 1:
            raise Failure(f"the will came {took:.1f} s after a jump {name}, and not after {WILL_DELAY} s")

    # More than one and a half of its keep-alive have passed since the first jump.
    context.publish(peer, tcp, "clock/alive", b"still", qos=1)
    expect(alive.next(), ("clock/alive", 1, False, b"still"), "a message for who was connected all the time")
    connects = [line for line in alive.process.output if "sending CONNECT" in line]
    expect(len(connects), 1, "connections of the client with a keep-alive")
    expect(context.subscribe(peer, tcp, "clock/retained", qos=1, extra=V5).next(), ("clock/retained", 1, True, b"kept"), "the retained message")
    again = context.owner.start(peer.subscribe(tcp, "clock/kept", qos=1, count=1, extra=kept), cwd=context.work, env=peer.env)
    line = again.wait_line(lambda line: peer.message(line) is not None)
    expect(peer.message(line), ("clock/kept", 1, False, b"queued"), "what waited in the session")

    # Certificates are judged by the clock: those of the client are over in a hundred years, and good again when it is set right.
    clock.set(0)
    context.publish(peer, mutual, "clock/mutual", b"good", qos=1)
    clock.set(100 * 365 * DAY)
    refused = context.owner.start(peer.publish(mutual, "clock/mutual", context.file(b"late"), qos=1), cwd=context.work, env=peer.env)
    if refused.wait_exit() == 0:
        raise Failure("a client whose certificate had expired by the broker's clock was let in")
    broker.process.wait_line(lambda line: "connection refused" in line and "expired" in line)
    clock.set(0)
    context.publish(peer, mutual, "clock/mutual", b"good", qos=1)
    expect(broker.stop(), 0, "the exit code of the broker")


def expect_clock(broker, clock):
    """The broker tells the time that it is meant to believe: its log says when it refused who speaks plainly to a secured port."""
    with socket.create_connection(("127.0.0.1", broker.ssl), 5) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        own = f"remote=127.0.0.1:{plain.getsockname()[1]} "
        line = broker.process.wait_line(lambda line: "connection refused" in line and own in line)
    found = re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", line)
    if not found:
        raise Failure(f"a line of the log without a time: {line}")
    told = datetime.datetime.fromisoformat(found.group() + "+00:00").timestamp()
    if abs(told - time.time() - clock.offset) > 600:
        raise Failure(f"the broker's clock was set by {clock.offset} s, but its log says {found.group()}")

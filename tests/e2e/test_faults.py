"""A broker that the system gives no more descriptors: who is connected goes on, nothing spins, and there is room again later."""

import os
import resource
import socket
import time

from broker import Broker
from peers import Mosquitto
from process import Failure
from run import expect

# Connections that find no descriptor.
BEYOND = 40
LOOK = 3


def tests(development, broker):
    return [("a broker that runs out of descriptors keeps who is connected, does not spin, and has room again later", descriptors)]


def descriptors(context):
    broker = Broker(context.work, context.broker.certs)
    context.owner.processes.append(broker.process)
    peer, tcp, pid = Mosquitto(broker), broker.endpoint("tcp"), broker.process.child.pid
    alive = context.subscribe(peer, tcp, "faults/alive", qos=1, count=1)
    with socket.create_connection(("127.0.0.1", broker.tcp), 5) as known:
        known.sendall(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05known")
        expect(known.recv(4), b"\x20\x02\x00\x00", "CONNACK")
        limit = len(os.listdir(f"/proc/{pid}/fd")) + 4
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
        waiting = [socket.create_connection(("127.0.0.1", broker.tcp), 5) for _ in range(BEYOND)]
        before = processor_seconds(pid)
        time.sleep(LOOK)
        used = processor_seconds(pid) - before
        if used > LOOK / 3:
            raise Failure(f"{used:.1f} s of processor time in {LOOK} s without a descriptor to give")
        known.sendall(b"\xc0\x00")
        expect(known.recv(2), b"\xd0\x00", "PINGRESP for who was connected before")
        for one in waiting:
            one.close()
        context.publish(peer, tcp, "faults/alive", b"still", qos=1)
        expect(alive.next(), ("faults/alive", 1, False, b"still"), "the message when there is room again")
    expect(broker.stop(), 0, "the exit code of the broker")


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

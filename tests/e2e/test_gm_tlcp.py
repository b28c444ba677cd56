"""What interoperates with gm-tlcp 0.8.1, a TLCP implementation in pure Rust, and what does not: docs/tlcp.md has the reasons. A refusal
that turns into success here is news, and the documentation must then follow."""

from peers import GmTlcp
from process import Failure
from run import expect

# gm-tlcp counts a record's IV, MAC and padding against 16 KiB of content.
READABLE = 15000


def tests(development, broker):
    peer = GmTlcp(broker)
    one_way, mutual = broker.endpoint("tcp", "tlcp"), broker.endpoint("tcp", "tlcp", mutual=True)
    found = [
        (f"gm-tlcp over ECC_SM4_CBC_SM3: {size} bytes with QoS {qos} come back as published",
         lambda context, size=size, qos=qos: comes_back(context, peer, one_way, size, qos))
        for size, qos in ((1, 0), (READABLE, 1), (READABLE, 2))
    ]
    found.append(("gm-tlcp over ECC_SM4_CBC_SM3 publishes 1 MiB", lambda context: publishes(context, peer, one_way)))
    for suite, endpoint, words, why in (
        ("E053", one_way, "read server Finished: GM cipher error: GCM decryption failed", "its receiver ignores the explicit nonce of a record"),
        ("E051", one_way, "handshake", "ECDHE needs a client pair"),
        ("E013", mutual, "handshake", "its CertificateVerify signs the transcript instead of the transcript's hash"),
        ("E051", mutual, "handshake", "its CertificateVerify signs the transcript instead of the transcript's hash"),
    ):
        found.append((f"gm-tlcp with {suite} over {endpoint} does not shake hands: {why}",
                      lambda context, suite=suite, endpoint=endpoint, words=words: fails(context, peer, endpoint, suite, words)))
    return found


def comes_back(context, peer, endpoint, size, qos):
    subscriber = context.subscribe(peer, endpoint, "gm-tlcp/x", qos=2)
    payload = bytes(number % 251 for number in range(size))
    context.publish(peer, endpoint, "gm-tlcp/x", payload, qos=qos)
    expect(subscriber.next(), ("gm-tlcp/x", qos, False, payload), "the message")
    subscriber.process.expect_success()


def publishes(context, peer, endpoint):
    context.publish(peer, endpoint, "gm-tlcp/large", bytes(1024 * 1024), qos=2)


def fails(context, peer, endpoint, suite, words):
    process = context.owner.start(peer.publish(endpoint, "gm-tlcp/no", context.file(b"x"), qos=1, suite=suite), cwd=context.work)
    if process.wait_exit(20) == 0:
        raise Failure(f"it worked: the state in docs/tlcp.md is out of date: {process}")
    if not any(words in line for line in process.output):
        raise Failure(f"failed otherwise than documented ('{words}'): {process}")

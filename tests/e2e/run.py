"""Runs the end-to-end tests: real clients of other makers, and the broker's own, against one broker process.

    run.py [-k TEXT] [-l]      only tests whose name contains TEXT; -l lists names

Prints PASS or FAIL for each test, or SKIP with a reason where the machine does not allow for it, and at the end `N passed, N failed`
and how many were skipped. The exit code is 0 when nothing failed and something ran.
"""

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from broker import CERTS, Broker, DevelopmentBroker
from process import Failure, Owner

AREAS = [
    "test_banner", "test_round_trip", "test_crossing", "test_delivery", "test_clock", "test_faults", "test_disk", "test_clients",
    "test_refusal", "test_revocation", "test_posture", "test_gm_tlcp", "test_install", "test_docs",
]


class Skip(Exception):
    """Why a test cannot run on this machine."""


class Context:
    """What a test works with: the brokers, a directory of its own, and processes that end with it."""

    def __init__(self, development, broker, work):
        self.development, self.broker = development, broker
        self.work = work
        self.owner = Owner()
        self.count = 0

    def file(self, payload):
        self.count += 1
        path = self.work / f"payload-{self.count}"
        path.write_bytes(payload)
        return path

    def subscribe(self, peer, endpoint, topic, **options):
        """A subscriber whose subscription the broker has acknowledged."""
        process = self.owner.start(peer.subscribe(endpoint, topic, **options), cwd=self.work, env=peer.env)
        process.wait_line(peer.ready)
        return Subscriber(peer, process)

    def publish(self, peer, endpoint, topic, payload, **options):
        """Publishes and waits until the client has ended well. `payload` None publishes an empty one."""
        file = None if payload is None else self.file(payload)
        return self.owner.run(peer.publish(endpoint, topic, file, **options), cwd=self.work, env=peer.env)


class Subscriber:
    def __init__(self, peer, process):
        self.peer, self.process = peer, process

    def next(self, timeout=20):
        """(topic, qos, retain, payload) of the next message."""
        return self.peer.message(self.process.wait_line(lambda line: self.peer.message(line) is not None, timeout))


def expect(found, wanted, what):
    if found != wanted:
        raise Failure(f"{what}: expected {brief(wanted)}, got {brief(found)}")


def brief(value):
    text = repr(value)
    return text if len(text) <= 400 else text[:400] + "…"


def run(tests, context, name, test):
    began = time.monotonic()
    context.work.mkdir(parents=True, exist_ok=True)
    try:
        test(context)
        if not context.broker.process.running():
            raise Failure(f"the broker ended: {context.broker.process}")
        verdict, reason = "PASS", ""
    except Skip as skip:
        verdict, reason = "SKIP", str(skip)
    except Failure as failure:
        verdict, reason = "FAIL", str(failure)
    except Exception:
        verdict, reason = "FAIL", traceback.format_exc()
    finally:
        context.owner.end()
        shutil.rmtree(context.work, ignore_errors=True)
    print(f"{verdict} {name} ({time.monotonic() - began:.1f} s)" + ("\n" + reason if reason else ""), flush=True)
    tests.append(None if verdict == "SKIP" else verdict == "PASS")


def check_end(results, name, broker):
    """The broker ends in order when it is told to, having reported neither a panic nor an error."""
    code = broker.stop()
    broker.process.reader.join(5)
    bad = [line for line in broker.process.output if "panicked" in line or " ERROR " in line]
    good = code == 0 and not bad
    print(f"{'PASS' if good else 'FAIL'} {name} ends with exit code 0 on SIGTERM, without a panic or an error in its log", flush=True)
    if not good:
        print(f"exit code {code}\n" + "\n".join(bad[:20]))
    results.append(good)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-k", default="")
    parser.add_argument("-l", action="store_true")
    options = parser.parse_args()

    base = Path(tempfile.mkdtemp(prefix="shangmq-e2e-"))
    os.chmod(base, 0o700)
    development = broker = None
    results = []
    try:
        development = DevelopmentBroker(base)
        broker = Broker(base, base / CERTS)
        tests = []
        for area in AREAS:
            tests += importlib.import_module(area).tests(development, broker)
        for number, (name, test) in enumerate(tests):
            if options.k in name:
                if options.l:
                    print(name)
                else:
                    run(results, Context(development, broker, base / f"test-{number}"), name, test)
        if not options.l:
            check_end(results, "a broker without a configuration", development)
            check_end(results, "a configured broker", broker)
    finally:
        for one in (development, broker):
            if one is not None:
                one.process.kill()
        shutil.rmtree(base, ignore_errors=True)
    if options.l:
        return 0
    passed, failed, skipped = (results.count(verdict) for verdict in (True, False, None))
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    # The test modules import this file by its name; let them have this very module.
    sys.modules["run"] = sys.modules["__main__"]
    sys.exit(main())

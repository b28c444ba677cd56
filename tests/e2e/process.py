"""Child processes whose output is read line by line, each with a deadline and an owner that ends it by its own pid."""

import queue
import subprocess
import threading
import time


class Failure(Exception):
    """A test's expectation that did not hold, in words for the report."""


class Process:
    """A running command. Its output is kept, so that a failure can show it."""

    def __init__(self, command, cwd=None, env=None, echo=None):
        self.command = [str(word) for word in command]
        self.output = []
        self.lines = queue.Queue()
        self.echo = echo
        self.child = subprocess.Popen(
            self.command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", bufsize=1,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.child.stdout:
            line = line.rstrip("\n")
            self.output.append(line)
            self.lines.put(line)
        self.lines.put(None)

    def wait_line(self, wanted, timeout=15):
        """The first line not seen yet for which `wanted` holds."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self.lines.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise Failure(f"no expected line within {timeout} s from {self}") from None
            if line is None:
                self.lines.put(None)
                raise Failure(f"ended with {self.child.wait()} before the expected line: {self}")
            if wanted(line):
                return line

    def wait_lines(self, *wanted, timeout=15):
        """Until each of `wanted` has held for a line not seen yet, in whatever order."""
        left = list(wanted)

        def last(line):
            left[:] = [wanted for wanted in left if not wanted(line)]
            return not left

        self.wait_line(last, timeout)

    def wait_exit(self, timeout=30):
        """The exit code."""
        try:
            code = self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"still running after {timeout} s: {self}") from None
        self.reader.join(5)
        return code

    def expect_success(self, timeout=30):
        code = self.wait_exit(timeout)
        if code != 0:
            raise Failure(f"exit code {code} from {self}")
        return self.output

    def running(self):
        return self.child.poll() is None

    def terminate(self, timeout=10):
        """Asks the process to end and sees that it does; the exit code."""
        if self.running():
            self.child.terminate()
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"took no notice of SIGTERM for {timeout} s: {self}") from None

    def kill(self):
        if self.running():
            self.child.kill()
        self.child.wait(10)
        self.reader.join(5)

    def __str__(self):
        shown = [line if len(line) <= 300 else line[:300] + "…" for line in self.output[-25:]]
        return " ".join(self.command) + "".join(f"\n    | {line}" for line in shown)


class Owner:
    """Starts processes and ends every one of them when the test that used them is over."""

    def __init__(self):
        self.processes = []

    def start(self, command, **options):
        process = Process(command, **options)
        self.processes.append(process)
        return process

    def run(self, command, timeout=30, **options):
        """Runs to the end; a non-zero exit code is a failure."""
        return self.start(command, **options).expect_success(timeout)

    def end(self):
        for process in reversed(self.processes):
            process.kill()
        self.processes.clear()

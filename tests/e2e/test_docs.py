"""The commands in the documentation are run, page by page, in a directory as a user has it. Only ports are moved.

A page is read from top to bottom. A `toml` block is written to the file that it or the line before it names. Of a `sh` block each
command is run and must succeed; one that begins with `!` must be refused. `shangmq start`, a `shangmq sub` without an end of its own,
and what ends with `&` stay in the background until the next heading; what is published with `-m` must then arrive at a subscriber.
"""

import os
import re
import shlex
import shutil
import tomllib

from broker import BINARY, Ports
from documents import LANGUAGES, ROOT, commands, pages, sections
from process import Failure

# Commands that are not run as written, and why or what instead.
NOT_RUN = {
    "make test": "this test is a part of it",
    "make build": "this test runs what it builds",
    "sudo make install": "test_install installs, and not for the whole machine",
    "TONGSUO_NO_VENDOR=1 OPENSSL_DIR=/path/to/tongsuo OPENSSL_STATIC=1 cargo build --release": "needs a Tongsuo that is installed elsewhere",
}
INSTEAD = {"make run": "shangmq start"}
# Every port that documentation may use; another one would not be moved.
PORTS = ["1883", "1884", "8883", "8884", "8885", "8886", "8887", "8888", "8083", "8084", "9090", "2560"]


def tests(development, broker):
    with_commands = [page for page in pages() if any(commands_of(page))]
    found = [(f"the commands of {page} work as written", lambda context, page=page: Page(context, page).run()) for page in with_commands]
    found.append(("every block of the documentation is of a kind that is checked, and every exception is used", known))
    return found


def commands_of(page):
    text = (ROOT / page).read_text()
    return [command for section in sections(text) for block in section.blocks if block.language == "sh" for command in commands(block)]


def known(context):
    used = set()
    for page in pages():
        for section in sections((ROOT / page).read_text()):
            for block in section.blocks:
                if block.language not in LANGUAGES:
                    raise Failure(f"{page}:{block.line}: a block of the language '{block.language}'; use one of {sorted(LANGUAGES)}")
                if block.language == "toml":
                    try:
                        tomllib.loads(block.text)
                    except tomllib.TOMLDecodeError as error:
                        raise Failure(f"{page}:{block.line}: not TOML: {error}") from None
        used.update(commands_of(page))
    unused = (NOT_RUN.keys() | INSTEAD.keys()) - used
    if unused:
        raise Failure(f"exceptions for commands that no page has: {unused}")


class Page:
    def __init__(self, context, page):
        self.context, self.page = context, page
        self.home = context.work / "home"
        self.home.mkdir(mode=0o700)
        programs = context.work / "bin"
        (self.home / "target" / "release").mkdir(parents=True)
        programs.mkdir()
        for place in (programs, self.home / "target" / "release"):
            (place / "shangmq").symlink_to(BINARY)
        shutil.copy(ROOT / "shangmq.example.toml", self.home)
        (self.home / "gm-certs").mkdir()
        for profile in (ROOT / "gm-certs").glob("*.toml"):
            shutil.copy(profile, self.home / "gm-certs")
        self.ports = dict(zip(PORTS, map(str, Ports(len(PORTS)).numbers)))
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("SHANGMQ_")}
        self.env["PATH"] = f"{programs}:{self.env['PATH']}"
        self.brokers, self.subscribers, self.others = [], [], []

    def run(self):
        for section in sections((ROOT / self.page).read_text()):
            for block in section.blocks:
                if block.language == "toml" and block.file:
                    (self.home / block.file).write_text(self.moved(block.text))
                elif block.language == "sh":
                    for command in commands(block):
                        self.command(block, command)
            self.end_section()

    def moved(self, text):
        return re.sub(r"\b(" + "|".join(PORTS) + r")\b", lambda found: self.ports[found[1]], text)

    def command(self, block, written):
        if written in NOT_RUN:
            return
        command = self.moved(INSTEAD.get(written, written))
        try:
            if re.search(r"\bshangmq start\b", command):
                self.start(command)
            elif re.search(r"\bshangmq sub\b", command) and not re.search(r" -[CWE]\b", command):
                subscriber = self.spawn(command + " -d")
                subscriber.wait_line(lambda line: "suback" in line.lower())
                self.subscribers.append(subscriber)
            elif command.endswith(" &"):
                # Whoever reads types on when it has said that it is there.
                process = self.spawn("exec " + command[:-2])
                process.wait_line(lambda line: line)
                self.others.append(process)
            elif command.startswith("! "):
                process = self.spawn(command[2:])
                # 2 is a command line that is not understood, 126 and above a command that is none.
                if process.wait_exit(60) in (0, 2, 126, 127):
                    raise Failure(f"was to be refused: {process}")
            else:
                self.spawn(command).expect_success(60)
                self.arrives(command)
        except Failure as failure:
            brokers = "\n".join(str(broker) for broker in self.brokers)
            raise Failure(f"{self.page}:{block.line}: {written}\n{failure}\n{brokers}") from None

    def spawn(self, command, **env):
        return self.context.owner.start(["bash", "-c", command], cwd=self.home, env=self.env | env)

    def start(self, command):
        # Without a configuration the development one listens on the ports of the documentation.
        moved = {}
        if "--config" not in command:
            for kind, port in (("TCP", "1883"), ("SSL", "8883"), ("WS", "8083"), ("WSS", "8084")):
                moved[f"SHANGMQ_LISTENERS__{kind}__DEFAULT__BIND"] = f"127.0.0.1:{self.ports[port]}"
        broker = self.spawn(command, **moved)
        self.brokers.append(broker)
        broker.wait_line(lambda line: re.search(r"\bready\b", line), timeout=60)

    def arrives(self, command):
        if not self.subscribers:
            return
        words = shlex.split(command)
        if words[1:2] != ["pub"] or "-m" not in words:
            return
        message = words[words.index("-m") + 1]
        for subscriber in self.subscribers:
            try:
                subscriber.wait_line(lambda line: message in line and "suback" not in line.lower(), timeout=5)
                return
            except Failure:
                continue
        raise Failure(f"'{message}' arrived nowhere: {[str(subscriber) for subscriber in self.subscribers]}")

    def end_section(self):
        for process in self.subscribers + self.others:
            process.kill()
        for broker in self.brokers:
            code = broker.terminate()
            if code != 0:
                raise Failure(f"{self.page}: the broker ended with {code}: {broker}")
        self.brokers, self.subscribers, self.others = [], [], []

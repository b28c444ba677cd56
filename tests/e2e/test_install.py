"""The program is installed where an operator looks for it, and not before it was built."""

from broker import BINARY
from documents import ROOT
from process import Failure


def tests(development, broker):
    return [
        ("make install copies the built program below DESTDIR and PREFIX", installs),
        ("make install says what to do where nothing was built", refuses),
    ]


def make(context, *arguments):
    return context.owner.start(["make", "-s", "-C", str(ROOT), "install", *arguments], cwd=context.work)


def installs(context):
    make(context, f"PROGRAM={BINARY}", f"DESTDIR={context.work}", "PREFIX=/opt/x").expect_success(60)
    program = context.work / "opt" / "x" / "bin" / "shangmq"
    if program.stat().st_mode & 0o777 != 0o755:
        raise Failure(f"mode {program.stat().st_mode:o}")
    context.owner.run([str(program), "version"], cwd=context.work)


def refuses(context):
    process = make(context, f"PROGRAM={context.work}/none", f"DESTDIR={context.work}")
    if process.wait_exit(60) == 0 or "make build" not in str(process):
        raise Failure(f"was to be refused with advice: {process}")

"""The commands that a start without a configuration prints are run exactly as printed."""

from process import Failure

# Title in the banner -> how often it must appear: once for each listener that speaks it.
PROMISED = {"plain TCP": 1, "WebSocket": 1, "TLS 1.2": 2, "TLS 1.3": 2, "RFC 8998": 2, "TLCP": 2, "TLCP with a client pair": 2}


def tests(development, broker):
    commands = development.commands()
    found = [("the start banner prints pub and sub commands for every protocol", lambda context: complete(commands))]
    for title, pair in commands.items():
        found.append((f"printed commands work: {title}", lambda context, pair=pair: works(context, pair)))
    return found


def complete(commands):
    for title, times in PROMISED.items():
        printed = [printed for printed in commands if printed.rsplit(" (", 1)[0] == title]
        if len(printed) != times:
            raise Failure(f"'{title}' is printed for {len(printed)} listeners instead of {times}; titles: {list(commands)}")
    for title, pair in commands.items():
        if set(pair) != {"sub", "pub"}:
            raise Failure(f"'{title}' has no pair of commands: {pair}")


def works(context, pair):
    # `-d` only tells when the subscription stands; what is printed is run otherwise unchanged.
    subscriber = context.owner.start([*pair["sub"], "-d"], cwd=context.development.work)
    subscriber.wait_line(lambda line: "suback" in line.lower())
    context.owner.run(pair["pub"], cwd=context.development.work)
    topic = pair["pub"][pair["pub"].index("-t") + 1]
    message = pair["pub"][pair["pub"].index("-m") + 1]
    subscriber.wait_line(lambda line: line == f"{topic} {message}")

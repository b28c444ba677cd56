"""Reads the documentation: its fenced blocks with the heading above them, and the commands in them."""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LANGUAGES = {"sh", "toml", "text"}


@dataclass
class Block:
    """A fenced block. `file` is the name of what it holds: the last name in the line before it, such as `tls.toml`, or its own first
    line if that is a comment of such a name and nothing else. A block without a name is a fragment."""

    line: int
    language: str
    text: str
    file: str | None


@dataclass
class Section:
    title: str
    blocks: list = field(default_factory=list)


def pages():
    """Every page of documentation, as a path from the root of the project."""
    patterns = ["README*.md", "docs/*.md", "gm-certs/README*.md", "benches/README*.md", "vendor/README*.md"]
    return sorted(path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern))


def sections(text):
    """The sections of a page, each of which has blocks."""
    found, block, before = [Section("")], None, ""
    for number, line in enumerate(text.splitlines(), 1):
        if block is None and line.startswith("```"):
            # A colon says that the file follows, and not that it is spoken of.
            names = re.findall(r"`([\w./-]+\.toml)`", before) if before.rstrip().endswith((":", "：")) else []
            block = Block(number, line[3:].strip(), "", names[-1] if names else None)
        elif block is not None and line.startswith("```"):
            if own := re.match(r"# ([\w./-]+\.toml)\n", block.text):
                block.file = own[1]
            found[-1].blocks.append(block)
            block = None
        elif block is not None:
            block.text += line + "\n"
        elif line.startswith("#"):
            found.append(Section(line.lstrip("# ")))
        if line.strip():
            before = line
    return [section for section in found if section.blocks]


def commands(block):
    """The commands of a `sh` block: its lines, without comments, continuation lines joined."""
    joined = re.sub(r"\\\n\s*", "", block.text)
    lines = (re.sub(r"(^|\s)#\s.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]

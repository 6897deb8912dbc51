"""Measure the project's prose, and draw random samples of it for a reader who has not seen the code.

``python -m tests.language rate [PATH…]`` prints the share of the word *what* for each folder.
``python -m tests.language sample --seed N [PATH…]`` prints random docstring sentences, messages and test names, each
with its file.
"""

from __future__ import annotations

import argparse
import ast
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.paths import ROOT

CODE = ("ingest", "edge_agent", "stream", "engines", "training", "console", "deploy", "benchmarks", "tests")
DOCS = ("README.md", "CHANGELOG.md", "docs")
LOGGERS = {"debug", "info", "warning", "error", "exception", "critical"}
SENTENCES, MESSAGES, TEST_NAMES = 60, 20, 40
LEAST_WORDS = 4
"""Minimum number of words of a sentence or message that is drawn. Shorter texts are formats such as ``{file}:
{error}``."""
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
_DIAGRAM = re.compile(r"[├└│┌]")
_LITERAL = re.compile(r"``[^`]*``|`[^`]*`|https?://\S+")
_COMMENT = re.compile(
    r"""(?s:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3})|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|(\#[^\n]*)"""
)
"""A string, or a comment as the group 1. The tokenizer of the standard library takes nine times as long."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`])")


def python_files(paths: Iterable[Path]) -> list[Path]:
    """Return the Python files under paths, sorted."""
    return sorted(f for path in paths for f in ([path] if path.suffix == ".py" else path.rglob("*.py")))


def markdown_files(paths: Iterable[Path]) -> list[Path]:
    """Return the Markdown files under paths, sorted."""
    return sorted(f for path in paths for f in ([path] if path.suffix == ".md" else path.rglob("*.md")))


def docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield every string that stands alone as a statement, after the name of the definition or constant it describes.

    Such strings are docstrings, and the notes below constants and fields. The name of a module's docstring is empty.
    Lines of a diagram are left out.
    """
    for parent in ast.walk(tree):
        body = getattr(parent, "body", None)
        for before, node in zip([None, *body], body, strict=False) if isinstance(body, list) else ():
            text = node.value.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) else None
            if isinstance(text, str):
                lines = [line for line in text.splitlines() if not _DIAGRAM.search(line)]
                yield _name(before or parent), " ".join(" ".join(lines).split())


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
    return str(getattr(node, "name", ""))


def comments(source: str) -> Iterator[str]:
    """Yield every comment that is not an instruction to a tool."""
    for found in _COMMENT.finditer(source):
        text = (found[1] or "").lstrip("# ")
        if text and not text.startswith(("noqa", "type:", "!")):
            yield text


def messages(tree: ast.Module) -> Iterator[str]:
    """Yield the texts of raised errors, and log events with the names of their fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and (text := _error_text(node.exc)):
            yield text
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOGGERS:
            fields = " ".join(f"{keyword.arg}=…" for keyword in node.keywords if keyword.arg)
            if text := " ".join(_texts(node)[:1]):
                yield f"{text} {fields}"


def names_of_tests(tree: ast.Module) -> Iterator[str]:
    """Yield the names of test functions."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    yield from (node.name for node in functions if node.name.startswith("test_"))


def rate(texts: Iterable[str], word: str = "what") -> tuple[int, int]:
    """Return how often a word occurs in texts, and the number of words of all texts.

    Code in backticks does not count.
    """
    words = [found.lower() for text in texts for found in _WORD.findall(_LITERAL.sub(" ", text))]
    return sum(found == word for found in words), len(words)


def prose(paths: Iterable[Path]) -> list[str]:
    """Return all prose under paths: docstrings, comments and messages of Python files, and Markdown pages."""
    paths = list(paths)
    texts = [_unfenced(file.read_text()) for file in markdown_files(p for p in paths if p.exists())]
    for file in python_files(paths):
        source = file.read_text()
        tree = ast.parse(source)
        texts += [*(text for _, text in docstrings(tree)), *comments(source), *messages(tree)]
    return texts


def sentences(paths: Iterable[Path]) -> list[tuple[str, str]]:
    """Return every docstring sentence of at least four words, with its file and the name that it describes."""
    found = []
    for file in python_files(paths):
        for name, text in docstrings(ast.parse(file.read_text())):
            place = f"{file.relative_to(ROOT)} {name}".strip()
            found += [(place, s) for s in _SENTENCE_END.split(text) if len(_WORD.findall(s)) >= LEAST_WORDS]
    return found


def _unfenced(text: str) -> str:
    return re.sub(r"(?s)```.*?```", " ", text)


def _error_text(call: ast.Call) -> str:
    """Return the text of an error. A ConfigError has its text as ``ingest.exceptions`` formats it."""
    if ast.unparse(call.func) == "ConfigError" and len(call.args) == 4:
        where, key, value, expected = (_text(arg) or "…" for arg in call.args)
        return f"{where}: {key} = {value}: expected {expected}"
    return " | ".join(_texts(call))


def _texts(call: ast.Call) -> list[str]:
    """Return the literal texts among a call's arguments; expressions inside f-strings become …"""
    return [
        text for text in map(_text, [*call.args, *(k.value for k in call.keywords)]) if " " in text or "_" in text
    ]


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


def _print_rates(paths: list[Path]) -> None:
    for path in paths:
        count, words = rate(prose([path]))
        share = 1000 * count / max(words, 1)
        print(f"{path.relative_to(ROOT)!s:<40} what {count:5}  words {words:7}  per 1,000 {share:6.2f}")


def _print_sample(paths: list[Path], seed: int) -> None:
    draw = random.Random(seed)
    product = [path for path in paths if "tests" not in path.parts]
    all_sentences = sentences(product)
    texts = [
        (file.relative_to(ROOT), text)
        for file in python_files(product)
        for text in messages(ast.parse(file.read_text()))
    ]
    all_messages = [f"[{file}] {text}" for file, text in texts if len(_WORD.findall(text)) >= LEAST_WORDS]
    tests = python_files(path for path in paths if "tests" in path.parts)
    names = [
        f"{file.relative_to(ROOT)}: {name}" for file in tests for name in names_of_tests(ast.parse(file.read_text()))
    ]
    print("Docstring sentences")
    for number, (place, text) in enumerate(draw.sample(all_sentences, min(SENTENCES, len(all_sentences))), 1):
        print(f"{number:3}. [{place}] {text}")
    print("Messages")
    for number, text in enumerate(draw.sample(all_messages, min(MESSAGES, len(all_messages))), 1):
        print(f"{number:3}. {text}")
    print("Test names")
    for number, text in enumerate(draw.sample(names, min(TEST_NAMES, len(names))), 1):
        print(f"{number:3}. {text}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["rate", "sample"])
    parser.add_argument("paths", nargs="*", help="files or folders; all of the project by default")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    named = [Path(path).resolve() for path in options.paths]
    paths = named or [ROOT / name for name in (*CODE, *(DOCS if options.command == "rate" else ()))]
    if options.command == "rate":
        _print_rates(paths)
    else:
        _print_sample(paths, options.seed)


if __name__ == "__main__":
    main()

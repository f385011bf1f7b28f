"""How large the code is, and where it is largest: figures of the parsed sources.

A code line is one that holds a token of code: no blank line, no comment, no docstring.
mechanisms/, backbones/ and testing/ are left out of the packages' sums, since every part that is
added belongs there.

    python benchmarks/code_figures.py [--root DIR]
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("sharedattn", "spaces", "results", "search")
LEFT_OUT = ("mechanisms", "backbones", "testing")
MAX_FUNCTION_LINES = 60
MAX_CLASS_LINES, MAX_METHODS = 300, 20
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
_KIND_MEMBER = re.compile(r"\bKind\.[A-Z]")


@dataclass(frozen=True, slots=True)
class Definition:
    """A function or a class.

    Attributes:
        where: `path:name`.
        lines: from its first line to its last, docstring included.
        num_methods: of a class; 0 of a function.
    """

    where: str
    lines: int
    num_methods: int = 0


def sources(root: Path) -> Iterator[tuple[str, Path]]:
    """Every source file of the packages, with its package's name."""
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            yield package, path


def is_left_out(path: Path, root: Path) -> bool:
    """Whether a file belongs to the parts that grow by additions."""
    return bool(set(path.relative_to(root).parts[1:-1]) & set(LEFT_OUT))


def code_lines(text: str) -> int:
    """Lines that hold code: neither blank, nor comment, nor docstring."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                assert first.end_lineno is not None
                lines.difference_update(range(first.lineno, first.end_lineno + 1))
    return len(lines)


def definitions(text: str, path: str) -> tuple[list[Definition], list[Definition]]:
    """The functions and the classes of a file."""
    functions, classes = [], []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            functions.append(Definition(f"{path}:{node.name}", node.end_lineno - node.lineno + 1))
        elif isinstance(node, ast.ClassDef):
            assert node.end_lineno is not None
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef)]
            lines = node.end_lineno - node.lineno + 1
            classes.append(Definition(f"{path}:{node.name}", lines, len(methods)))
    return functions, classes


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    root = parser.parse_args().root.resolve()
    by_package = dict.fromkeys(PACKAGES, 0)
    functions: list[Definition] = []
    classes: list[Definition] = []
    kind_files: list[tuple[str, int]] = []
    for package, path in sources(root):
        text = path.read_text(encoding="utf-8")
        name = str(path.relative_to(root))
        if not is_left_out(path, root):
            by_package[package] += code_lines(text)
        found_functions, found_classes = definitions(text, name)
        functions += found_functions
        classes += found_classes
        named = sum(bool(_KIND_MEMBER.search(line)) for line in text.splitlines())
        if named and "mechanisms" not in path.parts:
            kind_files.append((name, named))
    print(f"code lines without {', '.join(LEFT_OUT)}")
    for package, lines in by_package.items():
        print(f"  {package:10} {lines:7,}")
    print(f"  {'all':10} {sum(by_package.values()):7,}")
    long = sorted((f for f in functions if f.lines > MAX_FUNCTION_LINES), key=lambda f: -f.lines)
    print(f"functions over {MAX_FUNCTION_LINES} lines: {len(long)}")
    for function in long:
        print(f"  {function.lines:4} {function.where}")
    print("largest classes: lines, methods")
    ordered = sorted(classes, key=lambda c: (-c.lines, c.where))
    large = [c for c in ordered if c.lines > MAX_CLASS_LINES or c.num_methods > MAX_METHODS]
    for one in large or ordered[:3]:
        print(f"  {one.lines:4} {one.num_methods:3} {one.where}")
    print(f"lines that name a member of Kind outside mechanisms: {sum(n for _, n in kind_files)}")
    for name, number in kind_files:
        print(f"  {number:4} {name}")


if __name__ == "__main__":
    main()

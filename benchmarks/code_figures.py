"""Size of the code, in total and of its largest parts, from the parsed sources.

A code line holds a token of code; blank lines, comments and docstrings do not count. The sums of
packages leave out mechanisms/, backbones/ and testing/, since every new part is added there;
attention/ is the former name of mechanisms/.

    python benchmarks/code_figures.py [--root DIR]
    python benchmarks/code_figures.py BEFORE AFTER > docs/measurements/house.md

Given two commits, it prints a Markdown page that compares them.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import tarfile
import tempfile
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("sharedattn", "spaces", "results", "search")
MECHANISMS = ("mechanisms", "attention")
LEFT_OUT = (*MECHANISMS, "backbones", "testing")
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
        lines: number of lines from first to last, docstring included.
        num_methods: number of a class's methods; 0 for a function.
    """

    where: str
    lines: int
    num_methods: int = 0


def sources(root: Path) -> Iterator[tuple[str, Path]]:
    """All source files of the packages, with the package's name."""
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            yield package, path


def is_left_out(path: Path, root: Path) -> bool:
    """Whether a file belongs to the folders that grow by additions."""
    return bool(set(path.relative_to(root).parts[1:-1]) & set(LEFT_OUT))


def code_lines(text: str) -> int:
    """Number of lines with code, other than comments and docstrings."""
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


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one source tree.

    Attributes:
        code_lines: by package, without the left-out folders.
        grown_lines: code lines of the left-out folders.
        long_functions: functions above the line limit, longest first.
        large_classes: classes above the line or method limit, longest first.
        classes: all classes, longest first.
        kind_lines: number of lines that name a member of `Kind`, by file outside mechanisms.
    """

    code_lines: dict[str, int]
    grown_lines: int
    long_functions: list[Definition]
    large_classes: list[Definition]
    classes: list[Definition]
    kind_lines: dict[str, int]

    @property
    def all_lines(self) -> int:
        """Code lines of all packages, without the left-out folders."""
        return sum(self.code_lines.values())


def figures_of(root: Path) -> Figures:
    """The figures of the packages in a folder."""
    by_package = dict.fromkeys(PACKAGES, 0)
    grown = 0
    functions: list[Definition] = []
    classes: list[Definition] = []
    kind_lines: dict[str, int] = {}
    for package, path in sources(root):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(root).as_posix()
        if is_left_out(path, root):
            grown += code_lines(text)
        else:
            by_package[package] += code_lines(text)
        found_functions, found_classes = definitions(text, name)
        functions += found_functions
        classes += found_classes
        named = sum(bool(_KIND_MEMBER.search(line)) for line in text.splitlines())
        if named and not set(path.relative_to(root).parts[:-1]) & set(MECHANISMS):
            kind_lines[name] = named
    classes.sort(key=lambda c: (-c.lines, c.where))
    return Figures(
        code_lines=by_package,
        grown_lines=grown,
        long_functions=sorted(
            (f for f in functions if f.lines > MAX_FUNCTION_LINES), key=lambda f: -f.lines
        ),
        large_classes=[
            c for c in classes if c.lines > MAX_CLASS_LINES or c.num_methods > MAX_METHODS
        ],
        classes=classes,
        kind_lines=kind_lines,
    )


def _short(commit: str) -> str:
    command = ["git", "rev-parse", "--short=7", f"{commit}^{{commit}}"]
    said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True, text=True)
    return said.stdout.strip()


def figures_at(commit: str) -> Figures:
    """The figures of a commit of this repository."""
    command = ["git", "archive", commit, *PACKAGES]
    archive = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        return figures_of(Path(folder))


def print_figures(figures: Figures) -> None:
    """Print all figures as text."""
    print(f"code lines without {', '.join(LEFT_OUT)}")
    for package, lines in figures.code_lines.items():
        print(f"  {package:10} {lines:7,}")
    print(f"  {'all':10} {figures.all_lines:7,}")
    print(f"code lines of those: {figures.grown_lines:,}")
    print(f"functions over {MAX_FUNCTION_LINES} lines: {len(figures.long_functions)}")
    for function in figures.long_functions:
        print(f"  {function.lines:4} {function.where}")
    print("largest classes: lines, methods")
    for one in figures.large_classes or figures.classes[:3]:
        print(f"  {one.lines:4} {one.num_methods:3} {one.where}")
    print(
        f"lines that name a member of Kind outside mechanisms: {sum(figures.kind_lines.values())}"
    )
    for name, number in figures.kind_lines.items():
        print(f"  {number:4} {name}")


def _rows(before: Figures, after: Figures) -> list[tuple[str, str, str]]:
    """Rows of figures before and after."""
    rows = [
        (
            f"code lines of {package}/",
            f"{before.code_lines[package]:,}",
            f"{after.code_lines[package]:,}",
        )
        for package in PACKAGES
    ]
    change = after.all_lines / before.all_lines - 1
    rows += [
        ("code lines in all", f"{before.all_lines:,}", f"{after.all_lines:,} ({change:+.1%})"),
        (
            "code lines of mechanisms/, backbones/ and testing/",
            f"{before.grown_lines:,}",
            f"{after.grown_lines:,}",
        ),
        (
            f"functions over {MAX_FUNCTION_LINES} lines",
            str(len(before.long_functions)),
            str(len(after.long_functions)),
        ),
        (
            f"classes over {MAX_CLASS_LINES} lines or {MAX_METHODS} methods",
            str(len(before.large_classes)),
            str(len(after.large_classes)),
        ),
        ("largest class, lines", str(before.classes[0].lines), str(after.classes[0].lines)),
        (
            "lines that name a member of `Kind` outside mechanisms/",
            str(sum(before.kind_lines.values())),
            str(sum(after.kind_lines.values())),
        ),
    ]
    return rows


def page(before_commit: str, after_commit: str) -> str:
    """The Markdown page that compares two commits."""
    before_commit, after_commit = map(_short, (before_commit, after_commit))
    before, after = figures_at(before_commit), figures_at(after_commit)
    lines = [
        "# Size of the code",
        "",
        f"Made by `python benchmarks/code_figures.py {before_commit} {after_commit}`; do not",
        "edit.",
        "",
        "A code line holds a token of code: no blank line, comment or docstring. Lengths of",
        "functions and classes count their docstrings. mechanisms/, which was attention/ before,",
        "backbones/ and testing/ are counted apart, since every part that is added belongs there.",
        "",
        f"| | {before_commit} | {after_commit} |",
        "|---|---|---|",
        *(f"| {what} | {was} | {now} |" for what, was, now in _rows(before, after)),
        "",
        f"## Functions over {MAX_FUNCTION_LINES} lines",
        "",
        *_table(before_commit, before.long_functions),
        *_table(after_commit, after.long_functions),
        f"## Classes over {MAX_CLASS_LINES} lines or {MAX_METHODS} methods",
        "",
        *_table(before_commit, before.large_classes, with_methods=True),
        *_table(after_commit, after.large_classes, with_methods=True),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _table(commit: str, found: list[Definition], *, with_methods: bool = False) -> Iterator[str]:
    """The longest definitions at a commit."""
    yield f"At {commit}:" if found else f"At {commit}: none."
    yield ""
    if found:
        yield "| lines | methods | class |" if with_methods else "| lines | function |"
        yield "|---|---|---|" if with_methods else "|---|---|"
        for one in found:
            methods = f" {one.num_methods} |" if with_methods else ""
            yield f"| {one.lines} |{methods} `{one.where}` |"
        yield ""


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commits", nargs="*", metavar="COMMIT", help="BEFORE and AFTER, or none")
    parser.add_argument("--root", type=Path, default=REPOSITORY)
    arguments = parser.parse_args()
    if len(arguments.commits) == 2:
        print(page(*arguments.commits), end="")
    elif arguments.commits:
        parser.error("COMMIT: give two, the one before and the one after")
    else:
        print_figures(figures_of(arguments.root.resolve()))


if __name__ == "__main__":
    main()

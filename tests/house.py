"""Counts of the source tree: `python -m tests.house`, and `python -m tests.house COMMAND ...` for one command's files.

Lines are those of code, without blank lines, comments and docstrings. A file is run through by a command when one of
its functions is called in the command's process. Imports are read from the source, those inside functions too. A name
that a lazy package hands out counts as an import of the module that the package's stub names.
"""

import ast
import inspect
import sys
import threading
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("codec", "data", "slm", "recipes")  # from the bottom up: each uses those before it


@dataclass(frozen=True)
class InnerImport:
    """An import inside a function or a TYPE_CHECKING block."""

    line: int
    place: str  # the function's name, or TYPE_CHECKING
    packages: list[str]  # their first names


@dataclass
class Module:
    """One source file: its lines of code and what it imports of this project, with the line of each import."""

    name: str
    path: Path
    lines: int
    imports: dict[str, int] = field(default_factory=dict)
    inner_imports: list[InnerImport] = field(default_factory=list)


def modules(root: Path = ROOT) -> dict[str, Module]:
    """All modules of the four packages, by dotted name."""
    paths = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    names = {_dotted(path.relative_to(root)): path for path in paths}
    public = {name: target for path in names.values() for name, target in _public_names(path, root).items()}
    return {name: _read(name, path, names.keys(), public) for name, path in names.items()}


def circles(found: dict[str, Module]) -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others."""
    return _components({name: set(module.imports) - {name} for name, module in found.items()})


def folder_circles(found: dict[str, Module]) -> list[list[str]]:
    """The same between what stands in a package: its folders, and the modules beside them."""
    graph: dict[str, set[str]] = {}
    for name, module in found.items():
        here = _place(name)
        graph.setdefault(here, set()).update({_place(other) for other in module.imports} - {here})
    return _components(graph)


def _place(name: str) -> str:
    return ".".join(name.split(".")[:2])


def _components(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str, edges: dict[str, set[str]], into: list[str]) -> None:
        stack = [(name, iter(sorted(edges[name])))]
        seen.add(name)
        while stack:
            here, following = stack[-1]
            for other in following:
                if other not in seen:
                    seen.add(other)
                    stack.append((other, iter(sorted(edges[other]))))
                    break
            else:
                stack.pop()
                into.append(here)

    for name in graph:
        if name not in seen:
            visit(name, graph, order)
    backward: dict[str, set[str]] = {name: set() for name in graph}
    for name, others in graph.items():
        for other in others:
            backward[other].add(name)
    seen.clear()
    groups = []
    for name in reversed(order):
        if name not in seen:
            group: list[str] = []
            visit(name, backward, group)
            if len(group) > 1:
                groups.append(sorted(group))
    return groups


def upward(found: dict[str, Module]) -> list[str]:
    """Imports from a package that stands above the importing one."""
    rank = {package: number for number, package in enumerate(PACKAGES)}
    return [
        f"{name}:{line} imports {other}"
        for name, module in found.items()
        for other, line in module.imports.items()
        if rank[other.split(".")[0]] > rank[name.split(".")[0]]
    ]


def run_through(arguments: list[str]) -> list[str]:
    """The project's files of which a function runs while `codec-slm ARGUMENTS` does, in this process."""
    files: set[str] = set()

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED and code.co_name[0] != "<":
            files.add(code.co_filename)

    from recipes.cli.main import main

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        main(arguments)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    ours = [Path(file) for file in files if file.startswith(str(ROOT))]
    relative = [path.relative_to(ROOT) for path in ours]
    return sorted(str(path) for path in relative if path.parts[0] in PACKAGES)


def _public_names(path: Path, root: Path) -> dict[str, str]:
    """What a lazy package hands out, by dotted name, and the module that it comes from; read from its stub."""
    stub = path.with_suffix(".pyi")
    if path.name != "__init__.py" or not stub.exists():
        return {}
    package = _dotted(path.relative_to(root))
    nodes = ast.parse(stub.read_text(encoding="utf-8")).body
    return {
        f"{package}.{alias.name}": f"{package}.{node.module}"
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _read(name: str, path: Path, known: Set[str], public: dict[str, str]) -> Module:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    prose = {line for node in ast.walk(tree) for line in _docstring_lines(node)}
    lines = sum(
        1
        for number, text in enumerate(source.splitlines(), start=1)
        if text.strip() and not text.lstrip().startswith("#") and number not in prose
    )
    module = Module(name, path, lines)
    for node, place in _imports(tree, place=""):
        targets = _targets(node)
        if place:
            packages = [target.split(".")[0] for target in targets]
            module.inner_imports.append(InnerImport(node.lineno, place, packages))
        for target in targets:
            target = public.get(target, target)
            while target not in known and "." in target:
                target = target.rpartition(".")[0]
            if target in known:
                module.imports.setdefault(target, node.lineno)
    return module


def _imports(node: ast.AST, place: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Every import below a node, with the innermost function or TYPE_CHECKING block around it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, place
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imports(child, child.name)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _imports(child, "TYPE_CHECKING")
        else:
            yield from _imports(child, place)


def _targets(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names]


def _docstring_lines(node: ast.AST) -> range:
    """The lines of a bare string: a docstring of a module, class or function, or of the field above it (PEP 257)."""
    if (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ):
        return range(node.lineno, (node.end_lineno or node.lineno) + 1)
    return range(0)


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _summary() -> None:
    found = modules()
    print(f"{'':10} {'files':>6} {'lines':>7} {'inner imports':>14}")
    for package in (*PACKAGES, ""):
        own = [module for name, module in found.items() if not package or name.split(".")[0] == package]
        inner = sum(len(module.inner_imports) for module in own)
        print(f"{package or 'all':10} {len(own):6} {sum(module.lines for module in own):7} {inner:14}")
    for group in circles(found) + folder_circles(found):
        print("circle:", ", ".join(group))
    for line in upward(found):
        print("upward:", line)


if __name__ == "__main__":
    if sys.argv[1:]:
        run = run_through(sys.argv[1:])
        print(*run, f"{len(run)} files", sep="\n")
    else:
        _summary()

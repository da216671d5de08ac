"""`tuneline wiring`: compare the code dependencies and parameters in dvc.yaml with what the stages' code says.

A stage depends on every Tuneline module it imports, directly or not (a package's `__init__.py` too, where it holds
code), and tracks every key of params.yaml that its `main` reads. Written by hand, both lists rot; derived from the
code, a test can hold them.
"""

import argparse
import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tuneline.errors import ConfigError
from tuneline.output import write_text

# Not dependencies: what they contribute to a result comes in through params.yaml, whose values are tracked themselves.
# The guard is the exception: to apply the rules of config is all it does.
PLUMBING = ("tuneline.config", "tuneline.entry", "tuneline.errors", "tuneline.shortage")
GUARD = "tuneline.stages.guard"
CODE = "src/tuneline/"
# How dvc.yaml names the key that a stage's instance looks up with `[args.phase]` or `[link.type]`.
LOOP_KEYS = {"phase": "${key}", "type": "${item.type}"}


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a stage's code needs: module files as repository paths, and dotted keys of params.yaml."""

    modules: tuple[str, ...]
    params: tuple[str, ...]


def derive(module: str, source: Path) -> Wiring:
    """The wiring of the stage `module` (such as `tuneline.stages.clean`), from the code under `source` (src)."""
    files = sorted(module_path(name, source) for name in closure(module, source))
    names = tuple(path.relative_to(source.parent).as_posix() for path in files)
    return Wiring(names, params_read(module_path(module, source)))


def closure(module: str, source: Path) -> set[str]:
    """The module and all Tuneline modules it imports, directly or not, without the plumbing.

    Importing a module runs the `__init__.py` of every package it is in, so those belong to it.
    """
    ignored = () if module == GUARD else PLUMBING
    found, waiting = set[str](), [module]
    while waiting:
        name = waiting.pop()
        if name not in found and not name.startswith(ignored):
            found.add(name)
            waiting += [*imported(name, source), *_packages(name)]
    return {name for name in found if _is_code(module_path(name, source))}


def _packages(module: str) -> Iterator[str]:
    """`a` and `a.b` for `a.b.c`."""
    parts = module.split(".")
    yield from (".".join(parts[:length]) for length in range(1, len(parts)))


@cache  # most modules are behind several stages, and parsing takes the time
def imported(module: str, source: Path) -> tuple[str, ...]:
    """Tuneline modules that a module imports anywhere in its text, also inside functions.

    Raises `ConfigError` for a relative import, which would be overlooked.
    """
    path = module_path(module, source)
    _check_absolute(path)
    return tuple(_imports(_parsed(path), source))


def _check_absolute(path: Path) -> None:
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            raise ConfigError(f"{path}:{node.lineno}: relative import; write `from tuneline. ... import ...`")


def _imports(tree: ast.Module, source: Path) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(name)) if name.split(".")[0] == "tuneline":
                submodules = [f"{name}.{alias.name}" for alias in node.names]
                yield from [full for full in submodules if module_path(full, source).exists()] or [name]
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.split(".")[0] == "tuneline")


def module_path(module: str, source: Path) -> Path:
    """The file of a module or package."""
    path = source.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _is_code(path: Path) -> bool:
    """Whether the file holds more than a docstring: an empty package file can change nothing."""
    body = _parsed(path).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)


def params_read(stage: Path) -> tuple[str, ...]:
    """The chains `params.section.key` in a stage, without those inside another; `[args.phase]` becomes `${key}`.

    Raises `ConfigError` where `params` is passed on whole: what is read of it is then not to be seen.
    """
    tree = _parsed(stage)
    _check_sections(stage, tree)
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Subscript)}
    chains = {_chain(node) for node in ast.walk(tree) if id(node) not in inner} - {"", "conf_digest"}
    return tuple(sorted(c for c in chains if not any(c.startswith(f"{other}.") for other in chains)))


def _check_sections(stage: Path, tree: ast.Module) -> None:
    owners = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id="params", ctx=ast.Load()) if id(node) not in owners:
                raise ConfigError(f"{stage}:{node.lineno}: `params` is passed on whole; pass the sections it needs")


def _chain(node: ast.AST) -> str:
    """`params.a.b` as `a.b`; the empty string for anything else."""
    match node:
        case ast.Attribute(value=ast.Name(id="params"), attr=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{owner}.{name}" if (owner := _chain(value)) else ""
        case ast.Subscript(value=value, slice=ast.Attribute(attr=name)) if name in LOOP_KEYS:
            return f"{owner}.{LOOP_KEYS[name]}" if (owner := _chain(value)) else ""
        case ast.Subscript(value=value):
            return _chain(value)
    return ""


def stages_of(dvc_yaml: Path) -> dict[str, dict[str, Any]]:
    """Each stage of dvc.yaml by name, without its foreach wrapper."""
    stages = yaml.safe_load(dvc_yaml.read_text(encoding="utf-8"))["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


def stage_module(stage: dict[str, Any]) -> str:
    """The module that a stage's command runs."""
    words = str(stage["cmd"]).split()
    return words[words.index("-m") + 1]


def differences(dvc_yaml: Path, source: Path) -> list[str]:
    """One line per code dependency or parameter that dvc.yaml lacks or has too many."""
    lines = []
    for name, stage in stages_of(dvc_yaml).items():
        wiring = derive(stage_module(stage), source)
        modules = {dep for dep in stage.get("deps", []) if dep.startswith(CODE)}
        lines += _compared(f"{name}.deps", modules, set(wiring.modules))
        lines += _compared(f"{name}.params", set(stage.get("params", [])), set(wiring.params))
    return lines


def _compared(where: str, written: set[str], derived: set[str]) -> list[str]:
    missing = [f"{where}: missing {item}" for item in sorted(derived - written)]
    return missing + [f"{where}: not used by the code: {item}" for item in sorted(written - derived)]


def rewrite(dvc_yaml: Path, source: Path) -> None:
    """Replace each stage's `params` and the module lines of its `deps` by the derived ones; the rest stays as it is."""
    stages = stages_of(dvc_yaml)
    lines: list[str] = []
    stage, block = "", ""
    for line in dvc_yaml.read_text(encoding="utf-8").splitlines():
        key = line.split("#")[0].strip().removesuffix(":")
        stage = key if line.startswith("  ") and line[2:3].isalpha() and key in stages else stage
        block = block if line.strip().startswith("- ") else key
        if line.strip().startswith(f"- {CODE}") or (block == "params" and line.strip().startswith("- ")):
            continue
        lines.append(line)
        if key in ("deps", "params"):
            wiring = derive(stage_module(stages[stage]), source)
            items = wiring.modules if key == "deps" else wiring.params
            lines += [f"{line[: line.index(key)]}- {item}" for item in items]
    write_text(dvc_yaml, "\n".join(lines) + "\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dvc-yaml", type=Path, default=Path("dvc.yaml"), help="file to look at (dvc.yaml)")
    parser.add_argument("--source", type=Path, default=Path("src"), help="folder of the code (src)")
    parser.add_argument("--write", action="store_true", help="rewrite the module lines in place")


def execute(arguments: argparse.Namespace) -> None:
    """Print nothing when all is well; otherwise fail with every difference."""
    if arguments.write:
        rewrite(arguments.dvc_yaml, arguments.source)
    if found := differences(arguments.dvc_yaml, arguments.source):
        raise ConfigError(
            "; ".join([f"{arguments.dvc_yaml} does not match the code (`tuneline wiring --write`)", *found])
        )

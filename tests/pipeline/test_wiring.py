"""dvc.yaml says what the code does: dependencies, parameters, and one module per stage."""

import ast
from pathlib import Path

import pytest

from tuneline.commands.wiring import (
    closure,
    differences,
    imported,
    module_path,
    params_read,
    rewrite,
    stage_module,
    stages_of,
)
from tuneline.errors import ConfigError

SOURCE = Path("src")
DVC = Path("dvc.yaml")
ROOMS = (
    *("config", "data", "embedded", "evaluation", "export", "model", "training"),
    *("benchmarks", "reporting", "teacher", "upkeep"),
)
TORCH_ROOMS = ("embedded", "evaluation", "export", "model", "training")


def modules(room: str = "") -> list[str]:
    files = sorted((SOURCE / "tuneline" / room).rglob("*.py"))
    return [".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") for path in files]


def test_dvc_yaml_lists_exactly_the_modules_and_parameters_that_the_code_uses() -> None:
    assert differences(DVC, SOURCE) == []


def test_a_removed_dependency_and_a_superfluous_parameter_are_found(tmp_path: Path) -> None:
    text = DVC.read_text(encoding="utf-8")
    changed = text.replace("    - src/tuneline/stages/clean.py\n", "").replace(
        "    - clean\n", "    - clean\n    - seed\n", 1
    )
    (tmp_path / "dvc.yaml").write_text(changed, encoding="utf-8")
    assert differences(tmp_path / "dvc.yaml", SOURCE) == [
        "clean.deps: missing src/tuneline/stages/clean.py",
        "clean.params: not used by the code: seed",
    ]


def test_rewriting_restores_the_dependencies_and_nothing_else(tmp_path: Path) -> None:
    text = DVC.read_text(encoding="utf-8")
    copy = tmp_path / "dvc.yaml"
    copy.write_text("\n".join(line for line in text.split("\n") if "- src/" not in line), encoding="utf-8")
    rewrite(copy, SOURCE)
    assert copy.read_text(encoding="utf-8") == text


def test_every_stage_module_is_a_stage_and_every_stage_has_a_module() -> None:
    used = {stage_module(stage) for stage in stages_of(DVC).values()}
    assert used == {name for name in modules("stages") if name != "tuneline.stages"}


def test_parameter_chains_are_read_from_the_code(tmp_path: Path) -> None:
    stage = tmp_path / "stage.py"
    stage.write_text(
        "f(params.recipe.phases[args.phase], params.clean, params.clean.a, params.export.budgets[link.type])\n"
    )
    assert params_read(stage) == ("clean", "export.budgets.${item.type}", "recipe.phases.${key}")


def test_closure_follows_imports_inside_functions(tmp_path: Path) -> None:
    package = tmp_path / "tuneline"
    package.mkdir()
    (package / "__init__.py").write_text('"""Doc."""\n')
    (package / "a.py").write_text("def f():\n    from tuneline import b\n")
    (package / "b.py").write_text("import tuneline.c\n")
    (package / "c.py").write_text("X = 1\n")
    assert closure("tuneline.a", tmp_path) == {"tuneline.a", "tuneline.b", "tuneline.c"}


def test_closure_has_the_packages_whose_init_holds_code_and_what_that_imports(tmp_path: Path) -> None:
    inner = tmp_path / "tuneline" / "model" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "tuneline" / "__init__.py").write_text('"""Doc."""\n')
    (tmp_path / "tuneline" / "a.py").write_text("from tuneline.model.inner.b import X\n")
    (tmp_path / "tuneline" / "level.py").write_text("LEVEL = 1\n")
    (tmp_path / "tuneline" / "model" / "__init__.py").write_text("import tuneline.level\n")
    (inner / "__init__.py").write_text('"""Doc."""\n')
    (inner / "b.py").write_text("X = 1\n")
    found = closure("tuneline.a", tmp_path)
    assert found == {"tuneline.a", "tuneline.model", "tuneline.level", "tuneline.model.inner.b"}


@pytest.mark.parametrize("line", ["from . import b", "from .b import X", "from ..b import X"])
def test_a_relative_import_is_refused_with_its_place(line: str, tmp_path: Path) -> None:
    package = tmp_path / "tuneline"
    package.mkdir()
    (package / "__init__.py").write_text('"""Doc."""\n')
    (package / "a.py").write_text(f"def f():\n    {line}\n")
    with pytest.raises(ConfigError, match=r"a\.py:2: relative import"):
        closure("tuneline.a", tmp_path)


@pytest.mark.parametrize("line", ["f(params)", "f(it=params)", "whole = params", "params['seed']"])
def test_params_passed_on_whole_are_refused_with_the_place(line: str, tmp_path: Path) -> None:
    stage = tmp_path / "stage.py"
    stage.write_text(f"params = read_params(args.params)\nf(params.seed)\n{line}\n")
    with pytest.raises(ConfigError, match=r"stage\.py:3: `params` is passed on whole"):
        params_read(stage)


@pytest.mark.parametrize("room", ROOMS)
def test_libraries_import_no_stage_and_no_command(room: str) -> None:
    for module in modules(room):
        assert not [
            name for name in imported(module, SOURCE) if name.startswith(("tuneline.stages", "tuneline.commands"))
        ]


@pytest.mark.parametrize("room", ["config", "data"])
def test_config_and_data_import_no_other_room(room: str) -> None:
    allowed = ("tuneline.config", "tuneline.data", "tuneline.errors", "tuneline.output", "tuneline.entry")
    for module in modules(room):
        assert all(name.startswith(allowed) for name in imported(module, SOURCE)), module


def test_torch_is_imported_in_its_rooms_only() -> None:
    for module in modules():
        if module.split(".")[1:2] and module.split(".")[1] in TORCH_ROOMS:
            continue
        tree = ast.parse(module_path(module, SOURCE).read_text(encoding="utf-8"))
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        heavy = [name for name in names if name.split(".")[0] in ("torch", "transformers", "trl", "peft", "llama_cpp")]
        assert heavy == [] or module == "tuneline.commands.benchmark_training", module


def test_nothing_but_stages_and_commands_imports_stages() -> None:
    for module in modules():
        imports_stage = [name for name in imported(module, SOURCE) if name.startswith("tuneline.stages")]
        assert imports_stage == [], module


GPU_OPENERS = ("tuneline.model.adapters", "tuneline.model.methods")  # import PEFT, and that bitsandbytes


def test_a_stage_that_opens_gpus_takes_its_own_first_or_sees_none() -> None:
    for name, stage in stages_of(DVC).items():
        module = stage_module(stage)
        text = module_path(module, SOURCE).read_text(encoding="utf-8")
        if closure(module, SOURCE) & set(GPU_OPENERS) and not stage["cmd"].startswith("CUDA_VISIBLE_DEVICES= "):
            taken, late = text.find("    take_devices("), text.find("    from tuneline.model.adapters")
            assert 0 < taken < max(late, text.find("    from tuneline.model.methods")), name


@pytest.mark.parametrize(
    ("stage", "paired_with"),
    [("verify", "evaluate_merged"), ("verify_adapter", "evaluate"), ("evaluate_merged", "evaluate")],
)
def test_scores_are_paired_with_those_of_the_model_that_a_link_starts_from(stage: str, paired_with: str) -> None:
    words = str(stages_of(DVC)[stage]["cmd"]).split()
    reference = Path(words[words.index("--reference") + 1])
    (predictions,) = [out for out in stages_of(DVC)[paired_with]["outs"] if out.startswith("data/predictions/")]
    assert Path(predictions) in (reference, *reference.parents)
    assert predictions in stages_of(DVC)[stage]["deps"]


def test_stages_are_sentences() -> None:
    for module in modules("stages"):
        assert len(module_path(module, SOURCE).read_text(encoding="utf-8").splitlines()) <= 60, module

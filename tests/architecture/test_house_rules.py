"""Rules of the house that a reader can rely on without looking."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib

import pytest
from source_tree import ROOT, Module, modules

ALL = modules()


@pytest.mark.parametrize("module", ALL, ids=lambda m: m.name)
def test_no_module_has_a_name_that_says_nothing(module: Module) -> None:
    assert not set(module.name.split(".")) & {"utils", "util", "common", "helpers", "helper", "misc"}


@pytest.mark.parametrize("module", ALL, ids=lambda m: m.name)
def test_nothing_happens_at_import(module: Module) -> None:
    calm = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.If)
    strange = [
        ast.unparse(node)
        for node in module.tree.body
        if not isinstance(node, calm) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]
    assert strange == []


@pytest.mark.parametrize("module", ALL, ids=lambda m: m.name)
def test_a_module_is_one_room_of_at_most_400_lines(module: Module) -> None:
    assert module.lines <= 400


@pytest.mark.parametrize("module", ALL, ids=lambda m: m.name)
def test_no_function_is_longer_than_60_lines(module: Module) -> None:
    functions = [n for n in ast.walk(module.tree) if isinstance(n, ast.FunctionDef)]
    # From the first line of the body: a command has a parameter, and a line, for each of its options.
    assert [f.name for f in functions if (f.end_lineno or 0) - f.body[0].lineno >= 60] == []


@pytest.mark.parametrize("module", ALL, ids=lambda m: m.name)
def test_every_module_says_what_it_is_for(module: Module) -> None:
    assert ast.get_docstring(module.tree)


@pytest.mark.parametrize("module", ALL, ids=lambda m: m.name)
def test_public_functions_and_classes_have_a_docstring(module: Module) -> None:
    public = [n for n in module.tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name[0] != "_"]
    assert [n.name for n in public if not ast.get_docstring(n)] == []


def test_declared_packages_are_the_folders() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    renamed = {folder: package for package, folder in settings["package-dir"].items()}
    found = set()
    for top in ("k710", "uniformerv2", "cli", "manifests"):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            found.add(".".join([renamed.get(parts[0], parts[0]), *parts[1:]]))
    assert set(settings["packages"]) == found


def test_help_starts_without_the_heavy_libraries() -> None:
    code = (
        "import sys; sys.argv = ['k710', '--help']\n"
        "from cli.main import make_app\n"
        "make_app()(standalone_mode=False)\n"
        "print(sorted({'torch', 'pandas', 'pyarrow', 'numpy', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_curation_runs_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None\nimport k710.build, k710.synth.write, k710.report.stored"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("module", [m for m in ALL if m.path.name != "__init__.py"], ids=lambda m: m.name)
def test_the_readme_has_a_line_for_every_file(module: Module) -> None:
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("## The tree")[1]
    assert f" {module.path.name} " in tree or f"/{module.path.name} " in tree

"""The house rules of the imports: floors, one importer of streamlit, thin pages, light facades."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "affectvlm"
FLOORS = (
    {"emotions", "scan", "rank_pooling", "curves", "losses", "metrics", "tables"},
    {"prompts", "scan_io", "rendering", "synthesis", "protocols", "mesh_files"},
    {"pose", "photos", "augmentation", "model", "wording"},
    {"config", "data", "gradcam", "sequences"},
    {"datasets", "methods", "answers", "planning"},
    {"predictor", "runs", "launching"},
    {"fitting", "evaluation", "zero_shot", "steering", "starting", "histories", "preflight"},
    {"adaptation"},
    {"cli", "ui"},
    {"__main__"},
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
SOURCES = sorted(PACKAGE.rglob("*.py"))
PAGES = [ROOT / "app.py", *sorted((ROOT / "pages").glob("*.py"))]


def imported(file: Path, at_run_time: bool = True) -> set[str]:
    """Dotted names that a file imports, inside functions too; those under `if TYPE_CHECKING` only on demand."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing_only = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for statement in branch.body
        for node in ast.walk(statement)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if at_run_time and node in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: imports are absolute here"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def module_of(file: Path) -> str:
    """First name below the package: "scan_io" for affectvlm/scan_io/obj.py."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def ours(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("affectvlm.")} & set(FLOOR_OF)


def test_every_module_has_a_floor():
    modules = {module_of(file) for file in SOURCES} - {"__init__"}
    assert modules <= set(FLOOR_OF), "new modules belong into FLOORS above"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_module_imports_only_from_lower_floors(file):
    module = module_of(file)
    others = ours(imported(file)) - {module}
    floor = FLOOR_OF.get(module, 0)
    assert {name for name in others if FLOOR_OF[name] >= floor} == set()


def test_only_the_app_imports_streamlit():
    roots = {file: {name.split(".")[0] for name in imported(file)} for file in SOURCES}
    assert {module_of(file) for file in SOURCES if "streamlit" in roots[file]} <= {"ui"}


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_pages_are_thin(file):
    roots = {name.split(".")[0] for name in imported(file, at_run_time=False)}
    assert roots <= {"os", "streamlit", "affectvlm"}
    assert ours(imported(file)) <= {"ui"}
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("affectvlm.scan_io", {"torch", "streamlit"}),
        ("affectvlm.predictor", {"streamlit", "pytorch_lightning", "pyvista"}),
        ("affectvlm.ui.export", {"streamlit", "torch", "pyvista"}),
        ("affectvlm.ui.engine", {"torch", "open_clip", "pyvista", "stpyvista"}),
    ],
)
def test_importing_stays_light(module, heavy):
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert heavy & set(run.stdout.split()) == set()


def test_nothing_is_unpickled():
    for file in SOURCES:
        names = imported(file)
        assert not {"dill", "joblib", "shelve", "pickle.load", "pickle.loads", "pickle.Unpickler"} & names, file
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            assert ast.unparse(call.func) not in {"pickle.load", "pickle.loads", "pickle.Unpickler"}, file
            allowed = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert allowed.get("allow_pickle") != "True" and allowed.get("weights_only") != "False", file
            assert allowed.get("shell") != "True", file

"""Who may know whom: directions of imports, where optional parts of the world may enter, and names of files."""

from __future__ import annotations

import ast
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVELS = {
    "types": 0, "config": 0, "presets": 1, "pixels": 0, "files": 0, "graphs": 0, "device": 1, "nn": 2, "diffusion": 3,
    "envs": 4, "replay": 4, "world": 4, "agent": 4, "evaluation": 5, "training": 6,
}
"""A room may import rooms of lower levels, itself, and nothing else of diamond_core."""
ONLY_IN = {
    "ale_py": {"diamond_core/envs"}, "cv2": {"diamond_core/envs"}, "pygame": {"app/desktop"}, "gradio": {"app/web"},
    "fastapi": {"app/web"}, "matplotlib": {"diamond_core/evaluation"}, "huggingface_hub": {"diamond_core/training"},
    "openvino": {"diamond_core/world/openvino_runtime.py"}, "tyro": {"app/cli.py", "app/commands"},
}
ATTICS = {"utils", "common", "helpers", "misc"}
SOURCES = sorted(p for room in ("diamond_core", "app") for p in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever in it; type-checking imports too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_directions(path):
    where = path.relative_to(ROOT)
    for name in imports(path):
        top, *rest = name.split(".")
        if top in ONLY_IN:
            allowed = ONLY_IN[top]
            assert any(str(where).startswith(room) for room in allowed), f"{top} may be imported in {allowed} only"
        if where.parts[0] == "diamond_core":
            assert top != "app", "the core does not know the app"
        if top == "diamond_core" and rest and where.parts[0] == "diamond_core" and where.name != "__init__.py":
            mine, theirs = where.parts[1].removesuffix(".py"), rest[0]
            assert mine == theirs or LEVELS[theirs] < LEVELS[mine], f"{mine} may not know {theirs}"


def test_a_window_opens_before_torch_is_imported():
    """It takes seconds, in which a person would see nothing."""
    code = "import sys, app.desktop.start; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_shape_of_files(path):
    text = path.read_text()
    assert path.stem not in ATTICS and text.count("\n") <= 400
    tree = ast.parse(text)
    if text.strip():
        assert ast.get_docstring(tree), "a file begins with what it is"
    for f in ast.walk(tree):
        if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef):
            assert f.end_lineno - f.lineno < 60, f"{f.name} is too long"


def test_importing_the_core_pulls_in_no_screen_and_no_server():
    unwanted = ("pygame", "gradio", "fastapi", "matplotlib", "tensorboard", "scipy", "openvino")
    code = f"import sys, diamond_core; print(*[m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == ""


def test_readme_tree_equals_the_disk():
    tree = (ROOT / "README.md").read_text().split("```\ndiamond_core/")[1].split("```")[0]
    named: set[str] = set()
    room, folder = "diamond_core/", ""
    for line in tree.splitlines()[1:]:
        first, *rest = line.replace(":", " ").split()
        if not line.startswith(" "):
            room, folder = first, ""
        elif first.endswith("/"):
            folder = first
        else:
            folder, rest = "", [first, *rest]
        named |= {room + folder + word for word in rest if word.endswith(".py")}
    there = {str(p.relative_to(ROOT)) for p in SOURCES if p.name != "__init__.py"}
    assert {name for name in named if name.split("/")[0] in ("diamond_core", "app")} == there


def test_the_hashes_that_are_told_are_those_of_the_weights():
    folder = Path(__file__).parents[1] / "checkpoints"
    told = (folder / "README.md").read_text()
    for weights in sorted(folder.glob("*/weights.safetensors")):
        line = f"{hashlib.sha256(weights.read_bytes()).hexdigest()}  checkpoints/{weights.parent.name}/{weights.name}\n"
        assert line in told, weights

"""The import rules, and the habits that a linter does not see."""

import ast
import collections
import pathlib
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = sorted(
    path.relative_to(ROOT)
    for package in ("rbig_nnx", "trainers")
    for path in (ROOT / package).rglob("*.py")
)
# A folder's rank: imports only go to a lower one.
RANKS = {
    "rbig_nnx.math": 0,
    "rbig_nnx.bijectors": 1,
    "rbig_nnx.fit": 1,
    "rbig_nnx.nn": 2,
    "rbig_nnx.fit_layers": 3,
    "rbig_nnx.targets": 3,
    "rbig_nnx.report": 3,
    "rbig_nnx.fit_flow": 4,
    "rbig_nnx.warm_start": 5,
    "rbig_nnx.information": 5,
    "rbig_nnx.plot": 5,
    "trainers.config": 6,
    "trainers.moons": 6,
    "trainers.paths": 6,
    "trainers.placement": 7,
    "trainers.tables": 7,
    "trainers.checkpoints": 8,
    "trainers.rows": 8,
    "trainers.run": 9,
    "trainers.trainer": 10,
    "trainers.estimators": 11,
    "trainers.pages": 12,
    "trainers.command": 13,
}


def module_of(path):
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports_of(path):
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(module):
    """The longest prefix of the module that has a rank."""
    matches = [name for name in RANKS if f"{module}.".startswith(f"{name}.")]
    return max(matches, key=len, default=None)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_point_downward(path):
    layer = layer_of(module_of(path))
    for imported in imports_of(path):
        target = layer_of(imported)
        if layer and target and target != layer:
            assert RANKS[target] < RANKS[layer], f"{path} imports {imported}"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_every_module_is_in_a_layer(path):
    module = module_of(path)
    face = module in ("rbig_nnx", "trainers")
    assert face or layer_of(module), f"{path} has no place"
    words = set(path.stem.split("_"))
    assert not words & {"utils", "helpers", "misc", "common", "old", "new"}


def test_a_folder_and_a_file_can_be_read_in_one_sitting():
    others = (p.relative_to(ROOT) for p in (ROOT / "benchmarks").rglob("*.py"))
    sources = [*SOURCES, *others]
    folders = collections.Counter(path.parent for path in sources)
    assert max(folders.values()) <= 12, folders.most_common(2)  # __init__.py counts
    for path in sources:
        length = len((ROOT / path).read_text().splitlines())
        assert length <= 350, f"{path} has {length} lines"


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("rbig_nnx/math", {"flax", "distrax", "optax", "sklearn", "rbig_nnx.nn"}),
        ("rbig_nnx/fit", {"flax", "distrax", "optax"}),
        ("rbig_nnx", {"optax", "orbax", "clu", "tyro", "trainers"}),
        ("trainers", {"tensorflow", "clu.metric_writers", "clu.periodic_actions"}),
    ],
)
def test_forbidden_packages(folder, forbidden):
    for path in SOURCES:
        if path.is_relative_to(folder):
            for imported in imports_of(path):
                found = [f for f in forbidden if f"{imported}.".startswith(f"{f}.")]
                assert not found, f"{path} imports {imported}"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_extras_are_imported_inside_functions(path):
    """A missing extra must not break an import."""
    extras = {"matplotlib", "pyarrow", "tensorboardX"}
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None), *(a.name for a in node.names)]
            assert not {str(n).partition(".")[0] for n in names} & extras


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def bounds_of(*extras):
    """What we depend on, and what these extras do."""
    from packaging.requirements import Requirement

    lists = [project()["optional-dependencies"][name] for name in extras]
    lines = [line for part in (project()["dependencies"], *lists) for line in part]
    return [bound for bound in map(Requirement, lines) if bound.name != "rbig-nnx"]


def pins(lock):
    lines = (ROOT / "constraints" / f"{lock}.txt").read_text().split()
    pinned = dict(line.lower().replace("_", "-").split("==") for line in lines)
    return lambda bound: pinned[bound.name.lower().replace("_", "-")]


def test_every_bound_has_a_reason_and_every_lock_satisfies_it():
    text = (ROOT / "pyproject.toml").read_text().splitlines()
    bounds = bounds_of(*project()["optional-dependencies"])
    assert len(bounds) > 15
    for bound in bounds:
        (line,) = [t for t in text if f'"{bound}"' in t]
        assert "#" in line, f"{bound} needs a comment"
    for lock in ("py311", "py313", "lowest"):
        pinned = pins(lock)
        for bound in bounds:
            version = pinned(bound)
            assert bound.specifier.contains(version, prereleases=True), (lock, bound)


def test_what_is_installed_at_its_lowest_is_pinned_at_its_bound():
    from packaging.version import Version

    ours = {*project()["optional-dependencies"]} - {
        "docs",
        "bench",
        "tpu",
        "test",
        "dev",
    }
    bounds, pinned = bounds_of(*ours), pins("lowest")
    assert len(bounds) > 25
    for bound in bounds:
        (least,) = (Version(s.version).release for s in bound.specifier)
        assert Version(pinned(bound)).release[: len(least)] == least, bound

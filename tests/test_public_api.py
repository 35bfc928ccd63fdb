"""The public names are a promise: adding one is a decision, losing one breaks people."""

import inspect
import pathlib
import re
import subprocess
import sys

import pytest

import rbig_nnx as rn
import trainers

LIBRARY = {
    "ClusterTransform", "Conditioner", "Frozen", "GaussianizationFlow",
    "HouseholderRotation", "LayerReport",
    "MixtureCDFCoupling", "MixtureCDFMarginal", "MixtureParams", "ScannedBlocks",
    "RadialTransform", "Standardize", "TailTransform", "WarmStartReport", "Whiten", "bijectors",
    "coupling_flow", "diagonal_flow", "from_config", "information", "keep_activations",
    "output_kernel_magnitudes", "register_layer", "stack_blocks", "to_config",
    "unstack_blocks", "warm_start", "widen",
}  # fmt: skip
TRAINERS = {
    "CheckpointError", "FitResult", "FlowDensity", "FlowOutlierDetector", "RowFiles", "Schema",
    "TrainConfig", "Trainer", "fit",
    "load_flow", "report", "restore", "save",
}  # fmt: skip
BIJECTORS = {
    "ClusterGaussianization", "Coupling", "Householder", "Linear", "MixtureGaussianization",
    "RadialGaussianization", "TailGaussianization",
}  # fmt: skip
INFORMATION = {
    "conditional_mutual_information", "entropy", "kl_divergence", "mutual_information",
    "negentropy", "total_correlation",
}  # fmt: skip
FLOW_METHODS = {
    "bijector", "distribution", "forward_and_log_det", "inverse_and_log_det", "log_prob",
    "sample", "sample_and_log_prob",
}  # fmt: skip

# What a stranger's environment may lack, or would wait for.
HEAVY = ("orbax", "clu", "sklearn", "tensorflow", "matplotlib", "tensorboardX", "tyro")


def exported(module):
    """The names that a module's file imports from its own package."""
    package = module.__name__.partition(".")[0]
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (getattr(value, "__module__", None) or getattr(value, "__name__", ""))
        .partition(".")[0] == package
    }  # fmt: skip


def offered(module):
    """What a module says that it has: where names come late, its `__all__`."""
    return set(getattr(module, "__all__", ())) or exported(module)


def submodules(module):
    prefix = f"{module.__name__}."
    return {
        name.removeprefix(prefix).partition(".")[0]
        for name in sys.modules
        if name.startswith(prefix)
    }


@pytest.mark.parametrize(
    ("module", "names"),
    [(rn, LIBRARY), (trainers, TRAINERS), (rn.bijectors, BIJECTORS)],
    ids=["rbig_nnx", "trainers", "rbig_nnx.bijectors"],
)
def test_names_are_the_promised_ones(module, names):
    assert names <= offered(module)
    assert offered(module) - submodules(module) <= names
    assert names <= set(dir(module))


@pytest.mark.parametrize(
    ("owner", "name"),
    [(rn, n) for n in sorted(LIBRARY)]
    + [(trainers, n) for n in sorted(TRAINERS)]
    + [(rn.bijectors, n) for n in sorted(BIJECTORS)]
    + [(rn.information, n) for n in sorted(INFORMATION)]
    + [(rn.GaussianizationFlow, n) for n in sorted(FLOW_METHODS)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_name_has_a_docstring_of_its_own(owner, name):
    value = getattr(owner, name)
    doc = value.__doc__
    assert doc
    assert doc.strip()
    # Methods are in the example of their class; two names have theirs beside them in
    # docs/reference/training.md.
    elsewhere = {"trainers.fit", "trainers.Trainer"}
    if inspect.ismodule(owner) and f"{owner.__name__}.{name}" not in elsewhere:
        assert ">>>" in doc
    if inspect.isclass(value):
        # What dataclasses and named tuples write by themselves says nothing.
        assert not doc.startswith(f"{name}(")


def test_reference_shows_every_name():
    folder = pathlib.Path(__file__).parents[1] / "docs" / "reference"
    shown = re.findall(r"^::: ([\w.]+)", "".join(map(_text, folder.glob("*.md"))), re.M)
    last = [name.rpartition(".")[2] for name in shown]
    for names in (LIBRARY, TRAINERS, BIJECTORS, INFORMATION):
        assert names <= set(last)


def _text(path):
    return path.read_text()


def parameters(function):
    return inspect.signature(function).parameters


def keyword_only(function):
    return {
        name
        for name, parameter in parameters(function).items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def test_signatures():
    for build in (rn.coupling_flow, rn.diagonal_flow):
        assert list(parameters(build))[:2] == ["num_features", "num_blocks"]
        assert list(parameters(build))[-1] == "rngs"
        assert {"num_components", "family", "rngs"} <= keyword_only(build)
    assert parameters(rn.coupling_flow)["num_components"].default == 8
    assert parameters(rn.coupling_flow)["hidden"].default == (64, 64)
    assert {
        "num_reflections",
        "context_features",
        "dtype",
        "param_dtype",
    } <= keyword_only(rn.coupling_flow)
    assert list(parameters(rn.warm_start))[:2] == ["model", "x"]
    assert {"key", "context", "rotation"} <= keyword_only(rn.warm_start)
    assert list(parameters(trainers.fit))[1:3] == ["x_train", "x_valid"]
    assert {"context", "config", "mesh", "workdir"} <= keyword_only(trainers.fit)
    for method in ("log_prob", "bijector", "distribution"):
        default = parameters(getattr(rn.GaussianizationFlow, method))["context"].default
        assert default is None
    for method in ("sample", "sample_and_log_prob"):
        names = list(parameters(getattr(rn.GaussianizationFlow, method)))
        assert names == ["self", "key", "shape", "context"]


def imported_by(statement, before="jax, flax.nnx, distrax, sys"):
    code = (
        f"import {before}\n"
        "import sys\n"
        "sys.modules['pandas'] = None\n"  # scikit-learn would import it, if installed
        "before = set(sys.modules)\n"
        f"{statement}\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        check=True,
        capture_output=True,
        text=True,
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_the_library_brings_no_training_stack():
    # Flax itself imports Optax and rich; nothing of ours adds to that.
    brought = imported_by("import rbig_nnx")
    assert "rbig_nnx" in brought
    assert not brought & {*HEAVY, "optax", "rich", "trainers"}


def test_importing_the_trainers_needs_no_extra():
    names = ", ".join(sorted(TRAINERS))
    brought = imported_by(f"from trainers import {names}\nimport trainers.run.writers")
    assert "orbax" in brought
    assert not brought & {"tensorflow", "tensorboard", "matplotlib", "tensorboardX"}
    assert not brought & {"pyarrow"}


def test_a_name_of_the_trainers_brings_what_it_needs():
    nothing = imported_by("import trainers", before="sys")
    assert not nothing & {*HEAVY, "jax", "flax", "distrax", "rbig_nnx", "pyarrow"}
    settings = imported_by("from trainers import TrainConfig", before="sys")
    assert not settings & {*HEAVY, "jax"}
    assert not imported_by("from trainers import save") & {"sklearn", "tyro"}
    command = imported_by("import trainers.command.cli", before="sys")
    assert not command & ({*HEAVY, "jax", "pyarrow", "pandas"} - {"tyro"})

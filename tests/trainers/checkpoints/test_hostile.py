"""Whatever a meta file says, signed or not: a model, or one error that names the file."""

import copy
import functools
import json
import math
import operator
import os
import random

import jax
import pytest
from flax import nnx

import rbig_nnx as rn
from trainers import CheckpointError, load_flow, save
from trainers.checkpoints.format import json_checksum
from trainers.checkpoints.meta import declared
from trainers.checkpoints.variables import arrays_of

ODD = [None, True, -1, 0, 2**20, 2**63, 10**30, 1e308, math.nan, -0.5, ""]
ODD += [
    "__class__",
    "jit",
    "../../x",
    "x" * 9999,
    [],
    {},
    [[]],
    [-1],
    {"a": 1},
    "object",
]
ROOTS = [("config",), ("config", "layers"), ("arrays",), ()]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    flow = rn.coupling_flow(2, 1, num_components=2, hidden=(4,), rngs=nnx.Rngs(0))
    path = tmp_path_factory.mktemp("saved") / "flow"
    save(path, flow)
    file = path / "0" / "meta" / "metadata"
    return path, file, json.loads(file.read_text())


@pytest.fixture
def load(saved):
    """Loads the flow with another text for its meta file."""
    path, file, good = saved

    def with_text(text):
        file.write_text(text)
        return load_flow(path)

    yield with_text
    file.unlink()
    file.write_text(json.dumps(good))


def signed(meta):
    meta = {key: value for key, value in meta.items() if key != "checksum"}
    return json.dumps(meta | {"checksum": json_checksum(meta)})


def places(tree, at=()):
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in pairs if isinstance(tree, dict | list) else ():
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from places(value, (*at, key))


def mutated(meta, draw, root):
    """A signed meta file with one value below `root` gone or odd."""
    meta, new = copy.deepcopy(meta), draw.choice(ODD)
    *path, key = draw.choice([p for p in places(meta) if p[: len(root)] == root])
    parent = functools.reduce(operator.getitem, path, meta)
    if draw.random() < 0.25:
        del parent[key]
    else:
        parent[key] = new
    return signed(meta)


@pytest.mark.parametrize("number", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutations_load_as_the_same_map_or_are_named(saved, load, number):
    path, _, good = saved
    wanted = arrays_of(load(signed(good)))
    draw, read, told = random.Random(number), {}, []
    for i in range(number):
        text = mutated(good, draw, ROOTS[i % len(ROOTS)])
        try:
            read[text] = arrays_of(load(text))
        except CheckpointError as error:
            told.append(str(error))
    assert all(str(path) in line and line.isprintable() for line in told)
    assert 0 < len(read) < number / 2
    for found in read.values():
        assert all((found[name] == wanted[name]).all() for name in wanted)


def with_layer(good, number, **changed):
    meta = copy.deepcopy(good)
    meta["config"]["layers"][number] |= changed
    return signed(meta)


@pytest.mark.parametrize(
    ("number", "changed"),
    [
        (2, {"hidden": [2**31]}),
        (2, {"hidden": [2**45]}),
        (2, {"num_components": 2**31}),
        (1, {"num_reflections": 2**31}),
        (0, {"num_features": 2**31}),
        (0, {"type": "ScannedBlocks", "num_blocks": 10**9, "layers": []}),
        (2, {"activation": "jit"}),
        (2, {"activation": "__class__"}),
        (2, {"activation": "initializers"}),
        (2, {"activation": ["relu"]}),
        (0, {"type": "os.system"}),
        (0, {"type": []}),
    ],
)
def test_numbers_and_names_are_looked_at_before_anything_is_built(
    saved, load, number, changed
):
    with pytest.raises(CheckpointError, match="flow"):
        load(with_layer(saved[2], number, **changed))


def test_no_attribute_is_fetched_by_a_name_in_a_file(saved, load, monkeypatch):
    called = []
    monkeypatch.setattr(jax.nn, "trap", called.append, raising=False)
    with pytest.raises(CheckpointError, match=r"`activation` must be one of .*'trap'"):
        load(with_layer(saved[2], 2, activation="trap"))
    assert not called


@pytest.mark.parametrize("shape", [[2**31], [2**45], [2**62, 2**62], [-2], [2.0], 2])
def test_no_shape_in_a_file_takes_memory(saved, load, shape):
    meta = copy.deepcopy(saved[2])
    meta["arrays"]["model.layers.0.mean"]["shape"] = shape
    with pytest.raises(CheckpointError, match="flow"):
        load(signed(meta))


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../b", "a\\..\\b", "", "a\x1b[2J", "x" * 9999]
)
def test_no_name_leads_out_of_the_folder(saved, load, name):
    meta = copy.deepcopy(saved[2])
    meta["arrays"][name] = meta["arrays"].pop("model.layers.0.mean")
    with pytest.raises(CheckpointError, match="flow") as caught:
        load(signed(meta))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "dtype", ["object", "V8", "S4", "f4,f4", "f4", "datetime64[s]"]
)
def test_types_are_those_of_numbers(dtype):
    assert not declared.is_numeric(dtype)


def test_all_types_of_numbers_are_known():
    for dtype in ("bool", "int4", "uint32", "bfloat16", "float8_e4m3fn", "complex64"):
        assert declared.is_numeric(dtype)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "NaN",
        "[1]",
        "[" * 10**5,
        '{"format":' * 10**5,
        f'{{"a":{"9" * 5000}}}',
        '{"format":"a","format":"rbig-nnx"}',
        '{"format":"\\ud800"}',
        '{"format":"rbig-nnx","format_version":"\\u001b[2J"}',
    ],
    ids=range(10),
)
def test_any_text_is_refused(load, text):
    with pytest.raises(CheckpointError, match="flow") as caught:
        load(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("target", ["/etc/passwd", "/dev/null", "metadata", "none"])
def test_links_are_not_followed(saved, load, target):
    path, file, good = saved
    file.unlink()
    file.symlink_to(target)
    with pytest.raises(CheckpointError, match="link"):
        load_flow(path)
    file.unlink()
    file.write_text(signed(good))
    (path / "0" / "arrays" / "aside").symlink_to(target)
    try:
        with pytest.raises(CheckpointError, match=r"arrays.aside is a link"):
            load_flow(path)
    finally:
        (path / "0" / "arrays" / "aside").unlink()


def test_a_pipe_is_not_waited_for(saved, load):
    path, file, _ = saved
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(CheckpointError, match="is no file"):
        load_flow(path)


def test_stacks_have_a_depth(saved, load):
    meta = copy.deepcopy(saved[2])
    layer = meta["config"]["layers"][0]
    for _ in range(150):
        layer = {"type": "ScannedBlocks", "num_blocks": 1, "layers": [layer]}
    meta["config"]["layers"] = [layer]
    with pytest.raises(CheckpointError, match="more than 4 deep"):
        load(signed(meta))

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from trainers import CheckpointError, Schema, TrainConfig, fit
from trainers.rows.files import RowFiles
from trainers.rows.sources import IteratorRows, as_source, in_memory

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def table(n=1_000, d=2):
    """Rows that carry their number in the first column."""
    x = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    x[:, 0] = np.arange(n)
    return x


@pytest.fixture(params=["npy", "parquet", "memmap"])
def rows(request, tmp_path):
    x = table()
    if request.param == "parquet":
        path = tmp_path / "x.parquet"
        columns = pa.table({f"x{j}": x[:, j] for j in range(x.shape[1])})
        parquet.write_table(columns, path, row_group_size=130)
        return path
    np.save(tmp_path / "x.npy", x)
    path = tmp_path / "x.npy"
    return np.load(path, mmap_mode="r") if request.param == "memmap" else path


def source_of(rows, seed=0):
    return RowFiles(rows, seed=seed, window_bytes=2_000)  # 250 rows


def test_an_epoch_visits_every_row_once(rows):
    source = source_of(rows)
    assert (source.num_rows, source.num_features) == (1_000, 2)
    seen = source.batches(0, 1_000, 1)[..., 0].ravel()
    np.testing.assert_array_equal(np.sort(seen), np.arange(1_000))
    assert np.mean(np.abs(np.diff(seen)) == 1) < 0.05
    second = source.batches(1_000, 1_000, 1)[..., 0].ravel()
    np.testing.assert_array_equal(np.sort(second), np.arange(1_000))
    assert np.any(second != seen)
    # Whole batches: what a window has left over waits for the next epoch.
    batches = source.batches(0, 25, 32)[..., 0].ravel()
    assert len(set(batches)) == batches.size


def test_batches_are_those_of_the_step_whenever_they_are_asked_for(rows):
    straight = source_of(rows)
    one_by_one = [straight.batches(step, 1, 32)[0] for step in range(70)]
    jumped = source_of(rows)
    for step in (69, 0, 33, 34):
        np.testing.assert_array_equal(
            jumped.batches(step, 1, 32)[0], one_by_one[step], err_msg=str(step)
        )
    assert np.any(source_of(rows, seed=1).batches(0, 1, 32)[0] != one_by_one[0])


def test_sample_is_of_the_rows_and_spread_over_them(rows):
    sample = source_of(rows).sample(200, seed=0)
    assert sample.shape == (200, 2)
    assert len(set(sample[:, 0])) == 200
    assert np.ptp(sample[:, 0]) > 700


def test_a_file_trains_to_what_its_rows_in_memory_train_to(tmp_path):
    x = np.random.default_rng(0).normal(2, 3, size=(4_000, 2)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    flow = rn.diagonal_flow(2, 1, num_components=2, rngs=nnx.Rngs(0))
    config = TrainConfig(
        num_steps=200, batch_size=256, learning_rate=3e-2, eval_every=100
    )
    in_memory = fit(flow, x, config=config)
    streamed = fit(flow, tmp_path / "x.npy", config=config)
    assert streamed.history["train"][-1] > streamed.history["train"][0] + 1
    np.testing.assert_allclose(
        streamed.history["train"][-1], in_memory.history["train"][-1], atol=0.05
    )


class Counter:
    """A checkpointable iterator, its state bytes as Grain's."""

    def __init__(self, size=64):
        self._at, self._size = 0, size

    def __next__(self):
        self._at += 1
        random = np.random.default_rng(self._at)
        return random.normal(size=(self._size, 2)).astype(np.float32)

    def get_state(self):
        return json.dumps(self._at).encode()

    def set_state(self, state):
        self._at = json.loads(state)


def test_a_part_of_a_memory_map_is_that_part(tmp_path):
    x = table()
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert isinstance(as_source(mapped, seed=0), RowFiles)
    for part in (mapped[:100], mapped[::2], mapped[:, :1], mapped[::-1], mapped + 1):
        assert as_source(part, seed=0) is None
    assert as_source(mapped.astype(np.float64), seed=0) is None


@pytest.mark.slow
def test_another_file_is_another_run(tmp_path):
    flow = rn.diagonal_flow(2, 1, num_components=2, rngs=nnx.Rngs(0))
    config = TrainConfig(num_steps=4, batch_size=64, eval_every=2, eval_rows=64)
    x = np.random.default_rng(0).normal(size=(1_000, 2))
    np.save(tmp_path / "x.npy", x)
    options = {"config": config, "workdir": tmp_path / "run", "progress": False}
    fit(flow, tmp_path / "x.npy", **options)
    x[731, 1] += 1e-9
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(CheckpointError, match="the content of `x_train`"):
        fit(flow, tmp_path / "x.npy", **options)


def test_a_file_of_coarse_columns_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(1e7, size=(1_000, 2)))
    flow = rn.diagonal_flow(2, 1, num_components=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"column of `x_train` must vary .* 0, 1"):
        fit(flow, tmp_path / "x.npy")


def test_an_iterator_goes_back_after_a_sample_and_to_a_saved_state():
    source = as_source(Counter(), seed=0)
    assert isinstance(source, IteratorRows)
    sample = source.sample(100, seed=0)
    assert sample.shape == (100, 2)
    first = source.batches(0, 2, 64)
    np.testing.assert_array_equal(first.reshape(-1, 2)[:100], sample)
    state = json.loads(json.dumps(source.get_state()))
    then = source.batches(2, 1, 64)
    source.batches(3, 5, 64)
    source.set_state(state)
    np.testing.assert_array_equal(source.batches(2, 1, 64), then)


@pytest.mark.slow
def test_an_iterator_resumes_with_the_run(tmp_path):
    flow = rn.diagonal_flow(2, 1, num_components=2, rngs=nnx.Rngs(0))
    config = TrainConfig(
        num_steps=40, batch_size=64, eval_every=10, checkpoint_every=10, eval_rows=64
    )
    whole = fit(flow, Counter(), config=config)

    class Stop(Exception):
        pass

    def stop(step, model):
        del model
        if step == 30:
            raise Stop

    with pytest.raises(Stop):
        fit(flow, Counter(), config=config, workdir=tmp_path, callback=stop)
    again = fit(flow, Counter(), config=config, workdir=tmp_path)
    np.testing.assert_array_equal(again.history["train"], whole.history["train"])


@pytest.mark.slow
def test_an_iterator_of_grain_trains_and_goes_back():
    grain = pytest.importorskip("grain")
    x = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    rows = grain.MapDataset.source(x).shuffle(seed=0).repeat().batch(50)
    source = as_source(iter(rows.to_iter_dataset()), seed=0)
    first = source.batches(0, 2, 50)
    assert first.shape == (2, 50, 2)
    state = json.loads(json.dumps(source.get_state()))
    then = source.batches(2, 2, 50)
    source.set_state(state)
    np.testing.assert_array_equal(source.batches(2, 2, 50), then)
    index = grain.samplers.IndexSampler(500, grain.sharding.NoSharding(), seed=0)
    batched = [grain.transforms.Batch(50)]
    loader = grain.DataLoader(data_source=x, sampler=index, operations=batched)
    for kind in (rows, rows.to_iter_dataset(), loader):
        source = as_source(kind, seed=0)
        source.batches(0, 2, 50)
        state = json.loads(json.dumps(source.get_state()))
        then = source.batches(2, 2, 50)
        again = as_source(kind, seed=0)
        again.set_state(state)
        np.testing.assert_array_equal(again.batches(2, 2, 50), then)
    flow = rn.diagonal_flow(2, 1, num_components=2, rngs=nnx.Rngs(0))
    config = TrainConfig(num_steps=4, batch_size=50, eval_every=2, eval_rows=100)
    result = fit(flow, rows, config=config, progress=False)
    assert np.isfinite(result.history["train"]).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "none.npy", "is not there"),
        (lambda p: p / "x.txt", r"\.npy or \.parquet"),
        (lambda p: p / "words.parquet", r"columns of numbers; \['word'\]"),
        (lambda p: p / "cube.npy", r"got shape \(2, 2, 2\)"),
    ],
)
def test_bad_files_are_refused(tmp_path, make, message):
    (tmp_path / "x.txt").write_text("1 2")
    parquet.write_table(pa.table({"word": ["a"]}), tmp_path / "words.parquet")
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match=message):
        RowFiles(make(tmp_path))


def test_the_row_that_is_not_finite_is_named(tmp_path):
    x = table()
    x[617, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    source = source_of(tmp_path / "x.npy")
    with pytest.raises(ValueError, match="the first is row 617"):
        source.batches(0, 100, 10)


def test_the_order_of_a_file_has_no_strata(tmp_path):
    np.save(tmp_path / "x.npy", table())
    flow = rn.coupling_flow(2, 1, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="`strata` must be 1 where `x_train` is read"):
        fit(flow, tmp_path / "x.npy", config=TrainConfig(strata=2))


def test_batches_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"`batch_size`=32 rows; got \[64\]"):
        IteratorRows(Counter()).batches(0, 1, 32)


TRAIN = """
import pathlib, sys
from flax import nnx
import rbig_nnx as rn
from trainers import CheckpointError, Schema, TrainConfig, fit

flow = rn.diagonal_flow(4, 1, num_components=2, rngs=nnx.Rngs(0))
config = TrainConfig(num_steps=6_000, batch_size=4_096, eval_every=3_000)
fit(flow, sys.argv[1], config=config)
# Not `ru_maxrss`: a child's begins with the memory of the process that started it.
status = pathlib.Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


def peak_megabytes(path):
    root = pathlib.Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    return int(done.stdout.split()[-1])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
    random = np.random.default_rng(0)
    block = random.normal(size=(1_000_000, 4)).astype(np.float32)
    np.save(tmp_path / "small.npy", block[:200_000])
    large = np.lib.format.open_memmap(
        tmp_path / "large.npy", "w+", np.float32, (100_000_000, 4)
    )  # 1.6 GB; 24 million rows of it are read
    for start in range(0, len(large), len(block)):
        large[start : start + len(block)] = block
    large.flush()
    del large
    group = pa.table({f"x{j}": block[:, j].copy() for j in range(4)})
    for name, groups in (("small", 1), ("large", 40)):  # 16 and 640 MB
        with parquet.ParquetWriter(
            tmp_path / f"{name}.parquet", group.schema
        ) as writer:
            for _ in range(groups):
                writer.write_table(group)
    for form in ("npy", "parquet"):
        small = peak_megabytes(tmp_path / f"small.{form}")
        peak = peak_megabytes(tmp_path / f"large.{form}")
        assert peak < small + 400, f"{form}: {peak} MB, {small} MB for a small file"


def several(tmp_path, sizes=(300, 50, 650)):
    """The rows of `table` in files of these sizes; their pattern."""
    ends = np.cumsum(sizes)[:-1]
    for number, rows in enumerate(np.split(table(), ends)):
        np.save(tmp_path / f"part-{number}.npy", rows)
    return f"{tmp_path}/part-*.npy"


def test_several_files_are_one_table(tmp_path):
    pattern = several(tmp_path)
    source = as_source(pattern, seed=0)
    assert (source.num_rows, source.note) == (1_000, None)
    seen = source.batches(0, 100, 10)[..., 0].ravel()
    np.testing.assert_array_equal(np.sort(seen), np.arange(1_000))
    listed = as_source(sorted(tmp_path.glob("part-*")), seed=0)
    np.testing.assert_array_equal(listed.batches(0, 100, 10)[..., 0].ravel(), seen)
    np.testing.assert_array_equal(in_memory(pattern), table())
    x = np.load(tmp_path / "part-1.npy")
    x[7] = np.nan
    np.save(tmp_path / "part-1.npy", x)
    with pytest.raises(ValueError, match=r"part-1.npy` must .* the first is row 7 "):
        as_source(pattern, seed=0).batches(0, 1, 10)


def test_files_have_the_same_columns(tmp_path):
    pattern = several(tmp_path)
    np.save(tmp_path / "part-1.npy", np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"part-1.npy x0, x1, x2.*`columns`"):
        as_source(pattern, seed=0)
    assert RowFiles(pattern, columns=["x1", "x0"]).num_rows == 955
    for number, names in enumerate((["a", "b"], ["b", "a"])):
        rows = {name: [float(ord(name))] * 20 for name in names}
        parquet.write_table(pa.table(rows), tmp_path / f"{number}.parquet")
    rows = RowFiles(f"{tmp_path}/*.parquet").batches(0, 1, 40)[0]
    np.testing.assert_array_equal(rows, [[97, 98]] * 40)


def test_columns_and_content_make_another_run(tmp_path):
    pattern = several(tmp_path)

    def digest(**options):
        return RowFiles(pattern, **options).digest(lambda file: file.name)

    assert digest() == digest()
    assert len({digest(), digest(columns="x0"), digest(drop="x0")}) == 3


def test_a_schema_encodes_the_rows_of_files(tmp_path):
    random = np.random.default_rng(0)
    tables = [
        pa.table({"t": 1.7e9 + random.normal(size=200), "n": random.poisson(3, 200)})
        for _ in range(2)
    ]
    for number, part in enumerate(tables):
        parquet.write_table(part, tmp_path / f"{number}.parquet", row_group_size=60)
    whole = pa.concat_tables(tables)
    schema = Schema.of(whole)
    rows = RowFiles(f"{tmp_path}/*.parquet", schema=schema).batches(0, 1, 400)[0]
    found = schema.decode_frame(rows)
    for name in ("t", "n"):
        want = np.sort(whole[name].to_numpy())
        np.testing.assert_allclose(np.sort(found[name].values), want, rtol=1e-12)
    with pytest.raises(ValueError, match="`columns` and `drop` must be left out"):
        RowFiles(f"{tmp_path}/*.parquet", schema=schema, columns="t")


def test_an_iterator_that_ends_or_gives_rows_says_so():
    rows = iter([*[np.zeros((4, 2))] * 3, np.zeros(2)])

    class Ends(Counter):
        def __next__(self):
            return next(rows)

    with pytest.raises(ValueError, match=r"must give batches, .* shape \(2,\)"):
        IteratorRows(Ends()).batches(0, 4, 4)
    with pytest.raises(ValueError, match=r"it ended after 4. Repeat it without end"):
        IteratorRows(Ends()).batches(4, 1, 4)

"""What `examples/score_cluster.py` writes, by workers in this process and in others."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import time

import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.test_examples import load
from trainers import Schema
from trainers.estimators.table_flow import TableFlow

pa = pytest.importorskip("pyarrow")
distributed = pytest.importorskip("distributed")
pq = pytest.importorskip("pyarrow.parquet")

LOCAL = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}


@pytest.fixture(scope="module")
def example():
    return load("score_cluster")


@pytest.fixture(scope="module")
def scheduler():
    """The address of two workers that are threads of this process."""
    with distributed.Client(processes=False, **LOCAL) as client:
        yield client.scheduler.address


def table_of(num_rows, seed=0):
    rng = np.random.default_rng(seed)
    words = rng.choice(["low", "mid", "high"], num_rows)
    return pa.table({"a": rng.normal(size=num_rows), "word": words})


def flow_of(num_features, **options):
    rngs, options = nnx.Rngs(0), {"hidden": (8,), "num_components": 2} | options
    return rn.coupling_flow(num_features, 1, rngs=rngs, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("fitted") / "run"
    TableFlow(flow_of(2), Schema.of(table_of(300)), num_draws=2).save(path)
    return str(path)


def dataset(folder, sizes=(5, 0, 9)):
    """Files of these sizes, some in a folder below, and what no reader would take."""
    folder = pathlib.Path(folder)
    (folder / "more").mkdir(parents=True)
    first = 0
    for i, size in enumerate(sizes):
        table = table_of(size, seed=i)
        table = table.append_column("id", [np.arange(first, first + size)])
        lists = pa.array([[1.0]] * size, pa.list_(pa.float64()))
        table = table.append_column("lists", lists)
        place = folder / "more" if i else folder
        pq.write_table(
            table.replace_schema_metadata({"by": "me"}), place / f"{i}.parquet"
        )
        first += size
    (folder / "_SUCCESS").touch()
    (folder / ".0.parquet").touch()
    return folder


def written(folder):
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )


FILES = ["0.parquet", "more/1.parquet", "more/2.parquet"]


def test_every_row_comes_out_once_with_its_score(example, scheduler, run, tmp_path):
    rows = dataset(tmp_path / "rows")
    path = rows / "more" / "2.parquet"
    table = pq.read_table(path)
    values = table["a"].to_pylist()
    values[3], values[4] = None, float("inf")
    words = table["word"].to_pylist()
    words[5] = "unheard"
    table = table.set_column(0, "a", [values]).set_column(1, "word", [words])
    pq.write_table(table, path)
    out = tmp_path / "scores"
    count = example.score(run, str(rows), str(out), scheduler=scheduler)
    assert count == {"rows": 14, "empty": 2}
    assert written(out) == FILES
    density = TableFlow.load(run)
    for name in FILES:
        before, after = pq.read_table(rows / name), pq.read_table(out / name)
        assert after.drop_columns("log_prob").equals(before)
        if name == FILES[2]:
            assert after["log_prob"].to_pylist()[3:5] == [None, None]
            assert after["log_prob"][5].as_py() == -np.inf
            after = after.take([0, 1, 2, 6, 7, 8])
        wanted = density.log_prob(after.select(["a", "word"]))
        np.testing.assert_allclose(after["log_prob"].to_numpy(), wanted, rtol=1e-6)
    about = pq.read_schema(out / "0.parquet").metadata
    assert about[b"by"] == b"me"
    assert about[b"rbig_nnx"].startswith(b"log p by ")


def test_the_same_line_does_what_is_left(example, scheduler, run, tmp_path):
    rows, out = dataset(tmp_path / "rows"), tmp_path / "scores"
    line = {"run": run, "data": str(rows), "out": str(out), "scheduler": scheduler}
    assert example.score(**line)["rows"] == 14
    (out / "more" / ".1.parquet.Worker-dead.unfinished").write_text("half")
    times = {name: (out / name).stat().st_mtime_ns for name in FILES}
    (out / FILES[2]).unlink()
    assert example.score(**line) == {"rows": 9}
    assert written(out) == FILES  # what the dead left is gone
    for name in FILES[:2]:
        assert (out / name).stat().st_mtime_ns == times[name]
    other = tmp_path / "other"
    flow = flow_of(2, num_components=3)
    TableFlow(flow, Schema.of(table_of(300)), num_draws=2).save(other)
    with pytest.raises(
        ValueError, match=r"OUT must be new or hold log p by \w+; 0.parquet"
    ):
        example.score(**line | {"run": str(other)})


def test_what_the_fit_took_for_missing_has_no_score(example, scheduler, run, tmp_path):
    fitted = shutil.copytree(run, tmp_path / "run")
    settings = {"settings": {"--na": ["mid", "-9"]}}
    (fitted / "report.json").write_text(json.dumps(settings))
    rows = table_of(4).set_column(1, "word", [["low", "mid", "high", "low"]])
    rows = rows.set_column(0, "a", [[1.0, 2.0, -9.0, 3.0]])
    pq.write_table(rows, tmp_path / "rows.parquet")
    line = (str(fitted), str(tmp_path / "rows.parquet"), str(tmp_path / "out"))
    assert example.score(*line, scheduler=scheduler) == {"rows": 4, "empty": 2}
    scores = pq.read_table(tmp_path / "out" / "rows.parquet")["log_prob"]
    assert scores.is_null().to_pylist() == [False, True, True, False]


def test_a_bucket_serves_as_well_as_a_disk(example, scheduler, run, tmp_path):
    import fsspec

    rows = dataset(tmp_path / "rows")
    bucket = fsspec.filesystem("memory")
    bucket.put(str(rows), "/rows", recursive=True)
    try:
        line = ("memory://rows", "memory://scores")
        example.score(run, *line, scheduler=scheduler)
        assert sorted(bucket.find("/scores")) == [f"/scores/{name}" for name in FILES]
        assert not example.score(run, *line, scheduler=scheduler)
    finally:
        bucket.store.clear()


def test_a_damaged_file_keeps_no_other_from_its_scores(
    example, scheduler, run, tmp_path
):
    rows, out = dataset(tmp_path / "rows"), tmp_path / "scores"
    whole = (rows / FILES[1]).read_bytes()
    (rows / FILES[1]).write_bytes(whole[:-9])
    line = {"run": run, "data": str(rows), "out": str(out), "scheduler": scheduler}
    with pytest.raises(
        RuntimeError, match=r"1 of 3 files were not written; more/1.parquet"
    ):
        example.score(**line)
    assert written(out) == [FILES[0], FILES[2]]
    (rows / FILES[1]).write_bytes(whole)
    example.score(**line)
    assert written(out) == FILES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.drop_columns("word"),
            r"0.parquet must have .*; \['word'\] are absent",
        ),
        (
            lambda t: t.append_column("log_prob", t["a"]),
            r"must have no column 'log_prob'",
        ),
    ],
)
def test_columns_are_checked_before_any_work(example, run, tmp_path, change, message):
    rows = dataset(tmp_path / "rows")
    pq.write_table(change(pq.read_table(rows / FILES[0])), rows / FILES[0])
    with pytest.raises(ValueError, match=message):
        example.score(run, str(rows), str(tmp_path / "scores"))


def test_folders_that_cannot_be_meant_are_refused(example, run, tmp_path):
    rows = dataset(tmp_path / "rows")
    with pytest.raises(ValueError, match="OUT must lie outside of DATA"):
        example.score(run, str(rows), str(rows / "scores"))
    with pytest.raises(ValueError, match=r"DATA must hold .parquet files"):
        example.score(run, str(tmp_path / "nothing"), str(tmp_path / "scores"))


def test_a_conditional_density_reads_what_is_given(example, scheduler, tmp_path):
    table = table_of(300)
    given = Schema.of(table.select(["word"]), given=True)
    flow = flow_of(1, context_features=given.context(table).shape[1])
    density = TableFlow(flow, Schema.of(table.select(["a"])), given)
    density.save(tmp_path / "run")
    rows = table.slice(0, 4).set_column(1, "word", [["low", "new", None, "high"]])
    pq.write_table(rows, tmp_path / "rows.parquet")
    line = (
        str(tmp_path / "run"),
        str(tmp_path / "rows.parquet"),
        str(tmp_path / "out"),
    )
    assert example.score(*line, scheduler=scheduler) == {"rows": 4, "empty": 2}
    found = pq.read_table(tmp_path / "out" / "rows.parquet")["log_prob"].to_pylist()
    assert found[1:3] == [None, None]
    known = rows.take([0, 3])
    wanted = density.log_prob(known.select(["a"]), known.select(["word"]))
    np.testing.assert_allclose([found[0], found[3]], wanted, rtol=1e-6)
    with pytest.raises(ValueError, match="`context` must be given"):
        example.sample(line[0], str(tmp_path / "drawn"), scheduler=scheduler)


def test_samples_are_the_same_whoever_draws_them(example, scheduler, run, tmp_path):
    options = {"num_files": 3, "rows": 50, "scheduler": scheduler}
    assert example.sample(run, str(tmp_path / "one"), **options) == {"rows": 150}
    example.sample(run, str(tmp_path / "two"), **options)
    one, two = (pq.read_table(tmp_path / name) for name in ("one", "two"))
    assert one.equals(two)
    assert one.column_names == ["a", "word"]
    assert len(one["a"].unique()) == 150  # no file is drawn twice
    with pytest.raises(ValueError, match="OUT must be new or hold 3 × 50 rows, seed 1"):
        example.sample(run, str(tmp_path / "one"), seed=1, **options)


@pytest.mark.slow
def test_a_killed_worker_loses_no_row_and_writes_none_twice(example, tmp_path):
    run, rows, out = (tmp_path / name for name in ("run", "rows", "scores"))
    TableFlow(flow_of(2), Schema.of(table_of(300)), num_draws=32).save(run)
    sizes = [20_000] * 8
    dataset(rows, sizes)
    with (
        distributed.LocalCluster(**LOCAL) as cluster,
        distributed.Client(cluster) as client,
        concurrent.futures.ThreadPoolExecutor(1) as thread,
    ):
        pids = client.run(lambda dask_worker: (dask_worker.id, os.getpid()))
        line = map(str, (run, rows, out))
        address = cluster.scheduler_address
        counting = thread.submit(example.score, *line, scheduler=address)

        def busy():
            """Both workers while they are writing, once two files are whole."""
            names = written(out) if out.is_dir() else []
            done = [name for name in names if name.endswith(".parquet")]
            open_now = [name.split(".")[-2] for name in names if name not in done]
            return open_now if len(open_now) == 2 and 2 <= len(done) <= 4 else []

        while not (found := busy()) and not counting.done():
            time.sleep(0.005)
        os.kill(dict(pids.values())[found[0]], signal.SIGKILL)
        count = counting.result(timeout=900)
    assert count == {"rows": sum(sizes)}
    assert len(written(out)) == len(sizes)
    scores = pq.read_table(out)
    assert sorted(scores["id"].to_pylist()) == list(range(sum(sizes)))
    assert scores["log_prob"].null_count == 0
    assert np.isfinite(scores["log_prob"].to_numpy()).all()

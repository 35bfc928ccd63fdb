"""Scores a Parquet dataset, or draws one, on the machines of a Dask cluster.

A file is a task, and gives a file of the same name with the column `log_prob`, in nats: empty
where a value is missing or infinite or a given one was not in the fit, −∞ where one has no
mass. Other columns pass through. The flow goes to each worker once. A file is written under
another name and then renamed, so that it is whole or not there. What a worker was at when it
died is done by another, and the same line again does what is left: no row is written twice.

Needs the extra `cluster`: pip install "rbig-nnx[cluster]"; gcsfs or s3fs for buckets.
Run it: python examples/score_cluster.py demo                 fits, scores, draws; 90 seconds
        python examples/score_cluster.py score RUN DATA OUT
        python examples/score_cluster.py sample RUN OUT --num-files 100 --rows 1000000
RUN is the folder of `rbig-nnx fit` or `FlowDensity.save`; DATA and OUT are folders that all
machines see, or gs://… and s3://…. Two workers start here; with `--scheduler tcp://HOST:8786`
those do it that `dask scheduler` and `dask worker` started. See docs/guides/scaling.md.
"""

import collections
import hashlib
import json
import pathlib
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated

import fsspec
import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from distributed import Client, WorkerPlugin, as_completed, get_worker
from flax import nnx
from rich.progress import track
from tyro.conf import Positional, arg

import rbig_nnx as rn
from trainers import FlowDensity
from trainers.command.steps.holes import with_missing

SCORE, MARK, UNFINISHED = "log_prob", b"rbig_nnx", ".unfinished"
ROWS = 65_536  # in memory at once
Count = collections.Counter  # of rows, and of those whose score is empty
Run, Data, Out = (
    Annotated[str, Positional, arg(metavar=name)] for name in ("RUN", "DATA", "OUT")
)


def score(
    run: Run,
    data: Data,
    out: Out,
    *,
    scheduler: str | None = None,
    workers: int = 2,
) -> Count:
    """Writes every .parquet file below DATA to the same place below OUT, with log p.

    Args:
      run: folder of a fit.
      data: folder of .parquet files.
      out: folder, new or of the same flow.
      scheduler: address of a cluster; without it workers start on this machine.
      workers: how many.
    """
    density = FlowDensity.load(run).table_
    fs, path = fsspec.url_to_fs(data)
    root = path if fs.isdir(path) else path.rpartition("/")[0]
    names = [name[len(root) + 1 :] for name in sorted(fs.find(path))]
    names = [n for n in names if n.endswith(".parquet") and not is_hidden(n)]
    if not names:
        raise ValueError(f"DATA must hold .parquet files; got {data}.")
    if f"{url_of(out)}/".startswith(f"{url_of(data)}/"):
        raise ValueError(f"OUT must lie outside of DATA; got {out}.")
    with fs.open(f"{root}/{names[0]}", "rb") as file:
        columns_of(density, pq.read_schema(file), names[0])  # before any work
    na = missing_of(run)
    tasks = {name: (fs.unstrip_protocol(f"{root}/{name}"), na) for name in names}
    mark = f"log p by {digest(density)}"
    return on_cluster(score_file, tasks, out, density, mark, scheduler, workers)


def sample(
    run: Run,
    out: Out,
    *,
    num_files: int = 8,
    rows: int = 100_000,
    seed: int = 0,
    scheduler: str | None = None,
    workers: int = 2,
) -> Count:
    """Draws `num_files` .parquet files of so many rows each from a fitted density.

    Args:
      run: folder of a fit.
      out: folder, new or of the same draws.
      num_files: how many.
      rows: of a file.
      seed: the same gives the same rows, on any number of workers.
      scheduler: address of a cluster; without it workers start on this machine.
      workers: how many.
    """
    density = FlowDensity.load(run).table_
    density.sample(1)  # of a conditional density there is none: told before any work
    seeds = np.random.default_rng(seed).choice(2**31, num_files, replace=False)
    tasks = {f"part-{i:06}.parquet": (int(s), rows) for i, s in enumerate(seeds)}
    mark = f"{num_files} × {rows} rows, seed {seed}, of {digest(density)}"
    return on_cluster(sample_file, tasks, out, density, mark, scheduler, workers)


def score_file(
    density, task: tuple[str, Sequence[str]], target: str, mark: str
) -> Count:
    """Writes the rows of one file with their scores; some values count as missing."""
    (source, na), count = task, Count()
    with fsspec.open(source, "rb") as file:
        table = pq.ParquetFile(file)
        names = columns_of(density, table.schema_arrow, source)

        def scored():
            for batch in table.iter_batches(ROWS):
                rows = pa.Table.from_batches([batch])
                log_prob = log_prob_of(density, rows.select(names), na)
                column = pa.array(log_prob, mask=np.isnan(log_prob))
                count.update(rows=len(rows), empty=column.null_count)
                yield rows.append_column(SCORE, column)

        schema = table.schema_arrow.append(pa.field(SCORE, pa.float64()))
        write(target, schema, scored(), mark)
    return count


def sample_file(density, task: tuple[int, int], target: str, mark: str) -> Count:
    """Draws the rows of one file from a seed and their number."""
    seed, rows = task
    frames = density.samples(rows, seed=seed, rows=ROWS)
    tables = (frame.dataframe("pyarrow") for frame in frames)
    first = next(tables)
    write(target, first.schema, (t for part in ([first], tables) for t in part), mark)
    return Count(rows=rows)


def log_prob_of(density, rows: pa.Table, na: Sequence[str]) -> np.ndarray:
    """log p of each row in nats; NaN where there is none."""
    schemas = [s for s in (density.schema, density.given) if s is not None]
    parts = [with_missing(schema.matched(rows), na)[0] for schema in schemas]
    gone = np.any([column.gone for part in parts for column in part.columns], axis=0)
    if density.given is not None:
        whole = np.flatnonzero(~gone)
        gone[whole] = ~density.given.knows(parts[1].take(whole))
    log_prob = np.full(len(rows), np.nan)
    if not gone.all():
        log_prob[~gone] = density.log_prob(*(part.take(~gone) for part in parts))
    return log_prob


def columns_of(density, schema: pa.Schema, name: str) -> list[str]:
    """The columns that the density reads; an error where a file does not have them."""
    schemas = [s for s in (density.schema, density.given) if s is not None]
    names = [column.name for s in schemas for column in s.kept]
    if len(set(names)) < len(names):
        raise ValueError(
            "RUN must name given columns otherwise than the modelled ones."
        )
    if absent := sorted(set(names) - set(schema.names)):
        raise ValueError(
            f"{name} must have the columns of the fit; {absent} are absent."
        )
    if SCORE in schema.names:
        raise ValueError(f"{name} must have no column {SCORE!r} yet. Rename it.")
    return names


def write(target: str, schema: pa.Schema, tables: Iterable[pa.Table], mark: str):
    """Writes a file under a name that no other worker has, and renames it when whole."""
    fs, path = fsspec.url_to_fs(target)
    folder, _, name = path.rpartition("/")
    fs.makedirs(folder, exist_ok=True)
    beside = f"{folder}/.{name}.{get_worker().id}{UNFINISHED}"
    about = {**(schema.metadata or {}), MARK: mark.encode()}
    schema = schema.with_metadata(about)
    with fs.open(beside, "wb") as file, pq.ParquetWriter(file, schema) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(about))
    fs.mv(beside, path)


def on_cluster(
    function: Callable,
    tasks: Mapping[str, object],
    out: str,
    density,
    mark: str,
    scheduler: str | None,
    workers: int,
) -> Count:
    """Calls a function for every file that is not in OUT yet; adds up what it counts."""
    there = finished(out, mark)
    left = {name: task for name, task in tasks.items() if name not in there}
    targets = [f"{url_of(out)}/{name}" for name in left]
    local = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": ":0"}
    count, failed, held = Count(), {}, Held(density)
    name = held.name  # all that a task needs to know of it
    with Client(**({"address": scheduler} if scheduler else local)) as client:
        client.register_plugin(held)
        futures = client.map(
            lambda task, target: function(
                get_worker().plugins[name].density, task, target, mark
            ),
            *(list(left.values()), targets),
            retries=2,
            pure=False,
        )
        files = dict(zip((future.key for future in futures), left, strict=True))
        for future in track(as_completed(futures), "files", len(futures)):
            if future.status == "finished":
                count += future.result()
            else:
                failed[files[future.key]] = future.exception()
        client.unregister_worker_plugin(name)
    sweep(out)
    if failed:
        file, error = next(iter(failed.items()))
        raise RuntimeError(
            f"{len(failed)} of {len(left)} files were not written; {file}: {error} The same"
            " line again does those that are left."
        )
    print(f"{len(left)} files, {len(tasks) - len(left)} were there: {dict(count)}")
    return count


class Held(WorkerPlugin):
    """The flow on every worker, also on one that starts later."""

    def __init__(self, density):
        self.density, self.name = density, f"rbig-nnx-{uuid.uuid4().hex}"


def finished(out: str, mark: str) -> set[str]:
    """The files in OUT, which must be of the same flow."""
    fs, root = fsspec.url_to_fs(out)
    names = {path[len(root) + 1 :] for path in fs.find(root)}
    names = {name for name in names if name.endswith(".parquet")}
    for name in sorted(names)[:1]:
        with fs.open(f"{root}/{name}", "rb") as file:
            about = pq.read_schema(file).metadata or {}
        found = about.get(MARK, b"other rows").decode()
        if found != mark:
            raise ValueError(
                f"OUT must be new or hold {mark}; {name} there has {found}."
            )
    return names


def sweep(out: str):
    """Takes away what workers that died left unfinished."""
    fs, root = fsspec.url_to_fs(out)
    fs.invalidate_cache()
    for path in fs.find(root):
        if path.endswith(UNFINISHED):
            fs.rm(path)


def url_of(path: str) -> str:
    """What every worker calls it, wherever it was started."""
    fs, root = fsspec.url_to_fs(path)
    return fs.unstrip_protocol(root)


def missing_of(run: str) -> list[str]:
    """What `rbig-nnx fit --na` took for missing."""
    fs, path = fsspec.url_to_fs(f"{run}/report.json")
    return json.loads(fs.cat(path))["settings"]["--na"] if fs.exists(path) else []


def digest(density) -> str:
    """Tells one fitted density from another."""
    schemas = [s and s.to_config() for s in (density.schema, density.given)]
    about = [rn.to_config(density.flow), schemas, density.num_draws]
    found = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=8)
    for leaf in jax.tree.leaves(nnx.state(density.flow)):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()


def is_hidden(name: str) -> bool:
    """Whether readers of datasets pass over a file: _SUCCESS, .crc and the like."""
    return any(part.startswith((".", "_")) for part in name.split("/"))


def main(steps: int = 200) -> float:
    """Fits a density, then scores 80,000 rows and draws as many on two workers here."""
    z = np.random.default_rng(0).normal(size=(80_000, 2))
    columns = {"id": np.arange(80_000), "a": z[:, 0]}
    table = pa.table(columns | {"b": z[:, 0] ** 2 + 0.3 * z[:, 1]})
    density = FlowDensity(num_blocks=2, num_steps=steps, random_state=0)
    density.fit(table.select(["a", "b"]).slice(0, 4_000))
    with tempfile.TemporaryDirectory() as folder:
        names = ("run", "rows", "scores", "drawn")
        run, rows, scores, drawn = (str(pathlib.Path(folder, name)) for name in names)
        density.save(run)
        pathlib.Path(rows).mkdir()
        for i in range(4):
            pq.write_table(table.slice(20_000 * i, 20_000), f"{rows}/{i}.parquet")
        score(run, rows, scores)
        sample(run, drawn, num_files=4, rows=20_000)
        scored, num_drawn = (
            pq.read_table(scores).sort_by("id"),
            len(pq.read_table(drawn)),
        )
    assert scored["id"].to_pylist() == list(range(80_000))
    assert num_drawn == 80_000
    held_out = float(np.mean(scored[SCORE].to_numpy()[4_000:]))
    # The entropies of N(0, 1) and of N(0, 0.3²).
    truth = -np.log(2 * np.pi * np.e) - np.log(0.3)
    print(f"mean log p {held_out:.3f}, truth {truth:.3f}; {num_drawn:,} rows drawn")
    assert truth - 0.4 < held_out < truth + 0.02
    return held_out


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {"demo": main, "score": score, "sample": sample}
    )

"""Scores a Parquet dataset, or draws one, on the machines of a Dask cluster.

A file is a task, and gives a file of the same name with the column `log_prob`, in nats: empty
where the row has a missing value or a given one that the fit has not seen, −∞ where a value has
no mass. Columns go by name, and others pass through. The flow is unpacked once on each worker.
Files are written under another name and then renamed, so that each is whole or not there. The
work of a worker that dies goes to the others, and the same line again does what is left.

Needs the extra `cluster`: pip install "rbig-nnx[cluster]"; gcsfs or s3fs for buckets.
Run it: python examples/score_cluster.py demo (fits, then scores and draws here; 40 seconds)
        python examples/score_cluster.py score RUN DATA OUT
        python examples/score_cluster.py sample RUN OUT --num-files 100 --rows 1_000_000
RUN is the folder of `rbig-nnx fit` or of `FlowDensity.save`; DATA and OUT are folders that all
machines see, or gs://… and s3://…. Two workers on this machine do it, or with
`--scheduler tcp://HOST:8786` those that were started by `dask scheduler` on HOST and
`dask worker tcp://HOST:8786 --nthreads 1` on the others. See docs/scaling.md.
"""

import collections
import hashlib
import json
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping

import fsspec
import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from distributed import Client, as_completed, get_worker
from flax import nnx
from rich.progress import track
from tyro.conf import Positional

import rbig_nnx as rn
from trainers import FlowDensity

SCORE, MARK, UNFINISHED = "log_prob", b"rbig_nnx", ".unfinished"
ROWS = 65_536  # in memory at once


def score(
    run: Positional[str],
    data: Positional[str],
    out: Positional[str],
    *,
    scheduler: str | None = None,
    workers: int = 2,
) -> collections.Counter:
    """Writes every .parquet file below DATA to the same place below OUT, with log p.

    Args:
      run: folder of a fit.
      data: folder of .parquet files.
      out: folder, new or of the same flow.
      scheduler: address of a cluster; none starts workers on this machine.
      workers: how many.

    Returns:
      How many rows were written, and how many of them are `empty`.
    """
    density = FlowDensity.load(run).table_
    fs, root = fsspec.url_to_fs(data)
    root = root if fs.isdir(root) else root.rpartition("/")[0]
    names = [name[len(root) + 1 :] for name in sorted(fs.find(fs._strip_protocol(data)))]
    names = [n for n in names if n.endswith(".parquet") and not is_hidden(n)]
    if not names:
        raise ValueError(f"DATA must hold .parquet files; got {data}.")
    sources = {name: fs.unstrip_protocol(f"{root}/{name}") for name in names}
    to = fsspec.url_to_fs(out)
    if f"{to[0].unstrip_protocol(to[1])}/".startswith(f"{fs.unstrip_protocol(root)}/"):
        raise ValueError(f"OUT must lie outside of DATA; got {out}.")
    with fs.open(f"{root}/{names[0]}", "rb") as file:
        columns_of(density, pq.read_schema(file), names[0])  # before any work
    mark = f"log p by {digest(density)}"
    return on_cluster(score_file, sources, out, density, mark, scheduler, workers)


def sample(
    run: Positional[str],
    out: Positional[str],
    *,
    num_files: int = 8,
    rows: int = 100_000,
    seed: int = 0,
    scheduler: str | None = None,
    workers: int = 2,
) -> collections.Counter:
    """Draws `num_files` .parquet files of so many rows each from a fitted density.

    Args:
      run: folder of a fit.
      out: folder, new or of the same draws.
      num_files: how many, each from a seed of its own.
      rows: of a file.
      seed: the same gives the same rows.
      scheduler: address of a cluster; none starts workers on this machine.
      workers: how many.

    Returns:
      How many rows were written.
    """
    density = FlowDensity.load(run).table_
    density.sample(1)  # a conditional density has no rows to draw: told before any work
    seeds = np.random.default_rng(seed).choice(2**31, num_files, replace=False)
    tasks = {f"part-{i:06}.parquet": (int(s), rows) for i, s in enumerate(seeds)}
    mark = f"{num_files} × {rows} rows, seed {seed}, of {digest(density)}"
    return on_cluster(sample_file, tasks, out, density, mark, scheduler, workers)


def score_file(density, source: str, target: str, mark: str) -> collections.Counter:
    """Writes the rows of one file with their scores."""
    count = collections.Counter()
    with fsspec.open(source, "rb") as file:
        table = pq.ParquetFile(file, pre_buffer=True)
        names = columns_of(density, table.schema_arrow, source)

        def scored():
            for batch in table.iter_batches(ROWS):
                rows = pa.Table.from_batches([batch])
                log_prob = log_prob_of(density, rows.select(names))
                column = pa.array(log_prob, mask=np.isnan(log_prob))
                count.update(rows=len(rows), empty=column.null_count)
                yield rows.append_column(SCORE, column)

        schema = table.schema_arrow.append(pa.field(SCORE, pa.float64()))
        write(target, schema, scored(), mark)
    return count


def sample_file(
    density, draw: tuple[int, int], target: str, mark: str
) -> collections.Counter:
    """Draws the rows of one file from (seed, number of rows)."""
    seed, rows = draw
    frames = density.samples(rows, seed=seed, rows=ROWS)
    tables = (frame.dataframe("pyarrow") for frame in frames)
    first = next(tables)
    write(target, first.schema, (t for part in ([first], tables) for t in part), mark)
    return collections.Counter(rows=rows)


def log_prob_of(density, rows: pa.Table) -> np.ndarray:
    """log p of each row in nats; NaN where there is none."""
    parts = [s.matched(rows) for s in (density.schema, density.given) if s is not None]
    gone = np.zeros(len(rows), bool)
    for frame in parts:
        gone |= np.any([column.gone for column in frame.columns], axis=0)
    if density.given is not None:
        whole = np.flatnonzero(~gone)
        gone[whole] = ~density.given.knows(parts[1].take(whole))
    log_prob = np.full(len(rows), np.nan)
    if not gone.all():
        log_prob[~gone] = density.log_prob(*(frame.take(~gone) for frame in parts))
    return log_prob


def columns_of(density, schema: pa.Schema, name: str) -> list[str]:
    """The columns that the density reads; an error where a file does not have them."""
    schemas = [s for s in (density.schema, density.given) if s is not None]
    names = [column.name for s in schemas for column in s.kept]
    if len(set(names)) < len(names):
        raise ValueError("RUN must have other names for given columns than for the rest.")
    if absent := sorted(set(names) - set(schema.names)):
        raise ValueError(f"{name} must have the columns of the fit; {absent} are absent.")
    if SCORE in schema.names:
        raise ValueError(f"{name} must have no column {SCORE!r} yet. Rename it.")
    return names


def write(target: str, schema: pa.Schema, tables: Iterable[pa.Table], mark: str):
    """Writes a file under a name that no other worker has, and renames it when whole."""
    fs, path = fsspec.url_to_fs(target)
    folder, _, name = path.rpartition("/")
    fs.makedirs(folder, exist_ok=True)
    beside = f"{folder}/.{name}.{get_worker().id}{UNFINISHED}"
    schema = schema.with_metadata({**(schema.metadata or {}), MARK: mark.encode()})
    with fs.open(beside, "wb") as file, pq.ParquetWriter(file, schema) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(schema.metadata))
    fs.mv(beside, path)


def on_cluster(
    function: Callable,
    tasks: Mapping[str, object],
    out: str,
    density,
    mark: str,
    scheduler: str | None,
    workers: int,
) -> collections.Counter:
    """Calls a function for every file that is not in OUT yet; adds up what it counts."""
    fs, root = fsspec.url_to_fs(out)
    there = {path[len(root) + 1 :]: path for path in fs.find(root)}
    for path in [p for n, p in there.items() if n.endswith(".parquet")][:1]:
        with fs.open(path, "rb") as file:
            found = (pq.read_schema(file).metadata or {}).get(MARK, b"other rows").decode()
        if found != mark:
            raise ValueError(f"OUT must be new or hold {mark}; {path} holds {found}.")
    left = [name for name in tasks if name not in there]
    targets = [fs.unstrip_protocol(f"{root}/{name}") for name in left]
    local = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    count, failed = collections.Counter(), {}
    with Client(**({"address": scheduler} if scheduler else local)) as client:
        # Made by a task, so that it can be made again if the one worker that has it dies.
        held = client.submit(lambda density: density, density, pure=False)
        arguments = [tasks[name] for name in left]
        futures = client.map(
            lambda task, target, density: function(density, task, target, mark),
            *(arguments, targets),
            density=held,
            retries=2,
            pure=False,
        )
        names = dict(zip((future.key for future in futures), left, strict=True))
        for future in track(as_completed(futures), "files", len(futures)):
            if future.status == "finished":
                count += future.result()
            else:
                failed[names[future.key]] = future.exception()
    for path in there.values():
        if path.endswith(UNFINISHED):  # of workers that died
            fs.rm(path)
    if failed:
        name, error = next(iter(failed.items()))
        raise RuntimeError(
            f"{len(failed)} of {len(left)} files were not written: {name}: {error} The same"
            " line again tries those that are left."
        )
    print(f"{len(left)} files, {len(tasks) - len(left)} were there: {dict(count)}")
    return count


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
    rng = np.random.default_rng(0)
    z = rng.normal(size=(80_000, 2))
    columns = {"id": np.arange(80_000), "a": z[:, 0]}
    table = pa.table(columns | {"b": z[:, 0] ** 2 + 0.3 * z[:, 1]})
    density = FlowDensity(num_blocks=2, num_steps=steps, random_state=0)
    density.fit(table.select(["a", "b"]).slice(0, 4_000))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        density.save(folder / "run")
        (folder / "rows").mkdir()
        for i in range(4):
            part = table.slice(20_000 * i, 20_000)
            pq.write_table(part, folder / "rows" / f"{i}.parquet")
        run, rows, out = (str(folder / name) for name in ("run", "rows", "scores"))
        score(run, rows, out)
        scores = pq.read_table(out).sort_by("id")
        sample(run, str(folder / "drawn"), num_files=4, rows=20_000)
        drawn = pq.read_table(folder / "drawn")
    assert scores["id"].equals(table["id"].combine_chunks()) or scores["id"] == table["id"]
    expected = density.score_samples(table.select(["a", "b"]))
    np.testing.assert_allclose(scores[SCORE], expected, atol=1e-4)
    held_out = float(np.mean(scores[SCORE].to_numpy()[4_000:]))
    # The entropies of N(0, 1) and of N(0, 0.3²).
    truth = -np.log(2 * np.pi * np.e) - np.log(0.3)
    print(f"mean log p {held_out:.3f}, truth {truth:.3f}; {len(drawn):,} rows drawn")
    assert held_out < truth + 0.02
    return held_out


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"demo": main, "score": score, "sample": sample})

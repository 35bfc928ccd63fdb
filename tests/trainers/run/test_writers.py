import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from trainers.run.writers import (
    JsonlWriter,
    MetricWriter,
    MultiWriter,
    TensorBoardWriter,
)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def call_all(writer):
    writer.write_hparams({"lr": 1e-3, "hidden": (64, 64)})
    writer.write_scalars(1, {"loss": jnp.float32(0.5), "rows": 3})
    writer.write_texts(1, {"note": "fine"})
    writer.write_images(1, {"density": np.zeros((4, 5, 3), np.uint8)})
    writer.write_histograms(1, {"kernel": jnp.arange(4.0)}, {"kernel": 2})
    writer.write_summaries(1, {"z": np.arange(3)})
    writer.flush()
    writer.close()


def test_jsonl_has_one_line_a_call(tmp_path):
    path = tmp_path / "new" / "metrics.jsonl"
    call_all(JsonlWriter(path))
    records = lines(path)
    assert all(record.pop("time") > 1e9 for record in records)
    assert records == [
        {"kind": "hparams", "values": {"lr": 1e-3, "hidden": [64, 64]}},
        {"kind": "scalars", "step": 1, "loss": 0.5, "rows": 3},
        {"kind": "texts", "step": 1, "values": {"note": "fine"}},
        {"kind": "images", "step": 1, "values": {"density": [4, 5, 3]}},
        {"kind": "histograms", "step": 1, "values": {"kernel": [0.0, 1.0, 2.0, 3.0]}},
        {"kind": "summaries", "step": 1, "values": {"z": [0, 1, 2]}},
    ]


def test_jsonl_line_is_there_before_close(tmp_path):
    writer = JsonlWriter(tmp_path / "a.jsonl")
    writer.write_scalars(1, {"loss": 1.0})
    assert len(lines(tmp_path / "a.jsonl")) == 1
    writer.close()
    writer.close()


def test_jsonl_stays_json_for_non_finite_numbers_and_taken_names(tmp_path):
    with JsonlWriter(tmp_path / "a.jsonl") as writer:
        writer.write_scalars(1, {"a": np.float32("nan"), "b": -jnp.inf})
        writer.write_scalars(2, {"time": 7.0})
    first, second = lines(tmp_path / "a.jsonl")
    assert (first["a"], first["b"]) == ("nan", "-inf")
    assert second["values"] == {"time": 7.0}
    assert second["step"] == 2


@pytest.mark.parametrize("torn", [b"", b'{"kind": "scal', b"\xff\xfe"])
def test_jsonl_restart_keeps_whole_lines_only(tmp_path, torn):
    path = tmp_path / "a.jsonl"
    with JsonlWriter(path) as writer:
        writer.write_scalars(1, {"loss": 2.0})
    with path.open("ab") as file:
        file.write(torn)
    with JsonlWriter(path) as writer:
        writer.write_scalars(2, {"loss": 1.0})
    assert [(r["step"], r["loss"]) for r in lines(path)] == [(1, 2.0), (2, 1.0)]


def test_multi_writer_calls_each(tmp_path):
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    call_all(MultiWriter([JsonlWriter(path) for path in paths]))
    for path in paths:
        assert [r["kind"] for r in lines(path)] == [
            *("hparams", "scalars", "texts", "images", "histograms", "summaries")
        ]


def test_plain_writer_takes_every_call():
    call_all(MetricWriter())


def test_tensorboard_writes_events(tmp_path):
    call_all(TensorBoardWriter(tmp_path))
    (event_file,) = tmp_path.glob("events.out.tfevents.*")
    content = event_file.read_bytes()
    for name in (b"loss", b"note", b"density", b"kernel", b"hparams"):
        assert name in content


def test_missing_tensorboardx_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"pip install 'rbig-nnx\[tensorboard\]'"):
        TensorBoardWriter(tmp_path)


def test_events_need_no_tensorflow(tmp_path):
    code = (
        "import sys; from trainers.run.writers import TensorBoardWriter as W;"
        f"w = W({str(tmp_path)!r}); w.write_scalars(1, {{'a': 1.0}}); w.close();"
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_jsonl_drops_the_steps_that_a_run_measures_again(tmp_path):
    path = tmp_path / "a.jsonl"
    with JsonlWriter(path) as writer:
        for step in (0, 10, 20):
            writer.write_scalars(step, {"loss": 1.0})
    with JsonlWriter(path, up_to=10) as writer:
        writer.write_scalars(20, {"loss": 2.0})
    assert [(x["step"], x["loss"]) for x in lines(path)] == [(0, 1), (10, 1), (20, 2)]

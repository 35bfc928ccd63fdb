"""Metric writers with the method names of clu's `MetricWriter`, without TensorFlow.

Any of them, or a writer of clu's own, goes where the trainer takes `writer`.
"""

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np


class MetricWriter:
    """Takes every call of clu's `MetricWriter` and writes nothing.

    A writer overrides `_write(kind, step, values)`, which gets every call, `flush` and
    `close`. `kind` is the method's name after "write_"; `step` is None for `hparams`.
    """

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Numbers by name."""
        self._write("scalars", step, scalars)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Texts by name."""
        self._write("texts", step, texts)

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Images by name, [h, w, c] or [n, h, w, c], floats in [0, 1] or uint8."""
        self._write("images", step, images)

    def write_histograms(
        self,
        step: int,
        arrays: Mapping[str, Any],
        num_buckets: Mapping[str, int] | None = None,  # noqa: ARG002  clu's signature
    ) -> None:
        """Arrays by name, of which the distribution of values is wanted."""
        self._write("histograms", step, arrays)

    def write_summaries(
        self,
        step: int,
        values: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,  # noqa: ARG002  clu's signature
    ) -> None:
        """Arrays by name."""
        self._write("summaries", step, values)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Settings by name, once a run."""
        self._write("hparams", None, hparams)

    def flush(self) -> None:
        """Returns when everything written is on its way to the disk."""

    def close(self) -> None:
        """Flushes, and takes no more."""
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, kind: str, step: int | None, values: Mapping[str, Any]) -> None:
        """One call; see the class."""


class JsonlWriter(MetricWriter):
    """One JSON object a call, one line each, on disk before the call returns.

    A line is `{"kind": "scalars", "step": 200, "time": 1767225600.0, "loss": 1.25}`; the
    values of other kinds lie under `"values"`. Numbers that JSON lacks are the strings
    "nan", "inf" and "-inf"; images are written as their shapes. A file that exists is
    continued; a line that a crash left unfinished is cut off.

    Args:
      path: the file; its folder is made.
      up_to: drops the lines of later steps, which a run that goes on from this step
        measures again; None keeps all.

    Example:
      >>> import pathlib, tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "metrics.jsonl"
      >>> with JsonlWriter(path) as writer:
      ...     writer.write_scalars(200, {"loss": 1.25})
      >>> print(path.read_text())
      {"kind": "scalars", "step": 200, "time": ..., "loss": 1.25}
    """

    def __init__(self, path: str | os.PathLike, *, up_to: int | None = None):
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_unfinished_line(path)
        if up_to is not None and path.exists():
            _drop_later_steps(path, up_to)
        self._file = path.open("a", encoding="utf-8")

    def flush(self) -> None:
        """Waits until the lines are on the disk."""
        if not self._file.closed:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flushes and closes the file; may be called twice."""
        self.flush()
        self._file.close()

    def _write(self, kind: str, step: int | None, values: Mapping[str, Any]) -> None:
        record: dict[str, Any] = {"kind": kind}
        if step is not None:
            record["step"] = int(step)
        record["time"] = round(time.time(), 3)
        if kind == "images":
            values = {name: list(np.shape(image)) for name, image in values.items()}
        plain = {str(name): _plain(value) for name, value in values.items()}
        if kind == "scalars" and not plain.keys() & record.keys():
            record.update(plain)
        else:
            record["values"] = plain
        self._file.write(json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n")
        self._file.flush()


class TensorBoardWriter(MetricWriter):
    """Event files for TensorBoard, by tensorboardX (the `tensorboard` extra).

    Args:
      logdir: the run's folder.

    Raises:
      ImportError: without tensorboardX, naming the extra.
    """

    def __init__(self, logdir: str | os.PathLike):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "`TensorBoardWriter` needs tensorboardX; install it with "
                "pip install 'rbig-nnx[tensorboard]'"
            ) from error
        self._writer = SummaryWriter(str(logdir))

    def flush(self) -> None:
        """Waits until the events are written."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._writer.close()

    def _write(self, kind: str, step: int | None, values: Mapping[str, Any]) -> None:
        writer = self._writer
        if kind == "hparams":
            text = json.dumps({k: _plain(v) for k, v in values.items()}, indent=2)
            writer.add_text("hparams", f"```\n{text}\n```", 0)
            return
        for name, value in values.items():
            if kind == "scalars":
                writer.add_scalar(name, float(np.asarray(value)), step)
            elif kind == "texts":
                writer.add_text(name, value, step)
            elif kind == "images":
                image = np.asarray(value)
                layout = "HWC" if image.ndim == 3 else "NHWC"
                writer.add_images(name, image, step, dataformats=layout)
            else:
                writer.add_histogram(name, np.asarray(value).ravel(), step)


class MultiWriter(MetricWriter):
    """Passes every call on to several writers, clu's own among them.

    Args:
      writers: in the order in which they are called.
    """

    def __init__(self, writers: Sequence[Any]):
        self._writers = tuple(writers)

    def flush(self) -> None:
        """Flushes each."""
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        """Closes each."""
        for writer in self._writers:
            writer.close()

    def _write(self, kind: str, step: int | None, values: Mapping[str, Any]) -> None:
        for writer in self._writers:
            write = getattr(writer, f"write_{kind}")
            write(values) if step is None else write(step, values)


def _plain(value: Any) -> Any:
    """The value in JSON's types; NumPy and JAX arrays as nested lists."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "__array__"):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _drop_later_steps(path: pathlib.Path, step: int) -> None:
    """Atomically: the new file takes the name of the old one."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line).get("step", 0) <= step]
    new = path.with_name(f".{path.name}.new")
    new.write_text("".join(kept), encoding="utf-8")
    new.replace(path)


def _cut_unfinished_line(path: pathlib.Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)

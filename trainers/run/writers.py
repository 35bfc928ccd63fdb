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

from trainers.paths import Path, located, write_whole

_BETWEEN = 30.0  # seconds between two contents of an object, unless it is flushed


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
    continued; a line that a crash left unfinished is cut off. In a bucket lines lie in memory
    until `flush`, which a run calls before it saves, or for half a minute.

    Args:
      path: the file; its folder is made. Or an object of a bucket, gs://BUCKET/NAME.
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
        place = located(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        before = place.read_bytes() if place.exists() else b""
        kept = _whole_lines(before, up_to)
        if isinstance(place, pathlib.Path):
            if kept.encode() != before:
                write_whole(place, kept)
            self._file = place.open("a", encoding="utf-8")
        else:
            self._file = _Object(place, kept)

    def flush(self) -> None:
        """Waits until the lines are on the disk, or in the bucket."""
        if isinstance(self._file, _Object):
            self._file.put()
        elif not self._file.closed:
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


def _whole_lines(content: bytes, up_to: int | None) -> str:
    """The lines that were finished, without those of later steps; others' are kept."""
    text = content[: content.rfind(b"\n") + 1].decode(errors="replace")
    lines = text.splitlines(keepends=True)
    if up_to is not None:
        lines = [line for line in lines if _step_of(line) <= up_to]
    return "".join(lines)


def _step_of(line: str) -> float:
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return 0
    return step if isinstance(step, int | float) else 0


class _Object:
    """Lines of an object in a bucket, which takes nothing but its whole content."""

    def __init__(self, place: Path, text: str):
        self._place, self._text, self._put = place, text, time.monotonic()
        self._is_new = False  # what is not there yet

    def write(self, line: str) -> None:
        self._text += line
        self._is_new = True

    def flush(self) -> None:
        """Now and then, for those who look on."""
        if time.monotonic() - self._put > _BETWEEN:
            self.put()

    def put(self) -> None:
        if self._is_new:
            write_whole(self._place, self._text)
            self._put, self._is_new = time.monotonic(), False

    close = put

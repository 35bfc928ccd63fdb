"""Damaged tables: the numbers that other readers find, or one line that names the file."""

import collections
import contextlib
import csv
import io
import pathlib
import pickle
import random
import re
import signal
import warnings

import numpy as np
import pytest

from tests.slow import slow
from trainers.tables import InputError, read_frame, read_table

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.csv")
pytest.importorskip("pyarrow.parquet")

_SECONDS = 2.0  # of the processor, for one file
ROWS = np.random.default_rng(0).normal(size=(9, 2)) ** 3
# How a reading that is no plain one is told.
_TOLD = re.compile(
    "left out|groups the digits|read as (minus|E,)|is the header|holds units|counts as"
    "|are comments|separator|decimal (comma|point)|encoding|the quote is|is one cell"
    "|names the columns|taken for the header|read as UTC"
)


class TooLong(BaseException):
    """Not an `Exception`: what reads a file could take that for a fault of the file."""


@contextlib.contextmanager
def within_seconds():
    """Raises after so much work of the processor, which other programs do not add to."""

    def stop(*_):
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def values_of(path):
    """What `read_table` gives; None where it refuses the file in a line that is right."""
    values, said = None, ""
    try:
        with within_seconds(), warnings.catch_warnings(action="ignore"):
            values = read_table(path).values
    except InputError as error:
        said = str(error)
    if values is None:
        assert path.name in said, (path.read_bytes(), said)
        assert said.isprintable(), (path.read_bytes(), said)
    return values


def damaged(content, draw):
    """A bit turned, an end cut off, zeros, a piece gone, or one that comes twice."""
    at, end = (draw.randrange(len(content) + 1) for _ in range(2))
    match draw.randrange(7):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + bytes(len(content) - at)
        case 2:
            return content[:at] + content[at + draw.randint(1, 4) :]
        case 3:
            return content[: max(at, end)] + content[min(at, end) :]
    turned = bytes(byte ^ 1 << draw.randrange(8) for byte in content[at : at + 1])
    return content[:at] + turned + content[at + 1 :]


def lines_of(sep, point, *, names="", end="\n"):
    rows = [sep.join(f"{v:.4g}" for v in row) for row in ROWS.tolist()]
    return end.join([*[names] * bool(names), *rows, ""]).replace(".", point)


# Each with what separates its cells, and its decimal sign.
TEXTS = (
    (lines_of(",", ".", names="a,b"), ",", "."),
    (lines_of(",", "."), ",", "."),
    (lines_of(",", ".", names='"a","b"', end="\r\n"), ",", "."),
    (lines_of(";", ",", names="a;b"), ";", ","),
    (lines_of("\t", ".", names="a\tb"), "\t", "."),
    ("a,b\n" + "".join(f"{i},{i * i % 7}\n" for i in range(12)), ",", "."),
    ('"x","y"\n' + "".join(f'"{i}","{i}.5"\n' for i in range(12)), ",", "."),
    ("a\n1\n2\n3\n5\n8\n", ",", "."),
)
SIGNS = "012345678901234567890123456789-+.,;eE \n\"'"  # of which most leave a table of numbers
PIECES = (
    *(",,", "\r", "\r\n", "\n\n", "\0", "\t", "--", "1e5", "e400", "1_0", "0x1F", "007"),
    *("NA", "inf", "true", "1d5", "1,000", "1.000", "(1)", "\N{MINUS SIGN}", '""', "#"),
    *("\xa0", "\N{ARABIC-INDIC DIGIT ONE}", "\x1b[2J", "\x07", "\x9b", "\ufeff"),
    *("2020-01-01", "12:30", "9" * 40, "1" * 400, "(" * 200),
)  # fmt: skip


def mutated(text, draw):
    """The text with some of its signs exchanged, and what else happens to a file."""
    for _ in range(draw.randint(1, 2)):
        at = draw.randrange(len(text) + 1)
        piece = draw.choice(PIECES) if draw.random() < 0.2 else draw.choice(SIGNS)
        text = text[:at] + piece + text[at + draw.randrange(2) :]
    content = text.encode()
    return damaged(content, draw) if draw.random() < 0.15 else content


def finite(table):
    """The numbers as float32; None where that has no place for them."""
    with np.errstate(over="ignore"):
        found = np.float32(table)
    return found if np.isfinite(found).all() else None


def numbers(rows, point):
    """Rows of text as numbers, but for a first one that is not all numbers."""
    try:
        found = [[float(cell.replace(point, ".")) for cell in row] for row in rows[1:]]
    except ValueError:
        return None
    with contextlib.suppress(ValueError):
        found.insert(0, [float(cell.replace(point, ".")) for cell in rows[0]])
    regular = len({len(row) for row in found}) == 1
    return finite(found) if regular else None


def by_python(content, sep, point):
    """What the module `csv` and `float` read; None for what they do not."""
    try:
        text = io.StringIO(content.decode("utf-8-sig"), newline="")
        rows = [row for row in csv.reader(text, delimiter=sep) if row]
    except (ValueError, csv.Error):
        return None
    return numbers(rows, point)


def by_pandas(content, sep, point):
    """What pandas reads; None for what it does not."""
    options = {"header": None, "dtype": str, "keep_default_na": False}
    try:
        table = pd.read_csv(io.BytesIO(content), sep=sep, **options)
        numeric = table.apply(
            lambda column: pd.to_numeric(
                column.str.replace(point, ".", regex=False), errors="coerce"
            )
        ).to_numpy(np.float64)
    except (ValueError, AttributeError, pd.errors.ParserError):
        return None
    numeric = numeric[1:] if np.isnan(numeric[:1]).any() else numeric
    return finite(numeric)


def close(a, b):
    return a is not None and a.shape == b.shape and np.allclose(a, b, rtol=3e-7)


def judged(path, content, sep, point):
    """How a text was read: refused, unclear, same, told, or silently as something else."""
    values = values_of(path)
    if values is None:
        return "refused"
    found = by_python(content, sep, point)
    if found is None or not close(by_pandas(content, sep, point), found):
        return "unclear"
    if np.array_equal(found, values):
        return "same"
    notes = read_frame(path).notes
    assert any(map(_TOLD.search, notes)), (content, values, found, notes)
    return "told"


@pytest.mark.parametrize("number", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_damaged_text_is_read_as_others_read_it_or_refused(tmp_path, number):
    draw, seen = random.Random(number), collections.Counter()
    path = tmp_path / "t.csv"
    for i in range(number):
        text, sep, point = TEXTS[i % len(TEXTS)]
        content = mutated(text, draw)
        path.write_bytes(content)
        seen[judged(path, content, sep, point)] += 1
    assert seen["same"] > number / 5, seen
    assert seen["unclear"] + seen["told"] < seen["same"] / 2, seen


@pytest.mark.parametrize(
    "text", ["a\n{0}\n2\n3\n", "{0},2\n3,4\n", "a,{0}\n1,2\n3,4\n"]
)
def test_thousands_of_digits_are_refused_or_are_a_name(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text.format("1" * 5_000))
    values = values_of(path)
    assert values is None or values.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a\n1\n2\n---0.5\n", id="minuses"),
        pytest.param(f"0.{'1' * 120}\n2\n3\n5\n", id="long, first"),
        pytest.param(f"2\n3\n0.{'1' * 120}\n5\n", id="long, third"),
    ],
)
def test_odd_numbers_are_read_as_others_read_them_or_refused(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    judged(tmp_path / "t.csv", text.encode(), ",", ".")


def write_arrays(folder):
    """Binary tables; what the numbers are is what NumPy and pandas say."""
    np.save(folder / "plain.npy", ROWS)
    np.save(folder / "turned.npy", np.asfortranarray(ROWS.astype(">f4")))
    np.save(folder / "whole.npy", np.arange(18, dtype="i4").reshape(9, 2))
    np.savez(folder / "plain.npz", a=ROWS)
    np.savez_compressed(folder / "columns.npz", a=ROWS[:, 0], b=np.arange(9))
    table = pa.table({"a": ROWS[:, 0], "b": list(range(9)), "c": [1.5, 2, 7] * 3})
    for name, packing in (("plain", "none"), ("packed", "snappy")):
        path = folder / f"{name}.parquet"
        pa.parquet.write_table(table, path, compression=packing)
    return sorted(folder.iterdir())


def by_others(path):
    """The numbers of a binary file, as who wrote the format reads it; None where not."""
    try:
        with warnings.catch_warnings(action="ignore"):
            if path.suffix == ".parquet":
                return pd.read_parquet(path).to_numpy(np.float64).astype(np.float32)
            found = np.load(path, allow_pickle=False)
            if path.suffix == ".npz":
                with found:
                    found = [found[name] for name in found.files]
                found = found[0] if len(found) == 1 else np.stack(found, axis=1)
            return found.reshape(len(found), -1).astype(np.float32)
    except Exception:  # whatever they say of it
        return None


@pytest.mark.parametrize("number", [700, slow(10_000)])
def test_damaged_arrays_are_read_as_others_read_them_or_refused(tmp_path, number):
    folder = tmp_path / "whole"
    folder.mkdir()
    whole = [(path, path.read_bytes()) for path in write_arrays(folder)]
    draw, seen = random.Random(number), collections.Counter()
    for path, _ in whole:
        np.testing.assert_array_equal(values_of(path), by_others(path))
    for i in range(number):
        path, content = whole[i % len(whole)]
        head = 128 if path.suffix == ".npy" and draw.random() < 0.7 else len(content)
        content = damaged(content[:head], draw) + content[head:]
        path = tmp_path / path.name
        path.write_bytes(content)
        values = values_of(path)
        if values is not None:
            np.testing.assert_array_equal(values, by_others(path), repr(content))
        seen["refused" if values is None else "same"] += 1
    assert min(seen["same"], seen["refused"]) > number / 8, seen


def with_word(folder, word):
    """Tables that cannot be read and say this word, by what holds it."""
    twice = pa.Table.from_arrays([pa.array([1.0, 2.0])] * 2, [word, word])
    pa.parquet.write_table(twice, folder / "twice.parquet")
    pa.parquet.write_table(pa.table({word: ["x", "y"]}), folder / "words.parquet")
    pa.parquet.write_table(pa.table({word: [1.0, None]}), folder / "hole.parquet")
    np.savez(folder / "two.npz", **{word: ROWS, f"{word}2": ROWS})
    np.savez(folder / "word.npz", **{word: np.array(["x", "y"])})
    np.save(folder / "complex.npy", np.array([(1j,)], [(word, "c8")]))
    np.save(folder / "coarse.npy", np.array([(1e9,), (1e9 + 1,)], [(word, "f8")]))
    for name, text in {
        "cell": f"a,b\n1,2\n{word},4\n5,6\n",
        "words": f"{word},b\nx,2\ny,4\n",
        "hole": f"{word},b\n1,2\n,4\n",
        "wide": f"a,b\n1,2\n3,4,{word}\n5,6\n",
        "open": f'a,b\n1,2\n"{word},4\n5,6\n',
    }.items():
        (folder / f"{name}.csv").write_text(text, newline="")


FILES = ("twice.parquet", "two.npz", "complex.npy", "cell.csv", "wide.csv", "open.csv")
FILES += ("words.parquet", "hole.parquet", "word.npz", "coarse.npy", "words.csv")
FILES += ("hole.csv", "none.csv")


@pytest.mark.parametrize("file", FILES)
def test_signs_that_terminals_obey_are_shown_escaped(tmp_path, file):
    for sign in ("\x1b[2J", "\x07", "\x9b31m", "\N{RIGHT-TO-LEFT OVERRIDE}"):
        folder = tmp_path / (f"u{sign}" if file == "none.csv" else "files")
        folder.mkdir(exist_ok=True)
        with_word(folder, f"u{sign}v")
        with pytest.raises(InputError) as caught:
            read_table(folder / file)
        assert str(caught.value).isprintable()


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_nothing_in_a_file_is_executed(tmp_path):
    mark = tmp_path / "executed"
    pickled = pickle.dumps(Bomb(mark))
    folder = tmp_path / "tables"
    folder.mkdir()
    objects = np.array([[Bomb(mark), 1]], object)
    np.save(folder / "object.npy", objects, allow_pickle=True)
    np.savez(folder / "object.npz", a=objects)
    fields = np.array([(1.0, Bomb(mark))], [("a", "f8"), ("b", object)])
    np.save(folder / "fields.npy", fields, allow_pickle=True)
    for suffix in (".npy", ".npz", ".parquet", ".csv", ".txt", ".npy.gz"):
        (folder / f"raw{suffix}").write_bytes(pickled)
    header = f"{{'descr': '<f8', 'shape': open({str(mark)!r}, 'w')}}".ljust(199) + "\n"
    (folder / "call.npy").write_bytes(b"\x93NUMPY\x01\x00\xc8\x00" + header.encode())
    table = pa.table({"a": pa.array([pickled, pickled])}, metadata={"pandas": pickled})
    pa.parquet.write_table(table, folder / "bytes.parquet")
    for path in folder.iterdir():
        assert values_of(path) is None, path
    assert not mark.exists()
    pickle.loads(pickled)
    assert mark.exists()  # else nothing would have been seen above

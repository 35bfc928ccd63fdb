"""Tables in text, read by pyarrow.csv: .csv, .tsv and their like."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainers.paths import size_of
from trainers.tables import dates
from trainers.tables.arrow import (
    frame_of_arrow,
    import_pyarrow,
    is_whole,
    may_be_rounded,
)
from trainers.tables.checks import InputError, printable, shown
from trainers.tables.files.sources import Source
from trainers.tables.files.texts import cells, words
from trainers.tables.files.texts.decoding import (
    Lines,
    another_way,
    cells_at,
    looked_over,
    single_byte,
    unreadable,
)
from trainers.tables.files.texts.sniffing import BLANKS, Dialect, sniff
from trainers.tables.frame import Frame

_BLOCK_BYTES = 2**20  # pyarrow's own; a row must fit
_LIKELY_ROWS, _LIKELY_COLUMNS = 1_000, 1_000  # that tell the types of the others


class TextFile:
    """A table in text; see `TableFile`.

    Args:
      source: the file.
      header: number of the line that names the columns, or "none"; else it is guessed.
      date_formats: of columns of dates, likewise.
      options: of `sniff`, likewise.
    """

    num_rows = None

    def __init__(
        self,
        source: Source,
        *,
        header: int | str | None = None,
        date_formats: Mapping[str, str] | None = None,
        **options: Any,
    ):
        self.source = source
        options["header_line"] = header
        self._date_formats = {
            n: form for n, form in (date_formats or {}).items() if form
        }
        sample, complete = source.sample()
        look = sniff(
            sample, complete=complete, name=source.name, tabs=source.tabs, **options
        )
        self._guess_encoding = options.get("encoding") is None
        self._guess_decimal = options.get("decimal") is None
        self._use(look)

    def _use(self, look: Dialect):
        self.dialect = look
        self.names = tuple(n for n in look.names if n not in look.hollow)
        self.index, self.is_named = look.index, look.is_named
        self.notes = (*self.source.notes, *look.notes)

    def whole(self, names: Sequence[str], limit: int | None = None) -> Frame:
        """The columns of these names, in this order; at most so many rows."""
        self._look_over()
        if limit is not None:
            batches = self._batches(names, limit)
            table = next(batches, None)
            return self._settled(table if table is not None else self._none(names))[0]
        arrow, likely = import_pyarrow(), self._likely(names)
        table = self._table(names, likely)
        if any(arrow.types.is_binary(field.type) for field in table.schema):
            if not self._guess_encoding:
                raise InputError(
                    f"{self.source.name} is not in {self.dialect.encoding} throughout."
                    " Name another --encoding."
                )
            table = self._table_of_bytes(names)
        integers = [n for n, kind in likely.items() if arrow.types.is_integer(kind)]
        again = [
            n
            for n, column in zip(table.column_names, table.columns, strict=True)
            if (n in integers and is_whole(column))
            or may_be_rounded(column)
            or (self.dialect.padded and arrow.types.is_integer(column.type))
        ]
        if again:  # as text, for what float64 would round, +5, 007 and 0x1F
            fresh = self._table(again, dict.fromkeys(again, arrow.string()))
            for name in again:
                at = table.column_names.index(name)
                table = table.set_column(at, name, fresh.column(name))
        return self._settled(table)[0]

    def parts(self, names: Sequence[str], rows: int) -> Iterator[Frame]:
        """The same, so many rows at a time; the first ones choose the types."""
        self._look_over()
        rules: dict[str, words.Rule] = {}
        notes: tuple[str, ...] = ()
        first = 0
        for table in self._batches(names, rows):
            if not first:
                frame, rules = self._settled(table)
                notes = frame.notes
            else:
                frame, said = self._followed(table, rules, first)
                notes += tuple(note for note in said if note not in notes)
            yield dataclasses.replace(frame, notes=notes)
            first += table.num_rows

    def cells(self, rows: Mapping[str, int]) -> dict[str, tuple[int, str]]:
        """The line and the text of one cell a column, each in a row (from 0) of its own."""
        return cells_at(self.dialect, self._stream(), rows)

    def with_zeros(self, names: Sequence[str]) -> list[str]:
        """Those of the columns that have cells like 007, which numbers do not keep."""
        if names:
            self._look_over()
        if not names or not self.dialect.padded:
            return []
        table = self._table(names, dict.fromkeys(names, import_pyarrow().string()))
        return [name for name in names if cells.has_zeros(table.column(name))]

    def about_rows(self) -> int:
        """A guess from the size of the file."""
        packed = 3 if self.source.compression else 1  # numbers in text, about
        size = packed * size_of(self.source.path)
        return round(size / max(self.dialect.bytes_a_row, 1.0))

    def _look_over(self):
        """What its first lines do not show: lines of blanks, and quotes that stay open."""
        try:
            self._use(looked_over(self.dialect, self._stream, self.source.name))
        except (import_pyarrow().ArrowException, OSError, UnicodeError):
            pass  # the reader says what is wrong

    def _settled(self, table: Any) -> tuple[Frame, dict[str, words.Rule]]:
        """Columns of text in their types, with notes on what was guessed."""
        arrow = import_pyarrow()
        notes, rules, padded = [], {}, {}
        holes = {n: dict.fromkeys(w) for n, w in self.dialect.missing.items()}
        columns = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            columns[name] = column
            if not arrow.types.is_string(column.type):
                continue
            for word in words.missing_words(column):
                holes.setdefault(name, {})[word] = None
            known = self._date_formats.get(name, "")
            columns[name], rules[name], said = self._settle(column, name, known)
            notes += said
            if self.dialect.padded and rules[name].kind == "integer":
                padded[name] = column
        said = [
            f"{', '.join(map(repr, found))} in {printable(name)}"
            for name, found in holes.items()
            if name in columns
        ]
        if said:
            notes.append(
                f"counted as missing: {shown(said)} (--drop leaves a column out)"
            )
        notes += cells.zeros(padded)
        notes += [
            f"`{name}` looks like dates as 20200131, and is read as numbers (--kinds"
            f" {name}=date)"
            for name, column in columns.items()
            if arrow.types.is_integer(column.type) and dates.are_compact(column)
        ]
        frame = _frame(columns, rules, self.source.name)
        return dataclasses.replace(frame, notes=(*self.notes, *notes)), rules

    def _settle(
        self, column: Any, name: str, known: str
    ) -> tuple[Any, words.Rule, list[str]]:
        decimal = self.dialect.decimal
        other = "." if decimal == "," else ","
        return words.settle(
            column, name, decimal, other if self._guess_decimal else None, known
        )

    def _followed(
        self, table: Any, rules: dict[str, words.Rule], first: int
    ) -> tuple[Frame, list[str]]:
        """The rows from `first` on, by the rules so far, which may widen, with notes."""
        notes: list[str] = []
        columns = {}
        for name, text in zip(table.column_names, table.columns, strict=True):
            rule = rules[name]
            columns[name], bad = words.follow(text, rule)
            if columns[name] is None:
                known = rule.form or self._date_formats.get(name, "")
                columns[name], rules[name], said = self._settle(text, name, known)
                notes += said
                if not rule.may_become(rules[name]):
                    raise InputError(
                        f"{self.source.name} must hold the same in all of column"
                        f" {printable(name)}: {rule.kind} in the first rows,"
                        f" {printable(bad)!r} after row {first:,}. Leave it out with --drop"
                        f" {printable(name)}, or mend the cell."
                    )
            if self.dialect.padded and rules[name].kind == "integer":
                notes += cells.zeros({name: text})
        return _frame(columns, rules, self.source.name), notes

    def _likely(self, names: Sequence[str]) -> dict[str, Any]:
        """Types of columns of numbers: pyarrow keeps all text of those it must guess.

        And text where it matters how cells are written, as of instants.
        """
        arrow = import_pyarrow()
        known = dict.fromkeys(self._date_formats, arrow.string())
        if len(names) > _LIKELY_COLUMNS:
            return known
        try:
            first = next(self._batches(names, _LIKELY_ROWS), self._none(names))
        except InputError:
            return known  # what is wrong may have another way, and is found again
        kinds = {"integer": arrow.int64(), "number": arrow.float64()}
        kinds |= dict.fromkeys(("instant", "clock", "boolean"), arrow.string())
        rules = self._settled(first)[1]
        return {n: kinds[r.kind] for n, r in rules.items() if r.kind in kinds} | known

    def _none(self, names: Sequence[str]) -> Any:
        arrow = import_pyarrow()
        return arrow.table({name: arrow.array([], arrow.string()) for name in names})

    def _table(self, names: Sequence[str], types: Any = None, **options: Any) -> Any:
        """The columns as pyarrow reads them, the types from all rows."""
        arrow = import_pyarrow()
        try:
            with self._stream() as stream:
                return arrow.csv.read_csv(
                    stream, *self._options(names, types, **options)
                )
        except (arrow.ArrowException, OSError, UnicodeError) as error:
            if retry := another_way(error, options):
                return self._table(names, types, **retry)
            if types and "conversion error" in str(error):
                return self._table(names, None, **options)
            if self._may_be_bytes(error):
                return self._table_of_bytes(names, types)
            if "Empty CSV" in str(error):
                return self._none(names)
            raise unreadable(
                error, self.source.name, self.dialect.encoding, self._stream
            ) from error

    def _table_of_bytes(self, names: Sequence[str], types: Any = None) -> Any:
        """The table in another encoding: beyond the first lines it is not UTF-8."""
        with self.source.stream() as stream:
            encoding = single_byte(stream.read())
        note = f"encoding {encoding}, as not all of it is UTF-8 (--encoding)"
        look = self.dialect
        self._use(
            dataclasses.replace(look, encoding=encoding, notes=(*look.notes, note))
        )
        return self._table(names, types)

    def _may_be_bytes(self, error: Exception) -> bool:
        utf8 = self.dialect.encoding == "utf-8" and "UTF8" in str(error).upper()
        return utf8 and self._guess_encoding

    def _batches(self, names: Sequence[str], rows: int) -> Iterator[Any]:
        """Tables of text, of so many rows each, the last of fewer."""
        arrow = import_pyarrow()
        types = dict.fromkeys(names, arrow.string())
        held: list[Any] = []
        count = 0
        try:
            with self._stream() as stream:
                reader = arrow.csv.open_csv(
                    stream, *self._options(names, types, quoted_lines=True)
                )
                for batch in reader:
                    while count + len(batch) >= rows:
                        held.append(batch[: rows - count])
                        batch, count = batch[rows - count :], 0
                        yield arrow.Table.from_batches(held)
                        held = []
                    held.append(batch)
                    count += len(batch)
        except (arrow.ArrowException, OSError, UnicodeError) as error:
            if "Empty CSV" not in str(error):
                raise unreadable(
                    error, self.source.name, self.dialect.encoding, self._stream
                ) from error
        if count:
            yield arrow.Table.from_batches(held)

    def _stream(self) -> Any:
        arrow, look = import_pyarrow(), self.dialect
        stream = self.source.stream()
        if look.encoding != "utf-8":
            stream = arrow.transcoding_input_stream(stream, look.encoding, "utf-8")
        special = look.comment, look.blanks, look.loose, look.tail
        if look.sep == BLANKS or any(special):
            lines = Lines(
                look.comment,
                blanks=look.sep == BLANKS,
                hollow=look.blanks,
                loose=look.sep + look.quote if look.loose else "",
                tail=look.tail,
            )
            stream = arrow.TransformInputStream(stream, lines)
        return stream

    def _options(self, names, types, *, block=_BLOCK_BYTES, quoted_lines=False):
        """How pyarrow is to read it."""
        csv, look = import_pyarrow().csv, self.dialect
        read = csv.ReadOptions(
            skip_rows=look.skip, column_names=list(look.names), block_size=block
        )
        parse = csv.ParseOptions(
            delimiter=" " if look.sep == BLANKS else look.sep,
            quote_char=look.quote,
            escape_char="\\" if look.escape else False,
            newlines_in_values=quoted_lines,
        )
        convert = csv.ConvertOptions(
            include_columns=list(names),
            column_types=types,
            null_values=[
                before + word + after
                for word in cells.MISSING
                for before, after in (("", ""), (" ", ""), ("", " "))
            ],
            true_values=list(cells.TRUE),
            false_values=list(cells.FALSE),
            decimal_point=look.decimal,
        )
        return read, parse, convert


def _frame(columns: dict[str, Any], rules: dict[str, words.Rule], where: str) -> Frame:
    """Columns in their types, those of dates with the format that they came in."""
    frame = frame_of_arrow(import_pyarrow().table(columns), where)
    looks = {name: rule.look for name, rule in rules.items()}
    made = (
        dataclasses.replace(c, date_format=looks.get(c.name, "")) for c in frame.columns
    )
    return dataclasses.replace(frame, columns=tuple(made))

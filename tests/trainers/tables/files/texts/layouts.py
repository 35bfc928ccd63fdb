"""How a file is laid out: separators, header, index columns, encoding."""

from tests.trainers.tables.files.texts.base import Text

_ROWS = "1.5,2\n3.5,4\n"
_AB = {"a": [1.5, 3.5], "b": [2, 4]}
_INDEX = "index, Unnamed: 0, only counts"

SEPARATORS = {
    "comma": Text("a,b\n" + _ROWS, _AB),
    "semicolon": Text("a;b\n1.5;2\n3.5;4\n", _AB, (r"separator ';' \(--sep\)",)),
    "semicolon and decimal comma": Text(
        "a;b\n1,5;2\n3,5;4\n", _AB, ("separator ';'", r"decimal comma \(--decimal\)")
    ),
    "groups of digits, decimal comma": Text(
        "a;b\n1.234,5;2\n12.345.678,5;4\n",
        {"a": [1234.5, 12345678.5], "b": [2, 4]},
        ("separator", "decimal comma", "`a`: '.' groups the digits"),
    ),
    "groups of digits, decimal point": Text(
        'a,b\n"1,234",2\n"12,345.5",4\n',
        {"a": [1234.0, 12345.5], "b": [2, 4]},
        ("`a`: ',' groups the digits",),
    ),
    "decimal comma in quotes": Text('a,b\n"1,5",2\n"3,5",4\n', _AB, ("decimal comma",)),
    "three digits behind a comma": Text(
        "a;b\n1,234;2\n5,678;4\n",
        {"a": [1.234, 5.678], "b": [2, 4]},
        ("separator", "decimal comma"),
    ),
    "one column with decimal commas": Text(
        "a\n7,5\n3,25\n", {"a": [7.5, 3.25]}, ("decimal comma",)
    ),
    "one column of pandas with decimal commas": Text(
        "0\n7,5\n3,25\n",
        {"0": [7.5, 3.25]},
        ("decimal comma", "first line, 0, is the header"),
    ),
    "tab": Text("a\tb\n1.5\t2\n3.5\t4\n", _AB, ("separator tab",)),
    "pipe": Text("a|b\n1.5|2\n3.5|4\n", _AB, (r"separator '\|'",)),
    "blanks": Text("a   b\n 1.5  2 \n3.5\t4\n", _AB, ("separator blanks",)),
    "blanks in cells between tabs": Text(
        "when\tb\n2024-01-01 10:00\t1\n2024-01-02 11:00\t2\n",
        {"when": ["2024-01-01T10:00:00", "2024-01-02T11:00:00"], "b": [1, 2]},
        ("separator tab",),
    ),
    "blanks in the only cell": Text(
        "2024-01-01 10:00:00\n2024-01-01 11:00:00\n2024-01-01 11:30:00\n",
        {
            "x0": [
                "2024-01-01T10:00:00",
                "2024-01-01T11:00:00",
                "2024-01-01T11:30:00",
            ]
        },
        ("no header",),
    ),
    "spaces around": Text("a , b\n1.5 , 2\n3.5 ,\t4\n", _AB),
    "Excel says it": Text("sep=;\na;b\n1.5;2\n3.5;4\n", _AB),
    "as the option says": Text(
        "a:b\n1.5:2\n3.5:4\n", _AB, options={"sep": ":", "decimal": "."}
    ),
    "words with commas": Text(
        'a,b\n"x, y",2\n"say ""hi""",4\n', {"a": ["x, y", 'say "hi"'], "b": [2, 4]}
    ),
    "single quotes": Text(
        "a,b\n'x, y',2\n'z',4\n", {"a": ["x, y", "z"], "b": [2, 4]}, ("quote is '",)
    ),
    "backslash before quotes": Text(
        'a,b\n"x\\"y",2\nz,4\n', {"a": ['x"y', "z"], "b": [2, 4]}
    ),
    "a cell of two lines": Text(
        'a,b\n"x\ny",2\nz,4\n', {"a": ["x\ny", "z"], "b": [2, 4]}
    ),
    "quotes inside cells": Text(
        'a,b\n5" pipe,2\n"6"" pipe",4\n', {"a": ['5" pipe', '6" pipe'], "b": [2, 4]}
    ),
    "a cell that looks like rows": Text(
        'a,b\n1,"x\n2,y\n3,z"\n4,u\n',
        {"a": [1, 4], "b": ["x\n2,y\n3,z", "u"]},
        ('quote " in line 2 closes in line 4: .* looks like rows',),
    ),
    "a separator ends each line": Text("a,b,\n1.5,2,\n3.5,4,\n", _AB),
    "a separator ends the rows": Text("a,b\n1.5,2,\n3.5,4,\n", _AB),
    "a separator ends the header": Text("a,b,\n1.5,2\n3.5,4\n", _AB),
    "lines of Windows": Text("a,b\r\n1.5,2\r\n3.5,4\r\n", _AB),
    "lines of old Macs": Text("a,b\r1.5,2\r3.5,4\r", _AB),
    "no line end at the end": Text("a,b\n1.5,2\n3.5,4", _AB),
    "blank lines": Text("\na,b\n\n1.5,2\n\n3.5,4\n\n", _AB),
    "lines of blanks": Text(
        "a,b\n1.5,2\n  \n3.5,4\n \t", _AB, ("2 lines of blanks left out",)
    ),
    "lines of tabs between tabs": Text(
        "a\tb\n1.5\t2\n\t\n3.5\t4\n",
        {"a": [1.5, None, 3.5], "b": [2, None, 4]},
        ("separator tab",),
    ),
    "blank lines in one column": Text("a\n1\n\n3\n", {"a": [1, 3]}, ("blank lines",)),
}

_NO_HEADER = {"x0": [1.5, 3.5], "x1": [2, 4]}
HEADERS = {
    "none": Text(_ROWS, _NO_HEADER, (r"no header: .* x0, x1 \(--header\)",)),
    "none, with a hole in the first row": Text(
        "1.5,\n" + _ROWS,
        {"x0": [1.5, 1.5, 3.5], "x1": [None, 2, 4]},
        ("no header", r"empty cell of the first row, in x1, counts as missing"),
    ),
    "numbers as pandas writes": Text(
        "0,1\n" + _ROWS,
        {"0": [1.5, 3.5], "1": [2, 4]},
        (r"first line, 0, 1, is the header \(--header none\)",),
    ),
    "numbers as pandas writes, with the index": Text(
        ",0,1\n0,1.5,2\n1,3.5,4\n",
        {"0": [1.5, 3.5], "1": [2, 4]},
        ("first line, 0, 1, is the header", _INDEX),
    ),
    "a first row of 0 and 1": Text(
        "0,1\n1,0\n0,1\n1,1\n",
        {"x0": [0, 1, 0, 1], "x1": [1, 0, 1, 1]},
        ("no header",),
    ),
    "years": Text(
        "2001,2002\n1.5,2.5\n3.5,4.5\n",
        {"2001": [1.5, 3.5], "2002": [2.5, 4.5]},
        ("first line, 2001, 2002, is the header",),
    ),
    "a name and years": Text(
        "land,2001,2002,2003\nF,50,52,51\nG,80,83,82\n",
        {"land": ["F", "G"], "2001": [50, 80], "2002": [52, 83], "2003": [51, 82]},
    ),
    "quoted numbers": Text(
        '"5","9"\n1.5,2\n3.5,4\n',
        {"5": [1.5, 3.5], "9": [2, 4]},
        ("first line, 5, 9, is the header",),
    ),
    "dates above numbers": Text(
        "k,2024-01-01,2024-02-01\nu,1,2\nv,3,4\n",
        {"k": ["u", "v"], "2024-01-01": [1, 3], "2024-02-01": [2, 4]},
    ),
    "words above words": Text(
        "buying,maint\nhigh,low\nhigh,med\n",
        {"buying": ["high", "high"], "maint": ["low", "med"]},
        ("taken for the header",),
    ),
    "words that come again are a row": Text(
        "high,low\nlow,low\nhigh,med\n",
        {"x0": ["high", "low", "high"], "x1": ["low", "low", "med"]},
        ("no header",),
    ),
    "words and numbers without names": Text(
        "39, State-gov, 7\n50, Self-emp, 9\n38, ?, 8\n",
        {"x0": [39, 50, 38], "x1": ["State-gov", "Self-emp", None], "x2": [7, 9, 8]},
        ("no header", r"'\?' in x1"),
    ),
    "comments above": Text(
        "# station 4\n# unit: m\na,b\n" + _ROWS, _AB, ("2 lines of comments",)
    ),
    "the comment is the header": Text(
        "# a,b\n" + _ROWS, _AB, (r"last comment names the columns \(--header none\)",)
    ),
    "the second comment is the header": Text(
        "% of station 4\n% a  b\n1.5 2\n3.5 4\n",
        _AB,
        ("separator blanks", "1 line of comments", "last comment names"),
    ),
    "comments without names": Text(
        "# station four, in the north\n" + _ROWS.replace("\n", ",7\n"),
        _NO_HEADER | {"x2": [7, 7]},
        ("1 line of comments", "no header"),
    ),
    "comments between": Text(
        "a,b\n1.5,2\n# half\n3.5,4\n", _AB, ("lines that start with #",)
    ),
    "a column that is called #": Text(
        "#,a\n1,x\n5,y\n", {"#": [1, 5], "a": ["x", "y"]}, ("last comment",)
    ),
    "colours": Text(
        "hue,b\n#ff0000,2\n#00ff00,4\n",
        {"hue": ["#ff0000", "#00ff00"], "b": [2, 4]},
    ),
    "a report above": Text(
        "Station 4\nof the north\n\na,b\n" + _ROWS,
        _AB,
        (r"2 lines above .* \(--header\)",),
    ),
    "units below": Text(
        "a,b\nm,kg\n1.5,2\n3.5,4\n5.5,6\n",
        {"a": [1.5, 3.5, 5.5], "b": [2, 4, 6]},
        (r"line 2 holds units .* \(--header 1\)",),
    ),
    "as the option says": Text("9\n8\na,b\n" + _ROWS, _AB, options={"header": 3}),
    "none, as the option says": Text(
        "a,b\n1,2\n", {"x0": ["a", "1"], "x1": ["b", "2"]}, options={"header": "none"}
    ),
    "twice the same": Text(
        "a,a,b\n1,2,3\n4,5,6\n",
        {"a": [1, 4], "a.1": [2, 5], "b": [3, 6]},
        (r"called apart: a as a\.1",),
    ),
    "a name is empty": Text(
        "a,,b\n1,2,3\n4,5,6\n",
        {"a": [1, 4], "Unnamed: 1": [2, 5], "b": [3, 6]},
        ("without a name are called Unnamed: 1",),
    ),
    "quoted names above bare rows": Text(
        "'a'\t'b'\n1.5\t2\n3.5\t4\n", _AB, ("separator tab", "quote is '")
    ),
}

INDEXES = {
    "of pandas": Text(",a,b\n0,1.5,2\n1,3.5,4\n", _AB, (_INDEX,)),
    "of pandas, read and written again": Text(
        "Unnamed: 0,a,b\n0,1.5,2\n1,3.5,4\n", _AB, (_INDEX,)
    ),
    "shuffled": Text(",a,b\n17,1.5,2\n3,3.5,4\n", _AB, (_INDEX,)),
    "words": Text(",a,b\nu,1.5,2\nv,3.5,4\n", _AB, (_INDEX,)),
    "of R": Text('"","a","b"\n"1",1.5,2\n"2",3.5,4\n', _AB, (_INDEX,)),
    "of R, not named at all": Text('"a","b"\n"1",1.5,2\n"2",3.5,4\n', _AB, (_INDEX,)),
    "of R, numbers in quotes": Text(
        '"","a","b"\n"1962.25",1.5,2\n"1962.5",3.5,4\n', _AB, (_INDEX,)
    ),
    "asked for": Text(
        ",a,b\n0,1.5,2\n1,3.5,4\n",
        {"Unnamed: 0": [0, 1], "a": [1.5, 3.5]},
        options={"columns": ["Unnamed: 0", "a"]},
    ),
    "a first column without a name that is none": Text(
        ",a\n0.5,1\n0.5,2\n",
        {"Unnamed: 0": [0.5, 0.5], "a": [1, 2]},
        ("without a name are called Unnamed: 0",),
    ),
    "a column that counts is kept": Text(
        "id,a\n7,2\n8,2\n9,5\n",
        {"id": [7, 8, 9], "a": [2, 2, 5]},
    ),
}

ENCODINGS = {
    "UTF-8": Text("größe,b\n1.5,2\n", {"größe": [1.5], "b": [2]}),
    "UTF-8 with a mark": Text(
        "größe,b\n1.5,2\n".encode("utf-8-sig"), {"größe": [1.5], "b": [2]}
    ),
    "UTF-16 with a mark": Text(
        "größe,b\n1.5,2\n".encode("utf-16"),
        {"größe": [1.5], "b": [2]},
        (r"encoding utf-16 \(--encoding\)",),
    ),
    "UTF-16 without": Text(
        "größe,b\n1.5,2\n".encode("utf-16-le"),
        {"größe": [1.5], "b": [2]},
        ("encoding utf-16-le",),
    ),
    "Latin-1": Text(
        "größe,b\n1.5,2\n".encode("latin-1"),
        {"größe": [1.5], "b": [2]},
        (r"encoding Latin-1 .* not UTF-8 \(--encoding\)",),
    ),
    "Latin-1 far below": Text(
        ("a,b\n" + "x,2\n" * 20_000 + "ä,2\n").encode("latin-1"),
        {"a": ["x"] * 20_000 + ["ä"], "b": [2] * 20_001},
        ("encoding cp1252, as not all of it is UTF-8",),
    ),
    "as the option says": Text(
        "größe,b\n1.5,2\n".encode("cp437"),
        {"größe": [1.5], "b": [2]},
        options={"encoding": "cp437"},
    ),
}

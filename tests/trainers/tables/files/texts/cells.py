"""What cells hold, and how it is written."""

from tests.trainers.tables.files.texts.base import Text

_MANY = "".join(f"{i},{i / 4}\n" for i in range(1, 60))
KINDS = {
    "digits in groups of blanks": Text(
        "a;b\n5 829 981;1\u202f234.5\n8 326 534;2\u00a0345\n",
        {"a": [5829981.0, 8326534.0], "b": [1234.5, 2345.0]},
        (
            "separator",
            "`a`: a blank groups the digits",
            "`b`: a blank groups the digits",
        ),
    ),
    "signs of other programs": Text(
        "a,b,c\n\u22120.5,\u22125,1.5D+03\n1.5,6,-.25d-1\n",
        {"a": [-0.5, 1.5], "b": [-5, 6], "c": [1500.0, -0.025]},
        ("`a`: '\u2212' is read as minus", "`b`: '\u2212'", "`c`: D is read as E"),
    ),
    "numbers in dress": Text(
        'a,b,c,d,e\n41.2%,-$3,EUR 12,(0.5),1\n5%,"$1,180.64",EUR 1.5,2,7\n',
        {
            "a": ["41.2%", "5%"],
            "b": ["-$3", "$1,180.64"],
            "c": ["EUR 12", "EUR 1.5"],
            "d": ["(0.5)", "2"],
            "e": [1, 7],
        },
        (
            "`a` looks like numbers with '%', as '41.2%', and is left as words: leave '%'",
            r"`b` looks like numbers with '\$'",
            "`c` looks like numbers with 'EUR'",
            r"`d` looks like numbers, as '\(0.5\)', .* write - before negative ones",
        ),
    ),
    "names with digits": Text(
        "a,b,c\nQ1,12a,1\nQ2,7a,7\n",
        {"a": ["Q1", "Q2"], "b": ["12a", "7a"], "c": [1, 7]},
    ),
    "dates in words that are not read": Text(
        "a;b;c;d\nJan 1 2000;2019-05;2019Q1;1\nMarch 30, 2020;2020-12;2020Q4;7\n",
        {
            "a": ["Jan 1 2000", "March 30, 2020"],
            "b": ["2019-05", "2020-12"],
            "c": ["2019Q1", "2020Q4"],
            "d": [1, 7],
        },
        (
            "separator",
            "`a` looks like dates, as 'Jan 1 2000', and is left as words: write them as",
            "`b` looks like dates, as '2019-05'",
            "`c` looks like dates, as '2019Q1'",
        ),
    ),
    "integers stay": Text(
        "a,b\n1,-9223372036854775808\n,9223372036854775807\n",
        {"a": [1, None], "b": [-(2**63), 2**63 - 1]},
        sources=("Int64", "Int64"),
    ),
    "beyond int64": Text(
        "a,b\n18446744073709551615,1\n1,123456789012345678901234567890\n",
        {"a": [2**64 - 1, 1], "b": [1.0, 123456789012345678901234567890.0]},
        sources=("UInt64", "Float64"),
    ),
    "signs and exponents": Text(
        "a,b\n+1.5,1E+3\n-2.,.5\n", {"a": [1.5, -2.0], "b": [1000.0, 0.5]}
    ),
    "plus before integers": Text("a,b\n+5,x\n-3,y\n", {"a": [5, -3], "b": ["x", "y"]}),
    "leading zeros": Text(
        "zip,b\n00501,2\n10001,5\n",
        {"zip": [501, 10001], "b": [2, 5]},
        ("leading zeros of zip are not kept",),
    ),
    "truth": Text("a,b\ntrue,1\nFALSE,5\n", {"a": [True, False], "b": [1, 5]}),
    "words of truth stay words": Text(
        "a,b\nyes,1\nno,5\n", {"a": ["yes", "no"], "b": [1, 5]}
    ),
    "infinite": Text(
        "a,b\ninf,1\n-inf,5\n", {"a": [float("inf"), -float("inf")], "b": [1, 5]}
    ),
    "missing words": Text(
        "a,b,c\nNA,?,x\n1,-,None\n2,5,\n",
        {"a": [None, 1, 2], "b": [None, None, 5], "c": ["x", None, None]},
        ("counted as missing: 'NA' in a, .*'-' in b, 'None' in c",),
    ),
    "missing words with blanks around": Text(
        "a,b\n1, NA\n2,5\n", {"a": [1, 2], "b": [None, 5]}, ("'NA' in b",)
    ),
    "a column without values": Text(
        "a,b\n1,\n4,\n", {"a": [1, 4], "b": [None, None]}, sources=("Int64", "Float64")
    ),
    "rows without values": Text("a,b\n,\n1,2\n", {"a": [None, 1], "b": [None, 2]}),
    "a few words among numbers": Text(
        "a,b\n" + _MANY + "n.d.,0\n",
        {"a": [*range(1, 60), None], "b": [i / 4 for i in range(1, 60)] + [0.0]},
        (r"`a`: 'n\.d\.' \(1 of 60 cells\) is no number .* \(--drop a",),
    ),
    "a word among few integers is a class": Text(
        "a,b\n" + "4,1\n6,0\n" * 30 + "rotary,1\n",
        {"a": ["4", "6"] * 30 + ["rotary"], "b": [1, 0] * 30 + [1]},
    ),
    "dates": Text(
        "d,t\n2024-01-31,2024-01-31 10:00\n2024-02-29,2024-02-29T11:00:30\n",
        {
            "d": ["2024-01-31", "2024-02-29"],
            "t": ["2024-01-31T10:00:00", "2024-02-29T11:00:30"],
        },
        sources=("Date", "Datetime(time_unit='s', time_zone=None)"),
    ),
    "instants with a zone": Text(
        "t,b\n2024-01-05T10:00:00Z,1\n2024-01-06T10:00:00+02:00,5\n",
        {"t": ["2024-01-05T10:00:00", "2024-01-06T08:00:00"], "b": [1, 5]},
        (r"`t`: offsets \+02:00, Z are read, and written, as UTC",),
        sources=("Datetime(time_unit='s', time_zone='UTC')", "Int64"),
    ),
    "times of the day": Text(
        "t,b\n9:30,1\n10:45,5\n", {"t": [34_200, 38_700], "b": [1, 5]}
    ),
    "dates by day": Text(
        "d,b\n31/01/2024,1\n1/2/2024,5\n",
        {"d": ["2024-01-31", "2024-02-01"], "b": [1, 5]},
        ("`d`: dates as day/month/year",),
    ),
    "dates by month": Text(
        "d,b\n1/31/2024 10:00,1\n2/1/2024 9:15,5\n",
        {"d": ["2024-01-31T10:00:00", "2024-02-01T09:15:00"], "b": [1, 5]},
        ("`d`: dates as month/day/year",),
    ),
    "dates with names of months": Text(
        "d,b\n31-Jan-2024,1\n1-Feb-2024,5\n",
        {"d": ["2024-01-31", "2024-02-01"], "b": [1, 5]},
        ("`d`: dates as day-month-year",),
    ),
    "dates that may be either": Text(
        "d,b\n01/02/2024,1\n03/04/2024,5\n",
        {"d": ["01/02/2024", "03/04/2024"], "b": [1, 5]},
        ("`d` holds dates as day/month/year or month/day/year, and is left as words",),
    ),
    "days that there are not": Text(
        "d,b\n31/02/2024,1\n30/03/2024,5\n",
        {"d": ["31/02/2024", "30/03/2024"], "b": [1, 5]},
        ("`d` looks like dates, as '31/02/2024', and is left as words",),
    ),
}

"""Tables that packages ship go from the file as it is to a verdict, scores and a sample."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest

from tests.trainers.command.conftest import QUICK, command
from trainers.tables.reading import read_frame

DROP = ("--missing", "drop-rows")
SKLEARN, VEGA, STATS = (
    "sklearn/datasets/data",
    "vega_datasets/_data",
    "statsmodels/datasets",
)
# File, options, rows that stay, and the kinds of some columns.
TABLES = {
    "iris": (
        f"{SKLEARN}/iris.csv",
        (),
        150,
        {"setosa": "rounded", "virginica": "integer"},
    ),
    "wine": (
        f"{SKLEARN}/wine_data.csv",
        (),
        178,
        {"x0": "rounded", "x4": "integer", "x13": "integer"},
    ),
    "breast cancer": (
        f"{SKLEARN}/breast_cancer.csv",
        ("--columns", "x0", "x1", "x4", "x6", "x30"),
        569,
        {"x0": "rounded", "x30": "boolean"},
    ),
    "diabetes": (
        f"{SKLEARN}/diabetes_data_raw.csv.gz",
        (),
        442,
        {"x0": "integer", "x1": "integer", "x2": "rounded"},
    ),
    "linnerud": (
        f"{SKLEARN}/linnerud_physiological.csv",
        (),
        20,
        {"Weight": "integer", "Pulse": "integer"},
    ),
    "digits": (
        f"{SKLEARN}/digits.csv.gz",
        ("--columns", "x10", "x19", "x42", "x64"),
        1_797,
        {"x10": "integer", "x64": "integer"},
    ),
    "weather": (
        f"{VEGA}/seattle-weather.csv",
        ("--given", "weather"),
        1_461,
        {
            "date": "date, integer",
            "precipitation": "spike",
            "temp_max": "rounded",
        },
    ),
    "riots": (
        f"{VEGA}/la-riots.csv",
        DROP,
        62,
        {
            "first_name": "skipped",
            "age": "integer",
            "gender": "categorical",
            "death_date": "date, integer",
            "longitude": "continuous",
        },
    ),
    "airports": (
        f"{VEGA}/airports.csv",
        (*DROP, "--drop", "name"),
        3_364,
        {
            "iata": "skipped",
            "state": "categorical",
            "country": "skipped",
            "latitude": "continuous",
        },
    ),
    "electricity": (
        f"{VEGA}/iowa-electricity.csv",
        (),
        51,
        {"year": "date, integer", "source": "categorical"},
    ),
    "penguins": (
        "palmerpenguins/data/penguins.csv",
        DROP,
        333,
        {
            "species": "categorical",
            "bill_length_mm": "rounded",
            "body_mass_g": "integer",
            "sex": "categorical",
            "year": "integer",
        },
    ),
    "fair": (
        f"{STATS}/fair/fair.csv",
        (),
        6_366,
        {"age": "rounded", "educ": "integer", "affairs": "spike"},
    ),
    "elections": (
        f"{STATS}/anes96/anes96.csv",
        (),
        944,
        {"popul": "integer", "vote": "boolean"},
    ),
    "copper": (
        f"{STATS}/copper/copper.csv",
        ("--drop", "YEAR"),
        25,
        {"COPPERPRICE": "continuous", "INCOMEINDEX": "rounded"},
    ),
}


def located(path):
    package, _, inside = path.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed")
    return pathlib.Path(spec.submodule_search_locations[0]) / inside


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_a_table_goes_all_the_way(name, tmp_path):
    path, options, num_rows, kinds = TABLES[name]
    file, run, out = located(path), tmp_path / "run", tmp_path / "drawn.csv"
    ended = command("fit", file, "--workdir", run, *QUICK, *options)
    assert ended.code == 0, ended.err
    report = json.loads((run / "report.json").read_text())
    assert sum(report["rows"].values()) == num_rows
    found = {c["column"]: c["kind"] for c in report["kinds"]}
    assert {column: found[column] for column in kinds} == kinds
    printed = [line.split("│") for line in ended.out.splitlines() if "│" in line]
    shown = {cells[1].strip(): cells[2].strip() for cells in printed}
    assert {column: shown[column] for column in kinds} == kinds
    assert np.isfinite(list(report["held_out_log_prob"].values())).all()

    assert report["verdict"][0] in command("report", run).out
    scores = tmp_path / "scores.parquet"
    scored = command("score", run, file, "--out", scores, "--outliers", 3)
    assert scored.code == 0, scored.err
    held = read_frame(scores)["log_prob"]
    assert (~held.missing).sum() == num_rows
    assert np.isfinite(held.values[~held.missing]).all()

    given = ("--given-values", "weather=rain") if "--given" in options else ()
    drawn = command("sample", run, out, "-n", 40, *given)
    assert drawn.code == 0, drawn.err
    came, back = read_frame(file), read_frame(out)
    assert len(back) == 40
    assert set(report["columns"]) <= set(back.names)
    for column in report["kinds"]:
        if column["kind"] == "categorical":
            levels = set(came[column["column"]].values)
            assert set(back[column["column"]].values) <= levels
    again = command("score", run, out)
    assert again.code == 0, again.err
    assert "over 40 rows" in again.out

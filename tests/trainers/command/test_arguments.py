import dataclasses
import pathlib
import shlex

import pytest

from tests.trainers.command.conftest import command
from trainers.command import cli
from trainers.command.arguments import parse_with_file
from trainers.command.settings import FitFile, Training, in_typed_words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "give a command: fit, score"),
        ("paint", "there is no command paint; there are fit,"),
        ("smaple run x.csv", "there is no command smaple; perhaps sample. See"),
        ("fit", "FILE is missing. See rbig-nnx fit --help"),
        ("score run", "FILE is missing"),
        ("fit x y", "there is no argument y"),
        ("fit x --colums a", "there is no option --colums; perhaps --columns"),
        ("fit x --num-steps 3", "no option --num-steps; perhaps --train.num-steps"),
        ("fit x --hidden a", "--hidden must be whole numbers; got 'a'"),
        (
            "fit x --train.num-steps x",
            "--train.num-steps (setting num_steps) must be a whole number",
        ),
        (
            "fit x --train.num-steps 0",
            "--train.num-steps (setting num_steps) must be at least 1; got 0",
        ),
        ("fit x --train.jitter x", "--train.jitter must be a number; got 'x'"),
        (
            "fit x --num-blocks 0",
            "--num-blocks (setting num_blocks) must be 1 to 1,000; got 0",
        ),
        (
            f"fit x --num-components {10**10}",
            "--num-components (setting num_components) must be 1 to 1,000; got",
        ),
        (
            f"fit x --hidden 8 {10**10}",
            "--hidden must be 1 to 100,000; got 10000000000",
        ),
        (
            f"fit x --train.num-steps {10**12}",
            "--train.num-steps (setting num_steps) must be at most 2147483647",
        ),
        (
            "fit x --seed 4294967296",
            "--seed must be at most 4294967295; got 4294967296",
        ),
        (f"fit x --train.seed {10**30}", "must be at most 4294967295; got 1000"),
        (
            "fit x --valid-fraction .5",
            "--valid-fraction (setting valid_fraction) must lie above 0 and below 0.5",
        ),
        ("fit x --profile -1", "--profile must be 0 or more; got -1"),
        ("fit x --rotation foo", "--rotation must be one of 'auto', 'nongaussian'"),
        ("fit x --radial yes", "--radial must be one of 'True', 'False', 'None'"),
        ("fit x --sep", "--sep must be followed by a value"),
        ("sample r f -n x", "must be a whole number; got 'x'"),
        (
            "fit x --train.accumulate 7",
            "--train.accumulate must divide the 512 rows of a step, which"
            " --train.batch-size sets; got 7. Use 4",
        ),
        ("fit x --workdir=", "--workdir must name a file or folder; got ''"),
        ("fit x --seed 6 --train.seed 5", "--seed must be given once; --train.seed is"),
        ("fit x --quie", "there is no option --quie; perhaps --quiet or --given"),
        (
            "fit x --train.learning-rates a",
            "must be pairs of a pattern and a factor, as '*.vectors' 0.1; got 'a'",
        ),
        ("fit x --config .", "--config must be a file; got .: Is a directory"),
        (
            "fit x --train.strata 1000",
            "the 512 rows of a step, which --train.batch-size",
        ),
        (
            "fit x --budget soon",
            "--budget must be a time, as 90s, 7m or 1h30m, or steps of all runs, as",
        ),
        (
            "fit x --budget 7m --train.num-steps 3",
            "--budget must be left out where --train.num-steps is given",
        ),
        ("fit nowhere.csv", "FILE must be an existing file, got 'nowhere.csv'"),
        (
            "fit http://x.org/a.csv",
            "must be one of this machine, or in a bucket (gs://",
        ),
    ],
)
def test_what_is_wrong_is_one_line_in_the_words_that_were_typed(line, words):
    ended = command(*line.split())
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.count("\n") == 1
    assert ended.err.startswith("rbig-nnx: ")
    assert words in ended.err
    for inside in ("│", "invalid literal", "dummy", "Traceback", "`"):
        assert inside not in ended.err


def test_arguments_of_python_become_options():
    said = in_typed_words(
        "`num_steps` and\n `resume=False`, `train`, `odd` of `x`", cli.Fit
    )
    assert said == "--train.num-steps and --no-resume, `train`, `odd` of FILE"
    assert in_typed_words("`workdir` (--workdir) is", cli.Fit) == "--workdir is"
    said = in_typed_words("or kinds={'c': 'skipped'}, kinds={\"a'b\": 'date'}", cli.Fit)
    assert in_typed_words("(--drop c; in Python kinds={'c': 'skipped'})", cli.Fit) == (
        "(--drop c)"
    )
    assert said == """or --kinds c=skipped, --kinds 'a'"'"'b=date'"""


def test_an_option_of_several_values_may_come_again():
    line = (
        "fit x.csv --na -99 --seed 1 --na=999 x --drop a --hidden 8 --hidden 9 --drop b"
    )
    settings = parse_with_file(cli.COMMANDS, line.split(), prog="rbig-nnx")
    assert settings.na == ("-99", "999", "x")
    assert settings.drop == ("a", "b")
    assert settings.hidden == (8, 9)
    assert settings.seed == 1
    line = "fit x.csv --na=-- --drop=--a --given=-b"
    settings = parse_with_file(cli.COMMANDS, line.split(), prog="rbig-nnx")
    assert (settings.na, settings.drop, settings.given) == (("--",), ("--a",), ("-b",))


def parsed(tmp_path, text, *args):
    config = tmp_path / "run.yaml"
    config.write_text(text)
    line = ["fit", "x.csv", "--config", str(config), *args]
    return parse_with_file(cli.COMMANDS, line, prog="rbig-nnx")


@pytest.mark.parametrize(
    "line", ["--hidden", "--drop a --drop", "--na= --seed 1", "--train.learning-rates"]
)
def test_an_option_of_several_values_has_one(line):
    with pytest.raises(ValueError, match=r"^--\S+ must be followed by a value"):
        parse_with_file(cli.COMMANDS, ["fit", "x", *line.split()], prog="rbig-nnx")


def test_a_fit_can_be_typed_again_with_whatever_settings():
    settings = FitFile(
        sep=";",
        columns=("a b", "--c"),
        kinds=("a=bounded(0, 1)",),
        given=("-x",),
        na=("--", "-9", "-inf"),
        budget="90s",
        hidden=(4, 5),
        tails=True,
        whiten=False,
        clusters=0,
        train=Training(learning_rates={"*.v": 0.1, "q": 2}, jitter=0.1, seed=3),
    )
    line = shlex.split(settings.command(pathlib.Path("x.csv")))
    again = parse_with_file(cli.COMMANDS, line[1:], prog="rbig-nnx")
    assert again.result_settings() == settings.result_settings()


def test_settings_come_from_a_file_and_options_override_it(tmp_path):
    settings = parsed(
        tmp_path,
        "num_blocks: 3\nhidden: [16, 16]\nresume: false\nkinds: {a: positive}\n"
        "na: [-9999, unknown]\nworkdir: elsewhere\n"
        "train:\n  learning_rate: 1e-4\n  num_steps: 7\n",
        *("--train.num-steps", "9"),
    )
    assert (settings.num_blocks, settings.hidden) == (3, (16, 16))
    assert (settings.train.learning_rate, settings.train.num_steps) == (1e-4, 9)
    assert settings.train.batch_size is None
    assert settings.workdir == pathlib.Path("elsewhere")
    assert settings.kinds == ("a=positive",)
    assert settings.na == ("-9999", "unknown")
    assert not settings.resume
    assert settings.sep is None


def test_words_of_the_file_are_taken_as_they_stand(tmp_path):
    settings = parsed(
        tmp_path,
        "tails: true\nwhiten: no\nresume: off\nna: [007, 1.50, null]\ndrop: on\n"
        "train: {learning_rates: {'*.vectors': 0.1}}\nseed: 3\n",
    )
    assert (settings.tails, settings.whiten, settings.resume) == (True, False, False)
    assert settings.na == ("007", "1.50", "null")
    assert settings.drop == ("on",)
    assert settings.train.learning_rates == (("*.vectors", 0.1),)
    assert settings.train.seed == 3
    assert parsed(tmp_path, "seed: 3\n", "--train.seed", "4").train.seed == 4
    assert parsed(tmp_path, "train: {seed: 3}\n", "--seed", "4").train.seed == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_blocs: 3", r"run.yaml has no setting \['num_blocs'\]"),
        ("train: {steps: 3}", r"no setting \['steps'\]"),
        (
            "num_blocks: many",
            "run.yaml: num_blocks must be a whole number; got 'many'",
        ),
        ("num_blocks: 0", "run.yaml: num_blocks must be 1 to 1,000; got 0"),
        ("num_blocks:", "run.yaml: num_blocks must have a value"),
        ("num_blocks: true", "num_blocks must be a whole number; got 'true'"),
        ("num_blocks: [3, 4]", r"num_blocks must be one value; got \['3', '4'\]"),
        ("resume: 0", "run.yaml: resume must be true or false; got '0'"),
        ("tails: maybe", "run.yaml: tails must be one of 'True', 'False', 'None'"),
        ("seed: 1:30", "seed must be a whole number; got '1:30'"),
        ("hidden: []", "run.yaml: hidden must have a value. For the default, leave"),
        ("seed: 1\nseed: 2", "run.yaml must be YAML; it names seed twice in line 1"),
        ("seed: 1\ntrain: {seed: 2}", "seed must be given once"),
        ("config: other.yaml", r"run.yaml has no setting \['config'\]"),
        ("workdir: ''", "run.yaml: workdir must have a value"),
        ("hidden: &x [4, *x]", "must be YAML; found unconstructable recursive node"),
        ("train: {learning_rates: {a: b}}", "must be pairs of a pattern and a factor"),
        ("train: 3", "run.yaml: train must be a mapping"),
        ("hidden: [[[4]]]", "run.yaml: hidden must be a list or a mapping of words"),
        ("kinds: {a: [b]}", "run.yaml: kinds must be a list or a mapping of words"),
        ("train: {num_steps: -1}", "run.yaml: train.num_steps must be at least 1"),
        ("- 1", "must be a mapping"),
        ("a: [", "must be YAML"),
        ("[" * 5_000, "run.yaml must be YAML; maximum recursion depth"),
        (
            f"num_blocks: {'9' * 5_000}",
            "num_blocks must be a whole number; got '9[9 ]+…'",
        ),
    ],
)
def test_mistakes_in_the_file_of_settings(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        parsed(tmp_path, text)


def test_a_seed_is_that_of_the_training_and_settings_come_back_from_json():
    settings = FitFile(seed=3, hidden=(4, 5), kinds=("a=positive",))
    assert settings.train.seed == 3
    options = settings.result_settings()
    assert options["--seed"] == 3
    assert options["--train.num-steps"] is None
    assert settings.asked()["hidden"] == (4, 5)
    assert not settings.asked().keys() & {"num_blocks", "num_steps", "weight_decay"}
    assert "--workdir" not in options
    again = FitFile.from_options(options)
    assert again.result_settings() == options
    other = dataclasses.replace(settings, quiet=True, workdir=pathlib.Path("w"))
    assert other.result_settings() == options

import pytest

from tests.shell import check_commands


def test_what_exists_passes():
    check_commands("""
export JAX_PLATFORMS=cpu
rbig-nnx fit rows.csv --kinds price=positive \\
  --drop id   # a comment
RBIG=1 make docs
pip install "rbig-nnx[plot,data]"
python examples/pod.py --distributed
python -m benchmarks.density --quick
curl localhost --anything
""")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rbig-nnx fit rows.csv --no-such-thing", "no-such-thing"),
        ("rbig-nnx fitt rows.csv", "fitt"),
        ("make no-target", "no-target"),
        ("pip install 'rbig-nnx[plot,no-extra]'", "no-extra"),
        ("python examples/no_example.py", "no_example"),
        ("python examples/pod.py --no-such-thing", "no-such-thing"),
        ("python -m benchmarks.nothing", "nothing"),
    ],
)
def test_what_does_not_is_refused(line, words):
    with pytest.raises(ValueError, match=words):
        check_commands(line)

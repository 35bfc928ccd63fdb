import pytest
from flax import nnx


@pytest.fixture(params=["graph", "tree"])
def nnx_mode(request):
    modes = nnx.set_graph_mode, nnx.set_graph_updates
    if request.param == "tree":
        for set_mode in modes:
            set_mode(False)
    yield request.param
    for set_mode in modes:
        set_mode(True)

"""What every test gets: eight virtual devices, a key of its own, 64-bit by marker."""

import os
import zlib

import jax
import pytest

# Read when JAX makes its CPU client, at the first array: no test module is loaded yet.
_EIGHT_DEVICES = "--xla_force_host_platform_device_count=8"
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_EIGHT_DEVICES}"


def pytest_configure(config):
    """Shares compiled programs between the workers, and with the next run."""
    folder = config.rootpath / ".pytest_cache" / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture
def key(request):
    """A random key that depends on the test's name only."""
    return jax.random.key(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def x64():
    """64-bit types while the test runs."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def _x64_by_marker(request):
    if request.node.get_closest_marker("x64"):
        request.getfixturevalue("x64")

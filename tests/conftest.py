"""What every test gets: eight virtual devices, a key of its own, 64-bit by marker."""

import os
import zlib

import jax
import pytest

# Two workers on two cores: threads of OpenMP that wait for each other only spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
_EIGHT_DEVICES = "--xla_force_host_platform_device_count=8"
# The default run compiles thousands of programs to run them once: a quarter less time.
_QUICKLY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def pytest_configure(config):
    """Sets flags of XLA; shares compiled programs between the workers and with the next run.

    JAX reads the flags when it makes its CPU client, at the first array: no test module is
    loaded yet. With slow tests programs are compiled as users compile them.
    """
    flags = [os.environ.get("XLA_FLAGS", "")]
    if "xla_force_host_platform_device_count" not in flags[0]:
        flags.append(_EIGHT_DEVICES)
    if config.option.markexpr == "not slow":
        flags.append(_QUICKLY)
    os.environ["XLA_FLAGS"] = " ".join(flags)
    folder = config.rootpath / ".pytest_cache" / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(scope="module", autouse=True)
def _programs_go_with_their_file(request):
    """Slow tests compile hundreds: with 6 GB of them XLA's compiler ends a worker."""
    yield
    if request.config.option.markexpr != "not slow":
        jax.clear_caches()


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

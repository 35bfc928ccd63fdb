import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from trainers.placement.compilation import compiled, forget, use_cache


@pytest.fixture(autouse=True)
def empty_store():
    forget()
    yield
    forget()


def double(x):
    return 2 * x


def test_one_structure_compiles_once():
    first = compiled(double, (jnp.ones(3),), identity=())
    assert compiled(double, (jnp.zeros(3),), identity=()) is first
    assert compiled(double, (jnp.zeros(4),), identity=()) is not first
    assert compiled(double, (jnp.zeros(3),), identity=("other",)) is not first
    assert first(jnp.ones(3)).tolist() == [2.0, 2.0, 2.0]


def test_what_failed_to_compile_is_tried_again():
    outcomes = [MemoryError("out of memory"), None]

    class Lowered:
        def compile(self):
            if error := outcomes.pop(0):
                raise error
            return double

    class Jit:
        def lower(self, *arguments):
            return Lowered()

    def start():
        return compiled(
            double, (jnp.ones(3),), identity=(), transform=lambda function: Jit()
        )

    with pytest.raises(MemoryError):
        start().wait()
    assert start().wait() is double
    assert start()(jnp.ones(())).item() == 2.0
    assert not outcomes


@pytest.fixture
def no_cache(monkeypatch):
    """JAX as it is before anybody has set a cache."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_enable_compilation_cache",
    )
    before = {name: getattr(jax.config, name) for name in names}
    for variable in (
        "JAX_COMPILATION_CACHE_DIR",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
    ):
        monkeypatch.delenv(variable, raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_cache_lies_in_the_users_folder(no_cache, monkeypatch, tmp_path):
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda app: str(tmp_path / app))
    folder = use_cache()
    assert folder.parent == tmp_path / "rbig-nnx"
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.2
    assert use_cache() == folder  # and again


def test_what_the_user_has_set_counts(no_cache, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    assert use_cache(tmp_path) is None
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    jax.config.update("jax_enable_compilation_cache", False)
    assert use_cache(tmp_path) is None
    assert not any(tmp_path.iterdir())
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    assert use_cache(tmp_path) == tmp_path / "own"
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "5")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 5.0)
    assert use_cache(tmp_path) is not None
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 5


def test_a_folder_that_cannot_be_written_is_left_alone(no_cache, tmp_path):
    (tmp_path / "file").write_text("")
    assert use_cache(tmp_path / "file") is None
    assert jax.config.jax_compilation_cache_dir is None


def test_programs_that_nobody_uses_make_room(no_cache, monkeypatch, tmp_path):
    folder = use_cache(tmp_path)
    for age, name in enumerate(("new", "older", "oldest")):
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (1e9 - age, 1e9))
    monkeypatch.setattr("trainers.placement.compilation._MOST_BYTES", 250)
    jax.config.update("jax_compilation_cache_dir", None)
    assert use_cache(tmp_path) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["new", "older"]


CACHED = """
import sys
import jax, jax.numpy as jnp
from trainers.placement.compilation import use_cache

events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jnp.ones(3)  # something was compiled before
use_cache(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T)(jnp.ones((7, 7)))
print(events.count("/jax/compilation_cache/cache_hits"))
"""


def test_the_next_process_finds_what_was_compiled(tmp_path):
    hits = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", CACHED, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
        hits.append(int(done.stdout))
    assert hits[0] == 0
    assert hits[1] > 0

"""The settings of the jobs. Without JAX, so that a command line is read at once."""

import dataclasses
import pathlib

from trainers.config import TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """The two-moons experiment: a table, three figures and a checkpoint."""

    out: pathlib.Path = pathlib.Path("runs/demo")  # folder of what it writes
    num_seeds: int = 5  # initialisations, and orders of the batches
    num_steps: int = 550  # optimiser updates of each run
    eval_every: int = 50  # steps
    learning_rate: float = 6e-3  # peak
    rotation: str = "pca"  # of the warm start
    num_test: int = 50_000  # fresh points that judge
    num_valid: int = 3_000  # fresh points that choose the step

    def train_config(self, seed: int) -> TrainConfig:
        """How each of the flows is trained."""
        return TrainConfig(
            num_steps=self.num_steps,
            eval_every=self.eval_every,
            learning_rate=self.learning_rate,
            patience=0,
            seed=seed,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitFile:
    """Fits a density to the rows of a file, with a Gaussian and a mixture beside it."""

    columns: tuple[str, ...] = ()  # by name; empty for all
    workdir: pathlib.Path = pathlib.Path("runs/fit")  # checkpoints, metrics, report
    resume: bool = True  # go on from what is in workdir; False sets that aside
    profile: int = 0  # steps to trace before training, into workdir/profile
    num_blocks: int = 4  # rotation, coupling, complementary coupling
    num_components: int = 8  # of each mixture
    hidden: tuple[int, ...] = (64, 64)  # widths of the conditioners
    rotation: str = "nongaussian"  # of the warm start; or pca, random, ica
    test_fraction: float = 0.1  # of the rows, held out to judge
    valid_fraction: float = 0.1  # of the rows, held out to choose the step
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)

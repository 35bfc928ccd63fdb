"""What a warm start did, layer by layer."""

import dataclasses
import io

from rich.console import Console
from rich.table import Table


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """What the warm start did to one layer."""

    index: int  # in the order of application, through every block
    name: str
    log_prob: float  # nats, mean over the valid rows, of the flow cut after this layer
    negentropy: float  # nats this layer removed on those rows
    action: str  # "pca", "8 of 8 features", "passed", …
    seconds: float  # compilation included


@dataclasses.dataclass(frozen=True)
class WarmStartReport:
    """The layers in order; `print` it for a table."""

    layers: tuple[LayerReport, ...]
    holdout: float  # share of the rows that are valid ones; 0: judged by train rows

    @property
    def log_prob(self) -> float:
        """Mean log density of the warm-started flow in nats, on the valid rows."""
        return self.layers[-1].log_prob

    @property
    def seconds(self) -> float:
        """Wall time of all layers, compilation included."""
        return sum(layer.seconds for layer in self.layers)

    def table(self) -> Table:
        """The report as a rich table."""
        rows = "valid rows" if self.holdout else "train rows"
        table = Table(title=f"warm start, nats on {rows}")
        for name in ("layer", "fit", "log p", "removed", "seconds"):
            left = name in ("layer", "fit")
            table.add_column(name, justify="left" if left else "right")
        for layer in self.layers:
            table.add_row(
                f"{layer.index:>2} {layer.name}",
                layer.action,
                f"{layer.log_prob:.4f}",
                f"{layer.negentropy:+.4f}",
                f"{layer.seconds:.2f}",
            )
        return table

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=100)
        console.print(self.table())
        return console.file.getvalue()

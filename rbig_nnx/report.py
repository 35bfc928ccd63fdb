"""What a warm start did, layer by layer."""

import dataclasses
import io

from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """What the warm start did to one layer.

    Example:
      >>> import rbig_nnx as rn
      >>> layer = rn.LayerReport(0, "Whiten", -2.8, 0.5, "passed", 0.1)
      >>> print(layer.name, layer.negentropy)
      Whiten 0.5
    """

    index: int  # in the order of application, through every block
    name: str
    log_prob: float  # nats, mean over the valid rows, of the flow cut after this layer
    negentropy: float  # nats this layer removed on those rows
    action: str  # "pca", "8 of 8 features", "passed", …
    seconds: float  # compilation included
    flow: str = (
        ""  # path in the model, "heads.density"; of a member, "heads.density[2]"
    )


@dataclasses.dataclass(frozen=True)
class WarmStartReport:
    """The layers in order, flow by flow; `print` it for a table.

    Of several flows, or members of an ensemble, `flows` has the report of each.

    Example:
      >>> import rbig_nnx as rn
      >>> layer = rn.LayerReport(0, "Whiten", -2.8, 0.5, "passed", 0.1)
      >>> report = rn.WarmStartReport((layer,), holdout=0.1)
      >>> print(report.log_prob, report.seconds)
      -2.8 0.1
    """

    layers: tuple[LayerReport, ...]
    holdout: float  # share of the rows that are valid ones; 0: judged by train rows

    @property
    def flows(self) -> dict[str, "WarmStartReport"]:
        """The report of each flow or member, by its name: of a model itself, ""."""
        names = dict.fromkeys(layer.flow for layer in self.layers)
        return {
            name: dataclasses.replace(
                self, layers=tuple(la for la in self.layers if la.flow == name)
            )
            for name in names
        }

    @property
    def log_prob(self) -> float:
        """Mean log density of the warm-started flow in nats, on the valid rows.

        Raises:
          ValueError: of several flows, each of which has its own.
        """
        if len(names := list(self.flows)) > 1:
            raise ValueError(
                "`log_prob` is that of one flow, and this report is of"
                f" {len(names)}; ask report.flows[{names[0]!r}].log_prob, or others of"
                f" {names}."
            )
        return self.layers[-1].log_prob

    @property
    def seconds(self) -> float:
        """Wall time of all layers, compilation included."""
        return sum(layer.seconds for layer in self.layers)

    def table(self) -> Table:
        """The report as a rich table: of one flow its layers, of several the flows."""
        flows = self.flows
        first = ("layer", "fit") if len(flows) < 2 else ("flow", "layers")
        rows = "valid rows" if self.holdout else "train rows"
        table = Table(title=f"warm start, nats on {rows}")
        for name in (*first, "log p", "removed", "seconds"):
            table.add_column(name, justify="left" if name in first else "right")
        if len(flows) < 2:
            for la in self.layers:
                numbers = la.log_prob, la.negentropy, la.seconds
                table.add_row(f"{la.index:>2} {la.name}", la.action, *_shown(*numbers))
            return table
        for name, report in flows.items():
            removed = sum(la.negentropy for la in report.layers)
            numbers = report.log_prob, removed, report.seconds
            table.add_row(Text(name), str(len(report.layers)), *_shown(*numbers))
        return table

    def __str__(self) -> str:
        return self._printed().file.getvalue()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        form = "<pre style='line-height: 1.2; font-family: monospace'>{code}</pre>"
        return self._printed().export_html(inline_styles=True, code_format=form)

    def _printed(self) -> Console:
        console = Console(file=io.StringIO(), width=100, record=True)
        console.print(self.table())
        return console


def _shown(log_prob: float, removed: float, seconds: float) -> tuple[str, str, str]:
    return f"{log_prob:.4f}", f"{removed:+.4f}", f"{seconds:.2f}"

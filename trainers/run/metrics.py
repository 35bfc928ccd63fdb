"""What a run measures, as clu collections: sums on the device, read when needed."""

import flax.struct
from clu import metrics


@flax.struct.dataclass
class TrainMetrics(metrics.Collection):
    """Means over the finite steps of one dispatch."""

    loss: metrics.Average.from_output("loss")
    grad_norm: metrics.Average.from_output("grad_norm")


@flax.struct.dataclass
class EvalMetrics(metrics.Collection):
    """Mean over rows of minus the loss: log p in nats for the default loss."""

    score: metrics.Average.from_output("score")

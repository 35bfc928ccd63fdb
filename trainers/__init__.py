"""Training for flows, and for any NNX model that contains one."""

from trainers.checkpoint import load_flow as load_flow
from trainers.checkpoint import restore as restore
from trainers.checkpoint import save as save
from trainers.checkpoint_format import CheckpointError as CheckpointError
from trainers.config import TrainConfig as TrainConfig
from trainers.estimator import FlowDensity as FlowDensity
from trainers.trainer import FitResult as FitResult
from trainers.trainer import Trainer as Trainer
from trainers.trainer import fit as fit

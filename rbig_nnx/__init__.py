"""Density models that start good: RBIG-initialised flows for Flax NNX and Distrax."""

from rbig_nnx import bijectors as bijectors
from rbig_nnx import information as information
from rbig_nnx.math.params import MixtureParams as MixtureParams
from rbig_nnx.nn.base.activations import keep_activations as keep_activations
from rbig_nnx.nn.base.layer import Frozen as Frozen
from rbig_nnx.nn.conditioner import Conditioner as Conditioner
from rbig_nnx.nn.config import from_config as from_config
from rbig_nnx.nn.config import to_config as to_config
from rbig_nnx.nn.coupling import MixtureCDFCoupling as MixtureCDFCoupling
from rbig_nnx.nn.flow import GaussianizationFlow as GaussianizationFlow
from rbig_nnx.nn.flow import output_kernel_magnitudes as output_kernel_magnitudes
from rbig_nnx.nn.marginal import MixtureCDFMarginal as MixtureCDFMarginal
from rbig_nnx.nn.recipes import coupling_flow as coupling_flow
from rbig_nnx.nn.recipes import diagonal_flow as diagonal_flow
from rbig_nnx.nn.rotation import HouseholderRotation as HouseholderRotation
from rbig_nnx.nn.stack import ScannedBlocks as ScannedBlocks
from rbig_nnx.nn.standardize import Standardize as Standardize
from rbig_nnx.nn.standardize import Whiten as Whiten
from rbig_nnx.nn.tails import RadialTransform as RadialTransform
from rbig_nnx.nn.tails import TailTransform as TailTransform
from rbig_nnx.report import LayerReport as LayerReport
from rbig_nnx.report import WarmStartReport as WarmStartReport
from rbig_nnx.warm_start import warm_start as warm_start

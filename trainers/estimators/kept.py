"""What an estimator keeps in its checkpoint, beside the flow and the schema of its table."""

from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from sklearn.base import OutlierMixin

from trainers.checkpoints.format import CheckpointError, damaged
from trainers.estimators.arguments import check_arguments, json_params
from trainers.estimators.table_flow import TableFlow
from trainers.paths import Path


class Fitted(Struct):
    """The attributes that end in an underscore, but for the table."""

    n_features_in_: Annotated[int, Meta(ge=1)]
    feature_names_in_: list[str]
    history_: dict[str, list[int | float]]
    candidates_: dict[str, float] = {}
    offset_: float | UnsetType = UNSET  # of a detector of outliers


class Kept(Struct):
    """All of it."""

    estimator: str
    params: dict[str, Any]
    fitted: Fitted


def described(estimator: Any) -> dict[str, Any]:
    """A fitted estimator as JSON that `restored` takes."""
    fitted = Fitted(
        n_features_in_=estimator.n_features_in_,
        feature_names_in_=list(getattr(estimator, "feature_names_in_", ())),
        history_={name: v.tolist() for name, v in estimator.history_.items()},
        candidates_=getattr(estimator, "candidates_", {}),
        offset_=getattr(estimator, "offset_", UNSET),
    )
    kept = Kept(type(estimator).__name__, json_params(estimator), fitted)
    return msgspec.to_builtins(kept)


def restored(cls: type, table: TableFlow, about: Any, place: Path) -> Any:
    """The estimator that a checkpoint describes, or one around a flow of `rbig-nnx fit`.

    Args:
      cls: of the estimator.
      table: in the checkpoint.
      about: what `described` wrote, or None.
      place: of the checkpoint, for messages.

    Raises:
      CheckpointError: an estimator of another class, or a damaged one.
    """
    names = [] if table.schema.origin == "numpy" else list(table.schema.names)
    width = len(table.schema.columns)
    try:
        if about is None:
            fitted = Fitted(width, names, {})
            kept = Kept(_class_of_fits(cls), {"num_draws": table.num_draws}, fitted)
        else:
            kept = msgspec.convert(about, Kept)
        if kept.estimator != cls.__name__:
            raise CheckpointError(
                f"`path` must hold a {cls.__name__}; {place} holds a {kept.estimator}."
                f" Use {kept.estimator}.load(path)."
            )
        found = cls(**kept.params)
        check_arguments(found)
        named = kept.fitted.feature_names_in_ or names
        if kept.fitted.n_features_in_ != width or named != names:
            raise ValueError("its columns are not those of the table")
        if isinstance(found, OutlierMixin) and kept.fitted.offset_ is UNSET:
            raise ValueError("it has no `offset_`")
    except CheckpointError:
        raise
    except (TypeError, ValueError) as error:
        raise damaged(place, f"its estimator cannot be read: {error}") from None
    fitted = kept.fitted
    found.table_, found._n_features_out = table, table.schema.width
    found.n_features_in_, found.candidates_ = fitted.n_features_in_, fitted.candidates_
    found.history_ = {name: np.asarray(v) for name, v in fitted.history_.items()}
    if fitted.feature_names_in_:
        found.feature_names_in_ = np.asarray(fitted.feature_names_in_, object)
    if fitted.offset_ is not UNSET:
        found.offset_ = fitted.offset_
    return found


def _class_of_fits(cls: type) -> str:
    """What a flow of `rbig-nnx fit` can be: it has no bound below which rows are outliers."""
    return "FlowDensity" if issubclass(cls, OutlierMixin) else cls.__name__

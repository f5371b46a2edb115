"""What concerns whole models: their weights are drawn anew, or looked at."""

from keras_initkit.models.audit import audit
from keras_initkit.models.audit_report import Audit, WeightAudit
from keras_initkit.models.construction import defaults, layer_aware
from keras_initkit.models.reinitialization import reinitialize

__all__ = ["Audit", "WeightAudit", "audit", "defaults", "layer_aware", "reinitialize"]

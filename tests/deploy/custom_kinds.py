"""What this project uses of kinds of objects that Kubernetes learns from others.

Narrower than the definitions of the Prometheus Operator and of KEDA: what isn't listed is a mistake
here, be it in a name or in where it stands.
"""

import importlib
import importlib.util
from typing import Any, Final

from tests.tools import missing


def _object(required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


_TEXT: Final = {"type": "string", "minLength": 1}
_TEXTS: Final = {"type": "object", "additionalProperties": {"type": "string"}}
_NUMBER: Final = {"type": "integer", "minimum": 0}
_DURATION: Final = {"type": "string", "pattern": r"^([0-9]+(ms|[smhdwy]))+$"}


def _kind(api_version: str, kind: str, spec: Any) -> dict[str, Any]:
    metadata = _object("name namespace", name=_TEXT, namespace=_TEXT, labels=_TEXTS)
    return _object(
        "apiVersion kind metadata spec",
        apiVersion={"const": api_version},
        kind={"const": kind},
        metadata=metadata,
        spec=spec,
    )


_RELABELING: Final = _object(
    "action targetLabel replacement",
    action={"enum": ["replace"]},
    targetLabel=_TEXT,
    replacement=_TEXT,
)

_ALERT: Final = _object(
    "alert expr labels annotations",
    **{"alert": _TEXT, "expr": _TEXT, "for": _DURATION, "keep_firing_for": _DURATION},
    labels=_TEXTS,
    annotations=_TEXTS,
)
_RULE: Final = {"oneOf": [_ALERT, _object("record expr", record=_TEXT, expr=_TEXT)]}

_POLICY: Final = _object(
    "type value periodSeconds",
    type={"enum": ["Percent", "Pods"]},
    value=_NUMBER,
    periodSeconds=_NUMBER,
)

_SCALING: Final = _object(
    "stabilizationWindowSeconds policies",
    stabilizationWindowSeconds=_NUMBER,
    policies=_list(_POLICY),
)

_SCHEMAS: Final = {
    "PodMonitor": _kind(
        "monitoring.coreos.com/v1",
        "PodMonitor",
        _object(
            "selector podMetricsEndpoints",
            selector=_object("matchLabels", matchLabels=_TEXTS),
            podMetricsEndpoints=_list(
                _object(
                    "port",
                    port=_TEXT,
                    interval=_DURATION,
                    relabelings=_list(_RELABELING),
                )
            ),
        ),
    ),
    "PrometheusRule": _kind(
        "monitoring.coreos.com/v1",
        "PrometheusRule",
        _object(
            "groups",
            groups=_list(_object("name rules", name=_TEXT, interval=_DURATION, rules=_list(_RULE))),
        ),
    ),
    "ScaledObject": _kind(
        "keda.sh/v1alpha1",
        "ScaledObject",
        _object(
            "scaleTargetRef triggers",
            scaleTargetRef=_object("name", name=_TEXT),
            minReplicaCount=_NUMBER,
            maxReplicaCount=_NUMBER,
            pollingInterval=_NUMBER,
            cooldownPeriod=_NUMBER,
            advanced=_object(
                "horizontalPodAutoscalerConfig",
                horizontalPodAutoscalerConfig=_object(
                    "behavior",
                    behavior=_object("scaleUp scaleDown", scaleUp=_SCALING, scaleDown=_SCALING),
                ),
            ),
            triggers=_list(
                _object(
                    "type name metadata",
                    type={"const": "prometheus"},
                    name=_TEXT,
                    metricType={"enum": ["AverageValue", "Value"]},
                    metadata=_TEXTS,
                )
            ),
        ),
    ),
}
"""By kind, as JSON Schema."""


def validate(found: Any) -> None:
    """Let an object be as it should, or fail."""
    if importlib.util.find_spec("jsonschema") is None:
        missing("jsonschema isn't installed; it comes with requirements-deploy.lock")
    importlib.import_module("jsonschema").validate(found, _SCHEMAS[found["kind"]])

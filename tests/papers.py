"""The papers of a build, judged by CycloneDX's and in-toto's own libraries, and field by field."""

from __future__ import annotations

import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]
from cyclonedx.model.bom import Bom
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation import make_schemabased_validator
from google.protobuf import json_format  # type: ignore[import-untyped]
from in_toto_attestation.predicates.provenance.v1 import (  # type: ignore[import-untyped]
    provenance_pb2,
)
from in_toto_attestation.v1 import statement_pb2  # type: ignore[import-untyped]
from in_toto_attestation.v1.statement import Statement  # type: ignore[import-untyped]

# The fields of in-toto's ResourceDescriptor v1 and Statement v1 and of SLSA's provenance v1, as
# their specifications list them. in-toto's library refuses a field that it does not know; what a
# digest or a URI looks like, and which fields must be there, it leaves to who uses it.

RESOURCE = {
    "type": "object",
    "additionalProperties": False,
    "minProperties": 1,
    "properties": {
        "name": {"type": "string"},
        "uri": {"type": "string", "pattern": "^[a-z][a-z0-9+.-]*:"},
        "digest": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": False,
            "properties": {
                "sha256": {"pattern": "^[0-9a-f]{64}$"},
                "gitCommit": {"pattern": "^[0-9a-f]{40}$"},
            },
        },
        "annotations": {"type": "object"},
        "mediaType": {"type": "string"},
        "downloadLocation": {"type": "string"},
        "content": {"type": "string"},
    },
    "anyOf": [{"required": ["uri"]}, {"required": ["digest"]}, {"required": ["content"]}],
}
STATEMENT: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["_type", "subject", "predicateType", "predicate"],
    "properties": {
        "_type": {"const": "https://in-toto.io/Statement/v1"},
        "subject": {
            "type": "array",
            "minItems": 1,
            "items": {**RESOURCE, "required": ["name", "digest"]},
        },
        "predicateType": {"const": "https://slsa.dev/provenance/v1"},
        "predicate": {
            "type": "object",
            "additionalProperties": False,
            "required": ["buildDefinition", "runDetails"],
            "properties": {
                "buildDefinition": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["buildType", "externalParameters"],
                    "properties": {
                        "buildType": {"type": "string", "pattern": "^[a-z]+:"},
                        "externalParameters": {"type": "object"},
                        "internalParameters": {"type": "object"},
                        "resolvedDependencies": {"type": "array", "items": RESOURCE},
                    },
                },
                "runDetails": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["builder"],
                    "properties": {
                        "builder": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["id"],
                            "properties": {
                                "id": {"type": "string", "pattern": "^[a-z]+:"},
                                "version": {"additionalProperties": {"type": "string"}},
                                "builderDependencies": {"type": "array", "items": RESOURCE},
                            },
                        },
                        "metadata": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {"invocationId": {"type": "string"}},
                        },
                        "byproducts": {"type": "array", "items": RESOURCE},
                    },
                },
            },
        },
    },
}


def valid_sbom(raw: bytes) -> dict[str, Any]:
    """The document, if CycloneDX's schema of 1.6 and its reader take it."""
    validator = make_schemabased_validator(OutputFormat.JSON, SchemaVersion.V1_6)
    problem = validator.validate_str(raw.decode())
    assert problem is None, problem
    document: dict[str, Any] = json.loads(raw)
    assert Bom.from_json(document) is not None  # type: ignore[attr-defined]
    return document


def valid_statement(raw: bytes) -> dict[str, Any]:
    """The statement, if in-toto's library takes it and it has the published fields, no others."""
    document: dict[str, Any] = json.loads(raw)
    parsed = json_format.Parse(raw, statement_pb2.Statement())
    Statement.copy_from_pb(parsed).validate()
    json_format.ParseDict(document["predicate"], provenance_pb2.Provenance())
    jsonschema.Draft202012Validator(STATEMENT).validate(document)
    return document

"""The description of the data API, made from the models that read its parameters."""

from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Date, DateTime, Integer, Numeric

from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.dashboard.api.query import ClientsQuery, RowsQuery, StatusQuery
from kpi_pipeline.db.exports import EXPORT_COLUMNS
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.domain.columns import MEANINGS
from kpi_pipeline.domain.standing import Standing

_Schema = dict[str, Any]
_TEXT: _Schema = {"type": "string"}
_INSTANT: _Schema = {"type": "string", "format": "date-time"}
_DATE: _Schema = {"type": "string", "format": "date"}
_NAMES: _Schema = {"type": "array", "items": _TEXT}


@cache
def description() -> _Schema:
    """The OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Client KPIs",
            "version": version("kpi-pipeline"),
            "description": "The numbers of the dashboard, for programs. Percentages are in "
            "percent, dates are days of the zone that /api/status names, instants are in UTC.",
        },
        "paths": {
            "/api/client-metrics": {"get": _rows()},
            "/api/clients": {"get": _clients()},
            "/api/status": {"get": _status()},
        },
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "password": {"type": "http", "scheme": "basic"},
            },
            "schemas": {"Error": _object(error=_TEXT)},
        },
        "security": [{}, {"token": []}, {"password": []}],
    }


def _rows() -> _Schema:
    columns = {name: _column(name) for name in EXPORT_COLUMNS}
    page = _object(
        rows={"type": "array", "items": {"type": "object", "properties": columns}},
        next=_nullable(
            {**_TEXT, "description": "The path of the next page; null: it is the last."}
        ),
    )
    tag = {"description": "For If-None-Match: 304 while no row changed.", "schema": _TEXT}
    return {
        "summary": "Rows of client_metrics, ordered by workspace and date.",
        "parameters": _parameters(RowsQuery),
        "responses": {
            "200": {
                "description": "The rows.",
                "headers": {"ETag": tag},
                "content": {
                    "application/json": {"schema": page},
                    "text/csv": {"schema": _TEXT},
                    "application/vnd.apache.parquet": {"schema": {"type": "string"}},
                },
            },
            "304": {"description": "The caller has them already."},
            **_errors("400", "404", "501"),
        },
    }


def _clients() -> _Schema:
    client = _object(
        workspace=_TEXT,
        display_name=_TEXT,
        workspace_name=_TEXT,
        instance=_TEXT,
        bison_workspace_id={"type": "integer"},
        active={"type": "boolean"},
        monthly_kpi_target=_nullable({"type": "integer"}),
        monthly_sending_target=_nullable({"type": "integer"}),
    )
    return {
        "summary": "The clients, with the targets of this month.",
        "parameters": _parameters(ClientsQuery),
        "responses": {
            "200": _json("The clients.", _object(clients={"type": "array", "items": client})),
            **_errors("400"),
        },
    }


def _status() -> _Schema:
    severity = {"type": "string", "enum": [str(it) for it in Severity]}
    client = _object(
        workspace=_TEXT,
        data_from=_nullable(_INSTANT),
        severity=_nullable(severity),
        problems=_NAMES,
        standing={"type": "string", "enum": [str(it) for it in Standing]},
    )
    check = _object(
        name=_TEXT,
        asset=_TEXT,
        passed={"type": "boolean"},
        severity=severity,
        description=_TEXT,
        clients=_NAMES,
        checked_at=_INSTANT,
        failing_since=_nullable(_INSTANT),
    )
    return {
        "summary": "How fresh each active client is, and the last results of all checks.",
        "parameters": _parameters(StatusQuery),
        "responses": {
            "200": _json(
                "The status.",
                _object(
                    date=_DATE,
                    day_zone=_TEXT,
                    now=_INSTANT,
                    fresh={"type": "boolean"},
                    clients={"type": "array", "items": client},
                    checks={"type": "array", "items": check},
                ),
            ),
            **_errors("400"),
        },
    }


def _parameters(model: type[BaseModel]) -> list[_Schema]:
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    parameters = []
    for name, given in schema["properties"].items():
        described = {**given}
        text = described.pop("description", "")
        described.pop("title", None)
        if "$ref" in described:
            described |= definitions[described.pop("$ref").rpartition("/")[2]]
            described.pop("title", None)
            described.pop("description", None)
        parameter = {"name": name, "in": "query", "description": text, "schema": described}
        if described.get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        parameters.append(parameter)
    return parameters


def _column(name: str) -> _Schema:
    column = client_metrics.c[name]
    match column.type:
        case Integer():
            schema: _Schema = {"type": "integer"}
        case Numeric():
            schema = {"type": "number"}
        case Date():
            schema = {**_DATE}
        case DateTime():
            schema = {**_INSTANT}
        case _:
            schema = {**_TEXT}
    described = {**schema, "description": MEANINGS[name]}
    return _nullable(described) if column.nullable else described


def _object(**properties: _Schema) -> _Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _nullable(schema: _Schema) -> _Schema:
    kinds = schema["type"]
    nullable = {**schema, "type": [kinds, "null"]}
    if "enum" in schema:
        nullable["enum"] = [*schema["enum"], None]
    return nullable


def _json(text: str, schema: _Schema) -> _Schema:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


_ERRORS = {
    "400": "A parameter is not valid.",
    "404": "There is no such client.",
    "501": "The server lacks the package that writes this format.",
}


def _errors(*statuses: str) -> _Schema:
    error = {"$ref": "#/components/schemas/Error"}
    return {
        **{status: _json(_ERRORS[status], error) for status in statuses},
        "401": {"description": "A login, or a token, is needed."},
    }

"""Requests that Schemathesis generates from the OpenAPI schema get what the schema promises."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from serving import served_model, serving

EXAMPLES = int(os.environ.get("MANYHEADS_FUZZ_EXAMPLES", "10"))
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving(served_model(), max_texts=20) as client:
        yield client


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_generated_requests_get_what_the_schema_promises(
    client: httpx.Client, mode: GenerationMode
) -> None:
    load_all_checks()
    schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == 9
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and operation.method == "get":
            continue

        @settings(
            max_examples=EXAMPLES, derandomize=True, deadline=None, database=None,
            suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            case.call_and_validate(checks=CHECKS)

        check()

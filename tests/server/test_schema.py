"""Requests that Schemathesis generates from the OpenAPI schema get what the schema promises."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from serving import served_model, serving

EXAMPLES = int(os.environ.get("MANYHEADS_FUZZ_EXAMPLES", "10"))


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving(served_model(), max_texts=20) as client:
        yield client


@pytest.mark.parametrize("valid", [True, False], ids=["positive", "negative"])
def test_generated_requests_get_what_the_schema_promises(client: httpx.Client, valid: bool) -> None:
    # Imported here, since this takes long and no other test needs it.
    import schemathesis
    from schemathesis.checks import load_all_checks, not_a_server_error
    from schemathesis.specs.openapi import checks

    expected: list[Any] = [
        not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
        checks.response_schema_conformance, checks.negative_data_rejection,
    ]  # fmt: skip
    modes = schemathesis.GenerationMode
    mode = modes.POSITIVE if valid else modes.NEGATIVE
    load_all_checks()
    schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == 9
    for operation in operations:
        if not valid and operation.method == "get":
            continue

        @settings(
            max_examples=EXAMPLES, derandomize=True, deadline=None, database=None,
            suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            case.call_and_validate(checks=expected)

        check()

"""Facts about how pages name a job."""

from hypothesis import given
from hypothesis import strategies as st

from worker.operate.console.references import from_reference, to_reference


@given(st.binary())
def test_a_reference_leads_back_to_its_job(raw: bytes) -> None:
    job = raw.decode(errors="surrogateescape")
    assert from_reference(to_reference(job)) == job


@given(st.text())
def test_any_text_is_taken_as_some_job(text: str) -> None:
    from_reference(text)
    from_reference(f"b64.{text}")


def test_our_own_jobs_stand_for_themselves() -> None:
    job = f"org_123:{'0f' * 16}"
    assert to_reference(job) == job

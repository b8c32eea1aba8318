"""Facts about endpoints for which nothing but wrong signatures comes."""

import pytest

from ingress.http.receive import Receiver
from ingress.http.secret_use import ENOUGH, WrongSignatures
from ingress.settings import Limits
from shared.errors import SignatureError
from shared.observe import metrics
from tests.ingress_support import BETA_SECRET, Known, RecordingWriter, endpoints
from tests.unit.ingress.http.test_receive import request

KNOWN = Known(endpoints())


def shown(receiver: Receiver, named: int = 20) -> tuple[float, dict[tuple[str, str], float]]:
    """How many endpoints there are, and the rows of those that are named."""
    count, rows = WrongSignatures(KNOWN, receiver.wrong, named).collect()
    return count.samples[0].value, {
        (each.labels["endpoint"], each.labels["organization"]): each.value for each in rows.samples
    }


async def test_a_row_of_them_is_told_until_one_is_right_and_no_other_endpoint_s() -> None:
    receiver = Receiver(KNOWN, RecordingWriter(), Limits())
    for _ in range(ENOUGH):
        assert shown(receiver) == (0, {})
        with pytest.raises(SignatureError):
            await receiver.receive(request(signer=BETA_SECRET))
    with pytest.raises(SignatureError):  # as one that has come whole is judged
        receiver.judge(request(), b"other")
    await receiver.receive(request(path="/webhooks/beta", signer=BETA_SECRET))
    assert shown(receiver) == (1, {("acme", "org_acme"): ENOUGH + 1})
    assert shown(receiver, 0) == (1, {})
    await receiver.receive(request())
    assert shown(receiver) == (0, {})


def test_an_endpoint_that_is_gone_is_not_told() -> None:
    receiver = Receiver(KNOWN, RecordingWriter(), Limits())
    receiver.wrong["gone"] = 100
    with metrics.registered(WrongSignatures(KNOWN, receiver.wrong, 20)):
        assert metrics.REGISTRY.get_sample_value("sellfern_endpoints_unverified") == 0
    assert metrics.REGISTRY.get_sample_value("sellfern_endpoints_unverified") is None

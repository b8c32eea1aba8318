"""Facts about the way of one delivery, from its request to the queue."""

import asyncio
from unittest import mock  # only for aiohttp's StreamReader, which asks its protocol to go on

import pytest
from aiohttp import StreamReader, web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from ingress.answers import Refused
from ingress.receive import KEPT_LENGTH, Receiver, endpoint_id
from ingress.settings import Limits
from shared.errors import SignatureError, Unavailable
from shared.queue import Accepted
from tests.ingress_support import BETA_SECRET, BODY, RecordingWriter, endpoints, signed

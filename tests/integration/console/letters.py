"""Dead letters by the thousand, without the events that they come from."""

from redis.asyncio import Redis

_BURY = """
local organization, number, died_at, step = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
for i = 1, number do
  local job = string.format('%s:%032x', organization, i)
  local died = string.format('%.0f', died_at + math.floor(i * step))
  redis.call('HSET', 'sellfern:dead-letter:' .. job, 'organization', organization,
    'endpoint', 'acme', 'event_id', 'evt_' .. i, 'type', 'order.updated',
    'reason', i % 1000 == 1 and 'crashed' or 'exhausted', 'error', 'KeyError: ' .. i,
    'attempts', 12, 'claims', 0, 'received_at', died, 'died_at', died, 'payload', ARGV[5])
  redis.call('ZADD', 'sellfern:dead:' .. organization, died, job)
end
redis.call('HSET', 'sellfern:dead', organization, number)
"""


async def bury(
    redis: Redis,
    organization: str,
    number: int,
    *,
    died_at: int = 1_700_000_000_000,
    step: float = 1.0,
    payload: bytes = b"a payload",
) -> list[str]:
    """Bury so many, each so many milliseconds after the one before; their jobs, oldest first."""
    await redis.execute_command("EVAL", _BURY, 0, organization, number, died_at, step, payload)
    return [f"{organization}:{i:032x}" for i in range(1, number + 1)]


async def bury_of_many(redis: Redis, organizations: int, number: int) -> None:
    """Bury so many of each of ``org_0`` and so on."""
    async with redis.pipeline(transaction=False) as pipe:
        for each in range(organizations):
            told = (f"org_{each}", number, 1_700_000_000_000 + each, 1.0, b"a payload")
            pipe.execute_command("EVAL", _BURY, 0, *told)
        await pipe.execute()

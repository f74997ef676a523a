"""The mock of the wire: a Chat Completions server in a process of its own that answers each request after a latency.

`python -m benchmarks.mock SECONDS` prints its address and serves until its standard input closes.
"""

import sys

from tests.servers.chat import ChatServer, reply
from tests.servers.loopback import Behaviour, Body

USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}


def main() -> None:
    """Serves until nobody needs it any more."""
    latency = float(sys.argv[1])

    def respond(_body: Body) -> Behaviour:
        return reply("Done.", usage=USAGE, delay=latency)

    with ChatServer(respond) as server:
        print(server.base_url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()

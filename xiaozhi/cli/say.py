"""`xiaozhi say`: have connected devices say something."""

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING, Any

from xiaozhi.cli.frame import WrongUsage, load
from xiaozhi.program import PlainError, program

if TYPE_CHECKING:
    from xiaozhi.settings import Settings

ABOUT = "Ask the server of these settings, running on this machine, to say something on its devices."
EXAMPLES = """\
examples:
  xiaozhi say "dinner is ready"                        on every connected device
  xiaozhi say "起床了" --device 卧室 --volume 80
  xiaozhi say "the door is open" --all --urgent        also in quiet hours

exit codes:
  0 said on every device that was meant    1 not on all of them    2 wrong usage, or no server
"""

# Above what the server itself waits: the sentence has to be spoken as well.
_SPEAKING_S = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("text", nargs="+", metavar="TEXT", help="what to say")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--device", action="append", default=[], metavar="NAME", help="id, name or room; repeatable")
    where.add_argument("--all", action="store_true", help="every connected device (the default)")
    parser.add_argument("--volume", type=int, metavar="PERCENT", help="0 to 100, for this announcement")
    parser.add_argument("--urgent", action="store_true", help="also in quiet hours")
    parser.add_argument("--patience", type=float, metavar="S", help="seconds to wait while somebody talks there")


def run(args: argparse.Namespace) -> int:
    """Announce; the exit code is in `EXAMPLES`."""
    settings = load(args).settings
    body: dict[str, Any] = {"text": " ".join(args.text), "urgent": args.urgent}
    body |= {"devices": args.device} if args.device else {"all": True}
    body |= {"volume": args.volume} if args.volume is not None else {}
    body |= {"patience_s": args.patience} if args.patience is not None else {}
    try:
        return asyncio.run(_announce(settings, body))
    except TimeoutError:
        raise PlainError("the server does not answer") from None


async def _announce(settings: "Settings", body: dict[str, Any]) -> int:
    import aiohttp

    from xiaozhi.access.own_token import PUSH_TOKEN, read_token
    from xiaozhi.http.push import ANNOUNCE_PATH

    token = settings.push.token.get_secret_value() or read_token(settings.server.data_dir, PUSH_TOKEN)
    if not settings.push.enabled or not token:
        why = "push.enabled is off" if not settings.push.enabled else f"no token in {settings.server.data_dir}"
        raise WrongUsage(f"{why}: run this where the server runs, with its settings, after its first start")
    url = _address(settings) + ANNOUNCE_PATH
    patience_s = body.get("patience_s", settings.push.patience_s)
    limits = aiohttp.ClientTimeout(total=patience_s + _SPEAKING_S, connect=5.0)
    headers = {"Authorization": f"Bearer {token}"}
    try:
        # The certificate is for the name that devices use, not for loopback.
        connector = aiohttp.TCPConnector(ssl=False)
        async with (
            aiohttp.ClientSession(timeout=limits, connector=connector) as session,
            session.post(url, json=body, headers=headers) as response,
        ):
            answer = await response.json(content_type=None)
            status = response.status
    except (aiohttp.ClientConnectionError, OSError):
        raise WrongUsage(f"no server at {url}; start one with `{program()} serve`") from None
    except (aiohttp.ClientError, ValueError):
        raise WrongUsage(f"what answers at {url} is no XiaoZhi server") from None
    if status != 200:
        why = str(answer.get("error", f"HTTP {status}")) if isinstance(answer, dict) else f"HTTP {status}"
        raise WrongUsage(why) if status in {400, 401} else PlainError(why)
    results: dict[str, str] = answer["results"]
    for device, outcome in results.items():
        print(f"{device}  {outcome}")
    if not results:
        print("no device is connected", file=sys.stderr)
    return 0 if results and all(outcome in {"spoken", "interrupted"} for outcome in results.values()) else 1


def _address(settings: "Settings") -> str:
    server = settings.server
    host = "127.0.0.1" if server.host in ("0.0.0.0", "::", "") else server.host
    scheme = "https" if server.tls_cert is not None and not server.tls_port else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{server.port}"

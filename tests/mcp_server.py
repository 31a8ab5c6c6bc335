"""A real MCP server for the tests, over stdio or streamable HTTP: `python tests/mcp_server.py stdio|PORT`."""

import os
import sys

from mcp.server.mcpserver import MCPServer

server = MCPServer("tests")


@server.tool()
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@server.tool()
def crash() -> str:
    """End the server in the middle of a call."""
    os._exit(3)


@server.tool()
def fail() -> str:
    """Never works."""
    raise ValueError("out of order")


@server.tool()
def environment(name: str) -> str:
    """A variable of the server's environment."""
    return os.environ.get(name, "")


@server.tool()
async def hang() -> str:
    """Never ends."""
    import anyio

    await anyio.sleep_forever()
    return ""


@server.tool()
def process_id() -> str:
    """Of the server's own process."""
    return str(os.getpid())


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        server.run("streamable-http", port=int(sys.argv[1]))

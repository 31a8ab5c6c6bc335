"""The clock of tests stands still while anybody works, however slow the machine is."""

import asyncio
import socket
import threading

from tests import virtual_loop


async def test_a_thread_that_wants_a_processor_is_at_work_whether_it_gets_one_or_not() -> None:
    ends = threading.Event()

    def spin() -> None:
        while not ends.is_set():
            sum(range(10_000))

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        assert any(virtual_loop._effort_ns() is None for _ in range(100))
    finally:
        ends.set()
        thread.join()


async def test_the_end_of_a_connection_is_on_its_way_until_the_peer_has_read_it_or_has_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        for reads in (True, False):
            here = socket.create_connection(listening.getsockname())
            there, _ = listening.accept()
            here.close()
            assert list(virtual_loop._ends.values()) == [True]
            if reads:
                assert there.recv(1) == b""
                assert list(virtual_loop._ends.values()) == [False]
            there.close()
            assert virtual_loop._ends == {}


async def test_who_waits_for_the_end_of_a_connection_waits_no_time() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        begun_s = asyncio.get_running_loop().time()
        for _ in range(20):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        assert asyncio.get_running_loop().time() == begun_s

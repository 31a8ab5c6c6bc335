"""How a download is shown: a bar on a terminal, a line for every tenth elsewhere (a log, a pipe)."""

import sys
from types import TracebackType
from typing import TextIO

from tqdm import tqdm


class ProgressBar:
    """Shows one file after the other; a context, so that the last bar is closed.

    Args:
        stream: where to; standard error when not given.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._file = ""
        self._tenth = -1
        self._bar: tqdm[object] | None = None

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def show(self, file: str, done: int, total: int | None) -> None:
        """`done` of `total` bytes of `file` are there; `total` is `None` where the server does not say."""
        if self._stream.isatty():
            self._draw(file, done, total)
        else:
            self._write(file, done, total)

    def _draw(self, file: str, done: int, total: int | None) -> None:
        if file != self._file or self._bar is None:
            self._close()
            self._file = file
            self._bar = tqdm(desc=file, total=total, unit="B", unit_scale=True, file=self._stream, initial=0)
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def _write(self, file: str, done: int, total: int | None) -> None:
        if file != self._file:
            self._file, self._tenth = file, -1
        # Without a total, a line for every 10 MB.
        tenth = done * 10 // total if total else done // 10_000_000
        if tenth == self._tenth:
            return
        self._tenth = tenth
        of = f" of {total / 1e6:.1f} MB, {min(100, tenth * 10)} %" if total else " MB"
        print(f"{file}: {done / 1e6:.1f}{of}", file=self._stream, flush=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

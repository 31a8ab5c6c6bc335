"""Where the single executable begins: the command line, or the recogniser's child process under the same name."""

import multiprocessing
import sys


def main() -> int:
    """Run a command; the exit code."""
    from xiaozhi.stages.asr.pocketsphinx_child import CHILD_ARGUMENT

    if sys.argv[1:] == [CHILD_ARGUMENT]:
        from xiaozhi.stages.asr.pocketsphinx_child import main as serve_child

        serve_child()
        return 0
    from xiaozhi.cli import main as command_line

    return command_line()


if __name__ == "__main__":
    multiprocessing.freeze_support()
    sys.exit(main())

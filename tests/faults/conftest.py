"""`pytest tests/faults --fault-table` prints which tests and negative controls cover each fault."""

import pytest

from tests.faults.table import covers, render


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", action="store_true", help="print which tests cover each fault, and run none")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    if not config.getoption("--fault-table"):
        return None
    print(render(covers()))
    return 0

"""The table of faults reads the markers as they are written."""

from tests.faults.table import FAULTS, covers, render


def test_markers_are_read(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(
        '@pytest.mark.slow\n@pytest.mark.fault("F1", "F2")\ndef test_a(): ...\n'
        '@pytest.mark.fault("F2", control=True)\n@pytest.mark.parametrize("x", [1])\ndef test_b(x): ...\n'
    )
    found = covers(tmp_path / "tests")
    assert found["F1"].tests == found["F2"].tests == ["tests/test_some.py::test_a"]
    assert found["F2"].controls == ["tests/test_some.py::test_b"]
    assert not found["F3"].tests
    assert "F2   death at each write, fsync and rename of a save (1 tests, 1 negative controls)" in render(found)


def test_there_are_twenty_seven_faults():
    assert list(FAULTS) == [f"F{number}" for number in range(1, 28)]


def test_each_fault_has_a_test_and_a_negative_control():
    found = covers()
    assert [fault for fault, cover in found.items() if not cover.tests] == []
    assert [fault for fault, cover in found.items() if not cover.controls] == []

"""Rules about a method stand beside it and are found by its `_target_`, also those of a package of the user's."""

import subprocess
import sys

from robustlab.config.rules import rules_for

OWN = """
def no_seven(cfg):
    return ["method.count: seven is out of luck"] if cfg["method"]["count"] == 7 else []


RULES = (no_seven,)
"""


def test_rules_are_found_in_the_package_of_the_class_and_above():
    names = [rule.__name__ for rule in rules_for("robustlab.methods.pruning.demp.DemP")]
    assert names == ["pruning_target_is_one", "floor_fits_surgery"]
    assert [rule.__name__ for rule in rules_for("robustlab.methods.groups.cobalt.cobalt.CoBalT")] == [
        "frozen_features_have_no_places"
    ]
    assert list(rules_for("robustlab.methods.erm.ERM")) == []
    assert list(rules_for("module.Class")) == []


def test_a_package_of_the_users_brings_its_rules(tmp_path, monkeypatch):
    package = tmp_path / "lucky" / "numbers"
    package.mkdir(parents=True)
    (package / "numbers_rules.py").write_text(OWN)
    (package / "method.py").write_text("class Method: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (rule,) = rules_for("lucky.numbers.method.Method")
    assert rule({"method": {"count": 7}}) == ["method.count: seven is out of luck"]
    assert rule({"method": {"count": 8}}) == []


def test_no_rule_needs_torch():
    targets = ("pruning.demp.DemP", "groups.cobalt.cobalt.CoBalT", "label_noise.crosssplit.crosssplit.CrossSplit")
    program = (
        "import sys; from robustlab.config.rules import rules_for\n"
        f"assert all(list(rules_for('robustlab.methods.' + one)) for one in {targets})\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

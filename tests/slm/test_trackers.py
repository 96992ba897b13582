import json

import pytest
from accelerate import tracking

from codec.foundation import UserError
from slm.training.report import check_trackers
from tests.slm.toy_training import toy_run


class Notebook(tracking.GeneralTracker):
    """A tracker that keeps what it is told."""

    name = "notebook"
    requires_logging_directory = False
    kept: dict = {"config": None, "options": None, "lines": [], "finished": 0}  # noqa: RUF012

    def __init__(self, run_name, **options):
        super().__init__()
        self.kept["options"] = (run_name, options)

    @property
    def tracker(self):
        return self.kept

    def start(self):
        pass

    def store_init_configuration(self, values):
        self.kept["config"] = values

    def log(self, values, step=None, **_):
        self.kept["lines"].append((step, values))

    def finish(self):
        self.kept["finished"] += 1


@pytest.fixture
def notebook(monkeypatch):
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "notebook", Notebook)
    monkeypatch.setattr(tracking, "_available_trackers", [*tracking._available_trackers, "notebook"])
    return Notebook.kept


def test_any_tracker_of_accelerates_is_told_what_the_log_says(notebook, tmp_path):
    options = {"notebook": {"colour": "red"}}
    toy_run(tmp_path / "run", max_steps=4, trackers=["notebook"], tracker_options=options)
    assert notebook["options"] == ("codec-slm", {"colour": "red"}) and notebook["finished"] == 1
    assert notebook["config"]["optimizer"]["learning_rate"] == 3e-3
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [{"step": step, **values} for step, values in notebook["lines"]] == logged
    assert not (tmp_path / "run" / "tensorboard").exists()  # it was not asked for


def test_trackers_that_are_not_there_are_refused():
    assert check_trackers(["tensorboard"]) == []
    with pytest.raises(UserError, match=r"no tracker is called 'weights'.*wandb"):
        check_trackers(["weights"])
    missing = set(tracking.LOGGER_TYPE_TO_CLASS) - {str(name) for name in tracking.get_available_trackers()}
    with pytest.raises(UserError, match="pip install"):
        check_trackers(sorted(missing))

import pytest

from slm.training.config import RunLength
from slm.training.validation import DivergenceWatch


def test_the_first_limit_ends_a_run():
    assert RunLength(10, None, None, 100).known_steps == 10
    assert RunLength(10, 950, None, 100).known_steps == 10
    tokens = RunLength(20, 950, None, 100)  # the last update goes over the limit, as it must
    assert tokens.known_steps == 10 and tokens.total_steps(3, 99.0) == 10
    assert not tokens.is_over(9, 1e9) and tokens.is_over(10, 0.0)
    clock = RunLength(None, None, 60.0, 100)
    assert clock.known_steps is None and clock.total_steps(20, 30.0) == 40
    assert not clock.is_over(10**9, 59.0) and clock.is_over(1, 60.0)
    both = RunLength(30, None, 60.0, 100)
    assert both.total_steps(20, 30.0) == 30 and both.total_steps(10, 30.0) == 20 and both.is_over(5, 60.0)


def test_it_warns_when_validation_rises_while_training_falls():
    losses = [(5.0, 5.1), (4.0, 4.4), (3.5, 4.5), (3.0, 4.6), (2.5, 4.7)]
    watch = DivergenceWatch()
    said = [watch.update(train, {"dev": loss, "other": train}) for train, loss in losses]
    assert [len(warnings) for warnings in said] == [0, 0, 0, 1, 1]
    assert "dev" in said[3][0] and "4.400" in said[3][0] and "4.000 to 3.000" in said[3][0]
    # A loss that rises for both is trouble of another kind, and chance moves a loss a little.
    assert not any(DivergenceWatch().update(*step) for step in [(4.0, {"a": 4.0}), (4.2, {"a": 4.5})] * 3)
    steady = DivergenceWatch()
    assert not any(steady.update(4.0 - 0.1 * n, {"a": 4.0 + 0.001 * n}) for n in range(10))


def test_a_run_that_goes_on_knows_what_it_has_seen():
    log = []
    for step, (train, loss) in enumerate([(5.0, 5.1), (4.0, 4.4), (3.5, 4.5)]):
        log.append({"step": step, "train/loss": train})
        log.append(
            {
                "step": step,
                "validation/loss": loss + 1,
                "validation/dev/loss": loss,
                "validation/b/loss": train,
            }
        )
    watch = DivergenceWatch.of_log(log)
    assert watch.best["dev"].validation == pytest.approx(4.4) and watch.best["dev"].worse == 1
    assert watch.best.keys() == {"dev", "b"}
    assert len(watch.update(3.0, {"dev": 4.6, "b": 3.0})) == 1
    assert DivergenceWatch.of_log([{"train/loss": 2.0}, {"validation/loss": 3.0}]).best.keys() == {
        "validation"
    }

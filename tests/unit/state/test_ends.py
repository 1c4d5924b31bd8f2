"""Windows in the order of their ends: against a list."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.state.ends import Ends


class Window:
    """What has an end."""

    def __init__(self, end_ms: int) -> None:
        self.end_ms = end_ms
        self.gone = False


# Ends within one slice, in the next ones and far apart.
times = st.one_of(st.integers(0, 40), st.integers(1_000, 1_050), st.integers(2_000, 2_100), st.integers(0, 50_000))
Step = tuple[str, int]
steps = st.lists(
    st.tuples(st.sampled_from(["add", "add", "grow", "lose", "take", "first", "prune"]), times), max_size=60
)


@settings(max_examples=100, deadline=None)
@given(steps=steps)
def test_against_a_list(steps: list[Step]) -> None:
    ends: Ends[Window] = Ends()
    model: list[Window] = []
    for action, number in steps:
        if action == "add":
            model.append(Window(number))
            ends.add(model[-1])
        elif action == "grow" and model:
            model[number % len(model)].end_ms += number
        elif action == "lose" and model:
            model.pop(number % len(model)).gone = True
        elif action == "take":
            taken = list(ends.take_before(number))
            assert sorted(map(id, taken)) == sorted(id(each) for each in model if each.end_ms < number)
            model = [each for each in model if each.end_ms >= number]
        elif action == "prune":
            ends.prune()
            assert len(ends) == len(model)
        first_ms = ends.first()
        assert first_ms is not None or not model
        assert all(first_ms is not None and first_ms <= each.end_ms for each in model)
    assert sorted(map(id, ends.take_before(1 << 40))) == sorted(map(id, model))
    assert ends.first() is None


def test_the_first_is_the_first_end_where_nothing_grew() -> None:
    ends: Ends[Window] = Ends()
    for end_ms in (5_000, 7, 9_000, 3):
        ends.add(Window(end_ms))
    assert ends.first() == 3
    assert len(list(ends.take_before(8))) == 2
    assert ends.first() == 5_000
    ends.add(Window(4))
    assert ends.first() == 4

"""The timing wheel against a model that is a dictionary of deadlines."""

from __future__ import annotations

from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lbcore._timers import TICK, Wheel

NODES = 24
DAY = 86_400_000
TOP_REACH = TICK * 63 << 18      # ms

# Spans of each level and the edges between them, a little to either side.
EDGES = [TICK << (6 * level) for level in range(5)]
spans = st.one_of(
    st.integers(0, 200),
    st.integers(0, 5_000),
    st.integers(0, 200_000),
    st.integers(0, DAY),
    st.integers(0, 5 * DAY),
    st.builds(
        lambda edge, times, off: max(0, edge * times + off),
        st.sampled_from(EDGES), st.integers(0, 64), st.integers(-TICK - 1, TICK + 1),
    ),
)
# Also where the 32 bits of a node's tick overflow, and where the top level turns over.
starts = st.one_of(
    st.just(0),
    st.integers(0, 1 << 45),
    st.builds(lambda base, off: base + off,
              st.sampled_from([TICK << 32, TICK << 24, TICK << 18]), st.integers(-DAY, DAY)),
)
nodes = st.integers(0, NODES - 1)
# What a handler does to nodes while the expired ones are walked.
deeds = st.lists(
    st.tuples(st.sampled_from(["set", "clear", "past"]), nodes, spans), max_size=3
)


class WheelModel(RuleBasedStateMachine):
    """``due`` maps an armed node to its time."""

    @initialize(start=starts)
    def begin(self, start: int) -> None:
        self.now = max(start, DAY)      # so that a past time can be named
        self.wheel = Wheel(self.now, NODES)
        self.due: dict[int, int] = {}

    def arm(self, node: int, due: int) -> None:
        self.wheel.set(node, due)
        self.due[node] = due

    def disarm(self, node: int) -> None:
        self.wheel.clear(node)
        self.wheel.overwrite(node)      # as if its owner had been freed
        self.due.pop(node, None)

    @rule(node=nodes, span=spans)
    def set_ahead(self, node: int, span: int) -> None:
        self.arm(node, self.now + span)

    @rule(node=nodes, span=st.integers(0, DAY))
    def set_past(self, node: int, span: int) -> None:
        self.arm(node, self.now - span)

    @rule(node=nodes)
    def clear(self, node: int) -> None:
        self.disarm(node)

    @rule(span=spans)
    def time_passes(self, span: int) -> None:
        self.now += span

    @rule(deeds=st.lists(deeds, max_size=4))
    def one_round(self, deeds: list[list[tuple[str, int, int]]]) -> None:
        todo = iter(deeds)
        reached = self.now // TICK * TICK
        must = {node for node, due in self.due.items() if due <= reached}
        while (node := self.wheel.advance(self.now)) is not None:
            note(f"fired {node}")
            assert self.due.pop(node) <= self.now, "fired early"
            assert node in must, "set during the round, fired in it"
            assert not self.wheel.armed(node)
            must.discard(node)
            for deed, other, span in next(todo, []):
                must.discard(other)
                if deed == "clear":
                    self.disarm(other)
                else:
                    self.arm(other, self.now + span if deed == "set" else self.now - span % DAY)
        assert not must, "did not fire though due"

    @precondition(lambda self: self.due)
    @rule()
    def sleep_as_told(self) -> None:
        """Sleeping by wheel_timeout fires the next timer within a tick, after a few steps."""
        latest = max(min(self.due.values()), self.now) + TICK
        for _ in range(6 + (latest - self.now) // TOP_REACH):
            pause = self.wheel.timeout(self.now, -1)
            assert pause >= 0
            self.now += pause
            node = self.wheel.advance(self.now)
            if node is not None:
                assert self.due.pop(node) <= self.now < latest
                break
        else:
            raise AssertionError("woke up more than once a level for one timer")
        self.one_round([])

    @invariant()
    def every_armed_node_is_on_exactly_one_list(self) -> None:
        if hasattr(self, "wheel"):
            assert self.wheel.linked() == frozenset(self.due)
            assert {n for n in range(NODES) if self.wheel.armed(n)} == set(self.due)

    @invariant()
    def no_wake_up_comes_too_late(self) -> None:
        if hasattr(self, "wheel"):
            pause = self.wheel.timeout(self.now, -1)
            assert (pause >= 0) == bool(self.due)
            for due in self.due.values():
                assert pause <= max(0, due + TICK - 1 - self.now)
            assert self.wheel.timeout(self.now, 10) == (min(pause, 10) if pause >= 0 else 10)


TestWheel = WheelModel.TestCase
TestWheel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

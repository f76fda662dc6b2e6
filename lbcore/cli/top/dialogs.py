"""The questions that ``lbcore top`` asks before it changes anything, and its help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

MAX_WEIGHT = 1000


class Ask(ModalScreen[bool]):
    """Yes or no; the title asks, the text says what would happen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "answer(True)", "Yes"), ("n", "answer(False)", "No"),
        ("escape", "answer(False)", "No"), ("left", "app.focus_previous"),
        ("right", "app.focus_next"),
    ]

    def __init__(self, title: str, text: str, yes: str) -> None:
        super().__init__()
        self._title, self._text, self._yes = title, text, yes

    def compose(self) -> ComposeResult:
        """Title, text and two buttons; Enter presses the first."""
        with Vertical(classes="dialog"):
            yield Label(self._title, classes="title", markup=False)
            yield Static(self._text, classes="text", markup=False)
            with Horizontal(classes="buttons"):
                yield Button(f"{self._yes} (y)", variant="warning", id="yes")
                yield Button("Leave it (n)", id="no")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """A button is an answer."""
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:
        """A key is an answer."""
        self.dismiss(answer)


class Choose(ModalScreen[str]):
    """One of several things, each with a key; "" is none of them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "leave", "Leave it"), ("left", "app.focus_previous"),
        ("right", "app.focus_next"), ("up", "app.focus_previous"), ("down", "app.focus_next"),
    ]

    def __init__(self, title: str, text: str, choices: Sequence[tuple[str, str, str]]) -> None:
        """``choices``: key, what is answered, and its words."""
        super().__init__()
        self._title, self._text, self._choices = title, text, choices

    def compose(self) -> ComposeResult:
        """A button for each choice, below each other."""
        with Vertical(classes="dialog"):
            yield Label(self._title, classes="title", markup=False)
            yield Static(self._text, classes="text", markup=False)
            with Vertical(classes="choices"):
                for key, answer, words in self._choices:
                    yield Button(f"{words} ({key})", id=f"choose-{answer}")
                yield Button("Leave it (esc)", id="choose-")

    def on_key(self, event: Key) -> None:
        """The key of a choice."""
        for key, answer, _ in self._choices:
            if event.key == key:
                event.stop()         # else it also means what it means without the dialog
                event.prevent_default()
                self.dismiss(answer)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """A button is a choice."""
        self.dismiss((event.button.id or "").removeprefix("choose-"))

    def action_leave(self) -> None:
        """None of them."""
        self.dismiss("")


class Enter(ModalScreen[str]):
    """A line of text that a check accepts; "" is leaving it."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "leave", "Leave it")]

    def __init__(self, title: str, text: str, value: str, problem: Callable[[str], str]) -> None:
        """``problem`` says what is wrong with a value, or nothing."""
        super().__init__()
        self._title, self._text, self._value, self._problem = title, text, value, problem

    def compose(self) -> ComposeResult:
        """A field; Enter is the confirmation."""
        with Vertical(classes="dialog"):
            yield Label(self._title, classes="title", markup=False)
            yield Static(self._text, classes="text", markup=False)
            yield Input(self._value, id="value")
            yield Label("Enter sets it, Esc leaves it as it is", id="problem", markup=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Taken if nothing is wrong with it."""
        value = event.value.strip()
        if problem := self._problem(value):
            self.query_one("#problem", Label).update(problem)
            self.query_one("#problem").add_class("bad")
        else:
            self.dismiss(value)

    def action_leave(self) -> None:
        """Nothing is entered."""
        self.dismiss("")


def weight_problem(value: str) -> str:
    """What is wrong with a weight as it is typed."""
    if value == "default" or (value.isascii() and value.isdecimal() and int(value) <= MAX_WEIGHT):
        return ""
    return f'a number from 0 to {MAX_WEIGHT}, or "default"'


class Page(ModalScreen[None]):
    """Text to read; any of the usual keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        (key, "close", "Close") for key in ("escape", "q", "enter", "question_mark")]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        """The text, which scrolls where there is no room."""
        with VerticalScroll(classes="dialog page"):
            yield Label(self._title, classes="title", markup=False)
            yield Static(self._text, markup=False)

    def action_close(self) -> None:
        """Back."""
        self.dismiss()

import io

from rich.console import Console

from lab.progress import LiveWatcher, QuietWatcher


def test_a_quiet_watcher_says_nothing() -> None:
    watcher = QuietWatcher()
    watcher.say("hello")
    watcher.begin(["B"], 10)
    watcher.progress("B", 5)


def test_a_live_watcher_draws_a_bar_for_each_device() -> None:
    screen = io.StringIO()
    with LiveWatcher(Console(file=screen, force_terminal=True, width=100)) as watcher:
        watcher.say("graph of epoch 7")
        watcher.begin(["B", "C"], 1000)
        watcher.progress("B", 500)
        watcher.progress("Z", 1)
    assert "graph of epoch 7" in screen.getvalue()
    assert "/1.0 kB" in screen.getvalue()

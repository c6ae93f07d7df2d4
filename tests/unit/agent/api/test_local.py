from pathlib import Path

import pytest

from agent.api.problems import Problem
from agent.core.events import StreamOpened
from agent.services.ledger import happened
from tests.unit.agent.serving import roster, served


async def test_the_others_are_the_members_but_this_device(tmp_path: Path) -> None:
    async with served(tmp_path) as agent:
        assert agent.local.others() == ("B", "C")
        agent.last.note(roster())
        assert agent.local.others() == ()


async def test_a_channel_is_refused_only_once_the_channels_are_known(tmp_path: Path) -> None:
    async with served(tmp_path) as agent:
        agent.local.check_message_channel("messages")
        for channel, reason in (("none", "unknown-channel"), ("files", "wrong-kind")):
            with pytest.raises(Problem) as caught:
                agent.local.check_message_channel(channel)
            assert caught.value.reason == reason
        agent.last.channels = None
        agent.local.check_message_channel("none")


async def test_stopping_wakes_every_open_answer(tmp_path: Path) -> None:
    async with served(tmp_path) as agent:
        agent.say(StreamOpened("s1", "files", "A", "file", "f", 1))
        entry = agent.ledger.get("s1")
        assert entry is not None
        news = entry.news.next()
        agent.local.stop()
        assert await happened(news, 0)
        assert agent.local.stopping

"""What is remembered of packets that were sent."""

from agent.core.sent import SentRange, SentTrain


def test_part_of_a_train_knows_its_bytes_and_its_place() -> None:
    train = SentTrain(100, 8, 1.0, 1_472, "content", 0, 0.0, 0.0, False)
    part = SentRange(train, 103, 106)
    assert (part.size_bytes, part.offset) == (3 * 1_472, 3)

from agent.core.silences import SILENCE_S, SILENCES_KEPT, Silences


def test_only_long_pauses_are_remembered_and_the_last_of_them() -> None:
    silences = Silences()
    silences.note(1.0, 1.0 + SILENCE_S / 2)
    assert silences.kept() == ()
    for second in range(SILENCES_KEPT + 3):
        silences.note(second, second + 0.5)
    assert len(silences.kept()) == SILENCES_KEPT
    assert silences.kept()[0] == (3, 3.5)
    assert silences.kept()[-1] == (SILENCES_KEPT + 2, SILENCES_KEPT + 2.5)

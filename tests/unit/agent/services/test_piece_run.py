from agent.services.piece_run import PieceRun


def test_pieces_wait_in_order_until_they_are_cleared() -> None:
    run = PieceRun()
    assert not run
    assert 7 not in run
    run.add(7, b"seven", b"tag 7")
    run.add(8, b"eight", b"tag 8")
    assert run
    assert (run.start, run.stop, run.size_bytes) == (7, 9, 10)
    assert 8 in run
    assert 9 not in run
    assert (run.piece(8), run.tag(8)) == (b"eight", b"tag 8")
    run.clear()
    assert (run.start, run.stop, run.size_bytes, bool(run)) == (0, 0, 0, False)

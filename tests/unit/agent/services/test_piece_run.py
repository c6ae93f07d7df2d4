from agent.services.piece_run import Gathering, PieceRun


def test_a_run_knows_its_numbers() -> None:
    run = PieceRun(7)
    assert (7 in run, run.stop) == (False, 7)
    run.tags += [b"tag 7", b"tag 8"]
    assert [number in run for number in (6, 7, 8, 9)] == [False, True, True, False]
    assert run.stop == 9


def test_what_follows_joins_its_run_and_what_does_not_begins_one() -> None:
    gathered = Gathering()
    gathered.add(7, [b"seven"], [b"tag 7"], 1.0)
    gathered.add(8, (b"eight", b"nine"), (b"tag 8", b"tag 9"), 2.0)
    gathered.add(3, [b"three"], [b"tag 3"], 3.0)
    assert [(run.start, run.pieces, run.tags) for run in gathered.runs] == [
        (7, [b"seven", b"eight", b"nine"], [b"tag 7", b"tag 8", b"tag 9"]),
        (3, [b"three"], [b"tag 3"]),
    ]
    assert (gathered.size_bytes, gathered.began_at) == (19, 1.0)


def test_what_was_handed_out_stays_as_it_is() -> None:
    gathered = Gathering()
    gathered.add(7, [b"seven"], [b"tag 7"], 1.0)
    runs = gathered.runs
    gathered.clear()
    gathered.add(8, [b"eight"], [b"tag 8"], 2.0)
    assert [run.start for run in runs] == [7]
    assert [run.start for run in gathered.runs] == [8]
    assert (gathered.size_bytes, gathered.began_at) == (5, 2.0)

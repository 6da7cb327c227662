"""A sample of `make soak`: some kills of each kind."""

from concurrent.futures import ThreadPoolExecutor

from soak.jobs import prepare
from soak.kills import kill_evaluation, kill_keeps, kill_saves, kill_training
from soak.processes import processes_of

SEED = 0
EPOCHS = {"tracker": 1, "branch": 1}


def test_what_is_killed_ends_as_if_it_had_not_been(tmp_path):
    prepare(tmp_path)

    def over_one():
        yield kill_training(tmp_path, 1, 2, SEED, epochs=EPOCHS)
        yield kill_saves(tmp_path, 1, SEED, epochs=EPOCHS)
        yield kill_evaluation(tmp_path, 2, SEED)
        yield kill_keeps(tmp_path, 2, SEED)

    def over_two():
        yield kill_training(tmp_path, 2, 1, SEED, epochs=EPOCHS)

    with ThreadPoolExecutor() as pool:  # a thread for each core
        tallies = [tally for lane in pool.map(lambda lane: list(lane()), (over_one, over_two)) for tally in lane]
    assert len(tallies) == 5 and all(tally.right == tally.tried for tally in tallies), tallies
    assert not processes_of(tmp_path)

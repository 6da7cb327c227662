"""The processes of a command that names a folder: found by that, so that orphans are found too."""

import psutil


def processes_of(folder):
    """All processes, zombies aside, on whose command line a word begins with the folder's path."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "ppid"])
        if any(word.startswith(str(folder)) for word in process.info["cmdline"] or ())
    ]


def choose(everyone, whom, random):
    """Those of a command's processes that are meant by "all", "first" (the one that was started) or "rank".

    A rank is a process that the first one, a launcher, started; before there is one, the first is taken.
    """
    if whom == "all":
        return everyone
    pids = {process.pid for process in everyone}
    first = [process for process in everyone if process.info["ppid"] not in pids]
    ranks = [process for process in everyone if process.info["ppid"] in {parent.pid for parent in first}]
    return [random.choice(ranks)] if whom == "rank" and ranks else first


def send(number, processes):
    """Send a signal to all that are still there."""
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            pass


def end(processes):
    """Kill them, and wait until they are gone."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    psutil.wait_procs(processes, timeout=10)

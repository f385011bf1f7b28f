"""Groups of processes for tests: each runs the same jobs, and answers what they give."""

import multiprocessing

import torch

from sharedattn.distributed import Rank, Rendezvous, join

_CONTEXT = multiprocessing.get_context("spawn")


def run_group(num_processes, jobs):
    """What each process answered, by rank: one value a job.

    Args:
        num_processes: processes.
        jobs: importable functions of a rank, which return plain values and tensors.
    """
    rendezvous = Rendezvous()
    pipes, processes = [], []
    for index in range(num_processes):
        ours, theirs = _CONTEXT.Pipe()
        rank = Rank(index, num_processes)
        process = _CONTEXT.Process(target=_run, args=(theirs, rank, rendezvous.port, jobs))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        return [pipe.recv() for pipe in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _run(pipe, rank, port, jobs):
    torch.set_num_threads(1)
    join(rank, port, "cpu")
    pipe.send([job(rank) for job in jobs])
    pipe.recv()  # stays until it is killed: a process that leaves breaks the others' connections

#!/usr/bin/env bash
# A search on the nodes of one Slurm job: Ray's head on the first node, with the search beside it,
# and a Ray node on each of the others. Arguments are those of `sharedattn search`:
#
#     sbatch examples/cluster/slurm.sh deit-tiny --data /shared/images --trials 200 \
#         --gpus-per-trial 0.5 --cpus-per-trial 4 --weights-dir /shared/weights \
#         --storage postgresql://sharedattn@database.example.org/sharedattn
#
# The job may be pre-empted, requeued and run out of time: each time the same search goes on.
#SBATCH --job-name=sharedattn
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=2
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
# Another job of yours may have a node in common.
address="$head:$((20000 + SLURM_JOB_ID % 20000))"
# Ray's processes listen on every interface, and whoever reaches them could run programs here: a
# secret of this job keeps others out.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN

trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
# Two minutes before its time is up the job goes back to the queue.
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1

start() { # NODE, OPTIONS of `ray start`
    srun --nodes=1 --ntasks=1 --nodelist="$1" --cpus-per-task="$SLURM_CPUS_PER_TASK" \
        ray start "${@:2}" --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block &
}

await() { # NUMBER of nodes of the cluster
    until [ "$(ray status --address="$address" 2>/dev/null | grep -c ' node_')" -ge "$1" ]; do
        [ "$(jobs -pr | wc -l)" -ge "$1" ] || { echo "a Ray node has ended" >&2; exit 1; }
        sleep 1
    done
}

start "$head" --head --port="${address#*:}" --include-dashboard=false
await 1
for node in "${nodes[@]:1}"; do start "$node" --address="$address"; done
await "${#nodes[@]}"

# In the background, so that the shell answers signals at once.
sharedattn search --executor ray --address "$address" "$@" &
wait $!

#!/usr/bin/env bash
# A Ray cluster of two nodes on this machine, and a search on it:
#
#     examples/cluster/two_nodes.sh [arguments of sharedattn search]
#
# What it starts ends with it. To start a cluster by hand that stays, see docs/guide/clusters.md.
set -euo pipefail

port=${PORT:-6399}
# Two addresses of the loopback interface, one a node: no traffic leaves the machine. (127.0.0.1
# itself Ray would replace by the machine's outer address.)
head=127.0.0.2
other=127.0.0.3
# Ray's processes listen on every interface, and whoever reaches them could run programs here: a
# secret of this run keeps others out.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN

# At the end nothing runs that a node would have to wait for.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0

logs=$(mktemp -d)
trap 'exit 1' INT TERM
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -r "$logs"' EXIT

start() {
    ray start "$@" --num-cpus=1 --disable-usage-stats --block >"$logs/$1" 2>&1 &
    local node=$!
    until grep -qs "Ray runtime started" "$logs/$1"; do
        kill -0 "$node" || { cat "$logs/$1" >&2; exit 1; }
        sleep 0.2
    done
}

start --head --node-ip-address="$head" --port="$port" --include-dashboard=false
start --address="$head:$port" --node-ip-address="$other"
sharedattn search --executor ray --address "$head:$port" "$@"

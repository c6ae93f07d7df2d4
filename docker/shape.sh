#!/bin/sh
# Limits what leaves this container on the networks named: shape.sh SUBNET=RATE ..., for example 10.213.1.0/24=50mbit.
set -eu
for pair in "$@"; do
  subnet=${pair%=*} rate=${pair#*=}
  device=$(ip -o -4 route show scope link "$subnet" | sed -n 's/.* dev \([^ ]*\).*/\1/p')
  [ -n "$device" ] || { echo "no interface in $subnet" >&2; exit 1; }
  tc qdisc replace dev "$device" root tbf rate "$rate" burst 32kb latency 50ms
  echo "$device in $subnet: $rate"
done

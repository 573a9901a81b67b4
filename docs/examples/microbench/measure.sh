#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# measure.sh PLAN DIRECTORY [MODULE]: run the plan's lines through the loaded module (microbench, or cryptbench), as root, on an idle machine.
# Results: DIRECTORY/rows.csv, and before each "snapshot NAME" line of the plan DIRECTORY/NAME.{buddyinfo,zoneinfo,vmstat}.
set -e
plan=$1 results=$2 control=/sys/kernel/debug/${3:-microbench}
mkdir -p "$results"
lines=
run() { [ -z "$lines" ] || printf '%s' "$lines" > "$control/run"; lines=; }
while read -r word rest; do
	case $word in
	''|'#'*) ;;
	snapshot) run; for file in buddyinfo zoneinfo vmstat; do cat /proc/$file > "$results/$rest.$file"; done ;;
	samples) run; cat "$control/samples" > "$results/$rest.samples" ;;
	*) lines="$lines$word $rest
" ;;
	esac
done < "$plan"
run
cat "$control/rows" > "$results/rows.csv"
cat "$control/states" > "$results/states.csv"
if [ -e "$control/primitives" ]; then cat "$control/primitives" > "$results/primitives.csv"; fi

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# measure.sh PLAN DIRECTORY [MODULE]: run the plan's lines through the loaded module (microbench, or cryptbench), as root, on an idle machine.
# Results: DIRECTORY/rows.csv, states.csv; for each "snapshot NAME" line of the plan DIRECTORY/NAME.{buddyinfo,zoneinfo,vmstat}.
set -e
plan=$1 results=$2 control=/sys/kernel/debug/${3:-microbench}
mkdir -p "$results"
while read -r word rest; do
	case $word in
	''|'#'*) ;;
	snapshot) for file in buddyinfo zoneinfo vmstat; do cat /proc/$file > "$results/$rest.$file"; done ;;
	samples) cat "$control/samples" > "$results/$rest.samples" ;;
	*) echo "$word $rest" > "$control/run" ;;
	esac
done < "$plan"
for file in rows states primitives; do
	if [ -e "$control/$file" ]; then cat "$control/$file" > "$results/$file.csv"; fi
done

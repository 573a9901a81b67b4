#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# plan.sh quick|full|crypt: print the cases to measure, for measure.sh (crypt: for measure.sh PLAN DIRECTORY cryptbench)
case ${1:-quick} in
quick) pages="1 2 4 8 16 32 64 128 256" held="1 16 64" levels="3" blocks="16 64 256" loose="64" ;;
full)
	pages="1 2 3 4 5 6 7 8 12 16 24 31 32 48 63 64 96 100 127 128 192 200 255 256 320 384 512"
	held="1 4 16 64 128" levels="1 2 3 4 5 6" blocks="2 4 8 16 32 64 128 256" loose="16 64 256"
	;;
crypt)
	echo snapshot start
	for path in pages vectors bio; do
		for h in 1 4 16; do
			for n in 1 2 3 4 8 16 31 32 64 100 128 255 256; do
				for strategy in per-page bulk compound; do echo crypt crypt-$strategy $n $h $path; done
			done
		done
	done
	echo primitives
	exit
	;;
*) echo "usage: $0 quick|full|crypt" >&2; exit 2 ;;
esac
power_of_two() { [ $(($1 & ($1 - 1))) = 0 ]; }

echo snapshot start
for h in $held; do
	for n in $pages; do
		for strategy in per-page bulk compound; do echo case noio $strategy $n $h; done
		if power_of_two $n; then echo case noio compound-single $n $h; fi
	done
	echo case noio compound-single 1024 $h
	for n in $blocks; do for strategy in compound-single compound; do echo case nowait $strategy $n $h; done; done
	echo snapshot held$h
done
for f in $levels; do
	echo fragment $f
	echo snapshot fragmented$f
	for h in 1 4 16; do
		for n in $blocks; do for strategy in compound-single compound; do echo case nowait $strategy $n $h; done; done
		for n in $loose; do for strategy in per-page bulk; do echo case noio $strategy $n $h; done; done
	done
	echo snapshot fragmented${f}end
	echo release
done

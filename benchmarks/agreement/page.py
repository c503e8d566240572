"""The page that a run writes."""

from __future__ import annotations

from string import Template

__all__ = ["PAGE"]

PAGE = Template("""\
# How agreement scales

In every training step all ranks sum their gradients. This page tells what that costs: measured for
a few ranks on one machine, and by a formula for many. `benchmarks/scaling.py` writes it:

```bash
.venv/bin/python benchmarks/scaling.py --write docs/scaling.md
```

**The machine of these figures:** $machine. All ranks are processes of
this machine: with more ranks than its $cores cores several share a core, and no cable is involved.

- `one host`: ranks sum through shared memory.
- `a host each`: every rank takes itself for the only one of its host, so all sum over TCP, on
  loopback (gloo's ring).
- `two hosts`: each half of the ranks takes itself for a host. Halves sum through memory, and one
  rank of each over TCP.

$claims

## What a sum costs

Milliseconds of one sum of float32 values on the slowest rank, the median of many, by the bytes S
of each rank's array:

$sums

The same as ratios:

$ratios

## Bytes

Payload that the kernel counted on the sockets of a sum (`TCP_INFO`), of the rank that sent most,
by 2(N-1)/N S. That is the least when all N ranks send the same. With `two hosts` N is 2: the ranks
that send.

$sent

What is above 1 is the heads of messages. The ring cuts each rank's part into two pieces or more, so
small arrays feel them.

Ranks of one host send nothing. What each of them reads and writes, in its own memory and in the
shared one, is counted on paper, from the algorithm, in multiples of S. Small is up to 512 KiB in
all slots: a rank copies its values in and adds everybody's, (2 + 3(N-1)) S. Large: it copies its
values in, adds an N-th part, and copies the sums out, (4 + 3(N-1)/N) S.

$touched

## A formula

A ring over N ranks takes 2(N-1) messages one after the other, and 2(N-1)/N S bytes of each rank:

    t(N, S) = 2(N-1) alpha + 2(N-1)/N S beta

The additions of a rank, (N-1)/N S, grow just as its bytes do, so no measurement tells the two
apart: beta holds both. On one machine both terms count max(1, N / cores) times: moving bytes is
work of the cores, and a rank whose message has come waits for its turn among those that share its
core. So alpha is here mostly the time until a thread wakes up, and tells little about networks.

For `one host` the bytes are those of the table above, as many times. Ranks wait once for each other
in a small sum and twice in a large one, three times when other hosts take part. A wait has one cost
while every rank has a core; with more ranks than cores (`crowded`) it costs a turn of each rank
that shares the core.

The constants come from least squares of relative errors, none negative. The errors are those on
sizes that the fits did not see. `two hosts` is composed of the other two fits, and not fitted.

$fits

Sum by sum:

$held_out

## Training steps

A network of 32, 128, 64 and 1 units with ReLU, mean squared error, Adam, one thread for each rank,
gradients of 50 kB. Rows are in memory: nothing but computing and agreement is timed. Agreement
includes the wait for ranks that have not computed yet. `gain` is rows/s by those of the fewest
ranks, `ideal` the gain that the cores allow.

$steps

## Prediction for 16 to 1,024 ranks

**Nothing below was measured.** It is the formula with assumed constants:

$assumptions

The third network takes for a byte what it cost here, where that is more than the link's:
$our_beta for sending, receiving and adding. One process that copies
through the kernel does not fill a fast line. With 8 ranks of a host their sum through memory comes
on top, with the measured cost of a byte there ($touch_beta). That every rank has a core,
and that the memory of a host serves all of them at this rate, is assumed too. Not in it: ranks
that are slower than others, other users of the lines, switches that are too small.

Efficiency is that of weak scaling with 0.5 s of computing in a step: 0.5 s / (0.5 s + t).
Agreement comes after the backward pass, and nothing hides it.

Gradients of 100 MB, $cell:

$slow_gradients

Gradients of 1 MB, $cell:

$quick_gradients

For large gradients bytes decide, which hardly depend on the number of ranks. For small ones
messages do, and there are as many as hosts: ranks that share a host make them fewer.
""")

"""The page that a run writes."""

from __future__ import annotations

from string import Template

__all__ = ["PAGE"]

PAGE = Template("""\
# When things break

A fit goes on when executors, ranks or the driver are lost, and ends with the weights that it would
have had. This page tells how that was tried. `benchmarks/faults.py` makes the trials and writes it:

```bash
.venv/bin/python benchmarks/faults.py --write docs/faults.md
```

**The machine of these figures:** $machine.
Driver and executors are processes of this one machine, so they compete for its cores, and a new
executor has to load Spark, Python and torch on them while the others train.

$claims

$table

- *Losses* are rounds that ended because ranks, or their shards, were gone. The driver's own end
  counts as one.
- *Recovery* is the time from the fault to the end of the first step that ranks of the next round
  took. It holds all of it: noticing the loss, handing over the state, waiting for task slots (5 s
  when an executor is on its way), and the start of new Python processes. Where executors arrive, it
  begins when Spark knows of all of them.
- *Extra steps* are steps that were taken again, because nobody had their result any more.
- *Largest difference* is that of any weight, relative to it, from an undisturbed fit.
- *Left* are processes that were still there 15 s after their program had ended.

## What is trained

A network of 81 weights in double precision, in PyTorch unless another framework is named, on
$rows rows in seven partitions of random sizes; half of the trials with Adam, half with SGD with
momentum and a cosine schedule. Every step waits some milliseconds, as a larger model would compute.
The order of additions depends on the number of ranks, so differences of the size of rounding errors
remain.

The row log is a part of the model: one weight for each row, from 0, with the gradient 1 and steps
of 1. It falls by one whenever its row is used, and after e epochs all must be exactly -e. A row
that was left out or used twice could not hide there.

## What is done to it

Each trial has a seed. It decides the moment, the victim and the sizes, so
`benchmarks/faults.py --only KIND --trials 1 --seed SEED` makes one again, up to what the
scheduler of the machine decides.

- **An executor killed**: `SIGKILL` to one of three executors (`local-cluster`), at a random step
  and a random moment in it.
- **The same with Keras on TensorFlow, and with a graph of TensorFlow 1**: the network is that of
  PyTorch.
- **A rank killed inside all-reduce**: a thread of the victim watches the stack of the training and
  kills the process when it sees it there, without letting it run in between. $inside
- **Two executors killed at once**: one survivor hands over the state.
- **Two executors killed, 0 to 5 s apart**: the second one while the others offer, while its
  replacement starts or imports, or when training has just gone on.
- **An executor killed, five times**: at five random steps of one fit, which puts up with
  as many.
- **A survivor killed between its offer and the answer**: after an executor was killed, the first
  survivor that says how far its state is dies before it is asked for it. Another one gives its own.
- **The last state on its way**: the first rank sends it at 20 KB/s; another executor is killed
  meanwhile.
- **A state of 2 GB**: two ranks without a model, of which one is killed. The other one hands over
  2 GB at 50 MB/s, for longer than any rank may be silent. Its recovery is the whole trial.
- **An executor killed, its shards deleted**: Spark computes the lost partitions again.
- **A host lost with its disk**: executors of one machine share its disk, so here each says that it
  is a host of its own. One is killed and its files deleted, for a frame that is computed from
  seeds, one that draws anew each time, `dropDuplicates`, `repartition`, one whose partitions
  adaptive execution joins, and one with a single partition; once with the copies on other hosts
  (`Recovery(copies=True)`, the default) and once without. There is no undisturbed fit to compare
  with, because the frames give their rows in another order each time; the row log must be right, or
  the fit must end with the error that says that it would not be.
- **A rank stopped**: `SIGSTOP`, and `SIGCONT` after 30 s. It gives no sign of life for 15 s and
  then counts as lost.
- **The folder of snapshots full**: a file system of 200 KB. The fit goes on with a warning for each
  snapshot that found no room, and the last good one can still be read.
- **The newest snapshot damaged**: cut off anywhere, or one bit turned. `fit(resume=True)` says so,
  and takes the one before.
- **The driver killed**: `SIGKILL`, inside an epoch; another process resumes, with as many ranks,
  half or twice as many. Its Spark is up already, so its start is no part of the recovery.
- **Executors arriving**: a fit begins on one or two executors, and the others start while it runs.
- **Dynamic allocation**: a standalone cluster with shuffle tracking. The fit begins on one
  executor, and Spark starts two more because ranks are waiting.
""")

"""What all that balances shares and no reader calls.

What comes in:

- `numbers.py`: numbers as users pass them, turned into doubles
- `checks.py`: the checks of what is passed in
- `targets.py`: the rules for targets, whatever holds the masses
- `read.py`: from what a user passes to masses and targets, where a kind of table is chosen

How masses are held:

- `masses.py`: what a kind of table must know
- `dense.py`: arrays, one or a stack, of masses or of their logarithms
- `sparse.py`: SciPy's sparse arrays
- `records.py`: records, whose table is never formed
- `logs.py`: tensors of logarithms, with a state of their own

The iteration:

- `loop.py`: the half-steps
- `acceleration.py`: over-relaxation
- `run.py`: how far to go, and why the end is there
- `stacks.py`: many tables at once
- `tensors.py`: tables and scores of torch
- `gradients.py`: their gradients

What goes out:

- `feasibility.py`: proofs that no solution exists
- `result.py`: the result of balancing, and its message
"""

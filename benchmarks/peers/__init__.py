"""One script a framework: each does the same work in its usual way. `python -m benchmarks.peers.NAME ADDRESS SHAPE`.

A task is planned by a request; the steps of its plan are then done, each by an agent. In the sequence the agent of the
picture has a tool that makes it, and the agent that saves has one that lists files and one that writes them, as the
frameworks' own examples do it: each tool's output goes back to the model, which then says that it is done.
"""

"""Adapters, LoRA and LyCORIS alike: which there are, and what they change of a model.

* in the gateway's process, without torch: shelf (those of a folder), files (what one file is), parts (its tensors' names);
* in a worker: stack (all that lie over a model), modules (what their names mean there), deltas (the sums).
"""

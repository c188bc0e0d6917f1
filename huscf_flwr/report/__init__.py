"""Reading a run's folder: the page `report.html`, and TensorBoard's files.

Both are made from what `huscf_flwr.reporting` wrote and from nothing else, so that the page can be
rebuilt at any time, from the folder of any run.
"""

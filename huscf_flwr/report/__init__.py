"""A run's folder: writing it, and reading it for the page `report.html` and for TensorBoard.

`writer` writes as a run goes, `grids` the pictures of images; `files` has the columns of the
tables, and reads all of it back. Page and TensorBoard's files are made from the folder and from
nothing else, so that the page can be rebuilt at any time, from the folder of any run.
"""

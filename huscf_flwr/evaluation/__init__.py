"""How good generated images are, in numbers: the metrics, and what applies them to a generator.

`image_score`, `utility`, `distances` and `recovery` are the metrics, functions of arrays;
`classifier` and `extractors` are the nets they see images with; `evaluator` puts them together for
one set of real images, and `scorer` does so for all domains of a run.
"""
